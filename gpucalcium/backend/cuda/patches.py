"""Where the patches of a frame lie, all patches of a batch in one operation. Twin: backend/cpu/patches.py."""

from __future__ import annotations

import math
from functools import lru_cache

import cupy as cp
import numpy as np

from gpucalcium.backend import fourier
from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.cuda._peak import find_peaks, search_plan
from gpucalcium.backend.stencils import compiled_dtype

THREADS, WARP = 256, 32
PATCH_BYTES = 256 << 20  # of patches at a time: they overlap, so they may take far more than the frames
_gather = kernel("patches.cu", "gather")
_weigh = kernel("patches.cu", "weigh")
_settle = kernel("patches.cu", "settle")


def locate_patches(
    frames: Array,
    fill: Array,
    offset: float,
    moves: Array,
    starts: tuple[tuple[int, ...], ...],
    width: tuple[int, ...],
    kernels: Array,
    bound: tuple[int, ...],
) -> tuple[Array, Array]:
    """How far the content of each patch lies from where the frame as a whole is, to a fraction of a pixel.

    Parameters and result as the twin says. Beside the frames it needs `PATCH_BYTES` for patches in float32, as much
    for their spectra, and the products with the kernels.
    """
    plan = search_plan(width, kernels.shape[1:], bound)
    batch = max(1, PATCH_BYTES // (4 * len(kernels) * math.prod(width)))
    offsets = cp.empty((len(frames), len(kernels), len(width)), cp.float32)
    peaks = cp.empty((len(frames), len(kernels)), cp.float32)
    for start in range(0, len(frames), batch):
        part = slice(start, start + batch)
        gathered = _gathered(frames[part], fill, offset, moves[part], starts, width)
        spectra = cp.fft.rfftn(gathered, axes=tuple(range(2, gathered.ndim)))
        found = find_peaks(_products(spectra, kernels, plan), plan)
        offsets[part] = found[0].reshape(-1, *offsets.shape[1:])
        peaks[part] = found[1].reshape(-1, len(kernels))
    return offsets, peaks


def settle(apart: Array, seen: Array, within: Array, at_centres: Array, limit: Array) -> Array:
    """Displacements of patches, combined with what their neighbours show.

    Parameters and result as the twin says.
    """
    n, patches, axes = apart.shape
    out = cp.empty(apart.shape, cp.float32)
    _settle(
        (),
        blocks=(n, axes),
        threads=min(THREADS, -(-patches // WARP) * WARP),
        args=(apart, seen, np.int32(patches), within, at_centres, limit, out),
        shared=8 * patches,
    )
    return out


def _gathered(
    frames: Array,
    fill: Array,
    offset: float,
    moves: Array,
    starts: tuple[tuple[int, ...], ...],
    width: tuple[int, ...],
) -> Array:
    """(n, patches, *width) float32, each patch where its frame lies."""
    frames = cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False))
    corners = _corners(starts, cp.cuda.runtime.getDevice())
    out = cp.empty((len(frames), len(corners), *width), cp.float32)
    _gather(
        (frames.dtype,),
        blocks=-(-out.size // THREADS),
        threads=THREADS,
        args=(
            frames,
            np.int64(len(frames)),
            *map(np.int32, _three(fill.shape)),
            fill,
            np.float32(offset),
            _columns(moves),
            corners,
            np.int32(len(corners)),
            *map(np.int32, _three(width)),
            out,
        ),
    )
    return out


@lru_cache(maxsize=16)
def _corners(starts: tuple[tuple[int, ...], ...], device: int) -> Array:
    """(patches, 3) int32 on the current device."""
    return _columns(cp.asarray(np.stack([x.ravel() for x in np.meshgrid(*starts, indexing="ij")], axis=1)))


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(shape)) + tuple(shape)


def _columns(places: Array) -> Array:
    """(n, 3) int32: a plane is a volume one pixel deep."""
    out = cp.zeros((len(places), 3), cp.int32)
    out[:, 3 - places.shape[1] :] = places
    return out


def _products(spectra: Array, kernels: Array, plan: fourier.SearchPlan) -> Array:
    """Spectra of the patches times their kernels, at the kernels' frequencies only."""
    n, patches = spectra.shape[:2]
    columns, width = spectra.shape[-1], kernels.shape[-1]
    products = cp.empty((n * patches, *kernels.shape[1:]), cp.complex64)
    _weigh(
        (),
        blocks=-(-products.size // THREADS),
        threads=THREADS,
        args=(
            cp.ascontiguousarray(spectra),
            np.int64(n),
            np.int64(patches),
            np.int64(spectra[0, 0].size // columns),
            np.int64(columns),
            plan.rows,
            np.int64(plan.rows.size),
            np.int64(width),
            kernels,
            products,
        ),
    )
    return products
