"""How a displacement field on a grid of patches is spread over the pixels of a frame.

Along each axis the displacement of a pixel is a weighted sum of a few neighbouring nodes, so that kernels
read it off the grid itself and no field of the size of a frame is ever stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline

from gpucalcium import backend
from gpucalcium.backend import Array


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
    def spline(cls, centres: NDArray[np.float64], length: int) -> AxisBasis:
        """Cubic spline through nodes at `centres` (not-a-knot), constant beyond the outer ones.

        Fewer than four nodes are joined by the highest degree that they determine: a parabola, a line, a constant.
        """
        nodes = len(centres)
        if nodes == 1:
            return cls(np.zeros(length, np.int32), np.ones((1, length), np.float32), np.eye(1))
        degree = min(3, nodes - 1)
        through = make_interp_spline(centres, np.eye(nodes), k=degree)
        at = np.clip(np.arange(length), centres[0], centres[-1])
        design = BSpline.design_matrix(at, through.t, degree)
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
    shape: tuple[int, ...], centres: Sequence[NDArray[np.float64]], interpolate: bool
) -> tuple[AxisBasis, ...]:
    """Per axis, how a field on patches around `centres` is spread over frames of `shape`."""
    if interpolate:
        return tuple(AxisBasis.spline(np.asarray(c, float), n) for c, n in zip(centres, shape, strict=True))
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
