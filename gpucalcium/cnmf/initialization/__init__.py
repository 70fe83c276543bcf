"""First estimates of cells and background, which the CNMF iterations then refine."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, diags, identity

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.cnmf.initialization.downscale import downscale, upscale_footprints, upscale_traces
from gpucalcium.cnmf.initialization.greedy import find_cells, greedyROI, per_axis, time_last
from gpucalcium.cnmf.initialization.refine import look_again, refine_hals
from gpucalcium.errors import NotSupportedError, ParameterError
from gpucalcium.movies import open_movie

log = logging.getLogger(__name__)

EPSILON = 2.0**-23
METHODS = ("greedy_roi", "corr_pnr", "sparse_nmf", "graph_nmf", "pca_ica", "compressed_nmf", "local_nmf")


def initialize_components(
    Y: Any,
    K: int = 30,
    gSig: Any = (5, 5),
    gSiz: Any = None,
    ssub: float = 1,
    tsub: float = 1,
    nIter: int = 5,
    maxIter: int = 5,
    nb: int = 1,
    kernel: NDArray | None = None,
    use_hals: bool = True,
    normalize_init: bool = True,
    img: NDArray | None = None,
    method_init: str = "greedy_roi",
    max_iter_snmf: int = 500,
    alpha_snmf: float = 1000.0,
    sigma_smooth_snmf: tuple[float, ...] = (0.5, 0.5, 0.5),
    perc_baseline_snmf: float = 20,
    options_local_NMF: Any = None,
    rolling_sum: bool = False,
    rolling_length: int = 100,
    sn: NDArray | None = None,
    options_total: Any = None,
    min_corr: float = 0.8,
    min_pnr: float = 10,
    seed_method: Any = "auto",
    ring_size_factor: float | None = 1.5,
    center_psf: bool = False,
    ssub_B: int = 2,
    init_iter: int = 2,
    remove_baseline: bool = True,
    SC_kernel: str = "heat",
    SC_sigma: float = 1,
    SC_thr: float = 0,
    SC_normalize: bool = True,
    SC_use_NN: bool = False,
    SC_nnn: int = 20,
    lambda_gnmf: float = 1,
    *,
    greedyroi_nmf_init_method: str = "nndsvdar",
    greedyroi_nmf_max_iter: int = 200,
    snmf_l1_ratio: float = 0.0,
) -> tuple[csc_matrix, NDArray, Any, NDArray, NDArray]:
    """First estimate of footprints, traces and background.

    Parameters
    ----------
    Y : (d1, d2[, d3], T)
        Movie with time last.
    K : int
        Number of cells.
    gSig, gSiz : float or sequence
        Standard deviation of a cell and side of its box, pixels; `gSiz` None: twice `gSig` plus one.
    ssub, tsub : int
        The search is done on block means of this size in space and time, what it finds brought back.
    nIter, kernel, rolling_sum, rolling_length, seed_method
        See `greedyROI`.
    maxIter : int
        Iterations of the refinement by HALS.
    nb : int
        Rank of the background; 0: none; -1: full rank, `b` the identity and `f` the movie without the cells.
    use_hals : bool
        Whether to refine at all.
    normalize_init : bool
        Whether pixels are first divided by `img`, so that dim ones count as much as bright ones.
    img : (d1, d2[, d3]), optional
        Default: the movie's mean plus the median of that.
    method_init : str
        "greedy_roi"; the others are not there yet.
    greedyroi_nmf_init_method, greedyroi_nmf_max_iter
        Start and iterations of the background factorisation, see `background_nmf`.
    max_iter_snmf, alpha_snmf, sigma_smooth_snmf, perc_baseline_snmf, snmf_l1_ratio, remove_baseline,
    options_local_NMF, sn, options_total, min_corr, min_pnr, ring_size_factor, center_psf, ssub_B, init_iter,
    SC_kernel, SC_sigma, SC_thr, SC_normalize, SC_use_NN, SC_nnn, lambda_gnmf
        Of other methods; "greedy_roi" does not look at them.

    Returns
    -------
    A : (d, K) float32 CSC, pixels in Fortran order
    C : (K, T) float32
    b : (d, nb) float32, f : (nb, T) float32
    center : (K, ndim)
        Centres of mass, pixels.

    Raises
    ------
    NotSupportedError
        A method or option that is not there yet.
    ParameterError
        An unknown method, or values that cannot work.
    """
    _check_method(method_init, options_local_NMF, center_psf)
    movie = Y if isinstance(Y, PixelMovie) else time_last(Y)
    dims, ssub, tsub = movie.dims, _factor(ssub, "ssub"), _factor(tsub, "tsub")
    sigma = per_axis(gSig, len(dims), "gSig")
    size = per_axis([2 * int(s + 0.5) + 1 for s in sigma] if gSiz is None else gSiz, len(dims), "gSiz")
    if normalize_init:
        img = _brightness(movie) if img is None else np.asarray(img, np.float64)
        if img.shape != dims:
            raise ParameterError(f"img has shape {img.shape}, the field of view is {dims}")
    else:
        img = None
    search = partial(
        find_cells,
        gSig=[s / ssub for s in sigma],
        gSiz=[max(round(s / ssub), 1) for s in size],
        nIter=nIter,
        kernel=kernel,
        window=rolling_length if rolling_sum else 0,
    )
    given = not isinstance(seed_method, str)
    seeds = np.asarray(seed_method) // ssub if given else seed_method
    with movie.device():
        frames = downscale(movie, ssub, tsub, img)
        found = search(frames, K, seed_method=seeds)
        small = PixelMovie(open_movie(frames), frames.shape[1:])
        if nb < 0 or nb > min(small.d, small.T):
            rest = small.in_fortran_order(backend.to_numpy(found.rest))
            return _full_size(movie, found.A, found.C, None, rest, ssub, tsub, img)
        b, f = background_nmf(found.rest, nb, greedyroi_nmf_init_method, greedyroi_nmf_max_iter)
        model = found.A, found.C, small.in_fortran_order(b), f
        if use_hals:
            model = refine_hals(small, *model, maxIter=maxIter)
            if not given:
                model = look_again(small, frames, model, K, search, maxIter)
    return _full_size(movie, *model, ssub, tsub, img)


def _check_method(method: str, options_local: Any, center_psf: bool) -> None:
    name = str(method).lower()
    if name not in METHODS:
        raise ParameterError(f"method_init={method!r} is not known; there is {', '.join(METHODS)}")
    if name == "local_nmf" and options_local is None:
        raise ParameterError("You need to define arguments for local NMF: options_local_NMF is None")
    if name != "greedy_roi":
        raise NotSupportedError(f"method_init={method!r} is not there yet; this version has 'greedy_roi'")
    if center_psf:
        raise NotSupportedError(
            "center_psf=True belongs to the one-photon method 'corr_pnr', which is not there yet"
        )


def _factor(given: float, name: str) -> int:
    if given is None or given < 1 or given != int(given):
        raise ParameterError(f"{name}={given}: expected a whole number, 1 or more")
    return int(given)


def _brightness(movie: PixelMovie) -> NDArray[np.float64]:
    mean = np.nan_to_num(movie.mean())
    if mean.mean() < 0:
        log.warning("the movie is below zero on average, which no background can be: add a constant to it")
    image = mean.reshape(movie.dims) + np.median(mean) + EPSILON
    # a dark offset may bring the sum to zero or below, where division would turn the pixel over
    floor = EPSILON + 1e-3 * max(float(np.abs(mean).max(initial=0)), EPSILON)
    return np.maximum(image, floor)


def _full_size(
    movie: PixelMovie,
    A: csc_matrix,
    C: NDArray,
    b: Any,
    f: NDArray,
    ssub: int,
    tsub: int,
    img: NDArray | None,
) -> tuple[csc_matrix, NDArray, Any, NDArray, NDArray]:
    """Footprints and traces in the pixels and frames of the movie, in its units; b None: f is a whole movie."""
    dims = movie.dims
    A, C = upscale_footprints(A, dims, ssub), upscale_traces(C, movie.T, tsub)
    f = upscale_traces(f, movie.T, tsub)
    scale = None if img is None else np.asarray(img, np.float32).ravel(order="F")
    if b is None:
        f = upscale_footprints(csc_matrix(f), dims, ssub).toarray()
        f = f if scale is None else f * scale[:, None]
        b = identity(movie.d, np.float32, format="csc")
    else:
        b = upscale_footprints(csc_matrix(b), dims, ssub).toarray()
        b = b if scale is None else b * scale[:, None]
    if scale is not None:
        A = csc_matrix(diags(scale) @ A, dtype=np.float32)
    A.eliminate_zeros()
    return A, C, b, f, centers_of_mass(A, dims)


__all__ = ["greedyROI", "initialize_components", "refine_hals"]
