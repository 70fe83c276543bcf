"""Update of the footprints and of the background images, the traces being given."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, hstack, issparse

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie, pixel_movie
from gpucalcium.cnmf.footprints import determine_search_location, threshold_components
from gpucalcium.errors import ArrayShapeError, ParameterError

MAX_SWEEPS = 20_000  # of coordinate descent in one pixel; ten suffice unless two traces are all but equal
TOLERANCE = 1e-5  # of the penalty: how exactly the optimality conditions hold
RESIDUAL_BOUND = 1.2  # nnls_L0 drops regressors while the residual is within this of noise level^2 x frames
BACKGROUND_SWEEPS = 5
CONSTANT = 1e-6  # of its norm: a trace that varies less is one value, as single precision has it


def update_spatial_components(
    Y: Any,
    C: NDArray | None = None,
    f: NDArray | None = None,
    A_in: Any = None,
    sn: NDArray | None = None,
    dims: tuple[int, ...] | None = None,
    min_size: float = 3,
    max_size: float = 8,
    dist: float = 3,
    normalize_yyt_one: bool = True,
    method_exp: str = "dilate",
    expandCore: NDArray | None = None,
    dview: object = None,
    n_pixels_per_process: int = 128,
    medw: tuple[int, ...] | None = (3, 3),
    thr_method: str = "max",
    maxthr: float = 0.1,
    nrgthr: float = 0.9999,
    extract_cc: bool = True,
    b_in: Any = None,
    se: NDArray | None = None,
    ss: NDArray | None = None,
    nb: int = 1,
    method_ls: str = "lasso_lars",
    update_background_components: bool = True,
    low_rank_background: bool | None = True,
    block_size_spat: int = 1000,
    num_blocks_per_run_spat: int = 20,
    *,
    noise_thr: float = 0.0,
) -> tuple[csc_matrix, NDArray, NDArray, NDArray]:
    """Regress every pixel on the traces of the components near it, with weights that cannot be negative.

    Parameters
    ----------
    Y : (d, T)
        Movie, pixels in Fortran order; read once, in chunks.
    C : (K, T)
        Traces.
    f : (nb, T)
        Time courses of the background.
    A_in : (d, K)
        Footprints; boolean: the pixels to be searched themselves.
    sn : (d,)
        Noise level of each pixel; one with noise 0 is left out.
    dims : tuple of int
        Field of view.
    min_size, max_size, dist, method_exp, expandCore
        Pixels that are searched, see `determine_search_location`.
    normalize_yyt_one : bool
        Scale traces to unit norm, which makes the penalty the same for all.
    medw, thr_method, maxthr, nrgthr, extract_cc, se, ss
        What becomes of the weights, see `threshold_components`.
    b_in : (d, nb), optional
        Background images: their non-zero pixels are where each background may be. None: everywhere.
    nb : int
        Number of background components; that of `f` holds where the two differ.
    method_ls : {"lasso_lars", "nnls_L0"}
        Lasso, solved exactly; or least squares with as few components as the noise level allows.
    update_background_components : bool
        Whether `b` is computed anew.
    low_rank_background : bool
        True: the background is searched everywhere; else only where `b_in` is not zero.
    noise_thr : float
        Weights below this many of their standard errors, noise level / norm of the trace, become 0. The
        footprint of a dim cell would otherwise spread over the noise around it.
    dview, n_pixels_per_process, block_size_spat, num_blocks_per_run_spat
        Accepted for old scripts and not used: chunks follow the memory budget.

    Returns
    -------
    A : (d, K') float32 CSC
        In units of the movie over those of the returned `C`. Components without a pixel are gone.
    b : (d, nb') float32, C : (K', T) float32, f : (nb', T) float32

    Raises
    ------
    ArrayShapeError
        An argument whose shape does not go with the others, named.
    ParameterError
        `dims` or `sn` missing, neither `A_in` nor `C` given, or an unknown method.

    References
    ----------
    Pnevmatikakis et al. (2016), Neuron 89:285, equation 4, in its penalised form.
    """
    movie = pixel_movie(Y)
    problem = _checked(movie, C, f, A_in, sn, dims, b_in)
    if method_ls not in ("lasso_lars", "nnls_L0"):
        raise ParameterError(f"method_ls={method_ls!r} is not known: use 'lasso_lars' or 'nnls_L0'")
    if problem.A.dtype == bool:
        support = problem.A
    else:
        support = determine_search_location(
            problem.A, problem.dims, method_exp, min_size, max_size, dist, expandCore
        )
    problem = _without_silent(problem._replace(A=support), normalize_yyt_one, method_ls == "lasso_lars")
    where_b = _background_support(problem, bool(low_rank_background))
    sums = _Sums.over(movie, problem, where_b, squares=method_ls == "nnls_L0")
    A = _regress(sums, problem, method_ls, movie.T, noise_thr)
    A = threshold_components(A, problem.dims, medw, thr_method, maxthr, nrgthr, extract_cc, se, ss)
    kept = np.diff(A.indptr) > 0
    A, C_out = A[:, kept], problem.C[kept]
    b = problem.b
    f_out = problem.f
    if update_background_components and len(f_out):
        b = _background(sums, problem, A, C_out, dense=b is None or bool(low_rank_background))
        there = np.asarray(np.abs(b).sum(0)).ravel() > 0
        b, f_out = b[:, there], f_out[there]
    return A, b, C_out.astype(np.float32), f_out.astype(np.float32)


class _Problem(NamedTuple):
    """Checked inputs; pixels in Fortran order."""

    A: csc_matrix
    C: NDArray[np.float64]
    f: NDArray[np.float64]
    b: Any
    sn: NDArray[np.float64]
    dims: tuple[int, ...]


def _checked(movie: PixelMovie, C: Any, f: Any, A_in: Any, sn: Any, dims: Any, b_in: Any) -> _Problem:
    if dims is None:
        raise ParameterError("dims=None: the field of view is needed to know which pixels are neighbours")
    if C is None or A_in is None:
        raise ParameterError(
            "traces C and footprints (or search masks) A_in are both needed; one of them is None"
        )
    if sn is None:
        raise ParameterError("sn=None: give the noise level of each pixel (get_noise_fft)")
    d, T = movie.d, movie.T
    C = np.atleast_2d(np.asarray(C, np.float64))
    f = np.zeros((0, T)) if f is None else np.atleast_2d(np.asarray(f, np.float64))
    A = csc_matrix(A_in)
    sn = np.asarray(sn, np.float64)
    sn = sn.ravel(order="F")
    expected = {
        "dims": (int(np.prod(dims)), d),
        "C": (C.shape, (A.shape[1], T)),
        "A_in": (A.shape, (d, len(C))),
        "f": (f.shape, (len(f), T)),
        "sn": (sn.shape, (d,)),
    }
    if b_in is not None:
        b_in = csc_matrix(b_in) if issparse(b_in) else np.asarray(b_in).reshape(d, -1)
        expected["b_in"] = (b_in.shape, (d, len(f)))
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise ArrayShapeError(
                f"{name} has shape {found}, expected {wanted} (movie: {d} pixels, {T} frames)"
            )
    if not len(C) and not len(f):
        raise ArrayShapeError("C has no rows and there is no background: there is nothing to update")
    return _Problem(A, C, f, b_in, sn, tuple(int(n) for n in dims))


def _without_silent(problem: _Problem, unit: bool, centred: bool) -> _Problem:
    """Without components whose trace sums to zero or NaN; traces of unit norm if asked.

    Where means are taken out, `centred`, a constant trace says nothing either: its weights would be rounding
    errors over rounding errors.
    """
    totals = problem.C.sum(1)
    alive = np.isfinite(totals) & (totals != 0)
    if centred:
        alive[alive] = problem.C[alive].std(1) > CONSTANT * np.sqrt((problem.C[alive] ** 2).mean(1))
    C = problem.C[alive]
    if unit:
        C = C / np.sqrt((C * C).sum(1, keepdims=True))
    return problem._replace(A=problem.A[:, alive], C=C)


def _background_support(problem: _Problem, everywhere: bool) -> csc_matrix:
    shape = (problem.A.shape[0], len(problem.f))
    if problem.b is None or everywhere:
        return csc_matrix(np.ones(shape, bool))
    return csc_matrix(csc_matrix(problem.b) != 0)


class _Sums(NamedTuple):
    """Pixel x trace sums of the regressors [C; f; 1] on their supports, by pixel (CSR rows, Fortran order)."""

    products: csr_matrix
    regressors: NDArray[np.float64]
    squares: NDArray[np.float64] | None

    @staticmethod
    def over(movie: PixelMovie, problem: _Problem, where_b: csc_matrix, squares: bool) -> _Sums:
        d, T = movie.d, movie.T
        pattern = csc_matrix(hstack([problem.A, where_b, csc_matrix(np.ones((d, 1), bool))]))
        pattern = movie.in_frame_order(pattern)
        regressors = np.vstack([problem.C, problem.f, np.ones((1, T))])
        columns = np.repeat(np.arange(pattern.shape[1]), np.diff(pattern.indptr))
        sums, total = movie.sample(regressors, pattern.indices, columns, squares)
        rows = movie.fortran_rows(pattern.indices)
        products = csr_matrix((sums, (rows, columns)), shape=pattern.shape)
        return _Sums(products, regressors, None if total is None else movie.in_fortran_order(total))

    def mean(self) -> NDArray[np.float64]:
        """Sum over time of every pixel, (d,)."""
        last = self.products.shape[1] - 1
        return self.products[:, last].toarray().ravel()


def _regress(sums: _Sums, problem: _Problem, method: str, T: int, noise_thr: float) -> csc_matrix:
    """Weights of the components, pixel by pixel, on the problem's supports."""
    K = len(problem.C)
    pixels = np.flatnonzero((np.diff(csr_matrix(problem.A).indptr) > 0) & (problem.sn > 0))
    products = sums.products[pixels, :-1]  # without the constant
    products.sort_indices()
    X = sums.regressors[:-1]
    of_entry = np.repeat(np.arange(len(pixels)), np.diff(products.indptr))
    q = products.data.copy()
    if method == "lasso_lars":
        X = X - X.mean(1, keepdims=True)
        means = sums.regressors[:-1].mean(1)
        q -= sums.mean()[pixels][of_entry] * means[products.indices]
    gram = X @ X.T
    noise = problem.sn[pixels]
    problems = [
        backend.put(x) for x in (products.indptr.astype(np.int64), products.indices.astype(np.int64), q, gram)
    ]
    wing = backend.wing(*problems).nnls
    norms = np.sqrt(np.diag(gram))[products.indices]
    scale = noise[of_entry] * norms / np.sqrt(T)
    if method == "lasso_lars":
        largest = np.sqrt((problem.C**2).sum(1).max(initial=0.0))
        penalty = 0.5 * largest * scale
        weights = wing.lasso(*problems, backend.put(penalty), backend.put(TOLERANCE * penalty), MAX_SWEEPS)
    else:
        squares = sums.squares[pixels] if sums.squares is not None else np.zeros(len(pixels))
        bound = RESIDUAL_BOUND * noise**2 * T
        weights = wing.nnls_l0(
            *problems, backend.put(squares), backend.put(bound), backend.put(TOLERANCE * scale), MAX_SWEEPS
        )
    found = backend.to_numpy(weights)
    found[found * norms < noise_thr * noise[of_entry]] = 0
    solved = csr_matrix((found, products.indices, products.indptr), shape=products.shape)[:, :K].tocoo()
    A = csc_matrix((solved.data, (pixels[solved.row], solved.col)), shape=problem.A.shape)
    A.eliminate_zeros()
    return A


def _background(sums: _Sums, problem: _Problem, A: csc_matrix, C: NDArray[np.float64], dense: bool) -> Any:
    """Background images that fit what the components leave: least squares, or HALS on a given support."""
    first = len(problem.C)
    Yf = csc_matrix(sums.products[:, first : first + len(problem.f)])
    f = problem.f
    ff = f @ f.T
    if dense:
        rest = Yf.toarray() - A @ (C @ f.T)
        b = np.linalg.lstsq(ff, rest.T, rcond=None)[0].T
        return np.maximum(b, 0).astype(np.float32)
    b_in = csc_matrix(problem.b)
    rest = csr_matrix(b_in != 0).multiply(csr_matrix(Yf - csc_matrix(A @ (C @ f.T)))).tocsr()
    values = csr_matrix(b_in)
    values.sort_indices()
    products = np.asarray(rest[_entry_rows(values), values.indices]).ravel()
    given = [
        backend.put(x)
        for x in (
            values.data.astype(np.float64),
            values.indptr.astype(np.int64),
            values.indices.astype(np.int64),
            products,
            ff,
        )
    ]
    backend.wing(*given).hals.sweep_footprints(*given, BACKGROUND_SWEEPS)
    out = csc_matrix(
        csr_matrix((backend.to_numpy(given[0]), values.indices, values.indptr), shape=values.shape),
        dtype=np.float32,
    )
    return out if issparse(problem.b) else out.toarray()


def _entry_rows(matrix: csr_matrix) -> NDArray[np.int64]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
