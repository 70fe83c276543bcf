"""Overlapping tiles of frames: cut where each tile lies, and blended together. Twin: backend/cpu/tiles.py."""

from __future__ import annotations

import math

import cupy as cp
import numpy as np

from gpucalcium.backend import fourier
from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.stencils import compiled_dtype

THREADS = 256
TILE = (32, 8)  # threads of a block that puts frames together: a warp takes a run of a row

Ints = tuple[int, ...]

_cut = kernel("field.cu", "cut")
_blend = kernel("field.cu", "blend")


def cut_tiles(
    frames: Array, moves: Array, starts: tuple[Ints, ...], size: Ints, halo: int, border: str
) -> Array:
    """Tiles of frames, each read where its content lies: ``tile[x] = frame[start - halo + x - move]``.

    Parameters and result as the twin says.
    """
    frames = cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False))
    lead = (1,) * (4 - frames.ndim)
    tiles = cp.empty((*moves.shape[:-1], *size), cp.float32)
    axes = [([0], 1, 1) for _ in lead]
    axes += [
        ([s - halo for s in first], n, w) for first, n, w in zip(starts, frames.shape[1:], size, strict=True)
    ]
    _cut(
        (frames.dtype, len(size)),
        blocks=len(frames) * math.prod(map(len, starts)),
        threads=THREADS,
        args=(
            frames,
            *(np.int32(n) for _, n, _ in axes),
            cp.ascontiguousarray(moves),
            *(value for first, _, _ in axes for value in (cp.array(first, cp.int32), np.int32(len(first)))),
            *(np.int32(w) for _, _, w in axes),
            np.int32(fourier.BORDERS.index(border)),
            tiles,
        ),
    )
    return tiles


def blend_tiles(
    tiles: Array,
    field: Array,
    starts: tuple[Ints, ...],
    shape: Ints,
    halo: int,
    weights: tuple[Array, ...],
    kind: Array,
    fill: Array,
    border: str,
) -> Array:
    """Frames put together from displaced tiles: where these overlap, their mean by weights that fall to the sides.

    Parameters and result as the twin says.
    """
    n, axes = len(tiles), len(shape)
    lead = (1,) * (3 - axes)
    d0, d1, d2 = (*lead, *shape)
    size = (*lead, *tiles.shape[1 + axes :])
    out = cp.empty((n, *shape), cp.float32)
    kinds = len(weights[0])
    tables = [
        (cp.zeros(1, cp.int32), cp.zeros((2, 1), cp.int32), cp.ones((kinds, 1, 1), cp.float32)) for _ in lead
    ]
    for first, length, ramps in zip(starts, shape, weights, strict=True):
        cover = _cover(first, ramps.shape[2], length)
        tables.append((cp.array(first, cp.int32), cp.array(cover), cp.ascontiguousarray(ramps)))
    _blend(
        (axes,),
        blocks=-(-d2 // TILE[0]) * -(-d1 // TILE[1]) * d0 * n,
        threads=TILE,
        args=(
            cp.ascontiguousarray(tiles),
            *map(np.int32, (d0, d1, d2)),
            *map(np.int32, size),
            np.int32(halo),
            cp.ascontiguousarray(field),
            *(
                value
                for first, cover, ramps in tables
                for value in (first, cover, ramps, np.int32(len(first)), np.int32(ramps.shape[2]))
            ),
            kind,
            fill,
            np.int32(fourier.BORDERS.index(border)),
            out,
        ),
    )
    return out


def _cover(starts: Ints, width: int, length: int) -> np.ndarray:
    """(2, length) int32, first and last tile that each pixel of an axis lies in."""
    pixels, first = np.arange(length), np.array(starts)
    lowest = np.searchsorted(first + width, pixels, side="right")
    highest = np.searchsorted(first, pixels, side="right") - 1
    return np.stack([lowest, highest]).astype(np.int32)
