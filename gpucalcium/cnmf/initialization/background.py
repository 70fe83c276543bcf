"""Background of what the first cells leave: a non-negative factorisation of low rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ParameterError

STARTS = ("nndsvd", "nndsvda", "nndsvdar", "random")
SEED = 2016  # of the random sketch: the same movie gives the same background
OVERSAMPLING = 8  # directions beyond the rank that is sought, which make the sketch exact enough
POWER_ITERATIONS = 2
TOLERANCE = 1e-4  # relative change of the factors in one iteration
EPSILON = 1e-12


def background_nmf(
    rest: Array, nb: int, method: str = "nndsvdar", max_iter: int = 200
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors b f of a non-negative matrix, rank `nb`.

    Parameters
    ----------
    rest : (d, T) float32
        Movie without cells, not negative.
    nb : int
        Rank; 0 gives empty factors.
    method : {"nndsvd", "nndsvda", "nndsvdar", "random"}
        Where to start: the non-negative parts of the singular vectors, with their zeros kept, filled with the mean,
        or with small random values; or random factors.
    max_iter : int
        HALS iterations at most.

    Returns
    -------
    b : (d, nb), f : (nb, T) float32

    Raises
    ------
    ParameterError
        An unknown `method`.

    References
    ----------
    Zhou, Cichocki & Xie (2012), IEEE Trans. Signal Process. 60:2928: a low-rank sketch takes the matrix's place.
    Boutsidis & Gallopoulos (2008), Pattern Recognit. 41:1350: NNDSVD.
    """
    if method not in STARTS:
        raise ParameterError(
            f"greedyroi_nmf_init_method={method!r} is not known; there is {', '.join(STARTS)}"
        )
    d, T = rest.shape
    if nb == 0:
        return np.zeros((d, 0), np.float32), np.zeros((0, T), np.float32)
    Q, B = _sketch(rest, min(nb + OVERSAMPLING, d, T))
    W, H = _start(Q, B, nb, method)
    for _ in range(max_iter):
        before = H.copy()
        _sweep(W, Q @ (B @ H.T), H @ H.T)
        _sweep(H.T, B.T @ (Q.T @ W), W.T @ W)
        if np.linalg.norm(H - before) <= TOLERANCE * np.linalg.norm(H):
            break
    return W.astype(np.float32), H.astype(np.float32)


def _sketch(X: Array, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Q (d, r) with orthonormal columns and B (r, T) such that Q B is X but for its smallest parts.

    Halko, Martinsson & Tropp (2011), SIAM Rev. 53:217, algorithm 4.4.
    """
    xp = backend.arrays.xp(X)
    start = np.random.default_rng(SEED).standard_normal((X.shape[1], rank)).astype(np.float32)
    Q = _orthonormal(xp.matmul(X, backend.put(start)))
    for _ in range(POWER_ITERATIONS):
        Z = _orthonormal(xp.matmul(backend.put(Q.T.astype(np.float32)), X).T)
        Q = _orthonormal(xp.matmul(X, backend.put(Z.astype(np.float32))))
    B = xp.matmul(backend.put(np.ascontiguousarray(Q.T, np.float32)), X)
    return Q, backend.to_numpy(B).astype(np.float64)


def _orthonormal(X: Array) -> NDArray[np.float64]:
    return np.linalg.qr(backend.to_numpy(X).astype(np.float64))[0]


def _start(
    Q: NDArray[np.float64], B: NDArray[np.float64], nb: int, method: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    U, s, V = np.linalg.svd(B, full_matrices=False)
    U = Q @ U
    W, H = np.zeros((len(Q), nb)), np.zeros((nb, B.shape[1]))
    rng = np.random.default_rng(SEED)
    level = max(float(Q.mean(0) @ B.mean(1)), 0.0)  # mean of the matrix
    if method == "random":
        scale = np.sqrt(level / nb) + EPSILON
        return scale * rng.random(W.shape), scale * rng.random(H.shape)
    for k in range(min(nb, len(s))):
        sides = [(np.maximum(sign * U[:, k], 0), np.maximum(sign * V[k], 0)) for sign in (1, -1)]
        sizes = [np.linalg.norm(u) * np.linalg.norm(v) for u, v in sides]
        (u, v), size = sides[int(np.argmax(sizes))], max(sizes)
        W[:, k] = np.sqrt(s[k] * size) * u / (np.linalg.norm(u) + EPSILON)
        H[k] = np.sqrt(s[k] * size) * v / (np.linalg.norm(v) + EPSILON)
    if method in ("nndsvda", "nndsvdar"):
        for factor in (W, H):
            zero = factor <= 0
            fill = level / 100 * rng.random(zero.sum()) if method == "nndsvdar" else level
            factor[zero] = fill
    return W, H


def _sweep(W: NDArray[np.float64], products: NDArray[np.float64], gram: NDArray[np.float64]) -> None:
    """One HALS sweep over the columns of W, in place."""
    for k in range(W.shape[1]):
        W[:, k] = np.maximum(W[:, k] + (products[:, k] - W @ gram[:, k]) / (gram[k, k] + EPSILON), EPSILON)
