"""First estimates of cells and background, which the CNMF iterations then refine."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, diags, identity

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.cnmf.initialization.corr_pnr import SeedSearch
from gpucalcium.cnmf.initialization.downscale import downscale, upscale_footprints, upscale_traces
from gpucalcium.cnmf.initialization.graph_nmf import Graph, graphNMF
from gpucalcium.cnmf.initialization.greedy import greedyROI, made_smaller, per_axis, time_last
from gpucalcium.cnmf.initialization.local import checked_options
from gpucalcium.cnmf.initialization.methods import FACTORISATIONS, Factorisation, GreedySearch, Method
from gpucalcium.cnmf.initialization.one_photon import (
    OnePhoton,
    extra_results,
    greedyROI_corr,
    start_one_photon,
)
from gpucalcium.cnmf.initialization.refine import hals
from gpucalcium.cnmf.initialization.smoothing import Smoothing
from gpucalcium.cnmf.initialization.sparse_nmf import sparseNMF
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
    snmf_l1_ratio: float | None = None,
    candidates: float = 1.0,
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
        In upper or lower case: "greedy_roi" and "corr_pnr" look for cells one by one, the latter in one-photon
        movies; "local_nmf" is a greedy search whose footprints are refined in a box around each;
        "sparse_nmf" (see `sparseNMF`), "graph_nmf" (see `graphNMF`), "compressed_nmf" and "pca_ica" factorise the
        whole movie, and find dendrites and axons as well.
    greedyroi_nmf_init_method, greedyroi_nmf_max_iter
        Start and iterations of the background factorisation, see `background_nmf`.
    max_iter_snmf, sigma_smooth_snmf, perc_baseline_snmf, remove_baseline
        Iterations, smoothing and baseline of the four factorisations, see `sparseNMF`.
    alpha_snmf, snmf_l1_ratio
        Penalty of "sparse_nmf", `alpha` and `l1_ratio` of `sparseNMF`; `alpha_snmf` is in the units of the movie.
    SC_kernel, SC_sigma, SC_thr, SC_normalize, SC_use_NN, SC_nnn, lambda_gnmf
        The graph of "graph_nmf", see `graphNMF`; `lambda_gnmf` is in the units of the movie, squared.
    candidates : float
        Of "greedy_roi", with HALS: components looked at for each of the K that are kept, the strongest of those whose
        footprint agrees with what the transients of the trace add to the mean image.
    options_local_NMF : dict
        Of "local_nmf", which needs it; may be empty. ``gSiz``: side of the box around a cell in pixels, default
        twice `gSiz`; ``maxIter``: iterations of HALS, default `maxIter`.
    sn, options_total, min_corr, min_pnr, ring_size_factor, center_psf, ssub_B, init_iter
        Of "corr_pnr", see `greedyROI_corr`.

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
        Seeds by clicking, or "corr_pnr" in a volume.
    ParameterError
        An unknown method, or values that cannot work.
    """
    method = _checked_method(method_init, center_psf)
    movie = Y if isinstance(Y, PixelMovie) else time_last(Y)
    dims, ssub, tsub = movie.dims, _factor(ssub, "ssub"), _factor(tsub, "tsub")
    if method == "corr_pnr":
        if len(dims) != 2:
            raise NotSupportedError(
                "corr_pnr finds cells in planes, and its ring model is one of planes: one-photon light is not "
                "sectioned in depth. For a volume use method_init='greedy_roi'"
            )
        model = OnePhoton.with_options(
            options_total,
            ring_size_factor=ring_size_factor,
            ssub_B=_factor(ssub_B, "ssub_B"),
            init_iter=init_iter,
            nb=nb,
        )
        search = SeedSearch(
            gSig=tuple(per_axis(gSig, 2, "gSig")),
            gSiz=tuple(per_axis(2 * np.asarray(gSig) + 1 if gSiz is None else gSiz, 2, "gSiz")),
            max_number=K,
            center_psf=center_psf,
            min_corr=min_corr,
            min_pnr=min_pnr,
            bd=0,
            seed_method=seed_method,
        )
        return _one_photon(movie, ssub, tsub, search, model, normalize_init, img, sn)
    sigma = per_axis(gSig, len(dims), "gSig")
    size = per_axis([2 * int(s + 0.5) + 1 for s in sigma] if gSiz is None else gSiz, len(dims), "gSiz")
    img = _image(movie, img) if normalize_init else None
    way: Method
    if method in FACTORISATIONS:
        per_unit = 1.0 if img is None else 1 / img.mean()  # penalties are given in units of the movie
        way = Factorisation(
            name=method,
            smoothing=Smoothing(sigma_smooth_snmf, remove_baseline, perc_baseline_snmf),
            max_iter=max_iter_snmf,
            alpha=alpha_snmf * per_unit,
            l1_ratio=snmf_l1_ratio,
            graph=Graph(SC_kernel, SC_sigma, SC_thr, SC_normalize, SC_use_NN, SC_nnn),
            graph_weight=lambda_gnmf * per_unit**2,
        )
    else:
        boxes, rounds = None, maxIter if use_hals else None
        if method == "local_nmf":
            boxes, rounds = checked_options(options_local_NMF, size, maxIter, ssub)
        way = GreedySearch(
            gSig=[s / ssub for s in sigma],
            gSiz=[max(round(s / ssub), 1) for s in size],
            nIter=nIter,
            kernel=kernel,
            window=rolling_length if rolling_sum else 0,
            seed_method=made_smaller(seed_method, ssub),
            rounds=rounds,
            boxes=boxes,
            candidates=candidates,
        )
    start = greedyroi_nmf_init_method, greedyroi_nmf_max_iter
    return _with_background(movie, K, way, nb, start, ssub, tsub, img)


def _with_background(
    movie: PixelMovie,
    K: int,
    way: Method,
    nb: int,
    start: tuple[str, int],
    ssub: int,
    tsub: int,
    img: NDArray | None,
) -> tuple[csc_matrix, NDArray, Any, NDArray, NDArray]:
    """`initialize_components` by a method with a background b f; `start`: of its factorisation."""
    with movie.device():
        frames = downscale(movie, ssub, tsub, img)
        frames = backend.arrays.xp(frames).nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)
        found = way.find(frames, K)
        small = PixelMovie(open_movie(frames), frames.shape[1:])
        if nb < 0 or nb > min(small.d, small.T):
            rest = small.in_fortran_order(backend.to_numpy(found.rest))
            return _full_size(movie, found.A, found.C, None, rest, ssub, tsub, img)
        b, f = background_nmf(found.rest, nb, *start)
        model = way.refine(small, frames, (found.A, found.C, small.in_fortran_order(b), f), K)
    return _full_size(movie, *model, ssub, tsub, img)


def _one_photon(
    movie: PixelMovie,
    ssub: int,
    tsub: int,
    search: SeedSearch,
    model: OnePhoton,
    normalize_init: bool,
    img: NDArray | None,
    sn: NDArray | None,
) -> tuple[Any, ...]:
    """`initialize_components` by 'corr_pnr'; `search` is in pixels of the movie, before it is made smaller."""
    divide = normalize_init and model.ring_size_factor is None  # a ring is fitted in the units of the movie
    img = _image(movie, img) if divide else None
    with movie.device():
        small = downscale(movie, ssub, tsub, img)
        found = start_one_photon(movie, small, ssub, tsub, search.made_smaller(ssub), model, sn)
    A, b, f = found.cells.A, found.b, found.f
    if img is not None:
        scale = diags(np.asarray(img, np.float32).ravel(order="F"))
        A = csc_matrix(scale @ A)
        b, f = (b, scale @ f) if model.nb == -1 else (scale @ b, f)
    return A, found.cells.C, b, f, centers_of_mass(A, movie.dims), extra_results(found)


def _image(movie: PixelMovie, img: NDArray | None) -> NDArray[np.float64]:
    """What pixels are divided by: `img`, or the movie's brightness."""
    img = _brightness(movie) if img is None else np.asarray(img, np.float64)
    if img.shape != movie.dims:
        raise ParameterError(f"img has shape {img.shape}, the field of view is {movie.dims}")
    return img


def _checked_method(method: str, center_psf: bool) -> str:
    """Name of a method in lower case."""
    name = str(method).lower()
    if name not in METHODS:
        raise ParameterError(f"method_init={method!r} is not known; there is {', '.join(METHODS)}")
    if center_psf and name != "corr_pnr":
        raise ParameterError(
            "center_psf=True is the filter of method_init='corr_pnr' (one-photon movies): set both, or neither"
        )
    return name


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


__all__ = [
    "graphNMF",
    "greedyROI",
    "greedyROI_corr",
    "hals",
    "initialize_components",
    "sparseNMF",
]
