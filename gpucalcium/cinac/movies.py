"""Movies as the networks see them: one source of raw frames, and the mean and deviation that normalise them.

The raw movie stays where it is and in its own dtype; what is read is normalised on the way,
``float32((float64(y) - mean) / std)``, NaN becoming 0, the mean.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.cinac.moments import movie_moments
from gpucalcium.errors import MemoryBudgetError, NotSupportedError, ParameterError
from gpucalcium.movies import MovieLike, open_movie
from gpucalcium.movies.chain import Selection

log = logging.getLogger(__name__)

Frames = slice | range | Sequence[int] | NDArray[np.integer]


def normalised(frames: NDArray, mean: float, std: float) -> NDArray[np.float32]:
    """``float32((float64(y) - mean) / std)`` of frames of any real dtype; 0 where y is NaN, and if `std` is 0."""
    if std == 0:
        return np.zeros(frames.shape, np.float32)
    values = ((frames.astype(np.float64) - mean) / std).astype(np.float32)
    if frames.dtype.kind == "f":
        values[np.isnan(values)] = 0
    return values


class CinacMovie:
    """A movie, and how it is normalised: by one mean and one standard deviation over all pixels and frames.

    Parameters
    ----------
    movie : array, path, list of these, or source; (T, H, W), any real dtype
        What `gpucalcium.open_movie` takes. Read in chunks, never held.
    already_normalized : bool
        Its values are taken as they are; only NaN become 0.

    Attributes
    ----------
    source : FrameSource
        The raw movie in its own dtype.
    already_normalized : bool

    Raises
    ------
    MovieShapeError
        No movie, or empty.
    NotSupportedError
        Volumes, (T, d1, d2, d3).
    """

    def __init__(self, movie: MovieLike, already_normalized: bool = False) -> None:
        self.source: FrameSource = open_movie(movie)
        self.already_normalized = bool(already_normalized)
        if len(self.source.shape) != 3:
            raise NotSupportedError(
                f"{_name(self.source)} is {self.source.shape}, volumes; the networks look at images, so give one plane "
                "at a time: (T, H, W) is expected"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_name(self.source)}: {self.source.shape} {self.source.dtype}>"

    @cached_property
    def _moments(self) -> tuple[float, float]:
        if self.already_normalized:
            return 0.0, 1.0
        mean, std, missing = movie_moments(self.source)
        if missing:
            log.info("%s: %d values are NaN; they count as the mean", _name(self.source), missing)
        return mean, std

    @property
    def mean(self) -> float:
        """Mean over all pixels and frames, NaN left out; 0 if the movie is normalised already.

        The movie is read for it once, when it is first asked for.

        Raises
        ------
        MovieValueError
            All values are NaN, or some are infinite.
        """
        return self._moments[0]

    @property
    def std(self) -> float:
        """Standard deviation likewise; 1 if the movie is normalised already."""
        return self._moments[1]

    def get_n_frames(self) -> int:
        """Number of frames."""
        return self.source.shape[0]

    def get_dimensions(self) -> tuple[int, int]:
        """Rows and columns, (H, W)."""
        return self.source.shape[1], self.source.shape[2]

    def get_frames_section(
        self, frames: Frames, minx: int, maxx: int, miny: int, maxy: int
    ) -> NDArray[np.float32]:
        """Normalised frames of part of the field of view.

        Parameters
        ----------
        frames : slice, range or sequence of int
        minx, maxx, miny, maxy : int
            First and last column, first and last row; the last ones are included.

        Returns
        -------
        frames : (n, maxy - miny + 1, maxx - minx + 1) float32

        Raises
        ------
        ParameterError
            Pixels or frames that are not there.
        """
        return normalised(self.raw_section(frames, minx, maxx, miny, maxy), self.mean, self.std)

    def raw_section(self, frames: Frames, minx: int, maxx: int, miny: int, maxy: int) -> NDArray:
        """Like `get_frames_section`, as stored: not normalised, in the dtype of the movie."""
        height, width = self.get_dimensions()
        if not (0 <= minx <= maxx < width and 0 <= miny <= maxy < height):
            raise ParameterError(
                f"columns {minx} to {maxx}, rows {miny} to {maxy}: the field of view has columns 0 to {width - 1} and "
                f"rows 0 to {height - 1}, and the last of each is included"
            )
        chosen = _checked_frames(frames, self.get_n_frames())
        if len(chosen) == 0:
            return np.empty((0, maxy - miny + 1, maxx - minx + 1), self.source.dtype)
        box = slice(miny, maxy + 1), slice(minx, maxx + 1)
        held = getattr(self.source, "array", None)
        if held is not None:  # no more than the section is touched
            when = slice(chosen.start, chosen.stop, chosen.step) if isinstance(chosen, range) else chosen
            return np.array(backend.to_numpy(held[:, *box][when]), order="C")
        return Selection(self.source, (chosen, *box)).read(slice(None))

    def get_full_movie(self, normalized: bool) -> NDArray:
        """All frames in memory.

        Parameters
        ----------
        normalized : bool

        Returns
        -------
        movie : (T, H, W), float32 if `normalized`, else the dtype of the movie

        Raises
        ------
        MemoryBudgetError
            It does not fit the budget.
        """
        with backend.use("cpu"):
            if not normalized:
                return np.array(backend.to_numpy(backend.hold(self.source)))
            need = 4 * math.prod(self.source.shape)
            if need > backend.budget():
                raise MemoryBudgetError(
                    f"{_name(self.source)} takes {need} bytes as float32, the budget is {backend.budget()}: give more "
                    "with GPUCALCIUM_MEMORY or backend.limit(memory=...), or read it in sections"
                )
            mean, std = self.mean, self.std
            movie, done = np.empty(self.source.shape, np.float32), 0
            with backend.limit(memory=backend.budget() - need):
                for chunk in backend.stream(self.source):
                    host = backend.to_numpy(chunk)
                    movie[done : done + len(host)] = normalised(host, mean, std)
                    done += len(host)
            return movie


class CinacDataMovie(CinacMovie):
    """A movie in an array.

    Parameters
    ----------
    movie : (T, H, W) array
    already_normalized : bool
    """


class CinacTiffMovie(CinacMovie):
    """A movie in a TIFF file.

    Parameters
    ----------
    tiff_file_name : path, optional
    tiff_movie : (T, H, W) array, optional
        Taken in place of the file, if both are given.

    Raises
    ------
    ParameterError
        Neither is given.
    """

    def __init__(self, tiff_file_name: str | os.PathLike[str] | None = None, tiff_movie: Any = None) -> None:
        super().__init__(file_or_array(tiff_file_name, tiff_movie))


class CinacFileReaderMovie(CinacMovie):
    """The movie of a segment of a ``.cinac`` file: a patch around one cell, normalised when it was cut.

    Parameters
    ----------
    cinac_file_reader : CinacFileReader
    segment : (int, int, int)
        Cell, first and last frame.
    """

    def __init__(self, cinac_file_reader: Any, segment: tuple[int, int, int]) -> None:
        super().__init__(cinac_file_reader.get_segment_ci_movie(segment), already_normalized=True)


def file_or_array(tiff_file_name: str | os.PathLike[str] | None, tiff_movie: Any) -> Any:
    """The movie that is meant: the array wins over the file."""
    if tiff_movie is not None:
        return tiff_movie
    if tiff_file_name is None:
        raise ParameterError("neither tiff_file_name nor tiff_movie is given: one of them must be the movie")
    return tiff_file_name


def _checked_frames(frames: Frames, n_frames: int) -> range | NDArray[np.int64]:
    if isinstance(frames, slice):
        return range(n_frames)[frames]
    chosen = np.asarray(frames)
    if chosen.size == 0:
        return range(0)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise ParameterError(f"frames are chosen by a slice or by whole numbers, not by {frames!r:.60}")
    if chosen.min() < 0 or chosen.max() >= n_frames:
        raise ParameterError(
            f"frames {chosen.min()} to {chosen.max()} are asked for; there are 0 to {n_frames - 1}"
        )
    return chosen.astype(np.int64)


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
