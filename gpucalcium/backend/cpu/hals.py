"""Sweeps of hierarchical alternating least squares: traces (every frame for itself), footprints (every pixel)."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share

FRAMES_PER_TASK = 256  # of each trace: the traces of a few hundred components stay in the second-level cache


def sweep_traces(
    traces: NDArray[np.float64],
    noisy: NDArray[np.float64],
    projections: NDArray[np.float64],
    indptr: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    gram: NDArray[np.float64],
    order: NDArray[np.int64],
    clipped: NDArray[np.bool_],
    sweeps: int,
) -> None:
    """Row m, in `order`: noisy_m = c_m + (u_m - v_m C) / v_mm; c_m = max(noisy_m, 0), or noisy_m if not clipped.

    `traces` C and `noisy` (M, T) are written, `projections` U is (M, T); V is the CSR matrix `indptr` (M + 1,),
    `neighbours`, `gram` (nnz,), its diagonal not zero in the rows of `order`.
    """
    graph = (indptr, neighbours, gram)
    share(
        traces.shape[1],
        lambda first, last: _sweep_traces(
            traces, noisy, projections, graph, order, clipped, sweeps, first, last
        ),
        FRAMES_PER_TASK,
    )


@nb.njit(nogil=True, cache=True)
def _sweep_traces(traces, noisy, projections, graph, order, clipped, sweeps, begin, end):
    indptr, neighbours, gram = graph
    for first in range(begin, end, FRAMES_PER_TASK):
        last = min(first + FRAMES_PER_TASK, end)
        rest = np.empty(last - first)
        for _ in range(sweeps):
            for m in order:
                rest[:] = projections[m, first:last]
                diagonal = 0.0
                for i in range(indptr[m], indptr[m + 1]):
                    j, v = neighbours[i], gram[i]
                    if j == m:
                        diagonal = v
                    row = traces[j, first:last]
                    for t in range(last - first):
                        rest[t] -= v * row[t]
                for t in range(first, last):
                    value = traces[m, t] + rest[t - first] / diagonal
                    noisy[m, t] = value
                    traces[m, t] = max(value, 0.0) if clipped[m] else value


def sweep_footprints(
    values: NDArray[np.float64],
    indptr: NDArray[np.int64],
    components: NDArray[np.int64],
    products: NDArray[np.float64],
    gram: NDArray[np.float64],
    sweeps: int,
) -> None:
    """Per pixel, its components m in order: a_m = max(0, a_m + (q_m - sum_j v_mj a_j) / v_mm).

    `values` (nnz,) is written; `indptr` (d + 1,) and `components` (nnz,) say whose they are (CSR by pixel);
    `products` q (nnz,) are movie x traces there; `gram` V (M, M). A component with v_mm = 0 keeps its value.
    """
    share(
        len(indptr) - 1,
        lambda begin, end: _sweep_footprints(values, indptr, components, products, gram, sweeps, begin, end),
    )


@nb.njit(nogil=True, cache=True)
def _sweep_footprints(values, indptr, components, products, gram, sweeps, begin, end):
    for pixel in range(begin, end):
        first, last = indptr[pixel], indptr[pixel + 1]
        for _ in range(sweeps):
            for e in range(first, last):
                m = components[e]
                if gram[m, m] > 0:
                    rest = products[e]
                    for i in range(first, last):
                        rest -= gram[m, components[i]] * values[i]
                    values[e] = max(values[e] + rest / gram[m, m], 0.0)
