"""Components by non-negative matrix factorisation in which pixels that behave alike stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf.initialization.greedy import Found, with_background
from gpucalcium.cnmf.initialization.nmf import EPSILON, Whole, factorise, sketch, start
from gpucalcium.cnmf.initialization.smoothing import Smoothing, checked_rank, found, prepared
from gpucalcium.errors import MemoryBudgetError, ParameterError

KERNELS = ("heat", "cos", "binary")
START_OVERSAMPLING = 10
START_POWER_ITERATIONS = 4
START_ITERATIONS = 100  # of plain HALS, whose factors the graph then smooths
START_TOLERANCE = 1e-4
BLOCK_BYTES = 1 << 26  # of affinities that are computed at once


@dataclass(frozen=True)
class Graph:
    """Which pixels are neighbours, and how much."""

    kernel: str = "heat"
    """"heat": exp(-|y_i - y_j|^2 / sigma); "cos": the cosine of y_i and y_j; "binary": 1 where that is above
    `threshold`."""
    sigma: float = 1
    """Of "heat", the square of a distance."""
    threshold: float = 0
    """Affinities below this are 0."""
    normalize: bool = True
    """Whether the time course of a pixel is first centred and scaled to norm 1."""
    use_nn: bool = False
    """Whether only the nearest neighbours of a pixel keep their affinity, or it is among theirs."""
    nnn: int = 20
    """How many."""

    def __post_init__(self) -> None:
        if self.kernel.lower() not in KERNELS:
            raise ParameterError(f"SC_kernel={self.kernel!r} is not known; there is {', '.join(KERNELS)}")
        if self.sigma <= 0 or self.nnn < 1:
            raise ParameterError(f"SC_sigma={self.sigma}, SC_nnn={self.nnn}: both have to be above 0")


def graphNMF(
    Y_ds: Any,
    nr: int,
    max_iter_snmf: int = 500,
    lambda_gnmf: float = 1,
    sigma_smooth: Sequence[float] = (0.5, 0.5, 0.5),
    remove_baseline: bool = True,
    perc_baseline: float = 20,
    nb: int = 1,
    truncate: float = 2,
    tol: float = 1e-3,
    SC_kernel: str = "heat",
    SC_normalize: bool = True,
    SC_thr: float = 0,
    SC_sigma: float = 1,
    SC_use_NN: bool = False,
    SC_nnn: int = 20,
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Footprints that are alike in pixels whose time courses are alike, and their traces.

    Parameters
    ----------
    Y_ds : (d1, d2[, d3], T)
        Movie with time last. NaN counts as 0.
    nr : int
        Number of components, at most.
    max_iter_snmf : int
        Iterations, at most.
    lambda_gnmf : float
        Weight of the graph, ``lambda tr(A' (D - W) A)`` with footprints of norm 1; the unit is that of the movie,
        squared and summed over time.
    sigma_smooth, remove_baseline, perc_baseline, nb, truncate
        See `sparseNMF`.
    tol : float
        Stop once an iteration changes the footprints by less, relative.
    SC_kernel, SC_normalize, SC_thr, SC_sigma, SC_use_NN, SC_nnn
        The affinities W, see `Graph`.

    Returns
    -------
    A : (d, K) float32
        Footprints of norm 1, pixels in Fortran order.
    C : (K, T) float32
    center : (K, ndim)
        Centres of mass, pixels.
    b : (d, nb) float32, f : (nb, T) float32

    Raises
    ------
    ParameterError
        Values that cannot work.
    MemoryBudgetError
        The affinities of all pairs of pixels do not fit.

    References
    ----------
    Cai, He, Han & Huang (2011), IEEE Trans. Pattern Anal. 33:1548, eqs. 14-15.
    """
    smoothing = Smoothing(sigma_smooth, remove_baseline, perc_baseline, truncate)
    graph = Graph(SC_kernel, SC_sigma, SC_thr, SC_normalize, SC_use_NN, SC_nnn)
    return with_background(
        Y_ds, lambda frames: find_on_graph(frames, nr, smoothing, max_iter_snmf, graph, lambda_gnmf, tol), nb
    )


def find_on_graph(
    frames: Array,
    nr: int,
    smoothing: Smoothing,
    max_iter: int,
    graph: Graph,
    weight: float,
    tol: float = 1e-3,
) -> Found:
    """`graphNMF` on (T, d1, d2[, d3]) frames that are on the device."""
    dims = frames.shape[1:]
    K = checked_rank(nr, max_iter, dims)
    if weight < 0:
        raise ParameterError(f"lambda_gnmf={weight}: expected 0 or more")
    movie = prepared(frames, smoothing)
    X, W = Whole(movie.values), affinities(movie.values, graph)
    begin = start(*sketch(movie.values, K + START_OVERSAMPLING, START_POWER_ITERATIONS), K, "nndsvd")
    images, traces = factorise(X, *begin, max_iter=START_ITERATIONS, tol=START_TOLERANCE)
    images, traces = _on_graph(X, W, images, traces, weight, max_iter, tol)
    return found(movie, dims, images, traces)


def affinities(X: Array, graph: Graph) -> Array:
    """W (d, d) between the rows of X (d, T), on the device: dense, or sparse if only neighbours count.

    Raises
    ------
    MemoryBudgetError
        Too many pixels for a dense one.
    """
    xp, d = backend.arrays.xp(X), len(X)
    if not graph.use_nn and 4 * d * d > backend.budget():
        raise MemoryBudgetError(
            f"the affinities of {d} pixels with each other need {4 * d * d / 2**20:.0f} MiB; the budget is "
            f"{backend.budget() / 2**20:.0f} MiB. Keep nearest neighbours only (SC_use_NN=True), raise ssub, work in "
            "patches (rf), or give more with GPUCALCIUM_MEMORY"
        )
    if graph.normalize:
        X = _unit(X - X.mean(axis=1, keepdims=True))
    directions = X if graph.kernel.lower() == "heat" else _unit(X)
    squares = (directions**2).sum(axis=1)
    step = max(1, BLOCK_BYTES // (4 * d))
    blocks = range(0, d, step)
    if graph.use_nn:
        nearest = [_nearest(_block(directions, squares, graph, at, step), graph.nnn, at) for at in blocks]
        return _symmetric(nearest, d, xp)
    W = xp.empty((d, d), "float32")
    for at in blocks:
        W[at : at + step] = _block(directions, squares, graph, at, step)
    return W


def _unit(X: Array) -> Array:
    """Rows of norm 1; a row of zeros stays."""
    xp = backend.arrays.xp(X)
    norms = xp.sqrt((X**2).sum(axis=1, keepdims=True))
    return X / xp.where(norms > 0, norms, np.float32(1))


def _block(X: Array, squares: Array, graph: Graph, at: int, step: int) -> Array:
    """Affinities of rows `at` ... `at` + `step` with all rows of X."""
    xp, kernel = backend.arrays.xp(X), graph.kernel.lower()
    likeness = xp.matmul(X[at : at + step], X.T)
    if kernel == "heat":
        distance = xp.maximum(squares[at : at + step, None] + squares - 2 * likeness, 0)
        likeness = xp.exp(-distance / np.float32(graph.sigma))
    elif kernel == "binary":
        return (likeness > graph.threshold).astype("float32")
    # footprints stay non-negative only if affinities are
    return xp.where(likeness < graph.threshold, np.float32(0), xp.maximum(likeness, 0))


def _nearest(block: Array, nnn: int, at: int) -> tuple[NDArray, NDArray]:
    """Pixels (n, nnn) that are nearest to the n pixels from `at` on, themselves not counted, and affinities."""
    xp, n = backend.arrays.xp(block), len(block)
    order = xp.argsort(-block, axis=1, kind="stable")[:, : nnn + 1]
    values = block.reshape(-1)[order + backend.put(np.arange(n) * block.shape[1])[:, None]]
    others, kept = backend.to_numpy(order), backend.to_numpy(values).copy()
    itself = others == at + np.arange(n)[:, None]
    itself[~itself.any(1), -1] = True  # one of many that are as near: the last one goes instead
    kept[itself] = 0
    return others, kept


def _symmetric(nearest: list[tuple[NDArray, NDArray]], d: int, xp: Any) -> Array:
    """Sparse W, in which a pixel is a neighbour of another if either is among the nearest of the other."""
    others, values = (np.concatenate(parts) for parts in zip(*nearest, strict=True))
    rows = np.repeat(np.arange(d), others.shape[1])
    one_way = csr_matrix((values.ravel(), (rows, others.ravel())), shape=(d, d), dtype=np.float32)
    W = one_way.maximum(one_way.T).tocsr()
    W.eliminate_zeros()
    parts = tuple(backend.put(x) for x in (W.data, W.indices, W.indptr))
    return backend.arrays.sparse(parts[0]).csr_matrix(parts, shape=W.shape)


def _on_graph(
    X: Whole, W: Array, images: Array, traces: Array, weight: float, max_iter: int, tol: float
) -> tuple[Array, Array]:
    """Multiplicative updates with images of norm 1; images (K, d), traces (K, T)."""
    xp, pull = backend.arrays.xp(images), np.float64(weight)
    degree = (W @ xp.ones((images.shape[1], 1), "float32")).T.astype("float64")
    images, traces = _unit_images(images, traces)
    for _ in range(max_iter if len(images) else 0):
        before = images
        smooth = (W @ images.T.astype("float32")).T.astype("float64")
        above = X.images(traces) + pull * smooth
        below = xp.matmul(xp.matmul(traces, traces.T), images) + pull * degree * images
        images, traces = _unit_images(images * above / (below + EPSILON), traces)
        below = xp.matmul(xp.matmul(images, images.T), traces)
        traces = traces * X.traces(images) / (below + EPSILON)
        change, size = (backend.to_numpy((x**2).sum()) for x in (images - before, images))
        if change <= tol**2 * size:
            break
    return images, traces


def _unit_images(images: Array, traces: Array) -> tuple[Array, Array]:
    """The same components with images of norm 1; an image of zeros stays."""
    xp = backend.arrays.xp(images)
    norms = xp.sqrt((images**2).sum(axis=1, keepdims=True))
    return images / xp.where(norms > 0, norms, 1.0), traces * norms
