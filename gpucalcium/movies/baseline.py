"""Levels of every pixel over time, and movies without them: passes over a movie, band by band and chunk by chunk.

A movie is an array here, often a memory map of a file larger than memory. A band is some rows of all frames wanted,
as many as the budget allows; nothing that grows with the number of frames is held but the levels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import (
    ArrayShapeError,
    ArrayTypeError,
    MemoryBudgetError,
    MovieValueError,
    ParameterError,
)
from gpucalcium.movies.source import PIECE
from gpucalcium.movies.sources import open_movie

DFF_METHODS = ("only_baseline", "delta_f_over_f", "delta_f_over_sqrt_f")
"""In the order of the numbers that the wings know them by."""
_SHARE = 4  # of the budget, what a band may take: it is copied, converted, and its result is held


@dataclass(frozen=True)
class Baseline:
    """Levels of the pixels at some times, linear in between."""

    levels: NDArray[np.float32]
    """(N, d1, d2[, d3])."""
    lower: NDArray[np.int64]
    """(T,): which level lies before each frame."""
    shares: NDArray[np.float32]
    """(T,): how far the frame is on the way to the next one, 0 to 1."""

    def write(self, out: NDArray) -> None:
        """The level of every pixel at every frame, (T, d1, d2[, d3]), into an array of floats."""
        frames = max(1, PIECE // max(1, out[:1].nbytes))
        for at in range(0, len(out), frames):
            part = slice(at, at + frames)
            with _place(out[part]) as place:
                backend.wing(place).baseline.between(*self._at(part), place)

    def subtract_from(self, movie: NDArray, method: str, out: NDArray) -> None:
        """F - F0, (F - F0) / F0 or (F - F0) / sqrt(F0), into an array of floats, which may be the movie itself."""
        number, at = DFF_METHODS.index(method), 0
        for frames in backend.stream(open_movie(movie), working=2 * out[:1].nbytes):
            part = slice(at, at + len(frames))
            with _place(out[part]) as place:
                flat = frames.reshape(len(frames), -1)
                backend.wing(flat).baseline.subtract(flat, *self._at(part), number, place)
            at += len(frames)

    def _at(self, frames: slice) -> tuple[Array, Array, Array]:
        """Levels, lower and shares of some frames, on the active device, without the levels they do not need."""
        lower = self.lower[frames]
        first = int(lower.min())
        needed = self.levels[first : int(lower.max()) + 2].reshape(-1, self.levels[0].size)
        return backend.put(needed), backend.put(lower - first), backend.put(self.shares[frames])


def binned_baseline(movie: NDArray, window: int, quantile: float, order: str = "F") -> Baseline:
    """Percentile of each pixel in bins of `window` frames, linear in between.

    Parameters
    ----------
    movie : (T, d1, d2[, d3]) array
    window : int
        Frames a bin. The movie is mirrored at both ends to a whole number of bins.
    quantile : float
        Percentile, 0 to 100.
    order : {'F', 'C'}
        Whether a bin takes `window` frames in a row, or every N-th of N bins.
    """
    frames = len(movie)
    window = max(1, window)
    bins = -(-frames // window)
    missing = bins * window - frames
    before = missing // 2
    padded = np.pad(np.arange(frames), (before, missing - before), mode="reflect")
    members = padded.reshape((window, bins), order="F") if order == "F" else padded.reshape((window, bins))
    at = (before + np.arange(frames)) * ((bins - 1) / max(1, bins * window - 1))
    lower = np.minimum(at.astype(np.int64), max(0, bins - 2))
    return Baseline(_levels(movie, list(members.T), quantile), lower, (at - lower).astype(np.float32))


def window_baseline(movie: NDArray, window: int, quantile: float) -> Baseline:
    """Percentile of each pixel in windows that start every `window` frames, the last reaching to the end;
    stretched linearly over the movie."""
    frames = len(movie)
    starts = [*range(0, frames - 2 * window + 1, window)]
    starts.append(starts[-1] + window if starts else 0)
    ends = [*starts[1:], frames]
    levels = _levels(movie, [np.arange(a, b) for a, b in zip(starts, ends, strict=True)], quantile)
    at = np.clip((np.arange(frames) + 0.5) * len(levels) / frames - 0.5, 0, len(levels) - 1)
    lower = np.minimum(at.astype(np.int64), max(0, len(levels) - 2))
    return Baseline(levels, lower, (at - lower).astype(np.float32))


def _levels(movie: NDArray, bins: Sequence[NDArray[np.int64]], quantile: float) -> NDArray[np.float32]:
    need = len(bins) * movie[0].size * 4
    if need > backend.budget():
        raise MemoryBudgetError(
            f"{len(bins)} levels of {movie.shape[1:]} pixels need {size_text(need)} of {size_text(backend.budget())}: "
            "use longer windows, or give more with GPUCALCIUM_MEMORY or backend.limit(memory=...)"
        )
    levels = np.empty((len(bins), *movie.shape[1:]), np.float32)
    for level, members in zip(levels, bins, strict=True):
        in_a_row = members[-1] - members[0] == len(members) - 1 and (np.diff(members) == 1).all()
        frames = slice(members[0], members[-1] + 1) if in_a_row else members
        percentile(movie, quantile, frames=frames, out=level)
    return levels


def percentile(
    movie: NDArray,
    quantile: float,
    *,
    frames: slice | NDArray[np.int64] = slice(None),
    skip_nan: bool = False,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Percentile of each pixel over some frames of a movie (T, d1, d2[, d3]), linear between values.

    NaN where one is NaN; or, if they are to be skipped, where all are.
    """
    image = np.empty(movie.shape[1:], np.float32) if out is None else out
    count = len(movie[frames, 0, 0]) if isinstance(frames, slice) else len(frames)
    width = max(4, movie.dtype.itemsize)
    for band in _bands(movie, count * width):
        part = backend.put(movie[frames, band])
        with _place(image[None, band]) as place:
            backend.wing(part).baseline.percentile(part.reshape(count, -1), quantile, skip_nan, place[0])
    return image


def brightness(movie: NDArray) -> NDArray[np.float64]:
    """Median of each frame, NaN left out (a frame without a number: NaN)."""
    levels = []
    for frames in backend.stream(open_movie(movie), working=2 * movie[:1].nbytes):
        found = backend.empty(len(frames), "float64")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            backend.wing(frames).baseline.frame_medians(frames.reshape(len(frames), -1), found)
        levels.append(backend.to_numpy(found))
    return np.concatenate(levels)


def bleaching(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """``a exp(-b t) + c`` fitted to the brightness of the frames; a line where that does not converge.

    Frames without a brightness (NaN) take no part in the fit.

    Raises
    ------
    MovieValueError
        No frame has one.
    """
    known = np.isfinite(level)
    if not known.any():
        raise MovieValueError("no frame holds a finite number: there is no brightness to follow")
    t = np.arange(len(level), dtype=np.float64)
    y = level[known]
    guess = (y[0] - y[-1], 1e-6, y[-1])
    try:
        with np.errstate(over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of the covariance, which is not wanted
            a, b, c = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, t[known], y, p0=guess)[0]
            fitted = a * np.exp(-b * t) + c
    except (RuntimeError, TypeError):  # no convergence; fewer frames than parameters
        fitted = np.full_like(level, np.nan)
    if np.isfinite(fitted).all():
        return fitted
    return np.asarray(np.polyval(np.polyfit(t[known], y, min(1, len(y) - 1)), t), np.float64)


def without_fall(movie: NDArray, fall: NDArray[np.float64], out: NDArray) -> None:
    """Frames less a number each, into an array of floats, which may be the movie itself."""
    at = 0
    for frames in backend.stream(open_movie(movie), working=2 * out[:1].nbytes):
        xp = backend.arrays.xp(frames)
        part = slice(at, at + len(frames))
        less = backend.put(fall[part].astype(np.float32))[:, None]
        with _place(out[part]) as place:
            xp.subtract(frames.reshape(len(frames), -1), less, out=place)
        at += len(frames)


def check_quantile(quantile: float, name: str) -> None:
    """Refuse what is no percentile."""
    if not 0 <= quantile <= 100:
        raise ParameterError(f"{name}={quantile}: a percentile lies between 0 and 100")


def check_out(out: Any, shape: tuple[int, ...], name: str) -> NDArray:
    """An array given for a result, if that fits into it.

    Raises
    ------
    ArrayShapeError, ArrayTypeError
        Another shape; no array of floats that can be written to.
    """
    if not isinstance(out, np.ndarray) or out.dtype not in (np.float32, np.float64):
        kind = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        raise ArrayTypeError(f"{name} is {kind}: expected a NumPy array or memory map of float32 or float64")
    if out.shape != shape:
        raise ArrayShapeError(f"{name} has shape {out.shape}, the result {shape}")
    if not out.flags.writeable:
        raise ArrayTypeError(f"{name} cannot be written to: open a memory map with mode='r+'")
    return out.view(np.ndarray)


@contextmanager
def _place(out: NDArray) -> Iterator[Array]:
    """Room (n, pixels) on the active device for what becomes `out` (n, ...): `out` itself where that is possible."""
    if backend.active().kind == "cpu" and out.flags.c_contiguous:
        yield out.reshape(len(out), -1)
        return
    room = backend.empty((len(out), out[0].size), out.dtype)
    yield room
    out[...] = backend.to_numpy(room).reshape(out.shape)


def _bands(movie: NDArray, pixel_bytes: int) -> Iterator[slice]:
    """Rows of the frames, as many at a time as the budget allows if each of their pixels takes `pixel_bytes`."""
    row_bytes = max(1, pixel_bytes * int(np.prod(movie.shape[2:])))
    step = max(1, backend.budget() // (_SHARE * row_bytes))
    return (slice(at, at + step) for at in range(0, movie.shape[1], step))
