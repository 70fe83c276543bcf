"""Mean and standard deviation of a whole movie, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource, arrays
from gpucalcium.errors import MovieValueError
from gpucalcium.movies import MovieLike, open_movie


def movie_moments(movie: MovieLike) -> tuple[float, float, int]:
    """Mean, standard deviation and number of NaN of all values of a movie, which is read once, in chunks.

    Each pixel's sums are float64, above its first value and in order of time; pixels are then pooled as Chan et al.
    do. So neither the size of chunks nor the device changes a bit.

    Parameters
    ----------
    movie : array, path or source, (T, d1, d2[, d3]), any real dtype
        What `gpucalcium.open_movie` takes. Differences from the first frame are rounded to float32.

    Returns
    -------
    mean, std : float
        NaN left out. `std` is that of the population: divided by the number of values.
    missing : int
        Values that are NaN.

    Raises
    ------
    MovieValueError
        There is nothing but NaN, or a value is infinite.

    References
    ----------
    Chan, Golub and LeVeque (1983), Am. Stat. 37:242, eq. 2.1.
    """
    source = open_movie(movie)
    sums = _Sums()
    working = int(np.prod(source.shape[1:])) * (2 * source.dtype.itemsize + np.dtype(np.float64).itemsize)
    for chunk in backend.stream(source, working=working):
        backend.retry_halved(sums.add, chunk)
    return sums.moments(_name(source))


class _Sums:
    """Of each pixel, above its value in the first frame."""

    _pilot: Array
    _sums: Array
    """(2, pixels) float64: of differences, and of their squares."""
    _missing: Array
    """(d1, d2[, d3]) how many of its values are NaN."""

    def __init__(self) -> None:
        self._frames = 0

    def add(self, frames: Array) -> None:
        """Take in the next frames; all of them or, on an error, none."""
        xp = arrays.xp(frames)
        can_miss = frames.dtype.kind == "f"
        if self._frames == 0:
            zeros = backend.array_module(frames).zeros
            self._pilot = frames[0].copy()
            if can_miss:
                self._pilot = xp.where(xp.isfinite(self._pilot), self._pilot, xp.zeros_like(self._pilot))
            self._sums, self._missing = (
                zeros((2, self._pilot.size), "float64"),
                zeros(self._pilot.shape, "int64"),
            )
        missing = self._missing
        if can_miss:
            absent = xp.isnan(frames)
            if bool(absent.any()):  # rare: to look is cheaper than to copy
                missing = missing + absent.sum(axis=0)
                frames = xp.where(absent, self._pilot, frames)  # adds nothing to the sums
        no_pairs = backend.like(frames, np.empty(0, np.int64))
        backend.wing(frames).correlation.add_products(frames, self._pilot, no_pairs, self._sums)
        self._missing = missing
        self._frames += len(frames)

    def moments(self, name: str) -> tuple[float, float, int]:
        """Mean, standard deviation, number of NaN; `name` is what errors call the movie."""
        missing = backend.to_numpy(self._missing).ravel()
        counts = (self._frames - missing).astype(np.float64)
        if not counts.any():
            raise MovieValueError(f"{name} holds nothing but NaN: it cannot be normalised")
        total, squares = backend.to_numpy(self._sums)
        if not (np.isfinite(total).all() and np.isfinite(squares).all()):
            raise MovieValueError(
                f"{name} holds infinite values: it cannot be normalised. Replace them, by NaN for instance"
            )
        pilot = backend.to_numpy(self._pilot).ravel().astype(np.float64)
        return *_pooled(pilot, total, squares, counts), int(missing.sum())


def _pooled(pilot: NDArray, total: NDArray, squares: NDArray, counts: NDArray) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, from sums of each above its pilot."""
    seen = counts > 0
    pilot, total, squares, counts = pilot[seen], total[seen], squares[seen], counts[seen]
    means = pilot + total / counts
    origin = means[0]  # weights of large offsets would cost digits
    mean = origin + (counts * (means - origin)).sum() / counts.sum()
    within = np.maximum(squares - total**2 / counts, 0).sum()
    between = (counts * (means - mean) ** 2).sum()
    return float(mean), float(np.sqrt((within + between) / counts.sum()))


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
