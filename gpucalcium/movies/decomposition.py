"""Factors of a movie: principal and independent components, non-negative factors, parts of the field of view.

Every function takes the movie as a matrix of frames, (T, P), which it reads in tiles of pixels or of frames, so that it
may be a memory map of a file; only `nonnegative` holds it whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from gpucalcium import backend
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import MemoryBudgetError, MovieValueError, ParameterError
from gpucalcium.movies.source import PIECE

GRAM_LIMIT = 4096  # frames or pixels up to which the covariance matrix is decomposed exactly
_OVERSAMPLING, _POWER_PASSES = 20, 6  # of the randomised decomposition, Halko et al. 2011, section 4.5
_BATCH = 64  # frames a step of online factorisation


class Matrix:
    """A movie (T, d1, d2[, d3]) as a matrix (T, P), pixels in C order, of which parts are copied when asked for."""

    def __init__(self, movie: NDArray) -> None:
        self._movie = movie
        self.shape = (len(movie), movie[0].size)

    def __len__(self) -> int:
        return self.shape[0]

    def frames(self, part: slice) -> NDArray:
        """Some frames, (n, P)."""
        wanted = self._movie[part]
        return wanted.reshape(len(wanted), -1)

    def pixels(self, first: int, last: int) -> NDArray:
        """Some pixels at all times, (T, last - first)."""
        if self._movie.flags.c_contiguous:
            return self._movie.reshape(self.shape)[:, first:last]
        in_row = self.shape[1] // self._movie.shape[1]
        row, end = first // in_row, -(-last // in_row)
        rows = self._movie[:, row:end].reshape(len(self), -1)
        return rows[:, first - row * in_row : last - row * in_row]

    def in_pieces(self) -> Iterator[NDArray]:
        """All frames, (n, P) each, as many at a time as stay in the cache."""
        step = max(1, PIECE // max(1, self._movie[:1].nbytes))
        return (self.frames(slice(at, at + step)) for at in range(0, len(self), step))


def principal_components(
    frames: Matrix, count: int, batch: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of the pixels' time courses.

    Parameters
    ----------
    frames : Matrix, (T, P)
    count : int
        Components; at most T and P.
    batch : int
        Pixels that are read at a time.
    seed : int
        Of the randomised decomposition, which movies of more than 4096 frames take.

    Returns
    -------
    series : (T, count) float64
        Orthonormal time courses, by falling variance; the largest entry of each is positive.
    mean : (T,) float64
        Mean of each frame, which is taken off first.

    Raises
    ------
    MovieValueError
        NaN or infinite values.

    References
    ----------
    Halko, Martinsson & Tropp (2011), SIAM Review 53:217, algorithm 4.4.
    """
    mean = np.concatenate([piece.mean(axis=1, dtype=np.float64) for piece in frames.in_pieces()])
    if not np.isfinite(mean).all():
        raise MovieValueError(
            f"frame {int(np.argmin(np.isfinite(mean)))} holds NaN or infinite values; replace them first, "
            "e.g. with numpy.nan_to_num"
        )
    if len(frames) <= GRAM_LIMIT:
        gram = np.zeros((len(frames), len(frames)))
        for tile in _tiles(frames, mean, batch):
            gram += backend.to_numpy(tile @ tile.T)
        span = (max(0, len(frames) - count), len(frames) - 1)
        series = scipy.linalg.eigh(gram, subset_by_index=span)[1][:, ::-1]
    else:
        series = _subspace(frames, mean, count, batch, seed)
    tops = series[np.abs(series).argmax(axis=0), np.arange(series.shape[1])]
    return series * np.where(tops < 0, -1.0, 1.0), mean


def _subspace(
    frames: Matrix, mean: NDArray[np.float64], count: int, batch: int, seed: int
) -> NDArray[np.float64]:
    """Leading left singular vectors by iterating on a random subspace; one pass over the movie an iteration."""
    width = min(count + _OVERSAMPLING, *frames.shape)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(frames), width)))[0]
    for _ in range(_POWER_PASSES):
        previous = basis
        product = np.zeros_like(basis)
        for tile in _tiles(frames, mean, batch):
            xp = backend.arrays.xp(tile)
            product += backend.to_numpy(tile @ (tile.T @ xp.asarray(basis)))
        basis = np.linalg.qr(product)[0]
    rotation = np.linalg.svd(previous.T @ product)[0]
    return (previous @ rotation)[:, :count]


def _tiles(frames: Matrix, mean: NDArray[np.float64], batch: int) -> Iterator[backend.Array]:
    """The movie without the frames' means, so many pixels at a time, float64 on the active device."""
    pixels = frames.shape[1]
    for at in range(0, pixels, batch):
        yield backend.put(frames.pixels(at, min(at + batch, pixels)).astype(np.float64) - mean[:, None])


def projected(
    frames: Matrix, series: NDArray[np.float64], mean: NDArray[np.float64], batch: int
) -> NDArray[np.float32]:
    """The movie within the space of `series`, its frames' means kept: (T, P) float32."""
    out = np.empty(frames.shape, np.float32)
    at = 0
    for tile in _tiles(frames, mean, batch):
        basis = backend.arrays.xp(tile).asarray(series)
        part = backend.to_numpy(basis @ (basis.T @ tile)) + mean[:, None]
        out[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    return out


def scores(
    frames: Matrix, series: NDArray[np.float64], mean: NDArray[np.float64], batch: int
) -> NDArray[np.float64]:
    """Weight of each of `series` in each pixel, means taken off: (P, K) float64."""
    tiles = _tiles(frames, mean, batch)
    return np.concatenate([backend.to_numpy(x.T @ backend.arrays.xp(x).asarray(series)) for x in tiles])


def independent(
    samples: NDArray[np.float64], count: int | None, fun: str, max_iter: int, tol: float, seed: int
) -> NDArray[np.float64]:
    """FastICA (Hyvärinen 1999): sources (n, K) of `samples` (n, features); `count` None: they are white already."""
    from sklearn.decomposition import FastICA

    if fun not in ("logcosh", "exp", "cube"):
        raise ParameterError(f"{fun!r} is no function of FastICA; expected 'logcosh', 'exp' or 'cube'")
    whiten = False if count is None else "unit-variance"
    model = FastICA(n_components=count, whiten=whiten, fun=fun, max_iter=max_iter, tol=tol, random_state=seed)
    return model.fit_transform(samples)


def spatio_temporal(
    images: NDArray[np.float64],
    series: NDArray[np.float64],
    mu: float,
    count: int,
    *,
    fun: str,
    max_iter: int,
    tol: float,
    seed: int,
) -> NDArray[np.float64]:
    """Spatio-temporal ICA: sources (K, P) of principal images (P, M) stacked over their time courses (T, M).

    Both are centred and scaled to a largest value of one, then weighted `mu` and ``1 - mu``.

    References
    ----------
    Stone et al. (2002), NeuroImage 15:407; Mukamel, Nimmerjahn & Schnitzer (2009), Neuron 63:747.
    """
    stacked = np.concatenate([mu * _scaled(images), (1 - mu) * _scaled(series)])
    return independent(stacked, count, fun, max_iter, tol, seed)[: len(images)].T


def _scaled(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = columns - columns.mean(axis=0)
    largest = np.abs(centred).max()
    return centred / largest if largest > 0 else centred


def nonnegative(
    frames: Matrix, count: int, init: str, tol: float, max_iter: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Time courses (T, K) and images (K, P), none negative, whose product is near `frames` (T, P) (least squares)
    without their first percentile.

    Raises
    ------
    MemoryBudgetError
        The movie, of which every step needs all values, does not fit twice as float32.

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. E92-A:708 (coordinate descent).
    """
    from sklearn.decomposition import NMF

    need = 2 * 4 * frames.shape[0] * frames.shape[1]
    if need > backend.budget():
        raise MemoryBudgetError(
            f"{frames.shape[0]} frames of {frames.shape[1]} pixels need {size_text(need)} of "
            f"{size_text(backend.budget())}: "
            "use online_NMF, which reads batches, or resize, or raise GPUCALCIUM_MEMORY"
        )
    values = np.concatenate([piece.astype(np.float32) for piece in frames.in_pieces()])
    values -= np.percentile(values, 1)
    np.maximum(values, 0, out=values)
    model = NMF(n_components=count, init=init, tol=tol, max_iter=max_iter, random_state=seed)
    time = model.fit_transform(values)
    return time.astype(np.float32), model.components_.astype(np.float32)


def online_nonnegative(
    frames: Matrix,
    count: int,
    *,
    penalty: float | None,
    steps: int | None,
    epochs: int,
    start: NDArray | None,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Time courses (T, K) and images (K, P), learnt from batches of 64 frames.

    Parameters
    ----------
    frames : Matrix, (T, P), non-negative
        Read batch by batch: what is held are a batch, the images and as much again.
    count : int
    penalty : float or None
        Weight of the L1 norm of the time courses, with images of norm one; None: least squares alone.
    steps, epochs : int
        Batches to learn from; None: all, `epochs` times.
    start : (K, P) array, optional
        Images to start from.
    seed : int
        Of the order of batches and the start.

    References
    ----------
    Mairal, Bach, Ponce & Sapiro (2010), JMLR 11:19.
    """
    model = _online_model(count, penalty, start, seed)
    rng = np.random.default_rng(seed)
    batch = max(_BATCH, count)  # the first one has to span the components
    starts = np.arange(0, max(1, len(frames) - batch + 1), batch)
    if starts[-1] + batch < len(frames):
        starts = np.append(starts, len(frames) - batch)
    wanted = epochs * len(starts) if steps is None else steps
    order = np.concatenate([rng.permutation(starts) for _ in range(-(-wanted // len(starts)))])[:wanted]
    for number, at in enumerate(order):
        part = frames.frames(slice(at, at + batch)).astype(np.float64)
        if penalty is None and start is not None and number == 0:
            model.partial_fit(part, W=np.full((len(part), count), part.mean()), H=start.astype(np.float64))
        else:
            model.partial_fit(part)
    parts = [
        model.transform(frames.frames(slice(at, at + batch)).astype(np.float64))
        for at in range(0, len(frames), batch)
    ]
    return np.concatenate(parts).astype(np.float32), model.components_.astype(np.float32)


def _online_model(count: int, penalty: float | None, start: NDArray | None, seed: int):  # type: ignore[no-untyped-def]
    from sklearn.decomposition import MiniBatchDictionaryLearning, MiniBatchNMF

    if penalty is None:
        init = "random" if start is None else "custom"
        return MiniBatchNMF(n_components=count, init=init, batch_size=_BATCH, random_state=seed)
    return MiniBatchDictionaryLearning(
        n_components=count,
        alpha=penalty,
        fit_algorithm="cd",
        transform_algorithm="lasso_cd",
        positive_code=True,
        positive_dict=True,
        dict_init=None if start is None else start.astype(np.float64),
        random_state=seed,
    )


def partition(
    frames: Iterable[NDArray],
    dims: tuple[int, int],
    weight: float,
    clusters: int,
    max_iter: int,
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Parts of an image whose pixels are correlated and near each other, by k-means.

    Parameters
    ----------
    frames : iterable of (n, P) arrays
        The movie in chunks.
    dims : (int, int)
        Size of the frames; P pixels in C order.
    weight : float
        Of the correlations, 0 to 1, against that of the distances.
    clusters, max_iter, seed : int
        Of k-means.

    Returns
    -------
    labels : (d1, d2) uint8
    correlations, distances : (P, P) float64
        Between pixels; a constant pixel has correlation 0. Distances as a share of the largest.

    Raises
    ------
    MemoryBudgetError
        Four such matrices do not fit; the length of the movie does not matter.
    MovieValueError
        NaN or infinite values.
    """
    from sklearn.cluster import KMeans

    pixels = dims[0] * dims[1]
    need = 4 * 8 * pixels**2
    if need > backend.budget():
        raise MemoryBudgetError(
            f"correlations between {pixels} pixels need {size_text(need)} of {size_text(backend.budget())}: "
            "use smaller fx and fy, or raise GPUCALCIUM_MEMORY"
        )
    correlations = _correlations(frames, pixels)
    distances = squareform(pdist(np.argwhere(np.ones(dims)).astype(np.float64)))
    distances /= max(distances.max(), 1)
    features = weight * correlations - (1 - weight) * distances
    model = KMeans(n_clusters=clusters, max_iter=max_iter, n_init=10, random_state=seed)
    return model.fit_predict(features).reshape(dims).astype(np.uint8), correlations, distances


def _correlations(frames: Iterable[NDArray], pixels: int) -> NDArray[np.float64]:
    """Correlations (pixels, pixels) over time, from sums of products above the first frame; 0 of constant pixels."""
    products, sums, count, pilot = backend.zeros((pixels, pixels), "float64"), np.zeros(pixels), 0, None
    for chunk in frames:
        pilot = chunk[0].astype(np.float64) if pilot is None else pilot
        above = backend.put(chunk - pilot)
        products += above.T @ above
        sums += backend.to_numpy(above.sum(axis=0))
        count += len(chunk)
    if not np.isfinite(sums).all():
        raise MovieValueError(
            "the movie holds NaN or infinite values: replace them first, e.g. with numpy.nan_to_num"
        )
    correlations: NDArray[np.float64] = backend.to_numpy(products)
    correlations -= np.outer(sums, sums / max(count, 1))
    norms = np.sqrt(np.maximum(np.diag(correlations), 0))
    norms[norms == 0] = 1
    correlations /= norms
    correlations /= norms[:, None]
    return np.clip(correlations, -1, 1, out=correlations)
