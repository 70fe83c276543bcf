"""Overlapping tiles of frames: cut where each tile lies, and blended together. Twin: backend/cuda/tiles.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.backend.cpu._displace import COPY, REFLECT, _valid
from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.cpu.field import _inside
from gpucalcium.backend.stencils import compiled_dtype

Ints = tuple[int, ...]


def cut_tiles(
    frames: NDArray, moves: NDArray[np.int32], starts: tuple[Ints, ...], size: Ints, halo: int, border: str
) -> NDArray[np.float32]:
    """Tiles of frames, each read where its content lies: ``tile[x] = frame[start - halo + x - move]``.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
    moves : (n, g1, g2[, g3], ndim) int32
        Displacement of each tile, pixels.
    starts : per axis, g whole numbers
        First pixel of each tile.
    size : per axis
        Of what is cut, with a halo of neighbouring pixels.
    halo : int
        Pixels before the tile on each axis.
    border : {"nan", "min", "copy", "reflect"}
        Beyond the frame lies its reflection, else the edge repeated.

    Returns
    -------
    (n, g1, g2[, g3], *size) float32
    """
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False)
    n, lead = len(frames), (1,) * (4 - frames.ndim)
    tiles = np.empty((*moves.shape[:-1], *size), np.float32)
    at = [np.zeros(1, np.int64) for _ in lead] + [np.array(s, np.int64) - halo for s in starts]
    counts = tuple(map(len, at))
    shifts = np.zeros((n, *counts, 3), np.int64)
    shifts[..., 3 - len(starts) :] = moves.reshape(n, *counts, -1)
    volumes = frames.reshape(n, *lead, *frames.shape[1:])
    cut = tiles.reshape(n, *counts, *lead, *size)
    first = at[0], at[1], at[2]
    mode = fourier.BORDERS.index(border)
    share(n, lambda a, b: _cut(volumes[a:b], shifts[a:b], first, mode, cut[a:b]))
    return tiles


def blend_tiles(
    tiles: NDArray[np.float32],
    field: NDArray[np.float32],
    starts: tuple[Ints, ...],
    shape: Ints,
    halo: int,
    weights: tuple[NDArray[np.float32], ...],
    kind: NDArray[np.int32],
    fill: NDArray[np.float32],
    border: str,
) -> NDArray[np.float32]:
    """Frames put together from displaced tiles: where these overlap, their mean by weights that fall to the sides.

    Parameters
    ----------
    tiles : (n, g1, g2[, g3], *size) float32
        With a halo of at least `halo` pixels on every side.
    field : (n, g1, g2[, g3], ndim) float32
        By which each tile has been displaced, pixels.
    starts : per axis, g whole numbers
        First pixel of each tile, its halo left out.
    shape : (d1, d2[, d3])
        Of a frame.
    halo : int
    weights : per axis (kinds, g, width) float32
        The weight of a pixel of a tile is the product over axes.
    kind : (n,) int32
        Which of these weights a frame takes.
    fill : (n,) float32
        With borders 'nan' and 'min': what pixels get that no tile has, all having come in from outside.
    border : {"nan", "min", "copy", "reflect"}
        Pixels of a tile that came from outside the frame do not count ('nan', 'min'), are those of the nearest
        line from inside ('copy'), or are taken as they are.

    Returns
    -------
    (n, d1, d2[, d3]) float32
        Sums in order of the tiles; the twins agree to 1e-6 of the largest value.
    """
    n, lead = len(tiles), (1,) * (3 - len(shape))
    at = [np.zeros(1, np.int64) for _ in lead] + [np.array(s, np.int64) for s in starts]
    counts = tuple(map(len, at))
    out = np.empty((n, *shape), np.float32)
    moves = np.zeros((n, *counts, 3), np.float32)
    moves[..., 3 - len(shape) :] = field.reshape(n, *counts, -1)
    halos = (*(0 for _ in lead), *(halo for _ in shape))
    ramps = (*(np.ones((weights[0].shape[0], 1, 1), np.float32) for _ in lead), *weights)
    parts = tiles.reshape(n, *counts, *lead, *tiles.shape[1 + len(shape) :])
    frames, mode = out.reshape(n, *lead, *shape), fourier.BORDERS.index(border)
    first = at[0], at[1], at[2]
    share(
        n,
        lambda a, b: _blend(
            parts[a:b], moves[a:b], first, halos, ramps, kind[a:b], fill[a:b], mode, frames[a:b]
        ),
    )
    return out


@nb.njit(nogil=True, cache=True)
def _cut(frames, moves, starts, border, tiles):
    n, d0, d1, d2 = frames.shape
    columns = np.empty(tiles.shape[6], np.int64)
    for t in range(n):
        for a in range(len(starts[0])):
            for b in range(len(starts[1])):
                for c in range(len(starts[2])):
                    move, tile = moves[t, a, b, c], tiles[t, a, b, c]
                    for k in range(len(columns)):
                        columns[k] = _inside(starts[2][c] + k - move[2], d2, border)
                    for i in range(tile.shape[0]):
                        plane = frames[t, _inside(starts[0][a] + i - move[0], d0, border)]
                        for j in range(tile.shape[1]):
                            source = plane[_inside(starts[1][b] + j - move[1], d1, border)]
                            for k in range(len(columns)):
                                tile[i, j, k] = source[columns[k]]


@nb.njit(nogil=True, cache=True)
def _blend(tiles, moves, starts, halos, ramps, kind, fill, border, out):
    n, d0, d1, d2 = out.shape
    total = np.empty((d0, d1, d2), np.float32)
    for t in range(n):
        out[t] = 0
        total[:] = 0
        for a in range(len(starts[0])):
            for b in range(len(starts[1])):
                for c in range(len(starts[2])):
                    _add_tile(
                        tiles[t, a, b, c],
                        moves[t, a, b, c],
                        (starts[0][a], starts[1][b], starts[2][c]),
                        halos,
                        (ramps[0][kind[t], a], ramps[1][kind[t], b], ramps[2][kind[t], c]),
                        border,
                        out[t],
                        total,
                    )
        flat, weight = out[t].reshape(-1), total.reshape(-1)
        for p in range(len(flat)):
            flat[p] = flat[p] / weight[p] if weight[p] > 0 else fill[t]


@nb.njit(nogil=True, cache=True)
def _add_tile(tile, move, start, halos, ramps, border, out, total):
    """Add one tile, weighted, to the frame, and its weights to `total`."""
    h2 = halos[2]
    c0, c1 = _sound(move[2], start[2], len(ramps[2]), out.shape[2], border)
    for i in range(len(ramps[0])):
        a, used0 = _source(i, move[0], start[0], len(ramps[0]), out.shape[0], border)
        for j in range(len(ramps[1])):
            b, used1 = _source(j, move[1], start[1], len(ramps[1]), out.shape[1], border)
            w = ramps[0][i] * ramps[1][j]
            if w == 0 or not (used0 and used1):
                continue
            pixels = tile[halos[0] + a, halos[1] + b]
            sums, weights = out[start[0] + i, start[1] + j], total[start[0] + i, start[1] + j]
            first, last = (0, len(ramps[2])) if border == COPY else (c0, c1)
            for k in range(first, last):
                v = w * ramps[2][k]
                sums[start[2] + k] += v * pixels[h2 + min(max(k, c0), c1 - 1)]
                weights[start[2] + k] += v


@nb.njit(nogil=True, cache=True)
def _sound(move, start, width, n, border):
    """First and one past the last pixel of a tile that came from inside the frame; at least one with 'copy'."""
    if border == REFLECT:
        return 0, width
    if border == COPY:
        first, last = _valid(move, n)
        a = min(max(first - start, 0), width - 1)
        return a, max(min(last - start, width), a + 1)
    a = max(np.int64(np.ceil(move)) - start, 0)
    return a, max(min(n - max(np.int64(np.ceil(-move)), 0) - start, width), a)


@nb.njit(nogil=True, cache=True)
def _source(i, move, start, width, n, border):
    """Which pixel of an axis of the tile stands for its i-th, and whether that counts."""
    first, last = _sound(move, start, width, n, border)
    return min(max(i, first), last - 1), border == COPY or first <= i < last
