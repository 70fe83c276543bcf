"""Background of what the first cells leave: a non-negative factorisation of low rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf.initialization.nmf import OVERSAMPLING, STARTS, LowRank, factorise, sketch, start
from gpucalcium.errors import ParameterError

TOLERANCE = 1e-4  # relative change of the time courses in one iteration


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
    parts = sketch(rest, nb + OVERSAMPLING)
    images, f = factorise(LowRank(*parts), *start(*parts, nb, method), max_iter=max_iter, tol=TOLERANCE)
    b = backend.to_numpy(images).T
    return np.ascontiguousarray(b, np.float32), backend.to_numpy(f).astype(np.float32)
