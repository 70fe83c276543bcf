"""Spike inference of AR(1) calcium by pools, one trace per thread. Twin: backend/cpu/oasis.py"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 32  # one warp a block: a few hundred traces then spread over all multiprocessors
BLOCK = 128  # threads of the search, as in the kernel; also the most segments of a trace
SEGMENT = 512  # samples of a segment, or more: long enough that joining segments, which is serial, is little

_constrained_ar1 = kernel("oasis_search.cu", "constrained_ar1")
_ar1 = kernel("oasis.cu", "ar1")
_greedy_ar1 = kernel("oasis.cu", "greedy_ar1")
_take_start = kernel("oasis.cu", "take_start")


def constrained_ar1(
    y: cp.ndarray,
    g: cp.ndarray,
    theta: cp.ndarray,
    b: cp.ndarray,
    free_b: bool,
    b_nonneg: bool,
    max_iter: int,
    c: cp.ndarray,
    s: cp.ndarray,
    lam: cp.ndarray,
) -> None:
    """Least sum of spikes with residual sum of squares theta: writes c, s, lam and, if `free_b`, b.

    y, c, s (K, T); g in [0, 1), theta, b, lam (K,). At most `max_iter` accepted steps of the search. Threads share
    traces and their segments, by the number of samples alone.
    """
    K, T = y.shape
    segments = min(1 << max((T - 1) // SEGMENT, 0).bit_length(), BLOCK)
    length = -(-T // segments)
    shape = (length, K, segments)
    results = cp.empty((2, *shape), "float32")
    _constrained_ar1(
        (y.dtype,),
        blocks=-(-K * segments // BLOCK),
        threads=BLOCK,
        args=(
            _in_segments(y, segments, length),
            np.int64(K),
            np.int32(T),
            np.int32(segments),
            np.int32(length),
            g,
            theta,
            b,
            np.bool_(free_b),
            np.bool_(b_nonneg),
            np.int32(max_iter),
            results[0],
            results[1],
            lam,
            cp.empty((2, 3, *shape), "float64"),
            cp.empty((2, *shape), "int32"),
        ),
    )
    for given, result in zip((c, s), results, strict=True):
        given[...] = result.transpose(1, 2, 0).reshape(K, -1)[:, :T]


def ar1(
    y: cp.ndarray,
    g: cp.ndarray,
    b: cp.ndarray,
    lam: cp.ndarray,
    s_min: cp.ndarray,
    c: cp.ndarray,
    s: cp.ndarray,
) -> None:
    """Calcium and spikes of y - b for penalty `lam` and smallest spike `s_min`, all (K,); writes c, s (K, T)."""
    K, T = y.shape
    results = cp.empty((2, T, K), "float32")
    _ar1(
        (y.dtype,),
        blocks=-(-K // THREADS),
        threads=THREADS,
        args=(
            _interleaved(y),
            np.int64(K),
            np.int32(T),
            g,
            b,
            lam,
            s_min,
            results[0],
            results[1],
            cp.empty((3, T, K), "float64"),
            cp.empty((T, K), "int32"),
        ),
    )
    c[...], s[...] = results[0].T, results[1].T


def block_means(y: cp.ndarray, k: int) -> cp.ndarray:
    """Means of k samples of each trace (K, T): (K, T // k) of the dtype of `y`; what is left at the end is left out."""
    n = y.shape[1] // k
    return cp.ascontiguousarray(y[:, : n * k].reshape(len(y), n, k).mean(axis=2))


def greedy_ar1(
    y: cp.ndarray, g: cp.ndarray, theta: cp.ndarray, b: cp.ndarray, c: cp.ndarray, s: cp.ndarray
) -> None:
    """Few unpenalised spikes: those of `s` by decreasing size until the residual sum of squares is below theta.

    Overwrites c and s (K, T).
    """
    K, T = y.shape
    results = cp.stack([_interleaved(c), _interleaved(s)])
    _greedy_ar1(
        (y.dtype,),
        blocks=-(-K // THREADS),
        threads=THREADS,
        args=(
            _interleaved(y),
            _interleaved(cp.argsort(-s, axis=1).astype("int32")),
            np.int64(K),
            np.int32(T),
            g,
            theta,
            b,
            results[0],
            results[1],
            cp.empty((2, T, K), "float64"),
            cp.empty((T, K), "int32"),
        ),
    )
    c[...], s[...] = results[0].T, results[1].T


def take_start(c: cp.ndarray, decay: cp.ndarray, c1: cp.ndarray) -> None:
    """Move the calcium there is at t = 0, and its decay c1 decay^t, out of `c` (K, T) into `c1` (K,)."""
    K, T = c.shape
    _take_start((), blocks=-(-K // THREADS), threads=THREADS, args=(c, np.int64(K), np.int64(T), decay, c1))


def _in_segments(traces: cp.ndarray, segments: int, length: int) -> cp.ndarray:
    """Traces (K, T) as (length, K, segments): the samples that a warp reads together lie side by side."""
    K, T = traces.shape
    padded = cp.zeros((K, segments * length), traces.dtype)
    padded[:, :T] = traces
    return cp.ascontiguousarray(padded.reshape(K, segments, length).transpose(2, 0, 1))


def _interleaved(traces: cp.ndarray) -> cp.ndarray:
    """Traces (K, T) as (T, K): the samples that a warp reads together lie side by side."""
    return cp.ascontiguousarray(traces.T)
