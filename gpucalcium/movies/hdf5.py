"""Reading of movies in HDF5 files: plain ones, NWB, and MATLAB's from version 7.3 on."""

from __future__ import annotations

import math
from pathlib import Path
from threading import Lock
from typing import Any

import h5py

from gpucalcium.errors import DatasetNotFoundError, MovieFileError
from gpucalcium.movies.about import about_recording, from_json
from gpucalcium.movies.arrays import SlicedSource
from gpucalcium.movies.axes import axes_by_name, open_arranged
from gpucalcium.movies.blocks import Place, RawBlocks, Stored
from gpucalcium.movies.chain import OneChannel
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source

_BY_MATLAB = "MATLAB_class"  # attribute of what MATLAB itself has written
_SHOWN = 20  # names listed in an error
_LEAST_CHUNK = 1 << 14  # bytes: smaller ones HDF5 reads faster than Python asks for them


def open_hdf5(
    path: Path, var_name_hdf5: str = "mov", axes: str | None = None, channel: int | None = None
) -> Source:
    """Frames of a data set: the one of that name, or the only one at the top of the file.

    `var_name_hdf5` may be a path ("group/data"); an NWB series is found under ``<name>/data`` or
    ``acquisition/<name>/data``, or as the only acquisition. A data set of two axes is one frame. MATLAB writes
    its arrays (d1, d2[, d3], T) in Fortran order; where it did, frames are turned to (d1, d2[, d3]).

    `axes` says what each axis is (see `axes.open_arranged`); where a data set has channels and its dimensions have
    labels, these say it. `channel` is one of them or, where nothing names the axes, one of (T, channels, d1, d2).

    Raises
    ------
    MovieFileError
        Not an HDF5 file, truncated, or a data set that cannot be opened.
    DatasetNotFoundError
        No such data set; lists those that are there.
    MovieShapeError, ParameterError
        Not 3 or 4 axes; `axes` does not fit; no such channel, or several of which none was chosen.
    """
    try:
        file = h5py.File(path, "r")
        data = find_dataset(file, var_name_hdf5)
        about = _about(data)
    except DatasetNotFoundError:
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
    ) as err:  # as the damage is deeper in the file
        raise MovieFileError(
            f"{path} cannot be read as HDF5: {err}. It may be truncated or still being written (a .mat file older than "
            "version 7.3 is no HDF5 file: save it again with '-v7.3')"
        ) from err
    by_matlab, label = _BY_MATLAB in data.attrs, f"{path}:{data.name}"
    axes = axes or _labels(data)
    source: Source
    if axes is not None:
        source = open_arranged(data, label, axes, channel)
    else:
        whole = _straight_from_file(data, by_matlab) or SlicedSource(data, label, reversed_axes=by_matlab)
        source = whole if channel is None else OneChannel(whole, channel)
    source.about = about_recording(about)
    return source


def _labels(data: h5py.Dataset) -> str | None:
    """The axes of a data set with channels, by the labels of its dimensions; None if they do not tell."""
    return axes_by_name([dimension.label for dimension in data.dims], data.ndim)


def _straight_from_file(data: h5py.Dataset, reversed_axes: bool) -> Source | None:
    """Frames read past HDF5, which copies them twice and lets one thread in at a time; None if it must decode them."""
    if data.ndim not in (3, 4) or 0 in data.shape or data.file.userblock_size:
        return None
    if data.dtype.kind not in "biuf" or data.id.get_type() != h5py.h5t.py_create(data.dtype, logical=True):
        return None  # fewer bits than bytes, for instance
    path, name = Path(data.file.filename), f"{data.file.filename}:{data.name}"
    shape = (len(data), *data.shape[:0:-1]) if reversed_axes else data.shape
    if (offset := data.id.get_offset()) is not None:
        source = RawSource(path, shape, data.dtype, offset, reversed_axes=reversed_axes)
        source.name = name
        return source
    is_plain = data.chunks is not None and data.id.get_create_plist().get_nfilters() == 0
    if not is_plain or math.prod(data.chunks) * data.dtype.itemsize < _LEAST_CHUNK:
        return None
    chunks = _Chunks(path, data)
    return RawBlocks(
        shape, data.dtype, name, data.chunks, chunks.find, data.fillvalue, reversed_axes=reversed_axes
    )


class _Chunks:
    """Where the chunks of a data set lie; looked up once, when the first is asked for."""

    def __init__(self, path: Path, data: h5py.Dataset) -> None:
        self._path, self._data = path, data
        self._size = math.prod(data.chunks) * data.dtype.itemsize
        self._lock = Lock()
        self._offsets: dict[Place, int] | None = None

    def find(self, place: Place) -> Stored | None:
        """The chunk of these numbers along the axes; None if it was never written."""
        with self._lock:
            if self._offsets is None:
                self._offsets = self._all()
        offset = self._offsets.get(place)
        return None if offset is None else Stored(self._path, offset, self._size)

    def _all(self) -> dict[Place, int]:
        found: dict[Place, int] = {}

        def note(chunk: Any) -> None:
            numbers = zip(chunk.chunk_offset, self._data.chunks, strict=True)
            found[tuple(first // length for first, length in numbers)] = chunk.byte_offset

        self._data.id.chunk_iter(note)
        return found


def _about(data: h5py.Dataset) -> dict[str, Any]:
    """What is written to the data set, or to the NWB series it belongs to."""
    series = data.parent
    found: dict[str, Any] = {}
    if isinstance(start := series.get("starting_time"), h5py.Dataset) and start.shape == ():
        found = {"start_time": start[()], "fr": start.attrs.get("rate")}
    if isinstance(said := from_json(series.attrs.get("comments")), dict):
        found |= said
    return found | dict(data.attrs)


def find_dataset(file: h5py.Group, name: str) -> h5py.Dataset:
    """The data set meant by `name`, see `open_hdf5`."""
    for path in (name, f"{name}/data", f"acquisition/{name}/data"):
        if isinstance(found := file.get(path), h5py.Dataset):
            return found
    if len(file) == 1:
        only = next(iter(file))
        for path in (only, f"{only}/data"):
            if isinstance(found := file.get(path), h5py.Dataset):
                return found
    acquired = file.get("acquisition")
    if isinstance(acquired, h5py.Group) and len(acquired) == 1:
        return find_dataset(acquired, next(iter(acquired)))
    there: list[str] = []
    file.visititems(lambda path, item: there.append(path) if isinstance(item, h5py.Dataset) else None)
    listed = ", ".join(there[:_SHOWN]) + (" ..." if len(there) > _SHOWN else "")
    raise DatasetNotFoundError(
        f"{file.file.filename} has no data set {name!r}; there are: {listed or 'none'}. Name one with var_name_hdf5=..."
    )
