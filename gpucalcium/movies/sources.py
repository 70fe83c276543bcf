"""`open_movie`: whatever a user calls a movie, as a source of frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayTypeError, MovieFileError, MovieNotFoundError, UnknownFormatError
from gpucalcium.movies.arrays import open_array
from gpucalcium.movies.axes import open_arranged, turned
from gpucalcium.movies.chain import Chain, OneChannel, Selection
from gpucalcium.movies.hdf5 import open_hdf5
from gpucalcium.movies.mat import open_mat
from gpucalcium.movies.memmap import open_mmap
from gpucalcium.movies.n5 import open_n5
from gpucalcium.movies.npy import open_npy
from gpucalcium.movies.npz import open_npz
from gpucalcium.movies.sbx import open_sbx
from gpucalcium.movies.suite2p import open_bin
from gpucalcium.movies.tiff import open_tiff
from gpucalcium.movies.video import open_video
from gpucalcium.movies.zarr_store import open_zarr

MovieLike = Any
"""What `open_movie` takes: an array of any kind, a path, a list of either, a source."""

TIFF, HDF5 = (".tif", ".tiff", ".btf"), (".h5", ".hdf5", ".nwb")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What readers are told beside the file; see `open_movie`."""

    var_name_hdf5: str = "mov"
    shape: tuple[int, int] | None = None
    channel: int | None = None
    axes: str | None = None


_Reader = Callable[[Path, ReadOptions], FrameSource]
_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(TIFF, lambda path, options: open_tiff(path, options.channel)),
    **dict.fromkeys(
        HDF5, lambda path, options: open_hdf5(path, options.var_name_hdf5, options.axes, options.channel)
    ),
    **dict.fromkeys((".avi", ".mkv", ".mp4"), lambda path, options: open_video(path)),
    ".mat": lambda path, options: open_mat(path, options.var_name_hdf5),
    ".npy": lambda path, options: open_npy(path, options.shape, options.axes, options.channel),
    ".npz": lambda path, options: open_npz(path, options.var_name_hdf5, options.axes, options.channel),
    ".mmap": lambda path, options: open_mmap(path),
    ".zarr": lambda path, options: open_zarr(path, options.var_name_hdf5, options.axes, options.channel),
    ".n5": lambda path, options: open_n5(path, options.var_name_hdf5),
    ".sbx": lambda path, options: open_sbx(path, options.channel),
    ".bin": lambda path, options: open_bin(path, options.shape),
}
_FOLDERS = (".zarr", ".n5")
_TAKE_AXES = (*HDF5, ".npy", ".npz", ".zarr")
_TAKE_CHANNEL = (*_TAKE_AXES, *TIFF, ".sbx")


def open_movie(
    movie: MovieLike,
    *,
    var_name_hdf5: str = "mov",
    subindices: Any = None,
    shape: tuple[int, int] | None = None,
    channel: int | None = None,
    axes: str | None = None,
) -> FrameSource:
    """A source of frames, whatever the movie is kept in. Only headers are read.

    Parameters
    ----------
    movie : array, path, list of these, or source
        (T, d1, d2[, d3]): NumPy, CuPy, memory-mapped, HDF5 or Zarr arrays; anything with
        ``__cuda_array_interface__`` or ``__dlpack__``; a file (.tif .tiff .btf .h5 .hdf5 .nwb .mat .npy .npz .mmap
        .avi .mkv .mp4 .zarr .n5 .sbx, suite2p's .bin); several of them, which follow each other in time. A source is
        returned as it is.
    var_name_hdf5 : str
        Data set in HDF5, Zarr and N5 files, array in .npz, variable in .mat; if there is only one, that is taken.
    subindices : optional
        Part of the movie: frames (int, slice, range, list) or a tuple with one selector per axis.
    shape : (int, int), optional
        Of the frames, if an .npy file holds a matrix (pixels, T), pixels in Fortran order; of those in a .bin file.
    channel : int, optional
        Which channel of a movie (T, channels, rows, columns), of a file that names its axes (TIFF, HDF5, Zarr), of an
        .sbx file, of colours.
    axes : str, optional
        What each axis of an array is, where it is not a movie's: T (time), Y (rows), X (columns), Z (planes), C
        (channels), e.g. "YXT" or "TZYXC"; the movie is then (T, rows, columns) or (T, planes, rows, columns), planes
        last where they are stored behind the rows. Any order in arrays, .npy, .npz, HDF5 and Zarr files; in others
        time must be the first.

    Returns
    -------
    source : FrameSource
        Its dtype is that of the file, in native byte order (bool: uint8, float16: float32).

    Raises
    ------
    MovieNotFoundError, UnknownFormatError, MovieFileError, DatasetNotFoundError
        No such file; no reader for it; truncated or corrupt; no such data set.
    MovieShapeError, ArrayTypeError, ParameterError
        Not 3 or 4 axes, or empty; not real numbers; no such frame, pixel or channel.
    MissingExtraError
        Video and Zarr are read by packages that are not installed.
    """
    options = ReadOptions(var_name_hdf5=var_name_hdf5, shape=shape, channel=channel, axes=axes)
    source = _open(movie, options)
    return source if subindices is None else Selection(source, subindices)


def _open(movie: MovieLike, options: ReadOptions) -> FrameSource:
    if isinstance(movie, str | os.PathLike):
        path = Path(movie)
        source, suffix = _open_file(path, options), path.suffix.lower()
        return _part(source, options, suffix in _TAKE_AXES, suffix in _TAKE_CHANNEL)
    if hasattr(movie, "shape") and hasattr(movie, "read"):
        return _part(movie, options)
    if hasattr(movie, "shape") and hasattr(movie, "dtype"):
        if options.axes is not None:
            name = f"the movie ({type(movie).__name__})"
            return open_arranged(movie, name, options.axes, options.channel)
        return _part(open_array(movie), options)
    if isinstance(movie, Sequence) and not isinstance(movie, bytes):
        return Chain([_open(part, options) for part in movie])
    raise ArrayTypeError(
        f"{type(movie).__name__} is no movie: give an array (T, d1, d2[, d3]), the path of a file, or a list of these"
    )


def _part(
    source: FrameSource, options: ReadOptions, has_axes: bool = False, has_channel: bool = False
) -> FrameSource:
    """What is wanted of a movie of which the reader has not yet put the axes in order or taken the channel."""
    if options.channel is not None and not has_channel:
        source = OneChannel(source, options.channel)
    return source if options.axes is None or has_axes else turned(source, options.axes)


def _open_file(path: Path, options: ReadOptions) -> FrameSource:
    if not path.exists():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        raise UnknownFormatError(
            f"Unknown file type {path.suffix!r} of {path}: movies are read from {' '.join(sorted(_READERS))}. Convert "
            "it, or load it yourself and give the array"
        )
    if suffix in _FOLDERS:
        if not path.is_dir():
            raise MovieFileError(f"{path} is a file, where a {path.suffix} folder was expected; unpack it")
        return reader(path, options)
    if not path.is_file():
        raise MovieFileError(
            f"{path} is a folder, where a {path.suffix} file was expected; list the files in it"
        )
    if path.stat().st_size == 0:
        raise MovieFileError(f"{path} is empty (0 bytes): copy it again from where it was recorded")
    return reader(path, options)
