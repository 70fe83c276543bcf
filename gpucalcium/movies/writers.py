"""Writing of movies to files of every kind, chunk by chunk; a file appears under its name only once it is complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import UnknownFormatError
from gpucalcium.movies.files import target, written_whole
from gpucalcium.movies.memmap_write import write_map
from gpucalcium.movies.save_options import Recording, SaveOptions
from gpucalcium.movies.write_arrays import write_mat, write_npy, write_npz
from gpucalcium.movies.write_chunked import write_hdf5, write_zarr
from gpucalcium.movies.write_nwb import NWB_OPTIONS, write_nwb
from gpucalcium.movies.write_tiff import write_tiff
from gpucalcium.movies.write_video import write_video

if TYPE_CHECKING:
    from gpucalcium.movies.timeseries import timeseries

Writer = Callable[[FrameSource, Path, Recording, SaveOptions], None]


@dataclass(frozen=True)
class Format:
    """One kind of file: its writer, and the options that mean something to it."""

    write: Writer
    options: frozenset[str]


_TIFF = Format(write_tiff, frozenset({"to32", "imagej", "bigtiff", "compress"}))
_VIDEO = Format(write_video, frozenset({"compress", "q_max", "q_min"}))
_HDF5 = Format(write_hdf5, frozenset({"compress", "var_name_hdf5"}))
_MAP = ".mmap"
_MAP_OPTIONS = frozenset({"order"})
FORMATS: dict[str, Format] = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".btf": _TIFF,
    ".npy": Format(write_npy, frozenset()),
    ".npz": Format(write_npz, frozenset({"compress"})),
    ".mat": Format(write_mat, frozenset({"compress"})),
    ".avi": _VIDEO,
    ".mkv": _VIDEO,
    ".mp4": Format(write_video, frozenset({"q_max", "q_min"})),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".nwb": Format(write_nwb, NWB_OPTIONS),
    ".zarr": Format(write_zarr, frozenset({"compress", "var_name_hdf5"})),
}


class Held:
    """An array of any shape and dtype as a source: what is saved is not always a movie, and keeps its dtype."""

    name = "the movie"

    def __init__(self, array: NDArray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def read(self, frames: slice, out: NDArray | None = None) -> NDArray:
        """As `FrameSource.read`."""
        if out is None:
            return np.array(self.array[frames], order="C")
        out[...] = self.array[frames]
        return out


def save(series: timeseries, file_name: str | os.PathLike[str], options: SaveOptions) -> str:
    """See `timeseries.save`."""
    about = Recording(
        fr=series.fr, start_time=series.start_time, file_name=series.file_name, meta_data=series.meta_data
    )
    array: Any = np.asarray(series)
    return str(write(Held(array), target(file_name), about, options))


def check_format(path: Path) -> None:
    """Raise unless files of that extension can be written.

    Raises
    ------
    UnknownFormatError
        "Extension Unknown"; lists those that are known.
    """
    if path.suffix.lower() not in (*FORMATS, _MAP):
        raise UnknownFormatError(
            f"Extension Unknown: {path.suffix!r} of {path}; movies are written to {' '.join(FORMATS)} {_MAP}"
        )


def write(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> Path:
    """Write a movie of any size into a file, within the memory budget.

    Parameters
    ----------
    source : FrameSource
    path : Path
        Its extension says what kind of file.
    about : Recording
    options : SaveOptions
        Those without a meaning for this kind of file are named in the log.

    Returns
    -------
    path : Path
        Of the file written: of a memory map, with its size and order.

    Raises
    ------
    UnknownFormatError
        "Extension Unknown"
    ParameterError
        The format cannot hold this dtype, shape or size.
    OutputError
        The folder cannot be written to, or the disk is full; nothing is left behind.
    """
    check_format(path)
    suffix = path.suffix.lower()
    known = FORMATS.get(suffix)
    options.tell_unused(suffix, known.options if known else _MAP_OPTIONS)
    if known is None:
        return write_map(
            source.array if isinstance(source, Held) else source, path.with_suffix(""), options.order
        )
    with written_whole(path) as temporary, backend.use("cpu"):
        known.write(source, temporary, about, options)
    return path
