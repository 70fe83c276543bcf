"""Correlation and peak-to-noise images of spatially filtered movies: where one-photon cells are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource, arrays, stencils
from gpucalcium.deconvolution import movie_noise
from gpucalcium.errors import ParameterError
from gpucalcium.images.neighbours import NeighbourCorrelations, forward_steps
from gpucalcium.images.time_axis import open_with_time
from gpucalcium.movies import open_movie
from gpucalcium.movies.sources import MovieLike

BORDER = "replicate"
NOISE_LEVELS = 3  # what rises less far above the mean says nothing of cells, and is set to zero

Filter = Callable[[Array], Array]
"""Frames in, float32 frames out, on their device."""


def correlation_pnr(
    Y: MovieLike,
    gSig: float | Sequence[float] | None = None,
    center_psf: bool = True,
    swap_dim: bool = True,
    background_filter: str = "disk",
) -> tuple[Array, Array]:
    """Local correlation and peak-to-noise ratio of each pixel, after a spatial filter.

    A filter of the size of cells removes the blurred background of one-photon movies; cells are then
    where a high peak stands above the noise together with those of the pixels around.

    Parameters
    ----------
    Y : array-like or path, (d1, d2[, d3], T) if `swap_dim`, else (T, d1, d2[, d3]), any real dtype
        Fluorescence. Read and filtered in chunks: once if the filtered movie, float32, takes no more than half of the
        memory budget, else three times.
    gSig : float or one per axis, optional
        Standard deviation of a cell, pixels. None: no filter.
    center_psf : bool
        Remove the background with `background_filter`; False: smooth with the Gaussian only.
    swap_dim : bool
        As in `local_correlations`.
    background_filter : {"disk", "box"}
        The Gaussian minus its mean on a disc, or minus the mean over the box that holds it.

    Returns
    -------
    cn : (d1, d2[, d3]) float32
        Correlation with all neighbours (8; 26 in volumes) where values below three noise levels count as zero.
    pnr : (d1, d2[, d3]) float32
        Highest value above the mean over time, in noise levels; 0 where there is no noise, and of one frame.
        Both CuPy if `Y` is CuPy, else NumPy; NaN where the filter meets a NaN or an infinity.

    Raises
    ------
    ParameterError
        `gSig` is not positive or has the wrong length, or is below 0.5 with `center_psf`; unknown `background_filter`.
    MovieShapeError
        Not 3 or 4 axes, or empty.

    References
    ----------
    Zhou et al. (2018), eLife 7:e28728, Methods, "initialization of spatial and temporal components".
    """
    source = open_with_time(Y, swap_dim)
    filtered = _filter(gSig, center_psf, background_filter, len(source.shape) - 1)
    need = 4 * math.prod(source.shape)
    keep = need <= backend.budget() // 2
    with backend.limit(memory=backend.budget() - need * keep):
        mean, peak, kept = _mean_and_peak(source, filtered, keep)
        if kept is not None:
            source, filtered = open_movie(kept), _as_it_is
        noise = 0 * mean  # one frame has none
        if len(source) > 1:
            noise = backend.to_numpy(movie_noise(source, noise_method="mean", transform=filtered))
        cn = _correlation_above_noise(source, filtered, mean, NOISE_LEVELS * noise)
    with np.errstate(invalid="ignore"):
        pnr = np.maximum(peak - mean, 0) / np.where(noise > 0, noise, np.inf)
    pnr[np.isnan(noise)] = np.nan
    return backend.like(Y, cn), backend.like(Y, pnr)


def _mean_and_peak(
    source: FrameSource, filtered: Filter, keep: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], Array | None]:
    """Mean (NaN where it is not finite) and maximum over time of the filtered movie, float32 on the host; and, to
    `keep`, that movie, on its device."""
    sums = NeighbourCorrelations(source.shape[1:])
    highest = np.full(source.shape[1:], -np.inf, np.float32)
    kept: Array | None = None

    def add(chunk: Array) -> None:
        nonlocal kept
        frames = filtered(chunk)
        if keep:
            if kept is None:
                kept = backend.array_module(frames).empty(source.shape, "float32")
            kept[sums.frames : sums.frames + len(frames)] = frames
        peak = backend.to_numpy(frames.max(axis=0))
        sums.add(frames)
        np.maximum(highest, peak, out=highest)

    _fold(source, add)
    mean = sums.mean()
    return np.where(np.isfinite(mean), mean, np.float32(np.nan)), highest, kept


def _correlation_above_noise(
    source: FrameSource, filtered: Filter, mean: NDArray[np.float32], threshold: NDArray[np.float32]
) -> NDArray[np.float32]:
    sums = NeighbourCorrelations(source.shape[1:], forward_steps(source.shape[1:], "all"))

    def add(chunk: Array) -> None:
        frames = filtered(chunk)
        xp = arrays.xp(frames)
        frames = frames - xp.asarray(mean)
        frames *= frames >= xp.asarray(threshold)
        sums.add(frames)

    _fold(source, add)
    return sums.image()


def _fold(source: FrameSource, add: Callable[[Array], None]) -> None:
    for chunk in backend.stream(source, working=_working(source)):
        backend.retry_halved(add, chunk)


def _working(source: FrameSource) -> int:
    """Bytes per frame beside a chunk: the filter's two buffers, the difference and its mask."""
    return 4 * 4 * int(np.prod(source.shape[1:]))


def _filter(
    gSig: float | Sequence[float] | None, center_psf: bool, background_filter: str, ndim: int
) -> Filter:
    if background_filter not in ("disk", "box"):
        raise ParameterError(f"background_filter={background_filter!r}: choose 'disk' or 'box'")
    if gSig is None:
        return _as_it_is
    try:
        sigma = [float(s) for s in np.broadcast_to(gSig, ndim)] if np.size(gSig) in (1, ndim) else []
    except (TypeError, ValueError):
        sigma = []
    if not sigma or not all(0 < s < np.inf for s in sigma):
        raise ParameterError(f"gSig={gSig}: expected one positive number, or one for each of {ndim} axes")
    radius = [int(2 * s) for s in sigma]
    if not center_psf:
        return partial(_gaussian, sigma=sigma, radius=radius)
    kernel = stencils.difference_kernel(sigma, radius)
    if not (any(radius) if background_filter == "box" else kernel.any()):
        raise ParameterError(
            f"gSig={gSig}: cells below half a pixel leave nothing of the movie once the background is removed; give "
            "the standard deviation of a cell in pixels, or center_psf=False"
        )
    if background_filter == "box":
        return partial(_gaussian_minus_box, sigma=sigma, radius=radius)
    return partial(_correlate, kernel=kernel)


def _as_it_is(frames: Array) -> Array:
    return frames.astype("float32", copy=False)


def _gaussian(frames: Array, sigma: list[float], radius: list[int]) -> Array:
    return backend.wing(frames).filters.gaussian(frames, sigma, radius, BORDER)


def _gaussian_minus_box(frames: Array, sigma: list[float], radius: list[int]) -> Array:
    smooth = _gaussian(frames, sigma, radius)
    with np.errstate(invalid="ignore"):  # the difference of infinities is NaN
        smooth -= backend.wing(frames).filters.box(frames, [2 * r + 1 for r in radius], BORDER)
    return smooth


def _correlate(frames: Array, kernel: np.ndarray) -> Array:
    return backend.wing(frames).filters.correlate(frames, kernel, BORDER)
