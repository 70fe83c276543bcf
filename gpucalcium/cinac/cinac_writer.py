"""Writing of ``.cinac`` files."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gpucalcium import backend
from gpucalcium.cinac.rois import PathLike
from gpucalcium.errors import ArrayShapeError, MovieFileError, ParameterError
from gpucalcium.movies import MovieLike, open_movie
from gpucalcium.movies.files import written_whole

FULL_DATA = "full_data"
ENDINGS = (".cinac", ".h5")
REQUIRED = ("raster_dur", "ci_movie", "cells_contour", "invalid_cells", "smooth_traces", "raw_traces")
"""What every segment has."""


def group_name(segment: Sequence[int]) -> str:
    """The group of a segment: cell, first and last frame."""
    cell, first, last = segment
    return f"cell_{cell}_{first}_{last}"


class CinacFileWriter:
    """Adds to a ``.cinac`` file, or starts one. Work is done on a copy that takes the file's place at `close_file`.

    Parameters
    ----------
    file_name : path
        ``.cinac`` or ``.h5``; the ending ``.cinac`` is added where there is neither.

    Notes
    -----
    ``with CinacFileWriter(...) as writer:`` closes at the end and, after an error, leaves the file as it was. A writer
    that is never closed is closed when it is forgotten, or when Python ends.

    Raises
    ------
    MovieFileError
        The file is there and cannot be read as HDF5.
    OutputError
        It cannot be written.
    """

    def __init__(self, file_name: PathLike) -> None:
        path = Path(file_name)
        self.file_name = path if path.suffix in ENDINGS else path.with_name(f"{path.name}.cinac")
        self._stack = ExitStack()
        temporary = self._stack.enter_context(written_whole(self.file_name))
        try:
            if self.file_name.exists():
                shutil.copyfile(self.file_name, temporary)
            self._file = self._stack.enter_context(h5py.File(temporary, "a"))
        except OSError as err:
            self._stack.__exit__(type(err), err, err.__traceback__)
            raise MovieFileError(
                f"{self.file_name} cannot be changed: {err}. It may be truncated; move it away, or choose another name"
            ) from err
        self._finish = weakref.finalize(self, self._stack.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finish.detach() is not None:
            self._stack.__exit__(kind, err, trace)

    def close_file(self) -> None:
        """Put the file in its place. Nothing can be added after that."""
        self._finish()

    def get_group_names(self) -> list[str]:
        """Names of the groups, segments and ``full_data``, as they stand in the file."""
        return list(self._open())

    def delete_groups(self, group_names: Sequence[str]) -> None:
        """Remove groups.

        Raises
        ------
        ParameterError
            One of them is not there; none is removed then.
        """
        file = self._open()
        if missing := [name for name in group_names if name not in file]:
            raise ParameterError(
                f"{self.file_name} has no group {missing[0]!r}; it has {', '.join(file) or 'none'}"
            )
        for name in group_names:
            del file[name]

    def create_full_data_group(
        self,
        n_frames: int,
        n_cells: int,
        *,
        ci_movie_file_name: str | None = None,
        cells_contour: Sequence[ArrayLike] | None = None,
        invalid_cells: ArrayLike | None = None,
        smooth_traces: ArrayLike | None = None,
        raw_traces: ArrayLike | None = None,
        ci_movie: MovieLike | None = None,
    ) -> None:
        """Say what the whole recording is; what was said before is replaced.

        Parameters
        ----------
        n_frames, n_cells : int
        ci_movie_file_name : str, optional
        cells_contour : sequence of (2, n), optional
            x and y of each cell's outline; rounded to whole pixels.
        invalid_cells : (N,) bool, optional
        smooth_traces, raw_traces : (N, T), optional
            In standard deviations.
        ci_movie : movie (T, H, W), optional
            What `gpucalcium.open_movie` takes; written in chunks, in its own dtype.

        Raises
        ------
        ArrayShapeError
            Something is of another number of cells or frames.
        """
        traces = {"smooth_traces": smooth_traces, "raw_traces": raw_traces}
        arrays: dict[str, Any] = {name: np.asarray(x) for name, x in traces.items() if x is not None}
        for name, values in arrays.items():
            _check_shape(name, values.shape, (n_cells, n_frames))
        if invalid_cells is not None:
            arrays["invalid_cells"] = np.asarray(invalid_cells).astype(np.int8)
            _check_shape("invalid_cells", arrays["invalid_cells"].shape, (n_cells,))
        if cells_contour is not None:
            arrays["cells_contour"] = _ragged(cells_contour, np.int16)
            _check_shape("cells_contour", arrays["cells_contour"].shape, (n_cells, 2))
        movie = None if ci_movie is None else open_movie(ci_movie)
        if movie is not None:
            _check_shape("ci_movie", movie.shape, (n_frames, *movie.shape[1:3]))
        group = self._new(FULL_DATA)
        group.attrs.update(n_frames=int(n_frames), n_cells=int(n_cells))
        if ci_movie_file_name is not None:
            group.attrs["ci_movie_file_name"] = ci_movie_file_name
        _write(group, arrays)
        if movie is not None:
            data, done = group.create_dataset("ci_movie", movie.shape, movie.dtype), 0
            with backend.use("cpu"):
                for chunk in backend.stream(movie):
                    data[done : done + len(chunk)] = backend.to_numpy(chunk)
                    done += len(chunk)

    def add_segment_group(
        self,
        segment: tuple[int, int, int],
        *,
        raster_dur: ArrayLike | None = None,
        ci_movie: ArrayLike | None = None,
        cells_contour: Sequence[ArrayLike] | None = None,
        invalid_cells: ArrayLike | None = None,
        smooth_traces: ArrayLike | None = None,
        raw_traces: ArrayLike | None = None,
        doubtful_frames: ArrayLike | None = None,
        cell_type: str | None = None,
        pixels_around: int | None = None,
        buffer: int | None = None,
    ) -> str:
        """Add a segment; of one of the same cell and frames that is there, what is given is replaced.

        Parameters
        ----------
        segment : (int, int, int)
            Cell, first and last frame (included): n frames.
        raster_dur : (n,)
            1 in frames in which the cell is active, else 0.
        ci_movie : (n, P, P)
            Patch around the cell, normalised by the mean and standard deviation of the whole movie; kept as float32.
        cells_contour : sequence of (2, m)
            x and y in the patch: of the cell, then of those that it meets; rounded to whole pixels.
        invalid_cells : (1 + overlaps,) bool
        smooth_traces, raw_traces : (n,)
            In standard deviations.
        doubtful_frames : (n,), optional
            1 in frames that are neither.
        cell_type : str, optional
        pixels_around : int, optional
            0 if it is never given.
        buffer : int, optional

        Returns
        -------
        name : str
            Of the group.

        Raises
        ------
        ParameterError, ArrayShapeError
            No such segment can be; one that is new lacks something; something is of another number of frames or cells.
        """
        name, n = _checked_segment(segment)
        given = {
            "raster_dur": _frames("raster_dur", raster_dur, n, np.int8),
            "doubtful_frames": _frames("doubtful_frames", doubtful_frames, n, np.int8),
            "smooth_traces": _frames("smooth_traces", smooth_traces, n, np.float64),
            "raw_traces": _frames("raw_traces", raw_traces, n, np.float64),
            "ci_movie": None if ci_movie is None else np.asarray(ci_movie, np.float32),
            "cells_contour": None if cells_contour is None else _ragged(cells_contour, np.int32),
            "invalid_cells": None if invalid_cells is None else np.asarray(invalid_cells).astype(np.int8),
        }
        movie = given["ci_movie"]
        if movie is not None:
            _check_shape("ci_movie", movie.shape, (n, *movie.shape[1:3]) if movie.ndim == 3 else (n, 0, 0))
        file = self._open()
        there = file.get(name, {})
        if missing := [key for key in REQUIRED if given[key] is None and key not in there]:
            raise ParameterError(
                f"segment {segment} of {self.file_name} is new and needs {', '.join(missing)}"
            )
        contours, invalid = (
            there[key] if given[key] is None else given[key] for key in ("cells_contour", "invalid_cells")
        )
        _check_shape("invalid_cells", invalid.shape, (len(contours),))
        attributes = {"pixels_around": pixels_around, "buffer": buffer, "cell_type": cell_type}
        group = file.require_group(name)
        group.attrs.setdefault("pixels_around", 0)
        group.attrs.update({key: value for key, value in attributes.items() if value is not None})
        _write(group, {key: values for key, values in given.items() if values is not None})
        return name

    def _open(self) -> h5py.File:
        if not self._file:
            raise ParameterError(
                f"{self.file_name} has been closed: open another CinacFileWriter to add to it"
            )
        return self._file

    def _new(self, name: str) -> h5py.Group:
        file = self._open()
        if name in file:
            del file[name]
        return file.create_group(name)


def _checked_segment(segment: Sequence[int]) -> tuple[str, int]:
    """The group of a segment, and how many frames it has."""
    cell, first, last = (int(n) for n in segment)
    if cell < 0 or not 0 <= first <= last:
        raise ParameterError(
            f"segment {segment}: cell, first and last frame are expected, the last not before the first"
        )
    return group_name((cell, first, last)), last - first + 1


def _frames(name: str, values: ArrayLike | None, n: int, dtype: DTypeLike) -> Any:
    """A value for each frame; int8 are 0 and 1."""
    if values is None:
        return None
    array = np.asarray(values)
    if np.dtype(dtype) == np.int8 and not np.isin(array, (0, 1)).all():
        raise ParameterError(f"{name} holds something else than 0 and 1")
    _check_shape(name, array.shape, (n,))
    return array.astype(dtype)


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ArrayShapeError(f"{name} has shape {shape}; {expected} is expected")


def _ragged(contours: Sequence[ArrayLike], dtype: DTypeLike) -> Any:
    """(N, 2) object array of vectors of whole numbers: x and y of each contour, NaN left out, rounded."""
    table = np.empty((len(contours), 2), object)
    room = np.iinfo(np.dtype(dtype))
    for cell, contour in enumerate(contours):
        points = np.asarray(contour, np.float64)
        if points.ndim != 2 or len(points) != 2:
            raise ArrayShapeError(f"the contour of cell {cell} has shape {points.shape}; (2, n) is expected")
        points = np.rint(points[:, ~np.isnan(points).any(axis=0)])
        if points.size and not (room.min <= points.min() and points.max() <= room.max):
            raise ParameterError(f"the contour of cell {cell} goes beyond {room.min} to {room.max} pixels")
        table[cell, 0], table[cell, 1] = points.astype(dtype)
    return table


def _write(group: h5py.Group, arrays: Mapping[str, Any]) -> None:
    for name, values in arrays.items():
        if name in group:
            del group[name]
        if values.dtype == object:
            kind = np.int16 if group.name.endswith(FULL_DATA) else np.int32
            data = group.create_dataset(name, values.shape, h5py.vlen_dtype(kind))
            for place in np.ndindex(values.shape):
                data[place] = values[place]
        else:
            group.create_dataset(name, data=values)
