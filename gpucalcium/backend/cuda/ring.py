"""The ring model of a one-photon background: products of pixel pairs, weights of rings, and what they predict.

Twin: backend/cpu/ring.py
"""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 128
STEPS_AT_ONCE = 8  # as in ring.cu
RINGS_AT_ONCE = 1024  # blocks, each with a scratch matrix
MOST_FRAMES = 65_535  # of one launch: the grid's second axis

_add_pair_products = kernel("ring.cu", "add_pair_products")
_ring_weights = kernel("ring.cu", "ring_weights")
_predict = kernel("ring.cu", "predict")


def add_pair_products(frames: cp.ndarray, steps: cp.ndarray, sums: cp.ndarray) -> None:
    """sums[k, p] += sum over t, in order, of frames[t, p] * frames[t, p + steps[k]].

    As the twin says.
    """
    n, d = frames.shape
    _add_pair_products(
        (),
        blocks=(-(-d // THREADS), -(-len(steps) // STEPS_AT_ONCE)),
        threads=THREADS,
        args=(frames, np.int64(n), np.int64(d), steps, np.int32(len(steps)), sums),
    )


def ring_weights(
    sums: cp.ndarray,
    pairs: cp.ndarray,
    ring: cp.ndarray,
    dims: tuple[int, int],
    ridge: float,
    out: cp.ndarray,
) -> None:
    """Least-squares weights of every pixel's ring: (X_R X_R' + ridge trace I)^-1 X_R x, by Cholesky.

    As the twin says.
    """
    n, d = out.shape
    out[:] = 0
    blocks = min(d, RINGS_AT_ONCE)
    work = cp.empty((blocks, (n + 1) ** 2), "float64")
    _ring_weights(
        (),
        blocks=blocks,
        threads=THREADS,
        shared=4 * (n + 1),
        args=(
            sums,
            np.int64(d),
            pairs,
            ring,
            np.int32(n),
            np.int64(dims[0]),
            np.int64(dims[1]),
            np.float64(ridge),
            work,
            out,
        ),
    )


def predict(frames: cp.ndarray, weights: cp.ndarray, steps: cp.ndarray, out: cp.ndarray) -> None:
    """out[t, p] = sum over k of weights[k, p] * frames[t, p + steps[k]], in order of k.

    As the twin says.
    """
    n, d = frames.shape
    for first in range(0, n, MOST_FRAMES):
        part = slice(first, min(first + MOST_FRAMES, n))
        _predict(
            (),
            blocks=(-(-d // THREADS), part.stop - part.start),
            threads=THREADS,
            args=(frames[part], np.int64(d), weights, steps, np.int32(len(steps)), out[part]),
        )
