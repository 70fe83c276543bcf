"""Writing of memory maps, of either order, in bounded memory; see `gpucalcium.movies.memmap`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayTypeError, MovieFileError, MovieShapeError, ParameterError
from gpucalcium.movies.chain import Chain, Selection
from gpucalcium.movies.files import target, written_whole
from gpucalcium.movies.memmap import VALUE, MapName, TracesSource, check_map
from gpucalcium.movies.npy import open_npy
from gpucalcium.movies.prepared import Prepared, Shifted
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.movies.traces_file import TracesFile, reserve
from gpucalcium.movies.write_frames import RawFrames

_READ_AT_ONCE = 4 << 20  # bytes, by each thread
_SLAB = 256 << 20  # bytes of the pixels whose whole traces are written together; more, where less than
_PIECE = 33_088  # bytes of each frame would be read for it (no multiple of a page: those would collide)
_WORTH_READING = 8 << 10  # bytes of each frame, without which many frames are collected instead:
_STRETCH = 2 << 30  # bytes at most,
_ENOUGH_FRAMES = 4080  # which give each trace a run of nearly 16 KiB
_COPIED = 8 << 20  # bytes of traces that are copied at a time, by each thread


def write_map(movie: MovieLike, base: Path, order: str) -> Path:
    """Write a movie as a memory map named after `base`, its size and the order; float32.

    The memory budget holds however large the movie. The file appears once it is whole.

    Raises
    ------
    ParameterError
        `order` is neither 'F' (frame after frame) nor 'C' (trace after trace).
    OSError
        The disk is full.
    """
    if order not in ("F", "C"):
        raise ParameterError(f"order={order!r}: expected 'F' (frame after frame) or 'C' (trace after trace)")
    source = open_movie(movie)
    about = MapName(base.name, source.shape[1:], order, len(source))
    path = base.parent / str(about)
    with written_whole(path) as temporary, backend.use("cpu"):
        (_write_frames if order == "F" else _write_traces)(source, temporary)
    return path


def _write_frames(source: FrameSource, path: Path) -> None:
    reserve(path, math.prod(source.shape) * VALUE.itemsize)
    flat = _flat(source)
    with closing(RawFrames(path, 0, source.shape, VALUE, fortran=flat is None)) as file:
        done = 0
        for chunk in backend.stream(flat or source):
            file.write(done, backend.to_numpy(chunk))
            done += len(chunk)


def _write_traces(source: FrameSource, path: Path) -> None:
    """Copy traces, or collect frames while they fit and write that stretch, or that part of the field, as traces."""
    reserve(path, math.prod(source.shape) * VALUE.itemsize)
    traces_of = [part.traces for part in _parts(source) if isinstance(part, TracesSource)]
    if len(traces_of) == len(_parts(source)):
        _copy_traces(traces_of, path)
        return
    flat = _flat(source)
    if _write_slabs(flat or source, path):
        return
    traces = TracesFile(path, source.shape[1:], len(source), VALUE)
    frame = math.prod(source.shape[1:]) * source.dtype.itemsize
    most = min(_STRETCH, backend.budget() // 3) // frame
    for first, block in _stretches(flat or source, max(1, min(len(source), _ENOUGH_FRAMES, most))):
        traces.write(block, first)


def _parts(source: FrameSource) -> Sequence[FrameSource]:
    return source.parts if isinstance(source, Chain) else (source,)


def _flat(source: FrameSource) -> Chain | None:
    """The same frames with pixels as memory maps have them, (T, pixels, 1), if the files of all parts do."""
    flat = [part.flat for part in _parts(source) if isinstance(part, RawSource | TracesSource)]
    known = [part for part in flat if part is not None]
    return Chain(known) if len(known) == len(_parts(source)) else None


def _copy_traces(parts: Sequence[TracesFile], path: Path) -> None:
    """Traces of several files, one behind the other."""
    pixels, frames = math.prod(parts[0].dims), sum(part.frames for part in parts)
    joined = TracesFile(path, (pixels, 1), frames, VALUE)
    workers = backend.threads()
    some = max(1, min(_COPIED, backend.budget() // (4 * workers)) // (frames * VALUE.itemsize))

    def copy(first: int) -> None:
        count, at = min(some, pixels - first), 0
        traces = np.empty((count, frames), VALUE)
        for part in parts:
            piece = (
                traces
                if len(parts) == 1 and part.dtype == VALUE
                else np.empty((count, part.frames), part.dtype)
            )
            part.read_traces(first, piece)
            if piece is not traces:
                traces[:, at : at + part.frames] = piece
            at += part.frames
        joined.write_traces(first, traces)

    with ThreadPoolExecutor(workers, thread_name_prefix="gpucalcium-copy") as pool:
        list(pool.map(copy, range(0, pixels, some)))


def _write_slabs(source: FrameSource, path: Path) -> bool:
    """Write all of some traces, then the next, where that reads pieces worth reading of each frame; else False.

    It takes less memory than many frames would, which is then still at hand.
    """
    parts = [part for part in _parts(source) if isinstance(part, RawSource)]
    frames, rows = source.shape[:2]
    row = math.prod(source.shape[2:]) * source.dtype.itemsize
    most = min(max(_SLAB, _PIECE * frames), backend.budget() // 4)
    some = min(rows, most // (frames * row))
    if some * row < min(_WORTH_READING, rows * row) or len(parts) < len(_parts(source)):
        return False
    memory = np.empty(frames * some * math.prod(source.shape[2:]), source.dtype)
    for start in range(0, rows, some):
        part = Chain([one.part(slice(start, min(start + some, rows))) for one in parts])
        traces = TracesFile(
            path, source.shape[1:], frames, VALUE, start * frames * VALUE.itemsize, part.shape[1]
        )
        for first, block in _stretches(part, frames, memory):
            traces.write(block, first)
    return True


def _stretches(
    source: FrameSource, length: int, memory: NDArray | None = None
) -> Iterator[tuple[int, NDArray]]:
    """The movie `length` frames at a time: (n, pixels) in Fortran order, or the frames that are in memory already.

    Several threads read, into memory that is used again.
    """
    held = getattr(source, "array", None)
    if isinstance(held, np.ndarray) and held.flags.c_contiguous:
        yield from ((first, held[first : first + length]) for first in range(0, len(source), length))
        return
    pixels = math.prod(source.shape[1:])
    memory = np.empty(length * pixels, source.dtype) if memory is None else memory
    some = max(1, _READ_AT_ONCE // (pixels * source.dtype.itemsize))
    in_file_order = math.prod(source.shape[2:]) == 1

    def read(first: int, at: int, block: NDArray) -> None:
        into = block[at : at + some]
        frames = slice(first + at, first + at + len(into))
        if in_file_order:
            source.read(frames, into.reshape(len(into), *source.shape[1:]))
        else:
            backend.wing(into).layout.frames_to_fortran(source.read(frames), source.dtype, 0, into)

    with ThreadPoolExecutor(backend.threads(), thread_name_prefix="gpucalcium-read") as readers:
        for first in range(0, len(source), length):
            count = min(length, len(source) - first)
            block = memory[: count * pixels].reshape(count, pixels)
            list(readers.map(partial(read, first, block=block), range(0, count, some)))
            yield first, block


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
