"""Missing values of a movie: filled by interpolation in time while it is read, never in a copy of the whole."""

from __future__ import annotations

import logging
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.cnmf._movie import PixelMovie, pixel_movie
from gpucalcium.errors import MovieValueError
from gpucalcium.movies import open_movie

log = logging.getLogger(__name__)


class Gaps(NamedTuple):
    """Runs of missing values of single pixels (positions in a frame), sorted by pixel and time."""

    pixel: NDArray[np.int64]
    start: NDArray[np.int64]
    """First missing frame."""
    stop: NDArray[np.int64]
    """First frame that is known again; the number of frames if there is none."""
    before: NDArray[np.float64]
    """Value of the frame before; that after it where there is none, and 0 where there is neither."""
    after: NDArray[np.float64]

    @classmethod
    def of(cls, source: FrameSource) -> Gaps:
        """One pass over a movie of floating-point numbers."""
        nothing = np.empty((3, 0))
        starts, stops, seen = [nothing], [nothing], 0
        for chunk in backend.stream(source, overlap=1, working=4 * math.prod(source.shape[1:])):
            rows = chunk.reshape(len(chunk), -1)
            xp = backend.arrays.xp(rows)
            missing, first = xp.isnan(rows), max(seen - 1, 0)
            if seen == 0:
                pixels = backend.to_numpy(xp.nonzero(missing[0])[0])
                starts.append(np.stack([pixels, np.zeros(len(pixels)), np.full(len(pixels), np.nan)]))
            starts.append(_edges(xp, rows[:-1], missing[1:] & ~missing[:-1], first))
            stops.append(_edges(xp, rows[1:], missing[:-1] & ~missing[1:], first))
            seen = first + len(chunk)
        return cls._paired(np.concatenate(starts, 1), np.concatenate(stops, 1), len(source))

    @classmethod
    def _paired(cls, starts: NDArray[np.float64], stops: NDArray[np.float64], T: int) -> Gaps:
        """Every run with its end; one that lasts to the end of the movie has none."""
        starts, stops = (x[:, np.lexsort((x[1], x[0]))] for x in (starts, stops))
        pixel, start = starts[0].astype(np.int64), starts[1].astype(np.int64)
        open_ended = np.ones(len(pixel), bool)
        ended = np.searchsorted(_key(pixel, start, T), _key(stops[0], stops[1], T), side="left") - 1
        open_ended[ended] = False
        stop, after = np.full(len(pixel), T), np.full(len(pixel), np.nan)
        stop[ended], after[ended] = stops[1], stops[2]
        before = np.where(np.isnan(starts[2]), after, starts[2])
        after = np.where(open_ended, before, after)
        return cls(pixel, start, stop, np.nan_to_num(before), np.nan_to_num(after))

    def values(self, frames: NDArray[np.int64], pixels: NDArray[np.int64], T: int) -> NDArray[np.float64]:
        """What missing values become."""
        run = np.searchsorted(_key(self.pixel, self.start, T), _key(pixels, frames, T), side="right") - 1
        slope = (self.after - self.before) / (self.stop - self.start + 1)
        return self.before[run] + slope[run] * (frames - self.start[run] + 1)


def _key(pixel: NDArray, frame: NDArray, T: int) -> NDArray[np.int64]:
    return pixel.astype(np.int64) * (T + 1) + frame.astype(np.int64)


def _edges(xp: Any, values: Array, where: Array, first: int) -> NDArray[np.float64]:
    """(3, n) pixels, frames and values where one of a pair of neighbouring frames is missing."""
    t, pixel = xp.nonzero(where)
    known = backend.to_numpy(values[t, pixel])
    return np.stack([backend.to_numpy(pixel), backend.to_numpy(t) + first + 1, known]).astype(np.float64)


class Interpolated:
    """A movie whose missing values lie on the line between the known ones of their pixel; the ends are held.

    Parameters
    ----------
    source : FrameSource
        Of floating-point numbers. It is streamed, and values are put in on the device where a chunk of it is.
    gaps : Gaps
        Its missing values.
    """

    def __init__(self, source: FrameSource, gaps: Gaps) -> None:
        self.shape, self.dtype = tuple(source.shape), np.dtype(source.dtype)
        self.name = getattr(source, "name", "the movie")
        self.made_from, self._gaps = source, gaps
        self._never = gaps.pixel[gaps.stop - gaps.start == len(source)]
        self.working = (
            3 * self.dtype.itemsize * math.prod(self.shape[1:])
        )  # what is made, and where it is missing

    def __len__(self) -> int:
        return self.shape[0]

    def make(self, chunk: Array, frames: range) -> Array:
        """The frames of a range from a chunk of the other source."""
        xp = backend.arrays.xp(chunk)
        rows = chunk.reshape(len(chunk), -1).copy()
        rows[:, xp.asarray(self._never)] = 0
        t, pixel = xp.nonzero(xp.isnan(rows))
        if len(t):
            when = np.asarray(frames)[backend.to_numpy(t)]
            values = self._gaps.values(when, backend.to_numpy(pixel), len(self))
            rows[t, pixel] = xp.asarray(values.astype(self.dtype))
        return rows.reshape(chunk.shape)

    def read(self, frames: slice, out: NDArray | None = None) -> NDArray:
        """Frames of a slice, filled; into `out` if that is given."""
        filled = self.make(self.made_from.read(frames), range(len(self))[frames])
        if out is None:
            return filled
        out[:] = filled
        return out


def without_missing(movie: PixelMovie) -> PixelMovie:
    """`movie`, or one with its missing values filled: held if there is room for it beside `movie`, else streamed.

    Raises
    ------
    MovieValueError
        Infinite values, or no finite one at all.
    """
    mean = movie.mean()
    if np.isinf(mean).any():
        raise MovieValueError(
            "the movie holds infinite values: replace them (NaN would be filled by interpolation)"
        )
    if not np.isnan(mean).any():
        return movie
    gaps = Gaps.of(movie.source)
    if np.sum(gaps.stop - gaps.start) == movie.T * movie.d:
        raise MovieValueError("every value of the movie is NaN")
    log.warning(
        "missing values of %d pixels were filled by interpolation in time", len(np.unique(gaps.pixel))
    )
    filled = Interpolated(movie.source, gaps)
    if 2 * movie.T * movie.d * filled.dtype.itemsize > backend.budget():
        return PixelMovie(filled, movie.dims)
    held = backend.hold(filled)
    return pixel_movie(held.T) if held.ndim == 2 else PixelMovie(open_movie(held), movie.dims)
