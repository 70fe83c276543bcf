"""Sums over a movie that an extraction needs: footprints x frames and frames x traces, on sparse supports.

Twin: backend/cuda/products.py. All sums are float64, carried in order of time (or of entry), so chunk size and
thread count change no bit.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share

ENTRIES_PER_TASK = 2048  # their float64 sums (16 kB) stay in the first-level cache


def project(
    frames: NDArray,
    indptr: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray,
    out: NDArray[np.float64],
) -> None:
    """out[t, k] = sum over the entries e of column k of values[e] * frames[t, rows[e]].

    `frames` is (n, d), any real dtype; `indptr` (K + 1,), `rows` (nnz,) and `values` (nnz,) are a CSC matrix of
    d rows; `out` is (n, K).
    """
    share(len(frames), lambda first, last: _project(frames, indptr, rows, values, first, last, out))


@nb.njit(nogil=True, cache=True)
def _project(frames, indptr, rows, values, first, last, out):
    for t in range(first, last):
        frame = frames[t]
        for k in range(len(indptr) - 1):
            stop = indptr[k + 1]
            # four sums run side by side: one would wait for each addition to end
            sum_0 = sum_1 = sum_2 = sum_3 = 0.0
            e = indptr[k]
            while e + 3 < stop:
                sum_0 += np.float64(values[e]) * np.float64(frame[rows[e]])
                sum_1 += np.float64(values[e + 1]) * np.float64(frame[rows[e + 1]])
                sum_2 += np.float64(values[e + 2]) * np.float64(frame[rows[e + 2]])
                sum_3 += np.float64(values[e + 3]) * np.float64(frame[rows[e + 3]])
                e += 4
            while e < stop:
                sum_0 += np.float64(values[e]) * np.float64(frame[rows[e]])
                e += 1
            out[t, k] = (sum_0 + sum_1) + (sum_2 + sum_3)


def add_samples(
    frames: NDArray,
    traces: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    sums: NDArray[np.float64],
) -> None:
    """sums[e] += sum over t, in order, of frames[t, rows[e]] * traces[t, columns[e]].

    `frames` is (n, d), any real dtype; `traces` (n, K); `rows`, `columns` and `sums` are (nnz,). Entries that follow
    each other in a frame and share a column are read together, so sorted columns are fast.
    """
    if len(rows):
        starts, tasks = _runs(rows, columns, ENTRIES_PER_TASK)
        share(
            len(tasks) - 1,
            lambda first, last: _add_samples(
                frames, traces, rows, columns, starts, tasks[first : last + 1], sums
            ),
        )


@nb.njit(nogil=True, cache=True)
def _runs(rows, columns, entries_per_task):
    """First entries of runs of consecutive pixels (closed by nnz), and first runs of tasks (closed likewise)."""
    starts = np.empty(len(rows) + 1, np.int64)
    tasks = np.empty(len(rows) + 1, np.int64)
    runs = n_tasks = begun = 0
    for e in range(len(rows)):
        full = e - begun == entries_per_task
        if e == 0 or full or rows[e] != rows[e - 1] + 1 or columns[e] != columns[e - 1]:
            if e == 0 or full:
                tasks[n_tasks] = runs
                n_tasks += 1
                begun = e
            starts[runs] = e
            runs += 1
    starts[runs] = len(rows)
    tasks[n_tasks] = runs
    return starts[: runs + 1].copy(), tasks[: n_tasks + 1].copy()


@nb.njit(nogil=True, cache=True)
def _add_samples(frames, traces, rows, columns, starts, tasks, sums):
    for task in range(len(tasks) - 1):
        for t in range(len(frames)):
            for run in range(tasks[task], tasks[task + 1]):
                e, length = starts[run], starts[run + 1] - starts[run]
                weight = traces[t, columns[e]]
                pixels = frames[t, rows[e] : rows[e] + length]
                target = sums[e : e + length]
                for i in range(length):
                    target[i] += weight * np.float64(pixels[i])


def add_squares(frames: NDArray, sums: NDArray[np.float64]) -> None:
    """sums[p] += sum over t, in order, of frames[t, p] squared; `frames` (n, d), `sums` (d,)."""
    share(
        len(sums), lambda first, last: _add_squares(frames[:, first:last], sums[first:last]), ENTRIES_PER_TASK
    )


@nb.njit(nogil=True, cache=True)
def _add_squares(frames, sums):
    for t in range(len(frames)):
        for p in range(len(sums)):
            value = np.float64(frames[t, p])
            sums[p] += value * value
