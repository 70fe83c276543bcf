"""Frequencies, small matrices of a Fourier transform at few points, and borders: what both wings of registration share.

Everything here is made on the host, in float64, once for a shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BORDERS = ("nan", "min", "copy", "reflect")
"""What displaced frames get where nothing was recorded; the kernels know them by number."""


def frequencies(n: int, kept: int, last: bool) -> NDArray[np.int64]:
    """The `kept` lowest frequencies of an axis of length `n`, cycles per axis, in FFT order.

    Along the last axis of a real transform: ``0..kept-1``. Else ``0, 1, ... , -2, -1``: all `n`, or an odd
    number of them, symmetric about zero.
    """
    if last:
        return np.arange(kept)
    positive = (kept + 1) // 2
    return np.r_[0:positive, positive - kept : 0]


@dataclass(frozen=True)
class SearchPlan:
    """What the search for a correlation peak needs beside the data, for one shape, band and bound."""

    rows: NDArray[np.int64]
    """(R,) where the kept frequencies of the leading axes lie in the flat transform over these axes."""
    monomials: NDArray[np.float32]
    """(orders, R) 1, the angular frequencies of the leading axes, and their products in pairs."""
    leading: NDArray[np.float64]
    """(ndim - 1, R) angular frequencies of the leading axes, radians per pixel."""
    cycles: NDArray[np.int64]
    """(ndim - 1, R) the same in cycles per axis."""
    units: NDArray[np.float64]
    """(ndim,) angular frequency of one cycle per axis."""
    last: NDArray[np.float64]
    """(width,) angular frequencies of the last axis."""
    leading_matrices: tuple[NDArray[np.complex64], ...]
    """Per leading axis, (2 m + 1, b): inverse transform at the lags -m..m."""
    last_matrix: NDArray[np.float32]
    """(2 width, 2 m + 1): the last axis, real part; rows are real and imaginary parts in turn."""
    lags: NDArray[np.float64]
    """(W, ndim) the lags of the window, in C order, pixels."""

    @staticmethod
    @lru_cache(maxsize=16)
    def make(shape: tuple[int, ...], band: tuple[int, ...], bound: tuple[int, ...]) -> SearchPlan:
        """Plan for frames of `shape`, a kernel of shape `band`, and shifts within ``-bound..bound``."""
        cycles = [frequencies(n, b, last=False) for n, b in zip(shape[:-1], band[:-1], strict=True)]
        cycles.append(frequencies(shape[-1], band[-1], last=True))
        angular = [2 * np.pi * k / n for k, n in zip(cycles, shape, strict=True)]
        rows = np.ravel_multi_index(
            np.meshgrid(*(k % n for k, n in zip(cycles[:-1], shape[:-1], strict=True)), indexing="ij"),
            shape[:-1],
        )
        leading = np.stack([w.ravel() for w in np.meshgrid(*angular[:-1], indexing="ij")])
        pairs = [leading[a] * leading[b] for a in range(len(leading)) for b in range(a, len(leading))]
        windows = [np.arange(-m, m + 1) for m in bound]
        phases = np.outer(angular[-1], windows[-1])
        return SearchPlan(
            rows=rows.ravel(),
            monomials=np.stack([np.ones(leading.shape[1]), *leading, *pairs]).astype(np.float32),
            leading=leading,
            cycles=np.stack([k.ravel() for k in np.meshgrid(*cycles[:-1], indexing="ij")]),
            units=2 * np.pi / np.array(shape),
            last=angular[-1],
            leading_matrices=tuple(
                np.exp(1j * np.outer(s, w)).astype(np.complex64)
                for s, w in zip(windows[:-1], angular[:-1], strict=True)
            ),
            last_matrix=np.stack([np.cos(phases), -np.sin(phases)], axis=1)
            .reshape(-1, len(windows[-1]))
            .astype(np.float32),
            lags=np.stack([x.ravel() for x in np.meshgrid(*windows, indexing="ij")], axis=1).astype(
                np.float64
            ),
        )

    def moved(self, to: Callable[[NDArray], Any]) -> SearchPlan:
        """The same with `to` (``cupy.asarray``, say) applied to every array."""
        return SearchPlan(
            to(self.rows),
            to(self.monomials),
            to(self.leading),
            to(self.cycles),
            to(self.units),
            to(self.last),
            tuple(map(to, self.leading_matrices)),
            to(self.last_matrix),
            to(self.lags),
        )
