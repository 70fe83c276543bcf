"""Memory maps by the functions that users know: saved, joined and mapped; see `gpucalcium.movies.memmap`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayTypeError, MovieFileError, MovieShapeError, ParameterError
from gpucalcium.movies.chain import Chain, Selection
from gpucalcium.movies.files import target
from gpucalcium.movies.memmap import VALUE, MapName, check_map
from gpucalcium.movies.memmap_write import write_map
from gpucalcium.movies.npy import open_npy
from gpucalcium.movies.prepared import Prepared, Shifted
from gpucalcium.movies.sources import MovieLike, open_movie


def save_memmap(
    filenames: Sequence[MovieLike],
    base_name: str = "Yr",
    resize_fact: tuple[float, ...] = (1, 1, 1),
    remove_init: int = 0,
    idx_xy: tuple[Any, ...] | None = None,
    order: str = "F",
    var_name_hdf5: str = "mov",
    xy_shifts: Sequence[NDArray] | None = None,
    is_3D: bool = False,
    add_to_movie: float = 0,
    border_to_0: int = 0,
    dview: Any = None,
    n_chunks: int = 100,
    slices: Any = None,
) -> str:
    """Write movies, one after the other, into one memory map.

    Parameters
    ----------
    filenames : list of paths or arrays
        Each is changed as the parameters say, on its own, in this order: shifts, selection, border, size,
        addition.
    base_name : str
        How the name begins; without a folder the file goes to that for temporary files (GPUCALCIUM_TEMP).
    resize_fact : (float, float, float)
        Factors of rows, columns and time; 0.5 halves.
    remove_init : int
        Frames left out at the beginning of each movie.
    idx_xy : tuple of slices, optional
        Rows and columns (and planes) to keep.
    order : {'F', 'C'}
        Frame after frame, for reading frames; or trace after trace, for reading pixels.
    var_name_hdf5 : str
        Data set in HDF5 files.
    xy_shifts : list of (T, 2) arrays, optional
        Displacement of each frame of each movie in pixels, rows first; applied first, bicubic.
    is_3D : bool
        Demand movies of volumes, (T, d1, d2, d3).
    add_to_movie : float
        Added to every value.
    border_to_0 : int
        Pixels at each edge that are set to the smallest value of their movie.
    dview, n_chunks
        Without effect: threads do the work, in pieces that follow from the memory budget.
    slices : slice or list of slices, optional
        Frames, or frames, rows and columns (and planes) to keep, in place of `remove_init` and `idx_xy`.

    Returns
    -------
    name : str
        ``<base_name>_d1_<rows>_d2_<columns>_d3_<planes>_order_<order>_frames_<T>.mmap``

    Raises
    ------
    ParameterError
        Several movies in order F.
    """
    if isinstance(filenames, str | os.PathLike | np.ndarray) or not isinstance(filenames, Sequence):
        raise ArrayTypeError(f"input should be a list of filenames, not {type(filenames).__name__}")
    if len(filenames) > 1 and order == "F":
        raise ParameterError("You cannot merge files in F order, they must be in C order: use order='C'")
    if xy_shifts is not None and len(filenames) == 1 and np.ndim(xy_shifts) == 2:
        xy_shifts = [np.asarray(xy_shifts)]
    if xy_shifts is not None and len(xy_shifts) != len(filenames):
        raise ParameterError(
            f"xy_shifts has {len(xy_shifts)} arrays for {len(filenames)} movies: give one for each"
        )
    parts: list[FrameSource] = []
    for number, movie in enumerate(filenames):
        source = open_movie(movie, var_name_hdf5=var_name_hdf5)
        if xy_shifts is not None:
            source = Shifted(source, xy_shifts[number])
        source = _selected(source, remove_init, idx_xy, slices)
        if is_3D and len(source.shape) != 4:
            raise MovieShapeError(f"is_3D=True, but {getattr(source, 'name', 'the movie')} is {source.shape}")
        if border_to_0 or add_to_movie or tuple(resize_fact) != (1, 1, 1):
            source = Prepared(source, border=border_to_0, resize_fact=resize_fact, add=add_to_movie)
        parts.append(source)
    return str(write_map(parts[0] if len(parts) == 1 else Chain(parts), target(base_name), order))


def _selected(
    source: FrameSource, remove_init: int, idx_xy: tuple[Any, ...] | None, slices: Any
) -> FrameSource:
    if slices is not None:
        return Selection(source, slices if isinstance(slices, slice) else tuple(slices))
    if not remove_init and idx_xy is None:
        return source
    if not 0 <= remove_init < len(source):
        raise ParameterError(f"remove_init={remove_init} leaves nothing of {len(source)} frames")
    return Selection(source, (slice(remove_init, None), *(idx_xy or ())))


def save_memmap_each(
    fnames: Sequence[MovieLike],
    dview: Any = None,
    base_name: str | None = None,
    resize_fact: tuple[float, ...] = (1, 1, 1),
    remove_init: int = 0,
    idx_xy: tuple[Any, ...] | None = None,
    xy_shifts: Sequence[NDArray] | None = None,
    is_3D: bool = False,
    add_to_movie: float = 0,
    border_to_0: int = 0,
    order: str = "C",
    var_name_hdf5: str = "mov",
    slices: Any = None,
) -> list[str]:
    """Write each movie into a memory map of its own, see `save_memmap`.

    Parameters
    ----------
    base_name : str, optional
        How the names begin, followed by a number of four digits; default: the name of the file.

    Returns
    -------
    names : list of str
    """
    names = []
    for number, movie in enumerate(fnames):
        stem = Path(movie).with_suffix("").name if isinstance(movie, str | os.PathLike) else f"Yr{number:04d}"
        names.append(
            save_memmap(
                [movie],
                base_name=stem if base_name is None else f"{base_name}{number:04d}",
                resize_fact=resize_fact,
                remove_init=remove_init,
                idx_xy=idx_xy,
                order=order,
                var_name_hdf5=var_name_hdf5,
                xy_shifts=None if xy_shifts is None else [xy_shifts[number]],
                is_3D=is_3D,
                add_to_movie=add_to_movie,
                border_to_0=border_to_0,
                slices=slices,
            )
        )
    return names


def save_memmap_join(
    mmap_fnames: Sequence[str | os.PathLike[str]],
    base_name: str | None = None,
    n_chunks: int = 20,
    dview: Any = None,
    add_to_mov: float = 0,
) -> str:
    """Join memory maps of one field of view in time, into one in order C.

    Parameters
    ----------
    mmap_fnames : list of paths
        Maps of either order.
    base_name : str, optional
        How the name begins; default: as the first one's, and how many there are. Without a folder the file
        appears beside the first one.
    n_chunks, dview
        Without effect: threads do the work, in pieces that follow from the memory budget.
    add_to_mov : float
        Added to every value.

    Returns
    -------
    name : str
    """
    if not mmap_fnames:
        raise ParameterError("an empty list: name at least one memory map")
    paths = [Path(name) for name in mmap_fnames]
    for path in paths:
        check_map(path)
    base = base_name or f"{MapName.parse(paths[0]).base}-#-{len(paths)}"
    place = paths[0].parent / base  # a base with a folder of its own stays where it is
    parts: list[FrameSource] = [open_movie(path) for path in paths]
    joined: FrameSource = Chain(parts)
    if add_to_mov:
        joined = Prepared(joined, add=add_to_mov)
    return str(write_map(joined, Path(base) if Path(base).parent != Path() else place, "C"))


def load_memmap(filename: str | os.PathLike[str], mode: str = "r") -> tuple[np.memmap, tuple[int, ...], int]:
    """Map a file written by `save_memmap`, or a ``.npy`` file named like one.

    Parameters
    ----------
    filename : path
    mode : {'r', 'r+', 'w+', 'c'}
        Read; read and write; make a new file of zeros; changes that stay in memory.

    Returns
    -------
    Yr : (d1 d2 d3, T) float32 memory map
        Pixels in Fortran order. The movie is ``numpy.reshape(Yr.T, (T, *dims), order="F")``.
    dims : tuple of int
        (d1, d2) or (d1, d2, d3).
    T : int
        Number of frames.

    Raises
    ------
    MovieFileError
        The file's name or size is not that of a memory map.
    """
    path = Path(filename)
    if mode not in ("r", "r+", "w+", "c"):
        raise ParameterError(f"mode={mode!r}: expected 'r', 'r+', 'w+' or 'c'")
    order: Any
    if path.suffix == ".mmap":
        about = MapName.parse(path) if mode == "w+" else check_map(path)
        order = about.order
        yr = np.memmap(path, VALUE, mode, 0, (math.prod(about.dims), about.T), order)  # type: ignore[call-overload]
        return yr, about.dims, about.T
    if path.suffix == ".npy" and mode != "w+":
        return _load_npy(path, mode)
    raise ParameterError(f"Unknown file extension {path.suffix!r} of {path}: expected .mmap, or .npy to read")


def _load_npy(path: Path, mode: Any) -> tuple[np.memmap, tuple[int, ...], int]:
    about = MapName.parse(path)
    open_npy(path)  # checks the file
    yr = np.load(path, mmap_mode=mode)
    shape = (math.prod(about.dims), about.T)
    in_order = yr.flags.c_contiguous if about.order == "C" else yr.flags.f_contiguous
    if yr.shape != shape or yr.dtype != VALUE or not in_order:
        raise MovieFileError(
            f"{path} is {yr.shape} {yr.dtype}; its name says {shape} float32 in order {about.order}"
        )
    return yr, about.dims, about.T
