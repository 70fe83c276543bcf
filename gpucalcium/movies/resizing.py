"""Resizing along one axis as a sparse matrix of interpolation weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium import backend
from gpucalcium.errors import ParameterError
from gpucalcium.movies.source import PIECE

NEAREST, LINEAR, CUBIC, AREA, LANCZOS = range(5)
"""Codes of the interpolations."""

_CUBIC_A = -0.75


def resize(values: NDArray, axis: int, length: int, interpolation: int = AREA) -> NDArray[np.float32]:
    """`values` with `length` entries along one axis.

    Parameters
    ----------
    values : array of at least two axes, real
    axis, length : int
    interpolation : {0, 1, 2, 3, 4}
        Nearest, linear, bicubic, area, Lanczos over 8 entries; all read half-pixel coordinates and repeat the
        edge. Area weights entries by what they share with the new cell: a mean where it shrinks, steps where it
        enlarges.

    Returns
    -------
    resized : array, float32
        Made in pieces on the active device.
    """
    if length == values.shape[axis]:
        return np.array(values, np.float32, order="C")
    matrix = weights(values.shape[axis], length, interpolation)
    out = np.empty((*values.shape[:axis], length, *values.shape[axis + 1 :]), np.float32)
    on_device: Any = None  # the matrix, once it is known where the pieces lie
    across = 1 if axis == 0 else 0  # pieces lie along another axis
    count = values.shape[across]
    step = max(1, PIECE * count // max(1, 4 * max(values.size, out.size)))
    for at in range(0, count, step):
        part = (slice(None),) * across + (slice(at, at + step),)
        moved = np.moveaxis(values[part], axis, 0)
        flat = backend.put(np.ascontiguousarray(moved, np.float32).reshape(len(moved), -1))
        if on_device is None:
            on_device = backend.arrays.sparse(flat).csr_matrix(matrix)
        resized = backend.to_numpy(on_device @ flat)
        out[part] = np.moveaxis(resized.reshape(length, *moved.shape[1:]), 0, axis)
    return out


def resized_length(length: int, factor: float) -> int:
    """Entries an axis has after resizing by `factor`.

    Raises
    ------
    ParameterError
        None would be left, or the factor is no positive number.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise ParameterError(f"a factor of {factor}: resizing takes positive numbers, 0.5 halves")
    new = int(length * factor)
    if new < 1:
        raise ParameterError(
            f"a factor of {factor} leaves nothing of an axis of {length}; use at least {1 / length:.3g}"
        )
    return new


def weights(length: int, new: int, interpolation: int) -> sparse.csr_matrix:
    """Matrix (new, length), float32, that resizes an axis: every row sums to one."""
    if interpolation == AREA:
        return _area(length, new)
    return _gathered(*taps((np.arange(new) + 0.5) * length / new - 0.5, interpolation), length)


def taps(centres: NDArray[np.float64], interpolation: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which entries are read for values at fractional positions (n,), and their weights: both (n, taps).

    Entries may lie beyond the edge. There is no area of a single position.
    """
    if interpolation == NEAREST:
        return np.floor(centres + 0.5).astype(np.int64)[:, None], np.ones((len(centres), 1))
    kernels = {LINEAR: (1, _linear), CUBIC: (2, _cubic), LANCZOS: (4, _lanczos)}
    if interpolation not in kernels:
        raise ParameterError(
            f"interpolation={interpolation}: expected 0 nearest, 1 linear, 2 bicubic, 3 area or 4 Lanczos"
        )
    reach, kernel = kernels[interpolation]
    entries = np.floor(centres).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    shares = kernel(np.abs(centres[:, None] - entries))
    return entries, shares / shares.sum(axis=1, keepdims=True)


def _gathered(entries: NDArray[np.int64], shares: NDArray, length: int) -> sparse.csr_matrix:
    """Rows from the entries they read and with what weights; entries beyond the edge are the edge's."""
    rows = np.repeat(np.arange(len(entries)), entries.shape[1])
    columns = np.clip(entries, 0, length - 1).ravel()
    values = shares.ravel().astype(np.float32)
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(entries), length))


def _area(length: int, new: int) -> sparse.csr_matrix:
    edges = np.arange(new + 1) * length / new
    entries = np.arange(length)
    shared = np.minimum(edges[1:, None], entries + 1) - np.maximum(edges[:-1, None], entries)
    shared = np.where(shared > 1e-9, shared, 0.0)  # else rounding leaves crumbs of the neighbours
    return sparse.csr_matrix((shared / shared.sum(axis=1, keepdims=True)).astype(np.float32))


def _linear(x: NDArray) -> NDArray:
    return np.maximum(0.0, 1 - x)


def _cubic(x: NDArray) -> NDArray:
    a = _CUBIC_A
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: NDArray) -> NDArray:
    return np.where(x < 4, np.sinc(x) * np.sinc(x / 4), 0.0)
