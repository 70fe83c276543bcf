"""Background of what the first cells leave: a non-negative factorisation of low rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.initialization.nmf import (
    OVERSAMPLING,
    POWER_ITERATIONS,
    STARTS,
    LowRank,
    Matrix,
    factorise,
    sketch,
    start,
)
from gpucalcium.errors import ParameterError

TOLERANCE = 1e-4  # relative change of the time courses in one iteration
SMOOTH_ITERATIONS = (
    1  # of a sketch of a movie that is made as it is read: without noise, one pair of passes is enough
)


class Streamed:
    """A movie as a (d, T) matrix, pixels in Fortran order, that is read chunk by chunk for every product."""

    def __init__(self, movie: PixelMovie) -> None:
        self._movie = movie
        self.shape = (movie.d, movie.T)

    def images(self, traces: Array) -> Array:
        """C X', (K, d) float64."""
        movie, K = self._movie, len(traces)
        everywhere, columns = np.tile(np.arange(movie.d), K), np.repeat(np.arange(K), movie.d)
        sums, _ = movie.sample(backend.to_numpy(traces), everywhere, columns)
        return backend.put(np.ascontiguousarray(movie.in_fortran_order(sums.reshape(K, movie.d).T).T))

    def traces(self, images: Array) -> Array:
        """A' X, (K, T) float64."""
        return backend.put(self._movie.project(csc_matrix(backend.to_numpy(images).T)))


def background_nmf(
    rest: Array | Matrix, nb: int, method: str = "nndsvdar", max_iter: int = 200
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors b f of a non-negative matrix, rank `nb`.

    Parameters
    ----------
    rest : (d, T) float32, or a `Matrix`
        Movie without cells, not negative.
    nb : int
        Rank; 0 gives empty factors.
    method : {"nndsvd", "nndsvda", "nndsvdar", "random"}
        Where to start, see `nmf.start`.
    max_iter : int
        HALS iterations at most.

    Returns
    -------
    b : (d, nb), f : (nb, T) float32

    Raises
    ------
    ParameterError
        An unknown `method`, or a rank below 0.

    References
    ----------
    Zhou, Cichocki & Xie (2012), IEEE Trans. Signal Process. 60:2928: a low-rank sketch takes the matrix's place.
    """
    if method not in STARTS:
        raise ParameterError(
            f"greedyroi_nmf_init_method={method!r} is not known; there is {', '.join(STARTS)}"
        )
    if nb < 0:
        raise ParameterError(
            f"nb={nb}: expected 0 or more; the background of full rank, nb=-1, is that of initialize_components"
        )
    d, T = rest.shape
    if nb == 0:
        return np.zeros((d, 0), np.float32), np.zeros((0, T), np.float32)
    streamed = isinstance(rest, Streamed)
    parts = sketch(rest, nb + OVERSAMPLING, SMOOTH_ITERATIONS if streamed else POWER_ITERATIONS)
    images, f = factorise(LowRank(*parts), *start(*parts, nb, method), max_iter=max_iter, tol=TOLERANCE)
    b = backend.to_numpy(images).T
    return np.ascontiguousarray(b, np.float32), backend.to_numpy(f).astype(np.float32)
