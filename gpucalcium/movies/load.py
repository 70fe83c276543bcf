"""Loading of movies from files into `movie` objects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, NotSupportedError, ParameterError
from gpucalcium.movies.chain import Chain, Selection
from gpucalcium.movies.memmap_files import load_memmap
from gpucalcium.movies.movie import movie
from gpucalcium.movies.sources import open_movie
from gpucalcium.movies.timeseries import DEFAULT_FR

FileName = str | os.PathLike[str]
_READ_AT_ONCE = 8 << 20  # bytes


def load(
    file_name: FileName | Sequence[FileName],
    fr: float = 30,
    start_time: float = 0,
    meta_data: dict[Any, Any] | None = None,
    subindices: Any = None,
    shape: tuple[int, int] | None = None,
    var_name_hdf5: str = "mov",
    in_memory: bool = False,
    is_behavior: bool = False,
    bottom: int = 0,
    top: int = 0,
    left: int = 0,
    right: int = 0,
    channel: int | None = None,
    outtype: DTypeLike = np.float32,
    is3D: bool = False,
    *,
    axes: str | None = None,
) -> movie:
    """Load a movie from a file, or from several that follow each other.

    Parameters
    ----------
    file_name : path, or list or tuple of paths
        .tif .tiff .btf .h5 .hdf5 .nwb .mat .npy .npz .mmap .avi .mkv .mp4 .zarr .n5 .sbx, suite2p's .bin. Of a tuple,
        each file is one frame.
    fr : float
        Frames per second. What the file says takes the place of the default, 30.
    start_time : float
        Time of the first frame, in s.
    meta_data : dict, optional
        What is known of the recording.
    subindices : int, slice, range, list of int, or tuple or list of these, optional
        Frames to load, or one selector per axis.
    shape : (int, int), optional
        Of the frames, if an .npy file holds a matrix (pixels, T), pixels in Fortran order; of those in a .bin file.
    var_name_hdf5 : str
        Data set in HDF5, Zarr and N5 files, array in .npz, variable in .mat.
    in_memory : bool
        Load .npy and .mmap files instead of mapping them.
    is_behavior : bool
        Not supported.
    bottom, top, left, right : int
        Pixels to leave out at each edge.
    channel : int, optional
        Which channel of a movie (T, channels, rows, columns), of a file that names its axes (TIFF, HDF5, Zarr), of an
        .sbx file, of colours.
    outtype : dtype
        Of the movie; integers are not rescaled.
    is3D : bool
        Demand a movie of volumes, (T, d1, d2, d3).
    axes : str, optional
        What each axis of an array is, where it is not a movie's, e.g. "YXT" or "TZYXC"; see `open_movie`.

    Returns
    -------
    movie : movie, (T, d1, d2[, d3])
        A single image is a movie of one frame.

    Raises
    ------
    MovieNotFoundError, UnknownFormatError, MovieFileError, DatasetNotFoundError
        No such file; no reader for it; truncated or corrupt; no such data set.
    """
    if is_behavior:
        raise NotSupportedError(
            "is_behavior=True: videos of behaviour have no layout of their own here; load them as any movie, and crop"
        )
    names = _names(file_name)
    changed = (
        any((top, bottom, left, right, is3D, in_memory, axes))
        or subindices is not None
        or channel is not None
    )
    if len(names) == 1 and not changed:
        values = _mapped(names[0], shape, np.dtype(outtype))
        if values is not None:
            return _described(values, names, fr, start_time, meta_data)
    opened = [
        open_movie(n, var_name_hdf5=var_name_hdf5, shape=shape, channel=channel, axes=axes) for n in names
    ]
    firsts = [Selection(source, 0) for source in opened] if isinstance(file_name, tuple) else opened
    parts = [_part(source, subindices, (top, bottom, left, right, 0, 0), is3D) for source in firsts]
    values = _in_memory(parts, np.dtype(outtype))
    if isinstance(subindices, int | np.integer) and len(names) == 1:
        values = values[0]
    return _described(values, names, fr, start_time, meta_data, opened)


def load_movie_chain(
    file_list: Sequence[FileName],
    fr: float = 30,
    start_time: float = 0,
    meta_data: dict[Any, Any] | None = None,
    subindices: Any = None,
    var_name_hdf5: str = "mov",
    bottom: int = 0,
    top: int = 0,
    left: int = 0,
    right: int = 0,
    z_top: int = 0,
    z_bottom: int = 0,
    is3D: bool = False,
    channel: int | None = None,
    outtype: DTypeLike = np.float32,
    *,
    axes: str | None = None,
) -> movie:
    """Load several files that follow each other in time as one movie.

    Parameters
    ----------
    file_list : list of paths
    subindices
        What to take of each file, see `load`.
    bottom, top, left, right, z_top, z_bottom : int
        Pixels to leave out at each edge, and planes (axis 3) at each end.
    fr, start_time, meta_data, var_name_hdf5, is3D, channel, outtype, axes
        As in `load`.

    Returns
    -------
    movie : movie, (T, d1, d2[, d3])

    Raises
    ------
    MovieShapeError
        "Files have FOVs with different sizes".
    """
    names = _names(file_list)
    crop = (top, bottom, left, right, z_top, z_bottom)
    opened = [open_movie(name, var_name_hdf5=var_name_hdf5, channel=channel, axes=axes) for name in names]
    values = _in_memory([_part(source, subindices, crop, is3D) for source in opened], np.dtype(outtype))
    return _described(values, names, fr, start_time, meta_data, opened)


def load_iter(
    file_name: FileName | Sequence[FileName],
    subindices: Any = None,
    var_name_hdf5: str = "mov",
    outtype: DTypeLike = np.float32,
    is3D: bool = False,
    *,
    channel: int | None = None,
    axes: str | None = None,
) -> Iterator[NDArray]:
    """The frames of a movie one after the other, without loading it; parameters as in `load`.

    Yields
    ------
    frame : (d1, d2[, d3]) array of `outtype`, of its own memory
    """
    parts = [
        _part(
            open_movie(name, var_name_hdf5=var_name_hdf5, channel=channel, axes=axes),
            subindices,
            (0,) * 6,
            is3D,
        )
        for name in _names(file_name)
    ]
    source: FrameSource = Chain(parts)
    step = max(1, _READ_AT_ONCE // max(1, source.read(slice(0, 1)).nbytes))
    for start in range(0, len(source), step):
        yield from source.read(slice(start, start + step)).astype(outtype)


def get_file_size(
    file_name: FileName | Sequence[FileName],
    var_name_hdf5: str = "mov",
    *,
    channel: int | None = None,
    shape: tuple[int, int] | None = None,
    axes: str | None = None,
) -> tuple[tuple[int, ...], int | tuple[int, ...]]:
    """Size of a movie from the header of its file.

    Parameters
    ----------
    file_name : path, or list or tuple of paths
    var_name_hdf5, channel, shape, axes
        As in `load`.

    Returns
    -------
    dims : tuple of int
        Of the field of view.
    T : int or tuple of int
        Number of frames, of each file if several were named.

    Raises
    ------
    MovieShapeError
        "Files have FOVs with different sizes".
    """
    sources = [
        open_movie(name, var_name_hdf5=var_name_hdf5, channel=channel, shape=shape, axes=axes)
        for name in _names(file_name)
    ]
    dims = tuple(Chain(sources).shape[1:])
    if isinstance(file_name, list | tuple):
        return dims, tuple(len(source) for source in sources)
    return dims, len(sources[0])


def _names(file_name: FileName | Sequence[FileName]) -> list[Path]:
    given = file_name if isinstance(file_name, list | tuple) else [file_name]
    if not given:
        raise ParameterError("an empty list of files: name at least one")
    return [Path(name) for name in given]  # type: ignore[arg-type]


def _part(source: FrameSource, subindices: Any, crop: tuple[int, ...], is_3d: bool) -> FrameSource:
    """What is wanted of one file."""
    if is_3d and len(source.shape) != 4:
        raise MovieShapeError(
            f"is3D=True, but {_label(source)} has frames of {source.shape[1:]}: (d1, d2, d3) expected"
        )
    if subindices is not None:
        source = Selection(source, subindices)
    if any(crop):
        edges = [(0, 0), *zip(crop[::2], crop[1::2], strict=True)][: len(source.shape)]
        if len(source.shape) == 3 and any(crop[4:]):
            raise ParameterError(f"z_top, z_bottom = {crop[4:]}: {_label(source)} has no planes")
        for (first, last), length in zip(edges, source.shape, strict=True):
            if first < 0 or last < 0 or first + last >= length:
                raise ParameterError(f"cropping {first} + {last} of {length} pixels: leave at least one")
        source = Selection(
            source, tuple(slice(a, n - b) for (a, b), n in zip(edges, source.shape, strict=True))
        )
    return source


def _label(source: FrameSource) -> str:
    return getattr(source, "name", "the movie")


def _in_memory(parts: Sequence[FrameSource], dtype: np.dtype) -> NDArray:
    source = parts[0] if len(parts) == 1 else Chain(parts)
    with backend.use("cpu"):
        return backend.hold(source, dtype)


def _mapped(path: Path, shape: tuple[int, int] | None, dtype: np.dtype) -> NDArray | None:
    """The movie as a view of its file, where the file has the wanted dtype and layout."""
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".mmap"):
        return None
    source = open_movie(path)  # checks the file
    if suffix == ".mmap" and dtype == source.dtype:
        yr, dims, frames = load_memmap(path)
        return np.reshape(yr.T, (frames, *dims), order="F")
    if suffix == ".npy" and shape is None and dtype == np.load(path, mmap_mode="r").dtype:
        values = np.load(path, mmap_mode="r")
        return values[None] if values.ndim == 2 else values
    return None


def _described(
    values: NDArray,
    names: Sequence[Path],
    fr: float,
    start_time: float,
    meta_data: Any,
    opened: Sequence[FrameSource] = (),
) -> movie:
    """The movie with its attributes: those given, else those that the files hold, else the defaults."""
    known = [getattr(source, "about", {}) for source in opened] or [{}]
    rates = {about["fr"] for about in known if "fr" in about}
    if fr == DEFAULT_FR and len(rates) > 1:
        raise ParameterError(
            f"the files have frame rates of {sorted(rates)}; resample them to one, or give fr=..."
        )
    rate = rates.pop() if fr == DEFAULT_FR and rates else fr
    start = known[0].get("start_time", start_time) if start_time == 0 else start_time
    about = meta_data if meta_data is not None else [x for one in known for x in one.get("meta_data", [None])]
    return movie(values, fr=rate, start_time=start, file_name=[str(name) for name in names], meta_data=about)
