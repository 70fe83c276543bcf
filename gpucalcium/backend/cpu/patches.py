"""Where the patches of a frame lie, all patches of a batch in one operation. Twin: backend/cuda/patches.py."""

from __future__ import annotations

import numba as nb
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.backend.cpu._peak import find_peaks
from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.stencils import compiled_dtype

ROUNDS = 5  # each takes off most of what a far-off patch still pulls the others by


def locate_patches(
    frames: NDArray,
    fill: NDArray[np.float32],
    offset: float,
    moves: NDArray[np.int32],
    starts: tuple[tuple[int, ...], ...],
    width: tuple[int, ...],
    kernels: NDArray[np.complex64],
    bound: tuple[int, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far the content of each patch lies from where the frame as a whole is, to a fraction of a pixel.

    Patch p of frame t is read at whole-pixel displacement ``moves[t]``; its circular correlation with the
    patch's kernel is searched at whole pixels in the closed window ``-bound..bound`` and climbed by Newton's
    method, as `registration.locate` does with whole frames.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    fill : (d1, d2[, d3]) float32
        What stands for pixels that are not finite or lie outside the frame (the template), `offset`
        subtracted already.
    offset : float
        Subtracted from each pixel, so that float32 keeps its digits.
    moves : (n, ndim) int32
        Displacement of each frame's content against the template, whole pixels.
    starts : tuple of int per axis
        First pixels of the patches in the template, which are P in all, in C order.
    width : (w1, w2[, w3])
        Side of a patch.
    kernels : (P, b1, b2[, b3]) complex64
        Weighted, conjugated spectrum of each patch of the template at the lowest frequencies of an axis of
        `width` pixels (see `fourier.frequencies`).
    bound : (m1, m2[, m3])
        Largest displacement searched beside `moves`, pixels.

    Returns
    -------
    offsets : (n, P, ndim) float32
        Displacement of the patch's content against the template, less `moves`; at most ``bound + 1`` in size.
        The twins agree to 1e-3.
    peaks : (n, P) float32
        The correlation there.
    """
    n, shape, patches = len(frames), fill.shape, len(kernels)
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False)
    volumes = frames.reshape(n, *_leading_ones(shape))
    away = np.zeros((n, 3), np.int64)
    away[:, 3 - len(shape) :] = moves
    plan = fourier.SearchPlan.make(width, kernels.shape[1:], bound)
    offsets = np.empty((n, patches, len(shape)), np.float32)
    peaks = np.empty((n, patches), np.float32)

    def work(first: int, last: int) -> None:
        ready = np.empty(_leading_ones(shape), np.float32)
        for t in range(first, last):
            _read(volumes[t], fill.reshape(ready.shape), np.float32(offset), away[t], ready)
            products = _products(ready.reshape(shape), starts, width, kernels)
            find_peaks(products, plan, offsets[t], peaks[t])

    share(n, work)
    return offsets, peaks


def settle(
    apart: NDArray[np.float32],
    seen: NDArray[np.bool_],
    within: NDArray[np.float32],
    at_centres: NDArray[np.float32],
    limit: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Displacements of patches, combined with what their neighbours show.

    What a patch shows counts as no more than ``limit[0]`` away from its frame, and then as no more than ``limit[1]``
    away from what all patches say of it, ``within @ apart``; a patch without signal shows what the others say. The
    latter is repeated `ROUNDS` times, where there is such a patch.

    Parameters
    ----------
    apart : (n, P, ndim) float32
        What each patch shows, pixels beside its frame.
    seen : (n, P) bool
        Whether it shows anything.
    within, at_centres : (ndim, P, P) float32
        Weights of all patches in what one of them, and the field at its middle, should be.
    limit : (2, ndim, P) float32
        Pixels.

    Returns
    -------
    (n, P, ndim) float32
        ``at_centres @ apart``; sums in order of the patches, so the twins agree to rounding.
    """
    out = np.empty_like(apart)
    share(len(apart), lambda a, b: _settle(apart[a:b], seen[a:b], within, at_centres, limit, out[a:b]))
    return out


def _leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(shape)) + tuple(shape)


def _products(
    image: NDArray[np.float32],
    starts: tuple[tuple[int, ...], ...],
    width: tuple[int, ...],
    kernels: NDArray[np.complex64],
) -> NDArray[np.complex64]:
    """Spectra of the patches of an image times their kernels, at the kernels' frequencies only.

    Axis by axis, from the last: patches side by side share what was transformed of the axes behind.
    """
    spectra, last = image, image.ndim - 1
    for axis in range(last, -1, -1):
        at = spectra.ndim - 1 - (last - axis)
        band = kernels.shape[1 + axis]
        cut = np.stack([_range(spectra, at, s, s + width[axis]) for s in starts[axis]])
        if axis == last:
            spectra = scipy.fft.rfft(cut, axis=-1)[..., :band]
        else:
            kept = fourier.frequencies(width[axis], band, last=False)
            spectra = scipy.fft.fft(cut, axis=at + 1, overwrite_x=True).take(kept, axis=at + 1, mode="wrap")
    return spectra.reshape(kernels.shape) * kernels


def _range(x: NDArray, axis: int, first: int, stop: int) -> NDArray:
    index: list[slice] = [slice(None)] * x.ndim
    index[axis] = slice(first, stop)
    return x[tuple(index)]


@nb.njit(nogil=True, cache=True)
def _read(frame, fill, offset, away, out):
    """A frame [d0, d1, d2] displaced back by whole pixels, less `offset`; `fill` where nothing was recorded."""
    d0, d1, d2 = out.shape
    first, stop = min(max(-away[2], 0), d2), max(min(d2 - away[2], d2), 0)
    for i in range(d0):
        for j in range(d1):
            line, spare = out[i, j], fill[i, j]
            line[:] = spare
            x, y = i + away[0], j + away[1]
            if 0 <= x < d0 and 0 <= y < d1 and first < stop:
                part, rest = line[first:stop], spare[first:stop]
                values = frame[x, y, first + away[2] : stop + away[2]]
                for k in range(len(part)):
                    v = np.float32(values[k]) - offset
                    part[k] = v if abs(v) < np.float32(np.inf) else rest[k]


@nb.njit(nogil=True, cache=True)
def _settle(apart, seen, within, at_centres, limit, out):
    n, patches, axes = apart.shape
    shown, said = np.empty(patches, np.float32), np.empty(patches, np.float32)
    for t in range(n):
        for a in range(axes):
            for p in range(patches):
                far = limit[0, a, p] if seen[t, p] else np.float32(0)
                shown[p] = min(max(apart[t, p, a], -far), far)
            for _ in range(ROUNDS):
                _weigh(within[a], shown, said)
                changed = False
                for p in range(patches):
                    far = limit[1, a, p] if seen[t, p] else np.float32(0)
                    value = min(max(apart[t, p, a], said[p] - far), said[p] + far)
                    changed |= value != shown[p]
                    shown[p] = value
                if not changed:
                    break
            _weigh(at_centres[a], shown, said)
            out[t, :, a] = said


@nb.njit(nogil=True, cache=True)
def _weigh(weights, values, out):
    for p in range(len(out)):
        total = np.float64(0)
        for q in range(len(values)):
            total += np.float64(weights[p, q]) * np.float64(values[q])
        out[p] = total
