"""The steps of a CNMF run, on the parameters and estimates of one object."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, hstack, issparse

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import FrameSource
from gpucalcium.cnmf import hals
from gpucalcium.cnmf._movie import PixelMovie, cropped, images_movie
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization import initialize_components
from gpucalcium.cnmf.initialization.seeded import background_beside, components_in_masks
from gpucalcium.cnmf.merging import merge_components
from gpucalcium.cnmf.missing import without_missing
from gpucalcium.cnmf.ring_fit import (
    beside_ring,
    cut_to_cells,
    factorise_ring,
    fit_ring,
    has_ring,
    low_rank,
    merge_at_one_place,
    refined_beside_ring,
    ring_beside,
)
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.cnmf.temporal import deconvolve_traces, residual_traces, update_temporal_components
from gpucalcium.deconvolution import movie_noise
from gpucalcium.errors import MovieShapeError, NotSupportedError, ParameterError
from gpucalcium.movies import open_movie

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF

log = logging.getLogger(__name__)

INIT_OPTIONS = (
    "K candidates gSig gSiz ssub tsub nIter maxIter nb kernel normalize_init method_init max_iter_snmf alpha_snmf "
    "sigma_smooth_snmf perc_baseline_snmf options_local_NMF rolling_sum rolling_length min_corr min_pnr seed_method "
    "ring_size_factor center_psf ssub_B init_iter SC_kernel SC_sigma SC_thr SC_normalize SC_use_NN SC_nnn "
    "lambda_gnmf greedyroi_nmf_init_method greedyroi_nmf_max_iter snmf_l1_ratio"
).split()
SPATIAL_OPTIONS = (
    "dist expandCore extract_cc maxthr medw method_exp method_ls noise_thr normalize_yyt_one nrgthr se ss thr_method "
    "update_background_components"
).split()
MERGED_AT_ONCE = 50  # groups


def check_supported(cnmf: CNMF) -> None:
    """Refuse, before any work, what this version does not carry out."""
    params = cnmf.params
    if params.get("init", "center_psf") and params.get("init", "method_init").lower() != "corr_pnr":
        raise ParameterError(
            "center_psf=True is the filter of method_init='corr_pnr' (one-photon movies): set both, or neither"
        )
    known = params.get("init", "method_init").lower() == "corr_pnr" or params.get("patch", "rf") is not None
    seeds = params.get("init", "seed_method")
    if params.get("init", "K") is None and isinstance(seeds, str) and not known and cnmf.estimates.A is None:
        raise ParameterError(
            "init.K=None: how many cells there are follows from their seeds in method_init='corr_pnr', and from the "
            "size of a patch with rf; otherwise give K"
        )
    if params.get("preprocess", "compute_g"):
        raise NotSupportedError(
            "compute_g=True asks for one calcium model for all pixels, but every trace gets its own: use "
            "compute_g=False (preprocess_data computes the common one)"
        )
    if params.get("init", "nb") < 0 and not params.get("patch", "only_init"):
        raise NotSupportedError(
            "nb=-1 keeps all that the first cells leave as background, so there is nothing to refine: "
            "use nb >= 0, or only_init=True"
        )


def whole_field(cnmf: CNMF, part: FrameSource) -> None:
    """All steps on the whole of `part` at once."""
    movie = images_movie(part)
    with movie.device(), stage("CNMF", 7, "steps") as bar:
        all_steps(cnmf, movie, bar.update)


def fit(
    cnmf: CNMF,
    images: Any,
    indices: Sequence[slice],
    run: Callable[[CNMF, FrameSource], None] = whole_field,
) -> None:
    """`CNMF.fit`: `run` works on a copy, whose results are taken over once all is done."""
    check_supported(cnmf)
    source = open_movie(images)
    dims = tuple(source.shape[1:])
    if not all(isinstance(part, slice) for part in indices):
        raise ParameterError(f"indices={indices!r}: expected a slice for each axis of the field of view")
    window = tuple(indices) + (slice(None),) * (len(dims) - len(indices))
    if len(window) != len(dims):
        raise MovieShapeError(f"indices names {len(window)} axes, but the field of view is {dims}")
    part = cropped(source, window)
    if part is not source and has_ring(cnmf):
        raise NotSupportedError(
            "indices: the weights of a ring model are those of the field they were fitted on, and part of the field "
            "has no place for them in the whole: crop the movie first, and fit that"
        )
    if len(part) < 2:
        raise MovieShapeError(
            f"the movie has {len(part)} frame(s); cells can only be told from a background in 2 or more"
        )
    work = copy.copy(cnmf)
    work.estimates = copy.copy(cnmf.estimates)
    work.estimates.dims = part.shape[1:]
    if work.estimates.A is not None and part is not source:
        _crop_estimates(work.estimates, dims, window)
    run(work, part)
    if part is not source:
        _embed(work.estimates, dims, window)
    found = work.estimates.normalize_components()
    found.dims, found.nr, found.center = dims, found.A.shape[1], centers_of_mass(found.A, dims)
    work.dims = dims
    vars(cnmf).update(vars(work))
    if not found.A.shape[1]:
        still = not np.any(found.sn)
        log.warning(
            "no components: %s", "the movie does not change" if still else "nothing stands out of the noise"
        )


def all_steps(cnmf: CNMF, movie: PixelMovie, done: Callable[[], object]) -> None:
    """From noise levels to traces; `done` is called after each of the seven steps."""
    params, estimates = cnmf.params, cnmf.estimates
    movie = preprocess(cnmf, movie)
    done()
    if estimates.A is None:
        initialize(cnmf, movie)
    elif estimates.C is None:
        start_from_masks(cnmf, movie)
    elif estimates.f is None and not has_ring(cnmf):
        estimates.b, estimates.f = background_beside(
            movie, estimates.A, estimates.C, params.get("init", "nb")
        )
    done()
    refined = not params.get("patch", "only_init")
    if estimates.W is None and (refined_beside_ring(cnmf) if refined else has_ring(cnmf)):
        fit_ring(cnmf, movie)
    if not refined:
        if not refined_beside_ring(cnmf):  # whose start has traces deconvolved beside their background
            compute_residuals(cnmf, movie)
            estimates.bl = estimates.c1 = estimates.neurons_sn = None
        return
    refine(cnmf, movie, done)
    if estimates.W is not None and params.get("init", "nb"):
        factorise_ring(cnmf, movie)


def refine(cnmf: CNMF, movie: PixelMovie, done: Callable[[], object]) -> None:
    """Two rounds of footprints and traces, with merging between them; `done` is called after each step."""
    params, p = cnmf.params, cnmf.params.get("preprocess", "p")
    update_spatial(cnmf, movie)
    done()
    if params.get("patch", "skip_refinement"):
        update_temporal(cnmf, movie, p)
        return
    # traces without noise say better what is one cell, and fit footprints better; beside a ring, plain ones do
    update_temporal(cnmf, movie, min(p, 1) if cnmf.estimates.W is None else 0)
    done()
    if params.get("merging", "do_merge"):
        merge(cnmf, MERGED_AT_ONCE, True, params.get("merging", "max_merge_area"))
    done()
    update_spatial(cnmf, movie)
    done()
    update_temporal(cnmf, movie, p)
    done()


def preprocess(cnmf: CNMF, movie: PixelMovie) -> PixelMovie:
    """Noise level of each pixel; returns the movie, with missing values filled if there are any."""
    options = cnmf.params.get_group("preprocess")
    if options["check_nan"] and movie.source.dtype.kind == "f":
        movie = without_missing(movie)
    if options["sn"] is not None:
        sn = np.asarray(options["sn"], np.float32).ravel(order="F")
    else:
        image = movie_noise(
            movie.source,
            noise_range=options["noise_range"],
            noise_method=options["noise_method"],
            max_num_samples_fft=options["max_num_samples_fft"],
        )
        sn = backend.to_numpy(image).ravel(order="F")
    cnmf.estimates.sn = sn
    return movie


def initialize(cnmf: CNMF, movie: PixelMovie) -> None:
    """First estimates of footprints, traces and background."""
    group = cnmf.params.get_group("init")
    options = {name: group[name] for name in INIT_OPTIONS}
    if refined_beside_ring(cnmf) and not cnmf.params.get("patch", "only_init"):
        options["nb"] = 0  # the ring model itself, which is factorised once cells are refined
    found: tuple[Any, ...] = initialize_components(
        movie, sn=cnmf.estimates.sn, options_total=cnmf.params.groups, **options
    )
    A, C, b, f, center = found[:5]
    vars(cnmf.estimates).update(A=A, C=C, b=b, f=f, center=center, dims=movie.dims)
    if len(found) > 5:  # of a one-photon movie
        S, bl, c1, noise, g, YrA, lam, *ring = found[5]
        vars(cnmf.estimates).update(S=S, bl=bl, c1=c1, neurons_sn=noise, g=g, YrA=YrA, R=YrA, lam=lam)
        cnmf.estimates.W, cnmf.estimates.b0 = ring or (None, None)


def start_from_masks(cnmf: CNMF, movie: PixelMovie) -> None:
    """Footprints in the given masks, with traces and background."""
    estimates, masks = cnmf.estimates, csc_matrix(cnmf.estimates.A) != 0
    if refined_beside_ring(cnmf):
        nothing = csc_matrix((movie.d, 0)), np.zeros((0, movie.T), np.float32)
        ring = ring_beside(cnmf, movie, *nothing)
        A, C, b, f = components_in_masks(ring.without_background(movie, *nothing), masks, 0)
    else:
        A, C, b, f = components_in_masks(movie, masks, cnmf.params.get("init", "nb"))
    vars(estimates).update(A=A, C=C, b=b, f=f, center=centers_of_mass(A, movie.dims), dims=movie.dims)


def update_spatial(cnmf: CNMF, movie: PixelMovie) -> None:
    """New footprints and background images."""
    group, estimates = cnmf.params.get_group("spatial"), cnmf.estimates
    b, f = low_rank(estimates)
    if estimates.A.shape[1] == 0 and (f is None or len(f) == 0):
        return
    A, b, C, f = update_spatial_components(
        beside_ring(estimates, movie),
        C=estimates.C,
        f=f,
        A_in=estimates.A,
        sn=estimates.sn,
        b_in=b,
        dims=estimates.dims,
        low_rank_background=cnmf.params.get("patch", "low_rank_background"),
        nb=cnmf.params.get("init", "nb"),
        **{name: group[name] for name in SPATIAL_OPTIONS},
    )
    if estimates.W is None:
        vars(estimates).update(A=A, b=b, C=C, f=f)
        return
    estimates.A, estimates.C = cut_to_cells(cnmf, A), C


def update_temporal(cnmf: CNMF, movie: PixelMovie, p: int) -> None:
    """New traces and background time courses, with an AR model of order p."""
    group, estimates = cnmf.params.get_group("temporal"), cnmf.estimates
    group["p"] = p
    if group["s_min"]:
        estimates.normalize_components()  # spikes are compared in the units of the traces that a fit gives
    b, f = low_rank(estimates)
    C, A, b, f, S, bl, c1, sn, g, YrA, lam = update_temporal_components(
        beside_ring(estimates, movie), estimates.A, b, estimates.C, f, **group
    )
    vars(estimates).update(C=C, A=A, S=S, bl=bl, c1=c1, neurons_sn=sn, g=g, YrA=YrA, R=YrA, lam=lam)
    if estimates.W is None:
        estimates.b, estimates.f = b, f


def merge(cnmf: CNMF, mx: int, fast_merge: bool, max_merge_area: float | None) -> None:
    """Merge overlapping components with correlated traces."""
    estimates, params = cnmf.estimates, cnmf.params
    A, C, nr, merged, S, bl, c1, sn, g, empty, R = merge_components(
        None,
        estimates.A,
        estimates.b,
        estimates.C,
        estimates.YrA,
        estimates.f,
        estimates.S,
        estimates.sn,
        {**params.get_group("temporal"), "p": _order(estimates)},
        params.get_group("spatial"),
        bl=estimates.bl,
        c1=estimates.c1,
        sn=estimates.neurons_sn,
        g=estimates.g,
        thr=params.get("merging", "merge_thr"),
        mx=mx,
        fast_merge=fast_merge,
        max_merge_area=max_merge_area,
    )
    vars(estimates).update(
        A=A, C=C, nr=nr, merged_ROIs=merged, S=S, bl=bl, c1=c1, neurons_sn=sn, g=g, YrA=R, R=R, lam=None
    )
    cnmf.empty_merged = empty
    if estimates.W is not None:
        merge_at_one_place(cnmf, _order(estimates))


def _order(estimates: Estimates) -> int:
    """Order of the AR models that the estimates have now."""
    return 0 if estimates.g is None or not len(estimates.g) else int(np.size(estimates.g[0]))


def compute_residuals(cnmf: CNMF, movie: PixelMovie) -> None:
    """Residual trace of each component."""
    estimates = cnmf.estimates
    both, Cf, K = _model(estimates, movie)
    estimates.YrA = estimates.R = residual_traces(beside_ring(estimates, movie), both, Cf)[:K].astype(
        np.float32
    )


def _model(estimates: Estimates, movie: PixelMovie) -> tuple[csc_matrix, NDArray[np.float64], int]:
    """[A b], [C; f], and the number of components."""
    A = csc_matrix(estimates.A)
    b, f = low_rank(estimates)
    if b is None or f is None:
        return csc_matrix(A, dtype=np.float32), np.array(estimates.C, np.float64), A.shape[1]
    both = csc_matrix(hstack([A, csc_matrix(b)]), dtype=np.float32)
    return both, np.vstack([estimates.C, f]).astype(np.float64), A.shape[1]


def deconvolve(cnmf: CNMF, options: dict[str, Any]) -> None:
    """`constrained_foopsi` on the noisy traces."""
    estimates = cnmf.estimates
    noisy = np.asarray(estimates.C) + np.asarray(estimates.YrA)
    group = {**cnmf.params.get_group("temporal"), **options}
    p = group.pop("p")
    found = deconvolve_traces(noisy, p, **group)
    residual = noisy - found.C
    vars(estimates).update(
        C=found.C, S=found.S, bl=found.bl, c1=found.c1, neurons_sn=found.sn, g=found.g, lam=found.lam,
        YrA=residual, R=residual,
    )  # fmt: skip


def hals_traces(
    cnmf: CNMF,
    movie: PixelMovie,
    rows: list[int],
    update_bck: bool,
    bck_non_neg: bool,
    iters: int,
    tol: float,
) -> None:
    """`CNMF.HALS4traces`; `rows`: components in the order in which they are updated."""
    estimates = cnmf.estimates
    both, Cf, K = _model(estimates, movie)
    background = list(range(K, len(Cf)))
    C, noisy = hals.hals_traces(
        beside_ring(estimates, movie).project(both),
        both.T @ both,
        Cf,
        order=rows + (background if update_bck else []),
        free=[] if bck_non_neg else background,
        sweeps=iters,
        tol=tol,
    )
    estimates.C = C[:K].astype(np.float32)
    estimates.YrA = estimates.R = (noisy - C)[:K].astype(np.float32)
    if background:
        estimates.f = C[K:].astype(np.float32)


def hals_footprints(cnmf: CNMF, movie: PixelMovie, update_bck: bool, num_iter: int) -> None:
    """`CNMF.HALS4footprints`: background images may change everywhere, footprints on their support."""
    estimates = cnmf.estimates
    both, Cf, K = _model(estimates, movie)
    if update_bck and len(Cf) > K:
        both = csc_matrix(hstack([both[:, :K], _full(both[:, K:])]))
    updated = slice(None) if update_bck else slice(0, K)
    both = hals.hals_footprints(beside_ring(estimates, movie), both, Cf, num_iter, updated)
    estimates.A = both[:, :K]
    if len(Cf) > K:
        estimates.b = both[:, K:] if issparse(estimates.b) else both[:, K:].toarray()


def _full(b: csc_matrix) -> csc_matrix:
    """A matrix with every entry stored, zeros as well."""
    d, n = b.shape
    rows = np.tile(np.arange(d), n)
    return csc_matrix((b.toarray().ravel(order="F"), rows, np.arange(0, d * n + 1, d)), shape=b.shape)


# ---------------------------------------------------------------------------- part of the field of view


def _rows_of(dims: tuple[int, ...], window: tuple[slice, ...]) -> NDArray[np.int64]:
    """Pixels (Fortran order) of the whole field that a part of it has, in its own Fortran order."""
    pixels = np.arange(int(np.prod(dims))).reshape(dims, order="F")
    return pixels[window].ravel(order="F")


def _crop_estimates(estimates: Estimates, dims: tuple[int, ...], window: tuple[slice, ...]) -> None:
    rows = _rows_of(dims, window)
    estimates.A = csc_matrix(csc_matrix(estimates.A).tocsr()[rows])
    if estimates.b is not None:
        estimates.b = csc_matrix(estimates.b).tocsr()[rows].toarray()


def _embed(estimates: Estimates, dims: tuple[int, ...], window: tuple[slice, ...]) -> None:
    rows = _rows_of(dims, window)
    d = int(np.prod(dims))
    part = csc_matrix(estimates.A)
    estimates.A = csc_matrix((part.data, rows[part.indices], part.indptr), shape=(d, part.shape[1]))
    estimates.A.sort_indices()
    whole_b = np.zeros((d, estimates.b.shape[1]), np.float32)
    whole_b[rows] = estimates.b.toarray() if issparse(estimates.b) else estimates.b
    sn = np.zeros(d, np.float32)
    sn[rows] = estimates.sn
    estimates.b, estimates.sn = whole_b, sn
    estimates.W = estimates.b0 = None  # b f, which the ring model was made into, has a place in the whole
