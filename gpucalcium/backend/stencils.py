"""Weights and borders of spatial filters, and the dtypes that kernels are compiled for: shared by both wings.

Everything here is small and made on the host, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

BORDERS = ("constant", "replicate", "reflect", "reflect101")
"""What lies beyond the edge of ``abc``: 000 | aaa abc ccc | cba abc cba | dcb abcd cba (edge not repeated)."""


def gaussian_weights(sigma: float, radius: int) -> NDArray[np.float64]:
    """Sampled Gaussian of standard deviation `sigma` at -radius..radius, summing to one; sigma 0 is the identity."""
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    weights = np.exp(-0.5 * (x / sigma) ** 2) if sigma > 0 else (x == 0).astype(np.float64)
    return weights / weights.sum()


def along_axis(weights: NDArray[np.float64], axis: int, ndim: int) -> NDArray[np.float64]:
    """One-dimensional weights as an `ndim`-dimensional kernel that reaches along `axis` only."""
    return weights.reshape([-1 if a == axis else 1 for a in range(ndim)])


def separable_gaussian(sigma: Sequence[float], radius: Sequence[int]) -> list[NDArray[np.float64]]:
    """1-D kernels, each shaped for all axes, whose succession is a Gaussian filter."""
    return _separable([gaussian_weights(s, r) for s, r in zip(sigma, radius, strict=True)])


def separable_box(size: Sequence[int]) -> list[NDArray[np.float64]]:
    """1-D kernels, each shaped for all axes, whose succession is the mean over a box of `size`."""
    return _separable([np.full(s, 1.0 / s) for s in size])


def _separable(weights: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """One kernel per axis along which there is something to do; at least one."""
    kernels = [along_axis(w, axis, len(weights)) for axis, w in enumerate(weights)]
    return [k for k in kernels if k.size > 1] or kernels[:1]


def difference_kernel(sigma: Sequence[float], radius: Sequence[int]) -> NDArray[np.float64]:
    """A Gaussian minus its mean, on a disc: passes cell-sized spots, removes smooth background.

    The disc is where the unit-sum Gaussian is at least as large as at its largest value on the faces of
    the box (in two dimensions and with equal axes: at the middle of an edge). Outside it is zero.

    Returns
    -------
    kernel : (2 radius + 1, ...) float64
        Sums to zero, so a constant image filters to zero.
    """
    kernel = np.ones(())
    for s, r in zip(sigma, radius, strict=True):
        kernel = np.multiply.outer(kernel, gaussian_weights(s, r))
    disc = kernel >= kernel[0].max() * (1 - 1e-9)  # its own border pixels count, whatever the rounding
    return np.where(disc, kernel - kernel[disc].mean(), 0.0)


def disc(radius: int, sigma: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Offsets (m, 2) of the pixels not farther than `radius`, in C order, and a Gaussian of their distance (m,)."""
    span = np.arange(-radius, radius + 1)
    rows, columns = np.meshgrid(span, span, indexing="ij")
    square = rows**2 + columns**2
    near = square <= radius**2
    weights = np.exp(-0.5 * square[near] / sigma**2).astype(np.float32)
    return np.ascontiguousarray(np.stack([rows[near], columns[near]], axis=1)), weights


def taps(kernel: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where a kernel is not zero: offsets from its centre (size // 2), (m, ndim), in C order, and weights (m,).

    An all-zero kernel keeps its centre, so that there is always one tap.
    """
    centre = np.array(kernel.shape) // 2
    where = np.argwhere(kernel)
    if not len(where):
        where = centre[None]
    return np.ascontiguousarray(where - centre), kernel[tuple(where.T)].astype(np.float32)


def border_index(n: int, before: int, after: int, border: str) -> NDArray[np.int64]:
    """Which of ``0..n-1`` stands at each position ``-before..n-1+after``; -1 where the border is zero."""
    at = np.arange(-before, n + after)
    if border == "constant":
        return np.where((at >= 0) & (at < n), at, -1)
    if border == "replicate":
        return at.clip(0, n - 1)
    if border == "reflect":
        at = at % (2 * n)
        return np.minimum(at, 2 * n - 1 - at)
    period = max(2 * n - 2, 1)
    at = at % period
    return np.minimum(at, period - at) if n > 1 else at


_AS_COMPILED = {"b1": "u1", "i1": "i2", "f2": "f4"}  # exact, in the smallest type that is compiled
_COMPILED = ("u1", "u2", "i2", "f4")


def compiled_dtype(dtype: DTypeLike, *, wide: str) -> np.dtype:
    """The dtype in which frames of `dtype` enter a kernel: the same, or the next that holds every value.

    Kernels are compiled for uint8, uint16, int16, float32 and, for the types these cannot hold (longer
    integers, float64), for `wide`: "f8", or "f4" where the kernel rounds to float32 at once anyway.
    """
    name = np.dtype(dtype).str[1:]
    name = _AS_COMPILED.get(name, name)
    return np.dtype(name if name in _COMPILED else wide)
