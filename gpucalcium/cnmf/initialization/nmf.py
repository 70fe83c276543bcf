"""Non-negative matrix factorisation on the active device: starts, penalties, and one loop for all who need it.

Matrices are (d, T), pixels by time. Factors lie as rows, images (K, d) and traces (K, T), so that both are swept by
the same operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array

STARTS = ("nndsvd", "nndsvda", "nndsvdar", "random")
SEED = 2016  # of the random sketch: the same movie gives the same factors
OVERSAMPLING = 8  # directions beyond the rank that is sought, which make the sketch exact enough
POWER_ITERATIONS = 2
EPSILON = 1e-12


@runtime_checkable
class Matrix(Protocol):
    """A (d, T) matrix X, known by what it does to factors."""

    shape: tuple[int, int]

    def images(self, traces: Array) -> Array:
        """C X', (K, d)."""

    def traces(self, images: Array) -> Array:
        """A' X, (K, T), of images A' (K, d)."""


class Whole:
    """A matrix that is there, (d, T) float32 on the device."""

    def __init__(self, X: Array) -> None:
        self._X, self._xp = X, backend.arrays.xp(X)
        self.shape: tuple[int, int] = X.shape

    def images(self, traces: Array) -> Array:
        """C X', (K, d) float64."""
        return self._xp.matmul(traces.astype("float32"), self._X.T).astype("float64")

    def traces(self, images: Array) -> Array:
        """A' X, (K, T) float64."""
        return self._xp.matmul(images.astype("float32"), self._X).astype("float64")


class LowRank:
    """Q B with Q (d, r) and B (r, T): products cost O(d + T) instead of O(d T)."""

    def __init__(self, Q: NDArray[np.float64], B: NDArray[np.float64]) -> None:
        self._Q, self._B = backend.put(np.ascontiguousarray(Q)), backend.put(np.ascontiguousarray(B))
        self._xp = backend.arrays.xp(self._Q)
        self.shape = (len(Q), B.shape[1])

    def images(self, traces: Array) -> Array:
        """C B' Q', (K, d)."""
        return self._xp.matmul(self._xp.matmul(traces, self._B.T), self._Q.T)

    def traces(self, images: Array) -> Array:
        """A' Q B, (K, T)."""
        return self._xp.matmul(self._xp.matmul(images, self._Q), self._B)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """What is added to 1/2 |X - A C|^2: l1 times the sum of a factor, and l2 / 2 times its squared norm."""

    images_l1: float = 0.0
    images_l2: float = 0.0
    traces_l1: float = 0.0
    traces_l2: float = 0.0


def factorise(
    X: Matrix,
    images: Array,
    traces: Array,
    *,
    penalty: Penalty | None = None,
    max_iter: int,
    tol: float,
) -> tuple[Array, Array]:
    """Images and traces, none negative, that make 1/2 |X - A C|^2 plus a penalty small: HALS from a start.

    Parameters
    ----------
    X : Matrix
        (d, T).
    images : (K, d) float64, traces : (K, T) float64
        Where to start, on the device.
    penalty : Penalty, optional
        Default: none.
    max_iter : int
        Iterations at most; each sweeps the traces, then the images.
    tol : float
        Stop once an iteration changes the traces by less, relative.

    Returns
    -------
    images : (K, d), traces : (K, T) float64 on the device
        A component that a penalty beats is 0 everywhere.

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. Fundam. E92-A:708, algorithm 2.
    """
    xp, by = backend.arrays.xp(traces), penalty or Penalty()
    images, traces = images.copy(), traces.copy()
    for _ in range(max_iter if len(traces) else 0):
        before = traces.copy()
        gram = xp.matmul(images, images.T)
        _sweep(traces, X.traces(images), gram, by.traces_l1, by.traces_l2)
        gram = xp.matmul(traces, traces.T)
        _sweep(images, X.images(traces), gram, by.images_l1, by.images_l2)
        change, size = (backend.to_numpy((x**2).sum()) for x in (traces - before, traces))
        if change <= tol**2 * size:
            break
    return images, traces


def _sweep(rows: Array, products: Array, gram: Array, l1: float, l2: float) -> None:
    """One HALS sweep over the rows of a factor, in place."""
    xp, K = backend.arrays.xp(rows), len(rows)
    # the floor lets a component whose other factor is gone go as well, instead of a division by zero
    curvature = gram + xp.eye(K) * (l2 + EPSILON)
    every = np.arange(K, dtype=np.int64)
    pattern = np.arange(0, K * K + 1, K, dtype=np.int64), np.tile(every, K)
    backend.wing(rows).hals.sweep_traces(
        rows,
        xp.empty_like(rows),
        xp.ascontiguousarray(products - l1),
        *map(backend.put, pattern),
        curvature.reshape(-1),
        backend.put(every),
        backend.put(np.ones(K, bool)),
        1,
    )


def sketch(
    X: Array | Matrix, rank: int, power_iterations: int = POWER_ITERATIONS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Q (d, r) with orthonormal columns and B (r, T) such that Q B is X but for its smallest parts.

    `X` is a (d, T) float32 array on the device, or what stands for one; it is gone through 2 + 2 `power_iterations`
    times.

    References
    ----------
    Halko, Martinsson & Tropp (2011), SIAM Rev. 53:217, algorithm 4.4.
    """
    X = X if isinstance(X, Matrix) else Whole(X)
    rank = min(rank, *X.shape)
    begin = np.random.default_rng(SEED).standard_normal((X.shape[1], rank)).astype(np.float32)
    Q = _orthonormal(X.images(backend.put(np.ascontiguousarray(begin.T))))
    for _ in range(power_iterations):
        Z = _orthonormal(X.traces(backend.put(np.ascontiguousarray(Q.T))))
        Q = _orthonormal(X.images(backend.put(np.ascontiguousarray(Z.T))))
    return Q, backend.to_numpy(X.traces(backend.put(np.ascontiguousarray(Q.T)))).astype(np.float64)


def _orthonormal(rows: Array) -> NDArray[np.float64]:
    """Orthonormal columns that span the rows of a factor."""
    return np.linalg.qr(backend.to_numpy(rows).astype(np.float64).T)[0]


def start(Q: NDArray[np.float64], B: NDArray[np.float64], K: int, method: str) -> tuple[Array, Array]:
    """Images (K, d) and traces (K, T) to start from, float64 on the device.

    Parameters
    ----------
    Q : (d, r), B : (r, T)
        The matrix, or its sketch.
    K : int
        Rank; components beyond that of the matrix are 0.
    method : {"nndsvd", "nndsvda", "nndsvdar", "random"}
        The non-negative parts of the singular vectors, with their zeros kept, filled with the mean of the matrix,
        or with small random values; or random factors.

    References
    ----------
    Boutsidis & Gallopoulos (2008), Pattern Recognit. 41:1350.
    """
    U, s, V = np.linalg.svd(B, full_matrices=False)
    U = Q @ U
    images, traces = np.zeros((K, len(Q))), np.zeros((K, B.shape[1]))
    rng = np.random.default_rng(SEED)
    level = max(float(Q.mean(0) @ B.mean(1)), 0.0)  # mean of the matrix
    if method == "random":
        scale = np.sqrt(level / max(K, 1)) + EPSILON
        return backend.put(scale * rng.random(images.shape)), backend.put(scale * rng.random(traces.shape))
    for k in range(min(K, len(s))):
        sides = [(np.maximum(sign * U[:, k], 0), np.maximum(sign * V[k], 0)) for sign in (1, -1)]
        sizes = [np.linalg.norm(u) * np.linalg.norm(v) for u, v in sides]
        (u, v), size = sides[int(np.argmax(sizes))], max(sizes)
        images[k] = np.sqrt(s[k] * size) * u / (np.linalg.norm(u) + EPSILON)
        traces[k] = np.sqrt(s[k] * size) * v / (np.linalg.norm(v) + EPSILON)
    if method in ("nndsvda", "nndsvdar"):
        for factor in (images, traces):
            zero = factor <= 0
            factor[zero] = level / 100 * rng.random(zero.sum()) if method == "nndsvdar" else level
    return backend.put(images), backend.put(traces)
