"""Writing of memory maps, of either order, in bounded memory; see `gpucalcium.movies.memmap`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.movies.chain import Chain
from gpucalcium.movies.files import written_whole
from gpucalcium.movies.memmap import VALUE, MapName, TracesSource
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
