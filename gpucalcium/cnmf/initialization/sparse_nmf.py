"""Components by sparse non-negative matrix factorisation, for dendrites and axons, which no box contains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from gpucalcium.backend import Array
from gpucalcium.cnmf.initialization.greedy import Found, with_background
from gpucalcium.cnmf.initialization.nmf import Penalty, Whole, factorise, sketch, start
from gpucalcium.cnmf.initialization.smoothing import Smoothing, checked_rank, found, prepared
from gpucalcium.errors import ParameterError

log = logging.getLogger(__name__)

START_OVERSAMPLING = 10
START_POWER_ITERATIONS = 4  # components near the noise start from good singular vectors, too
TOLERANCE = 1e-4  # relative change of the traces in one iteration


def sparseNMF(
    Y_ds: Any,
    nr: int,
    max_iter_snmf: int = 500,
    alpha: float = 1000.0,
    sigma_smooth: Sequence[float] = (0.5, 0.5, 0.5),
    remove_baseline: bool = True,
    perc_baseline: float = 20,
    nb: int = 1,
    truncate: float = 2,
    *,
    l1_ratio: float | None = None,
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Footprints and traces that are sparse, with no thought of where or how large a component is.

    Parameters
    ----------
    Y_ds : (d1, d2[, d3], T)
        Movie with time last. NaN counts as 0.
    nr : int
        Number of components, at most: those that the penalty beats are left out.
    max_iter_snmf : int
        Iterations of HALS, at most.
    alpha : float
        Weight of the penalty, in the units of the movie if `l1_ratio` is None.
    sigma_smooth : sequence of float
        Widths of the Gaussian that the movie is smoothed with, along time and the axes of a frame.
    remove_baseline : bool
        Whether each pixel first loses its `perc_baseline`-th percentile, and what is then below 0.
    perc_baseline : float
    nb : int
        Rank of the background, a non-negative factorisation of what is left, baseline included.
    truncate : float
        Reach of the Gaussian in widths.
    l1_ratio : float, optional
        None: the penalty is ``alpha (|A|_1 + |C|_1)``. 0 to 1: it grows with the movie,
        ``alpha l1_ratio (T |A|_1 + d |C|_1) + alpha (1 - l1_ratio) / 2 (T |A|^2 + d |C|^2)``, of which only the
        first half makes anything sparse.

    Returns
    -------
    A : (d, K) float32
        Footprints, pixels in Fortran order.
    C : (K, T) float32
    center : (K, ndim)
        Centres of mass, pixels.
    b : (d, nb) float32, f : (nb, T) float32

    Raises
    ------
    ParameterError
        Values that cannot work.

    References
    ----------
    Hoyer (2002), Non-negative sparse coding, IEEE NNSP, eq. 4; Cichocki & Phan (2009), IEICE E92-A:708.
    """
    smoothing = Smoothing(sigma_smooth, remove_baseline, perc_baseline, truncate)
    return with_background(
        Y_ds, lambda frames: find_sparse(frames, nr, smoothing, max_iter_snmf, alpha, l1_ratio), nb
    )


def find_sparse(
    frames: Array, nr: int, smoothing: Smoothing, max_iter: int, alpha: float, l1_ratio: float | None
) -> Found:
    """`sparseNMF` on (T, d1, d2[, d3]) frames that are on the device."""
    dims = frames.shape[1:]
    K = checked_rank(nr, max_iter, dims)
    if alpha < 0 or not 0 <= (l1_ratio or 0) <= 1:
        raise ParameterError(
            f"alpha={alpha}, l1_ratio={l1_ratio}: expected a weight of 0 or more, and None or a share from 0 to 1"
        )
    movie = prepared(frames, smoothing)
    begin = start(*sketch(movie.values, K + START_OVERSAMPLING, START_POWER_ITERATIONS), K, "nndsvd")
    penalty = _penalty(alpha, l1_ratio, *movie.values.shape)
    images, traces = factorise(Whole(movie.values), *begin, penalty=penalty, max_iter=max_iter, tol=TOLERANCE)
    components = found(movie, dims, images, traces)
    if K and not components.A.shape[1]:
        log.warning("sparse NMF left no component: the penalty, alpha=%g, is too much for this movie", alpha)
    return components


def _penalty(alpha: float, l1_ratio: float | None, d: int, T: int) -> Penalty:
    if l1_ratio is None:
        return Penalty(images_l1=alpha, traces_l1=alpha)
    l1, l2 = alpha * l1_ratio, alpha * (1 - l1_ratio)
    return Penalty(images_l1=l1 * T, images_l2=l2 * T, traces_l1=l1 * d, traces_l2=l2 * d)
