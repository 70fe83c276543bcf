"""How a displacement field on a grid of patches is spread over the pixels of a frame.

Along each axis the displacement of a pixel is a weighted sum of a few neighbouring nodes, so that kernels
read it off the grid itself and no field of the size of a frame is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.registration.patches import PatchGrid

BICUBIC_A = -0.75  # OpenCV's cubic
HALO = 4  # pixels beyond a tile: what a shift by less than one rings at the sides of what is transformed


@dataclass(frozen=True)
class AxisBasis:
    """Interpolation along one axis: the value at x is sum_p weights[p, x] (coefficients @ nodes)[first[x] + p]."""

    first: NDArray[np.int32]
    """(d,) first node that a pixel takes part of; it never decreases."""
    weights: NDArray[np.float32]
    """(taps, d)"""
    coefficients: NDArray[np.float64]
    """(g, g) what the values at the nodes are multiplied by before they are spread."""

    @classmethod
    def stretched(cls, nodes: int, length: int) -> AxisBasis:
        """Linear, the grid resized to `length` pixels with half-pixel centres; constant beyond the outer nodes."""
        at = np.clip((np.arange(length) + 0.5) * nodes / length - 0.5, 0, nodes - 1)
        first = np.clip(np.floor(at), 0, max(nodes - 2, 0)).astype(np.int32)
        upper = (at - first)[None]
        weights = np.concatenate([1 - upper, upper])[: min(nodes, 2)]
        return cls(first, weights.astype(np.float32), np.eye(nodes))

    @classmethod
    def spline(cls, centres: NDArray[np.float64], at: NDArray) -> AxisBasis:
        """Cubic spline through nodes at `centres` (not-a-knot) at rising positions, constant beyond the outer nodes.

        Fewer than four nodes are joined by the highest degree that they determine: a parabola, a line, a constant.
        """
        nodes, length = len(centres), len(at)
        if nodes == 1:
            return cls(np.zeros(length, np.int32), np.ones((1, length), np.float32), np.eye(1))
        degree = min(3, nodes - 1)
        through = make_interp_spline(centres, np.eye(nodes), k=degree)
        design = BSpline.design_matrix(np.clip(at, centres[0], centres[-1]), through.t, degree)
        first = design.indices.reshape(length, degree + 1)[:, 0]
        weights = design.data.reshape(length, degree + 1).T
        return cls(first.astype(np.int32), np.ascontiguousarray(weights, np.float32), through.c)

    def matrix(self) -> NDArray[np.float64]:
        """(d, g) all of it as one matrix: values at the pixels = matrix @ values at the nodes."""
        length, nodes = len(self.first), len(self.coefficients)
        dense = np.zeros((length, nodes))
        for p, weight in enumerate(self.weights):
            dense[np.arange(length), self.first + p] += weight
        return dense @ self.coefficients


def bases(
    shape: tuple[int, ...], centres: Sequence[Sequence[float] | NDArray], interpolate: bool
) -> tuple[AxisBasis, ...]:
    """Per axis, how a field on patches around `centres` is spread over frames of `shape`."""
    return _bases(tuple(shape), tuple(tuple(map(float, c)) for c in centres), interpolate)


@lru_cache(maxsize=16)
def _bases(
    shape: tuple[int, ...], centres: tuple[tuple[float, ...], ...], interpolate: bool
) -> tuple[AxisBasis, ...]:
    if interpolate:
        return tuple(AxisBasis.spline(np.array(c), np.arange(n)) for c, n in zip(centres, shape, strict=True))
    return tuple(AxisBasis.stretched(len(c), n) for c, n in zip(centres, shape, strict=True))


def along_axes(field: Array, matrices: Sequence[NDArray[np.float64]]) -> Array:
    """A field (n, *counts, ndim) multiplied, along each axis of its grid, by a matrix (new, count); float32."""
    xp = backend.arrays.xp(field)
    values = field.astype(np.float64)
    for axis, matrix in enumerate(matrices, start=1):
        if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix))):
            continue
        moved = xp.tensordot(values, xp.asarray(matrix), axes=((axis,), (1,)))
        values = xp.moveaxis(moved, -1, axis)
    return xp.ascontiguousarray(values.astype(np.float32))


def resized(nodes: int, length: int) -> NDArray[np.float64]:
    """(length, nodes) what resizes an axis by bicubic interpolation with half-pixel centres, its ends repeated."""
    at = (np.arange(length) + 0.5) * nodes / length - 0.5
    before = np.floor(at).astype(np.int64)
    t = at - before
    a, u = BICUBIC_A, 1 - t
    matrix = np.zeros((length, nodes))
    for tap, weight in enumerate(
        (a * t * u**2, (a + 2) * t**3 - (a + 3) * t**2 + 1, (a + 2) * u**3 - (a + 3) * u**2 + 1, a * u * t**2)
    ):
        np.add.at(matrix, (np.arange(length), np.clip(before + tap - 1, 0, nodes - 1)), weight)
    return matrix


@dataclass(frozen=True)
class Tiling:
    """The tiles that a frame is divided into to be displaced by Fourier transform, and how they are blended."""

    grid: PatchGrid
    """Finer than that of the patches."""
    size: tuple[int, ...]
    """Pixels per axis that are transformed: a tile, `HALO` on its sides, and some more for a fast transform."""
    weights: tuple[NDArray[np.float32], ...]
    """Per axis (2, g, width): linear ramps over the overlaps; and ones where a tile alone gives the pixels."""

    @classmethod
    @lru_cache(maxsize=16)
    def make(cls, shape: tuple[int, ...], strides: tuple[int, ...], overlaps: tuple[int, ...]) -> Tiling:
        """Tiles of ``strides + overlaps`` pixels, `strides` apart."""
        grid = PatchGrid.make(shape, strides, overlaps)
        size = tuple(scipy.fft.next_fast_len(w + 2 * HALO, real=True) for w in grid.width)
        weights = tuple(
            np.stack([ramps(len(starts), w, o), _owned(starts, w, o, n)]).astype(np.float32)
            for starts, w, o, n in zip(grid.starts, grid.width, overlaps, shape, strict=True)
        )
        return cls(grid, size, weights)

    def spread(self, field: Array, patches: PatchGrid, interpolate: bool) -> Array:
        """Displacement of each tile (n, *counts, ndim) from that of each patch; bicubic, or by splines."""
        matrices = []
        for axis, nodes in enumerate(patches.counts):
            if interpolate:
                through = AxisBasis.spline(patches.centres[axis], at=self.grid.centres[axis])
                matrices.append(through.matrix())
            else:
                matrices.append(resized(nodes, self.grid.counts[axis]))
        return along_axes(field, matrices)


def ramps(tiles: int, width: int, overlap: int) -> NDArray[np.float64]:
    """(tiles, width) weights of tiles along an axis: linear over the overlap with a neighbour, from 0 to 1."""
    overlap = min(overlap, width)
    weights = np.ones((tiles, width))
    weights[1:, :overlap] *= np.linspace(0, 1, overlap)
    weights[:-1, width - overlap :] *= np.linspace(1, 0, overlap)
    return weights


def _owned(starts: tuple[int, ...], width: int, overlap: int, length: int) -> NDArray[np.float64]:
    """(tiles, width) 1 where a pixel comes from this tile alone: a tile begins half an overlap in."""
    begins = np.array([0, *(s + overlap // 2 for s in starts[1:]), length])
    at = np.array(starts)[:, None] + np.arange(width)
    return ((at >= begins[:-1, None]) & (at < begins[1:, None])).astype(np.float64)


def shear(field: Array) -> Array:
    """How strongly neighbours of a grid (n, *counts, ndim) are pulled apart, pixels, (n,).

    The 75th percentile of the largest differences between neighbours, one per axis of the grid and component.
    """
    xp = backend.arrays.xp(field)
    n, axes = len(field), field.ndim - 2
    largest = []
    for axis in range(1, axes + 1):
        ahead, behind = (slice(None),) * axis + (slice(1, None),), (slice(None),) * axis + (slice(-1),)
        apart = abs(field[ahead] - field[behind]).reshape(n, -1, field.shape[-1])
        largest.append(apart.max(axis=1) if apart.shape[1] else xp.zeros((n, field.shape[-1]), np.float32))
    ordered = xp.sort(xp.concatenate(largest, axis=1), axis=1)
    at = 0.75 * (ordered.shape[1] - 1)
    below = int(at)
    above = min(below + 1, ordered.shape[1] - 1)
    return ordered[:, below] + np.float32(at - below) * (ordered[:, above] - ordered[:, below])
