"""High-pass filters of images, for one-photon movies: a Gaussian without its mean, and Butterworth's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies.source import Source
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.registration.rigid import RigidParams

WORKING_COPIES = 6  # float32 frames beside a chunk: the result, and complex spectra of Butterworth's

Filter = Callable[[Array], Array]


def high_pass_filter_space(
    img_orig: MovieLike,
    gSig_filt: Sequence[int] | int | None = None,
    freq: float | None = None,
    order: int | None = None,
) -> Array:
    """An image, or each frame of a movie, without its smooth background.

    Give either `gSig_filt`, or `freq` and `order`.

    Parameters
    ----------
    img_orig : (d1, d2) array, or a movie (T, d1, d2[, d3]) as `open_movie` takes it
        Any real dtype. Three axes are a movie of images, unless `gSig_filt` has three widths: then a volume.
    gSig_filt : int, or one per axis of a frame
        Standard deviation of the Gaussian, pixels. It is cut to a disc and its mean over the disc subtracted, so that
        a constant image becomes zero; the image, reflected at its border, is correlated with it.
    freq : float
        Cut-off of Butterworth's filter, in cycles per field of view along each axis.
    order : int
        Its order n: frequencies rho are multiplied by ``1 - 1 / (1 + (rho / freq)^(2 n))``, circularly.

    Returns
    -------
    filtered : array of the shape of `img_orig`, float32
        CuPy if that is CuPy, else NumPy. NaN near a NaN pixel; with Butterworth's filter in all of its frame. The
        result for a movie is held whole: `HighPassed` filters frames as they are read.

    Raises
    ------
    ParameterError
        Neither filter or both; widths, a frequency or an order that are not positive.
    ArrayShapeError
        Axes that do not fit the filter.

    References
    ----------
    Butterworth (1930), Experimental Wireless 7:536.
    """
    one_frame = 3 if isinstance(gSig_filt, Sequence | np.ndarray) and len(gSig_filt) == 3 else 2  # axes
    if len(getattr(img_orig, "shape", ())) == one_frame:
        frames = backend.put(img_orig)[None]
        return backend.like(img_orig, _filter(frames.shape[1:], gSig_filt, freq, order)(frames)[0])
    filtered = HighPassed(open_movie(img_orig), gSig_filt, freq=freq, order=order)
    if backend.is_cupy(img_orig):
        return backend.hold(filtered)
    return filtered.read(slice(None))


class HighPassed(Source):
    """A movie whose frames are high-pass filtered when they are read; on a GPU where it is streamed there.

    Parameters
    ----------
    source : FrameSource
        (T, d1, d2[, d3]).
    gSig_filt, freq, order
        As in `high_pass_filter_space`; one width stands for every axis.

    Raises
    ------
    ParameterError, ArrayShapeError
        As `high_pass_filter_space`.
    """

    def __init__(
        self,
        source: FrameSource,
        gSig_filt: Sequence[int] | int | None = None,
        *,
        freq: float | None = None,
        order: int | None = None,
    ) -> None:
        name = getattr(source, "name", type(source).__name__)
        super().__init__(source.shape, np.float32, f"{name} (high-pass)")
        self.made_from = source
        self.working = WORKING_COPIES * 4 * math.prod(source.shape[1:])
        self._filter = _filter(source.shape[1:], gSig_filt, freq, order)

    def make(self, chunk: Array, frames: range) -> Array:
        """The filtered frames of a chunk of the source, on its device."""
        return self._filter(chunk)

    def _fill(self, wanted: range, out: NDArray) -> None:
        done = 0
        for chunk in backend.stream(self, frames=slice(wanted.start, wanted.stop, wanted.step)):
            out[done : done + len(chunk)] = backend.to_numpy(chunk)
            done += len(chunk)


def _filter(
    dims: tuple[int, ...], gSig_filt: Sequence[int] | int | None, freq: float | None, order: int | None
) -> Filter:
    """What filters frames (n, *dims)."""
    if (gSig_filt is None) == (freq is None) or (freq is None) != (order is None):
        raise ParameterError(
            f"gSig_filt={gSig_filt}, freq={freq}, order={order}: give either gSig_filt, or freq and order"
        )
    if gSig_filt is None:
        return partial(_butterworth, gain=_butterworth_gain(dims, freq or 0.0, order or 0))
    widths = (gSig_filt,) * len(dims) if isinstance(gSig_filt, int | np.integer) else tuple(gSig_filt)
    if len(widths) != len(dims):
        raise ArrayShapeError(
            f"gSig_filt={gSig_filt} has {len(widths)} widths, the frames {dims} {len(dims)} axes"
        )
    kernel = RigidParams(gSig_filt=widths).high_pass()
    return lambda frames: backend.wing(frames).filters.correlate(frames, kernel, "reflect")


def _butterworth_gain(dims: tuple[int, ...], freq: float, order: int) -> NDArray[np.float32]:
    """On the grid of rfftn."""
    if not freq > 0 or order < 1:
        raise ParameterError(f"freq={freq}, order={order}: a frequency above 0, and an order of 1 or more")
    cycles = [np.fft.fftfreq(n, 1 / n) for n in dims[:-1]] + [np.fft.rfftfreq(dims[-1], 1 / dims[-1])]
    square = sum(k**2 for k in np.meshgrid(*cycles, indexing="ij")) / freq**2
    return (1 - 1 / (1 + square**order)).astype(np.float32)


def _butterworth(frames: Array, gain: NDArray[np.float32]) -> Array:
    xp, fft = backend.arrays.xp(frames), backend.arrays.fft(frames)
    axes = tuple(range(1, frames.ndim))
    spectrum = fft.rfftn(frames.astype(np.float32), axes=axes) * xp.asarray(gain)
    return fft.irfftn(spectrum, s=frames.shape[1:], axes=axes)
