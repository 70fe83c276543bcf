"""Reading of ``.cinac`` files: annotated patches of movies, in HDF5."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac.cinac_writer import FULL_DATA, CinacFileWriter, group_name
from gpucalcium.cinac.rois import PathLike
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
)

__all__ = ["CinacFileReader", "CinacFileWriter", "Segment"]

Segment = tuple[int, int, int]
"""Cell, first frame, last frame (included)."""

_SEGMENT = re.compile(r"cell_(\d+)_(\d+)_(\d+)")


class CinacFileReader:
    """What a ``.cinac`` file holds; it is opened for each question and closed again.

    Parameters
    ----------
    file_name : path
        ``.cinac`` or ``.h5``.
    frames_to_keep : mapping of segment to (n,) int, optional
        Frames that are read of each segment, counted from its first; segments that are not named are read whole.

    Raises
    ------
    MovieNotFoundError
        No such file.
    MovieFileError
        Not an HDF5 file, or truncated.
    """

    def __init__(
        self, file_name: PathLike, frames_to_keep: Mapping[Segment, ArrayLike] | None = None
    ) -> None:
        self.file_name = Path(file_name)
        if not self.file_name.is_file():
            raise MovieNotFoundError(
                f"File {self.file_name} not found! The working directory is {Path.cwd()}"
            )
        with self._opened() as file:
            self._segments = sorted(
                (int(found[1]), int(found[2]), int(found[3]))
                for found in map(_SEGMENT.fullmatch, file)
                if found
            )
            self._has_full_data = FULL_DATA in file
        self._keeps = {
            self._known(segment): self._checked(segment, frames)
            for segment, frames in (frames_to_keep or {}).items()
        }

    def __repr__(self) -> str:
        return f"<CinacFileReader {self.file_name}: {len(self._segments)} segments>"

    # ------------------------------------------------------------------ segments

    def get_all_segments(self) -> list[Segment]:
        """(cell, first frame, last frame) of each segment, in the order of these numbers."""
        return list(self._segments)

    def get_segment_ci_movie(self, segment: Segment) -> NDArray[np.float32]:
        """(n, P, P) float32: the patch around the cell, normalised by the mean and deviation of the whole movie."""
        return self._values(segment, "ci_movie").astype(np.float32, copy=False)

    def get_segment_raster_dur(self, segment: Segment) -> NDArray[np.int8]:
        """(n,) int8: 1 in frames in which the cell is active."""
        return self._values(segment, "raster_dur").astype(np.int8)

    def get_segment_doubtful_frames(self, segment: Segment) -> NDArray[np.int8] | None:
        """(n,) int8: 1 in frames that were annotated as doubtful; None if the file does not say."""
        found = self._values(segment, "doubtful_frames", optional=True)
        return None if found is None else found.astype(np.int8)

    def get_segment_smooth_traces(self, segment: Segment) -> NDArray[np.float64]:
        """(n,) float64: smooth trace of the cell, in standard deviations."""
        return self._values(segment, "smooth_traces").astype(np.float64)

    def get_segment_raw_traces(self, segment: Segment) -> NDArray[np.float64]:
        """(n,) float64: trace of the cell, in standard deviations."""
        return self._values(segment, "raw_traces").astype(np.float64)

    def get_segment_cells_contour(self, segment: Segment) -> list[NDArray[np.float64]]:
        """(2, n) x and y of the outline of the cell and of those that it meets, in the patch."""
        return _contours(self._whole(segment, "cells_contour"))

    def get_segment_invalid_cells(self, segment: Segment) -> NDArray[np.bool_]:
        """(1 + overlaps,) bool: which of these cells are invalid."""
        return np.asarray(self._whole(segment, "invalid_cells")) != 0

    def get_segment_cell_type(self, segment: Segment) -> str | None:
        """Type of the cell; None if the file does not say."""
        return self._attribute(segment, "cell_type")

    def get_segment_pixels_around(self, segment: Segment) -> int | None:
        """Pixels around the cell that the patch was to hold; None if the file does not say."""
        return self._attribute(segment, "pixels_around")

    def get_segment_buffer(self, segment: Segment) -> int | None:
        """Pixels by which the cell was grown; None if it was not, or the file does not say."""
        return self._attribute(segment, "buffer")

    def fill_raster_dur_from_segments(self, raster: NDArray) -> None:
        """Set in a raster (N, T) each segment's frames to what is annotated there; other frames are left alone.

        Raises
        ------
        ArrayShapeError
            A segment lies outside the raster.
        """
        for segment in self._segments:
            cell, first, last = segment
            if raster.ndim != 2 or cell >= len(raster) or last >= raster.shape[1]:
                raise ArrayShapeError(
                    f"segment {segment} of {self.file_name} does not fit a raster of {raster.shape}: cells and frames "
                    "are counted from 0, (number of cells, number of frames) is expected"
                )
            frames = np.arange(first, last + 1)
            raster[cell, frames[self._keeps.get(segment, slice(None))]] = self.get_segment_raster_dur(segment)

    # ------------------------------------------------------------------ the whole recording

    @property
    def with_full_data(self) -> bool:
        """Whether the file says something of the whole recording."""
        return self._has_full_data

    def get_n_cells(self) -> int | None:
        """Number of cells of the recording; None if the file does not say."""
        return self._of_all("n_cells")

    def get_n_frames(self) -> int | None:
        """Number of frames of the recording; None if the file does not say."""
        return self._of_all("n_frames")

    def get_ci_movie_file_name(self) -> str | None:
        """Name of the movie; None if the file does not say."""
        return self._of_all("ci_movie_file_name")

    def get_coords_full_movie(self) -> list[NDArray[np.float64]] | None:
        """(2, n) x and y of the outline of each cell; None if the file does not say."""
        found = self._full("cells_contour")
        return None if found is None else _contours(found)

    def get_invalid_cells(self) -> NDArray[np.bool_] | None:
        """(N,) bool: which cells are invalid; None if the file does not say."""
        found = self._full("invalid_cells")
        return None if found is None else found != 0

    def get_smooth_traces(self) -> NDArray[np.float64] | None:
        """(N, T) float64: smooth traces of all cells, in standard deviations; None if the file does not say."""
        found = self._full("smooth_traces")
        return None if found is None else found.astype(np.float64)

    def get_raw_traces(self) -> NDArray[np.float64] | None:
        """(N, T) float64: traces of all cells, in standard deviations; None if the file does not say."""
        found = self._full("raw_traces")
        return None if found is None else found.astype(np.float64)

    def get_ci_movie(self) -> NDArray | None:
        """(T, H, W) the movie, as stored; None if it is not in the file."""
        return self._full("ci_movie")

    def get_all_cell_types(self) -> list[str]:
        """Types of the cells of the segments, each named once, sorted."""
        return sorted({found for s in self._segments if (found := self.get_segment_cell_type(s)) is not None})

    # ------------------------------------------------------------------ below

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.file_name, "r") as file:
                yield file
        except (OSError, RuntimeError) as err:  # as the damage is deeper in the file
            raise MovieFileError(
                f"{self.file_name} cannot be read as a .cinac file: {err}. It may be truncated or still being written; "
                "copy it again"
            ) from err

    def _known(self, segment: Segment) -> Segment:
        wanted = tuple(int(n) for n in segment)
        if len(wanted) != 3 or wanted not in self._segments:
            raise ParameterError(
                f"{self.file_name} has no segment {segment}; get_all_segments() lists those it has"
            )
        return wanted

    def _checked(self, segment: Segment, frames: ArrayLike) -> NDArray[np.int64]:
        chosen = np.asarray(frames)
        length = segment[2] - segment[1] + 1
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not ((chosen >= 0) & (chosen < length)).all():
            raise ParameterError(
                f"frames_to_keep of segment {segment}: a vector of whole numbers from 0 to {length - 1} is expected, "
                "counted from the first frame of the segment"
            )
        return chosen.astype(np.int64)

    def _whole(self, segment: Segment, name: str, optional: bool = False) -> Any:
        return self._data(group_name(self._known(segment)), name, optional)

    def _values(self, segment: Segment, name: str, optional: bool = False) -> Any:
        """Values for each frame of a segment that is kept."""
        values = self._whole(segment, name, optional)
        if values is None:
            return None
        length = segment[2] - segment[1] + 1
        if len(values) != length:
            raise MovieFileError(
                f"{self.file_name}: {name} of segment {segment} has {len(values)} frames, {length} are expected"
            )
        keep = self._keeps.get(self._known(segment))
        return values if keep is None else values[keep]

    def _full(self, name: str) -> Any:
        return self._data(FULL_DATA, name, optional=True) if self._has_full_data else None

    def _data(self, group: str, name: str, optional: bool) -> Any:
        with self._opened() as file:
            found = file[group].get(name)
            if found is None and not optional:
                raise DatasetNotFoundError(
                    f"{self.file_name}: {group} has no {name}; it has {list(file[group])}"
                )
            return None if found is None else found[...]

    def _attribute(self, segment: Segment, name: str) -> Any:
        with self._opened() as file:
            return _plain(file[group_name(self._known(segment))].attrs.get(name))

    def _of_all(self, name: str) -> Any:
        if not self._has_full_data:
            return None
        with self._opened() as file:
            return _plain(file[FULL_DATA].attrs.get(name))


def _plain(value: Any) -> Any:
    """A number or text as Python's; "None", as some files say, as None."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        value = value.decode()
    elif isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
        value = _plain(value.item())
    return None if value == "None" else value


def _contours(stored: Sequence[Any]) -> list[NDArray[np.float64]]:
    """(2, n) x and y of each cell, of (N, 2) vectors of different lengths."""
    table = np.asarray(stored, dtype=object)
    if table.ndim == 3:  # all are equally long
        return [np.asarray(points, np.float64) for points in stored]
    return [np.array([np.asarray(x, np.float64), np.asarray(y, np.float64)]) for x, y in table]
