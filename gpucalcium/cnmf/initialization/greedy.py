"""Greedy search for cells in a movie filtered to their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.backend.stencils import gaussian_weights
from gpucalcium.cnmf._movie import PixelMovie, images_movie
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.errors import MovieShapeError, NotSupportedError, ParameterError

FRAMES_FILTERED_AT_ONCE = 256
SEED_METHODS = ("auto", "semi", "manual")


class Found(NamedTuple):
    """Cells of a greedy search, and what they leave of the movie."""

    A: csc_matrix
    """(d, K) footprints, pixels in Fortran order."""
    C: NDArray[np.float32]
    """(K, T)."""
    rest: Array
    """(d, T) movie without the cells, not negative; pixels in the order of a frame, on the device."""


def greedyROI(
    Y: Any,
    nr: int = 30,
    gSig: Any = (5, 5),
    gSiz: Any = (11, 11),
    nIter: int = 5,
    kernel: NDArray | None = None,
    nb: int = 1,
    rolling_sum: bool = False,
    rolling_length: int = 100,
    seed_method: Any = "auto",
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Cells one after the other, each where the movie that the others leave has most energy at a cell's size.

    Parameters
    ----------
    Y : (d1, d2[, d3], T)
        Movie with time last. NaN counts as 0.
    nr : int
        Number of cells.
    gSig : float or sequence
        Standard deviation of a cell along each axis, pixels.
    gSiz : int or sequence
        Side of the box a cell is fitted in, pixels; made odd.
    nIter : int
        Iterations of the fit of footprint and trace.
    kernel : array, optional
        Filter in place of the Gaussian, odd sides.
    nb : int
        Rank of the background, a non-negative factorisation of what the cells leave.
    rolling_sum : bool
        Whether energy is the largest mean over `rolling_length` frames, which finds cells that are active once;
        else the sum over all frames.
    rolling_length : int
        Frames.
    seed_method : "auto", (n, ndim) array, {"semi": (n, ndim) array}, or ("semi", (n, ndim) array)
        Where cells are: found, or given in pixels, in which case there are n; or first those that are given, then
        `nr` more that are found. Bare "semi" and "manual", seeds by clicking, are not supported.

    Returns
    -------
    A : (d, nr) float32
        Footprints, pixels in Fortran order.
    C : (nr, T) float32
    center : (nr, ndim)
        Centres of mass, pixels.
    b : (d, nb) float32, f : (nb, T) float32

    References
    ----------
    Pnevmatikakis et al. (2016), Neuron 89:285, "Greedy initialization".
    """
    window = rolling_length if rolling_sum else 0
    return with_background(
        Y, lambda frames: find_cells(frames, nr, gSig, gSiz, nIter, kernel, window, seed_method), nb
    )


def with_background(
    Y: Any, find: Callable[[Array], Found], nb: int
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """A (d, K), C, centres, b (d, nb) and f of a (d1, d2[, d3], T) movie, by what `find` finds in its frames."""
    movie = time_last(Y)
    with movie.device():
        found = find(backend.hold(movie.source, np.float32))
        b, f = background_nmf(found.rest, nb)
    center = centers_of_mass(found.A, movie.dims)
    return found.A.toarray(), found.C, center, movie.in_fortran_order(b), f


def time_last(Y: Any) -> PixelMovie:
    """A (d1, d2[, d3], T) array, NumPy or CuPy, as a `PixelMovie`."""
    Y = Y if backend.is_cupy(Y) else np.asarray(Y)
    if Y.ndim not in (3, 4):
        raise MovieShapeError(f"Y has shape {Y.shape}: expected (d1, d2[, d3], T)")
    return images_movie(backend.array_module(Y).moveaxis(Y, -1, 0))


def find_cells(
    frames: Array,
    nr: int,
    gSig: Any,
    gSiz: Any,
    nIter: int = 5,
    kernel: NDArray | None = None,
    window: int = 0,
    seed_method: Any = "auto",
) -> Found:
    """`greedyROI` on (T, d1, d2[, d3]) frames that are on the device; `window` 0 means no rolling mean."""
    dims = frames.shape[1:]
    seeds = given_seeds(seed_method, dims)
    how, _ = places_of(seed_method)
    sigma, size = per_axis(gSig, len(dims), "gSig"), per_axis(gSiz, len(dims), "gSiz")
    if nr < 0 or nIter < 1 or window < 0:
        raise ParameterError(
            f"K={nr}, nIter={nIter}, rolling_length={window}: none can be negative, nIter not 0"
        )
    if seeds is None or how == "semi":
        sought = np.full(min(nr, int(np.prod(dims))), -1)
        seeds = sought if seeds is None else np.concatenate([seeds, sought])
    half = [int(s) // 2 for s in size]
    if kernel is None:
        kernel = np.ones(())
        for s, h in zip(sigma, half, strict=True):
            kernel = np.multiply.outer(kernel, gaussian_weights(s, h))
    elif np.ndim(kernel) != len(dims) or not all(side % 2 for side in np.shape(kernel)):
        raise ParameterError(f"kernel of shape {np.shape(kernel)}: it needs {len(dims)} axes with odd sides")
    rest, median, filtered = _prepared(frames, np.asarray(kernel))
    seeds, shapes, traces = _search(rest, filtered, dims, half, np.asarray(kernel), seeds, window, nIter)
    rest += median[:, None]
    rest = backend.arrays.xp(rest).maximum(rest, 0)
    return Found(_footprints(seeds, shapes, dims, half), traces, rest)


def places_of(seed_method: Any) -> tuple[str, NDArray | None]:
    """How seeds are chosen, "auto", "semi" or "manual", and the positions that are given, if any."""
    if isinstance(seed_method, str):
        return seed_method.lower(), None
    if isinstance(seed_method, Mapping):
        seed_method = next(iter(seed_method.items()), ("none", ()))
    if len(seed_method) == 2 and isinstance(seed_method[0], str):
        return seed_method[0].lower(), np.asarray(seed_method[1])
    return "manual", np.asarray(seed_method)


def made_smaller(seed_method: Any, ssub: int) -> Any:
    """`seed_method` in a field of view that is `ssub` times smaller."""
    how, places = places_of(seed_method)
    return how if places is None else (how, places // ssub)


def given_seeds(seed_method: Any, dims: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Pixels of seeds that are given, None if they are to be found."""
    how, places = places_of(seed_method)
    if how not in SEED_METHODS:
        raise ParameterError(f"seed_method={how!r} is not known; there is {', '.join(SEED_METHODS)}")
    if how == "auto":
        return None
    if places is None:
        raise NotSupportedError(
            f"seed_method={how!r}: seeds by clicking are not supported; use 'auto', or give positions in pixels, "
            "(n, ndim): an array of them for just these cells, {'semi': array} for these and K more that are found"
        )
    at = places.reshape(-1, len(dims)).round().astype(np.int64)
    if ((at < 0) | (at >= dims)).any():
        raise ParameterError(f"seed_method: a seed lies outside the field of view, {dims}")
    return np.atleast_1d(np.ravel_multi_index(tuple(at.T), dims))


def per_axis(given: Any, ndim: int, name: str) -> list[float]:
    """A number per axis from one number, or as many."""
    values = np.atleast_1d(np.asarray(given, np.float64))
    if values.size == 1:
        values = np.repeat(values, ndim)
    if values.shape != (ndim,) or not (values > 0).all():
        raise ParameterError(f"{name}={given!r}: expected one positive number, or {ndim} of them")
    return values.tolist()


def _prepared(frames: Array, kernel: NDArray) -> tuple[Array, Array, Array]:
    """Pixel by pixel, (d, T): the movie without its median over time; that median; the movie filtered."""
    xp = backend.arrays.xp(frames)
    T = len(frames)
    rows = xp.nan_to_num(xp.ascontiguousarray(frames.reshape(T, -1).T), nan=0.0, posinf=0.0, neginf=0.0)
    median = xp.median(rows, axis=1).astype("float32")
    rows -= median[:, None]
    filtered = xp.empty_like(rows)
    wing = backend.wing(frames).filters
    for start in range(0, T, FRAMES_FILTERED_AT_ONCE):
        part = xp.ascontiguousarray(rows[:, start : start + FRAMES_FILTERED_AT_ONCE].T)
        smooth = wing.correlate(part.reshape(-1, *frames.shape[1:]), kernel, "constant")
        filtered[:, start : start + FRAMES_FILTERED_AT_ONCE] = smooth.reshape(len(part), -1).T
    return rows, median, filtered


def _search(
    rest: Array,
    filtered: Array,
    dims: Sequence[int],
    half: Sequence[int],
    kernel: NDArray,
    given: NDArray[np.int64],
    window: int,
    iterations: int,
) -> tuple[NDArray, NDArray, NDArray]:
    """Seeds (K,), footprints in their boxes (K, n) and traces (K, T); `rest` and `filtered` lose the cells."""
    d, T = rest.shape
    deep = 3 - len(dims)  # a plane is a volume with a last axis of one
    dims3, half3 = (*dims, *[1] * deep), (*half, *[0] * deep)
    kernel3 = backend.put(kernel.reshape(kernel.shape + (1,) * deep).astype(np.float32))
    values = backend.zeros(d, "float32")
    nr = len(given)
    seeds = backend.put(given.copy())
    shapes = backend.zeros((nr, int(np.prod([2 * h + 1 for h in half]))), "float32")
    traces = backend.zeros((nr, T), "float32")
    greedy = backend.wing(rest).greedy
    greedy.energy(filtered, backend.put(np.arange(d)), window, values)
    greedy.search(rest, filtered, dims3, half3, kernel3, window, iterations, values, seeds, shapes, traces)
    return backend.to_numpy(seeds), backend.to_numpy(shapes), backend.to_numpy(traces)


def boxes(seeds: NDArray[np.int64], dims: tuple[int, ...], half: Sequence[int]) -> csc_matrix:
    """(d, n): ones in the box around each seed (position in a frame), as far as it is in the field of view."""
    sides = int(np.prod([2 * h + 1 for h in half]))
    return _footprints(seeds, np.ones((len(seeds), sides), np.float32), dims, half)


def _footprints(
    seeds: NDArray[np.int64], shapes: NDArray[np.float32], dims: tuple[int, ...], half: Sequence[int]
) -> csc_matrix:
    """Boxes around seeds as columns of a sparse matrix, pixels in Fortran order."""
    offsets = np.indices([2 * h + 1 for h in half]).reshape(len(dims), -1) - np.array(half)[:, None]
    at = np.array(np.unravel_index(seeds, dims)).reshape(len(dims), -1)[:, :, None] + offsets[:, None]
    there = (shapes > 0) & (at >= 0).all(0) & (at < np.array(dims)[:, None, None]).all(0)
    component, position = np.nonzero(there)
    rows = np.ravel_multi_index(tuple(axis[component, position] for axis in at), dims, order="F")
    return csc_matrix(
        (shapes[component, position], (rows, component)), shape=(int(np.prod(dims)), len(seeds))
    )
