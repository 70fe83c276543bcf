"""`open_movie`: whatever a user calls a movie, as a source of frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayTypeError, MovieFileError, MovieNotFoundError, UnknownFormatError
from gpucalcium.movies.arrays import open_array
from gpucalcium.movies.chain import Chain, Selection
from gpucalcium.movies.hdf5 import open_hdf5
from gpucalcium.movies.memmap import open_mmap
from gpucalcium.movies.npy import open_npy
from gpucalcium.movies.tiff import open_tiff

MovieLike = Any
"""What `open_movie` takes: an array of any kind, a path, a list of either, a source."""

TIFF, HDF5 = (".tif", ".tiff", ".btf"), (".h5", ".hdf5", ".nwb", ".mat")
_READERS: Mapping[str, Callable[..., FrameSource]] = (
    dict.fromkeys(TIFF, open_tiff) | dict.fromkeys(HDF5, open_hdf5) | {".npy": open_npy, ".mmap": open_mmap}
)


def open_movie(
    movie: MovieLike,
    *,
    var_name_hdf5: str = "mov",
    subindices: Any = None,
    shape: tuple[int, int] | None = None,
) -> FrameSource:
    """A source of frames, whatever the movie is kept in. Only headers are read.

    Parameters
    ----------
    movie : array, path, list of these, or source
        (T, d1, d2[, d3]): NumPy, CuPy, memory-mapped, HDF5 or Zarr arrays; anything with
        ``__cuda_array_interface__`` or ``__dlpack__``; a file (.tif .tiff .btf .h5 .hdf5 .nwb .mat .npy .mmap);
        several of them, which follow each other in time. A source is returned as it is.
    var_name_hdf5 : str
        Data set in HDF5 files; if there is only one, that is taken.
    subindices : optional
        Part of the movie: frames (int, slice, range, list) or a tuple with one selector per axis.
    shape : (int, int), optional
        Of the frames, if an .npy file holds a matrix (pixels, T), pixels in Fortran order.

    Returns
    -------
    source : FrameSource
        Its dtype is that of the file, in native byte order (bool: uint8, float16: float32).

    Raises
    ------
    MovieNotFoundError, UnknownFormatError, MovieFileError, DatasetNotFoundError
        No such file; no reader for it; truncated or corrupt; no such data set.
    MovieShapeError, ArrayTypeError
        Not 3 or 4 axes, or empty; not real numbers.
    """
    source = _open(movie, var_name_hdf5, shape)
    return source if subindices is None else Selection(source, subindices)


def _open(movie: MovieLike, var_name_hdf5: str, shape: tuple[int, int] | None) -> FrameSource:
    if isinstance(movie, str | os.PathLike):
        return _open_file(Path(movie), var_name_hdf5, shape)
    if hasattr(movie, "read") and hasattr(movie, "shape"):
        return movie
    if hasattr(movie, "shape") and hasattr(movie, "dtype"):
        return open_array(movie)
    if isinstance(movie, Sequence) and not isinstance(movie, bytes):
        return Chain([_open(part, var_name_hdf5, shape) for part in movie])
    raise ArrayTypeError(
        f"{type(movie).__name__} is no movie: give an array (T, d1, d2[, d3]), the path of a file, or a list of these"
    )


def _open_file(path: Path, var_name_hdf5: str, shape: tuple[int, int] | None) -> FrameSource:
    if not path.exists():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UnknownFormatError(
            f"Unknown file type {path.suffix!r} of {path}: movies are read from {' '.join(sorted(_READERS))}. Convert "
            "it, or load it yourself and give the array"
        )
    if not path.is_file():
        raise MovieFileError(
            f"{path} is a folder, where a {path.suffix} file was expected; list the files in it"
        )
    if path.stat().st_size == 0:
        raise MovieFileError(f"{path} is empty (0 bytes): copy it again from where it was recorded")
    if reader is open_hdf5:
        return open_hdf5(path, var_name_hdf5)
    return open_npy(path, shape) if reader is open_npy else reader(path)
