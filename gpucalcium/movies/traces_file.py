"""Files that hold a movie trace after trace: frames are turned into traces, and back, tile by tile.

A tile is some neighbouring pixels over many frames: long pieces of the frames on one side, long runs of the traces on
the other, and small enough to stay in the cache in between. So neither memory nor disk is touched in crumbs.
"""

from __future__ import annotations

import errno
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import turning
from gpucalcium.backend.device import cpu as host
from gpucalcium.errors import MovieFileError

_TILE = 8 << 20  # bytes that are turned at a time, by each thread
_SAME_SETS = 2048  # bytes: traces a multiple of this apart push each other out of the cache
_LINE = 64  # bytes that the traces of such a tile are kept apart
_NEAR = 16 << 10  # bytes between runs: to read them costs less than to call the system once more
_PIECE = 64  # pixels of a line that are turned together, at least: 4 lines of the cache
_COMPILED = "u1 u2 u4 u8 i1 i2 i4 i8 f4 f8".split()


@dataclass(frozen=True)
class TracesFile:
    """Where the traces of a movie lie: pixels in Fortran order, `frames` values of `dtype` for each.

    Frames are given and taken as blocks (n, d1, d2[, d3]), or (n, pixels) with pixels in the order of the file.

    Parameters
    ----------
    path : Path
    dims : tuple of int
        (d1, d2[, d3]) of a frame.
    frames : int
    dtype : dtype
    offset : int
        Byte where the first trace starts.
    rows : int, optional
        Of the first axis, that blocks (n, pixels) hold, the trace at `offset` being that of their first; default: all.
    """

    path: Path
    dims: tuple[int, ...]
    frames: int
    dtype: np.dtype
    offset: int = 0
    rows: int = 0

    def write(self, block: NDArray, first: int) -> None:
        """Write a block, of any native integers or floats, as frames `first` ... of the traces.

        Written, not mapped: twice as fast in a file that is new, and it does not count as memory.

        Raises
        ------
        OSError
            The disk is full.
        """
        frames = self._as_lines(np.ascontiguousarray(block))
        wanted = range(first, first + len(block))

        def write_tile(tile: Tile, memory: NDArray[np.uint8]) -> None:
            turning.to_traces(frames, tile.rows, tile.columns, memory.view(self.dtype))
            for place, run in self._runs(tile, memory, wanted):
                _write_at(file, run, place)

        with _opened(self.path, os.O_WRONLY) as file:
            self._each(write_tile, frames, wanted)

    def read(self, wanted: range, out: NDArray) -> None:
        """Read the frames `wanted` into `out`, C order, of any native integers or floats.

        Raises
        ------
        MovieFileError
            The file has become shorter.
        """
        frames = self._as_lines(out)
        span = range(wanted[0], wanted[-1] + 1)
        if (self.frames - len(span)) * self.dtype.itemsize <= _NEAR:
            span = range(self.frames)  # what lies between is read too, so that neighbours are one run
        part = slice(wanted[0] - span[0], wanted[-1] - span[0] + 1, wanted.step)

        def read_tile(tile: Tile, memory: NDArray[np.uint8]) -> None:
            for place, run in self._runs(tile, memory, span):
                self._read_at(file, run, place)
            traces, start = memory.view(self.dtype), part.start
            if part.step > 1 or not traces.dtype.isnative or traces.dtype.str[1:] not in _COMPILED:
                traces, start = traces[: tile.pixels, part].astype(frames.dtype), 0
            turning.to_frames(traces, start, tile.rows, tile.columns, frames)

        with _opened(self.path, os.O_RDONLY) as file:
            self._each(read_tile, frames, span)

    def read_traces(self, first: int, out: NDArray) -> None:
        """Read all of the traces from pixel `first` on into `out` (pixels, frames) of `dtype`."""
        with _opened(self.path, os.O_RDONLY) as file:
            self._read_at(file, _bytes_of(out), self.offset + first * self._trace)

    def write_traces(self, first: int, traces: NDArray) -> None:
        """Write all of the traces from pixel `first` on, (pixels, frames) of `dtype` in C order."""
        with _opened(self.path, os.O_WRONLY) as file:
            _write_at(file, _bytes_of(traces), self.offset + first * self._trace)

    @property
    def _trace(self) -> int:
        return self.frames * self.dtype.itemsize

    def _read_at(self, file: int, run: memoryview, place: int) -> None:
        while run:  # at most 2 GiB at a time on Linux
            got = os.preadv(file, [run], place)
            if not got:
                raise MovieFileError(
                    f"{self.path} ended before byte {place + len(run)}: it has become shorter since it was opened"
                )
            run, place = run[got:], place + got

    def _as_lines(self, block: NDArray) -> NDArray:
        """(n, lines, pixels of a line): a line lies in one piece; a single one if the pixels lie as in the file."""
        in_file_order = block.ndim == 2 or math.prod(block.shape[2:]) == 1
        return block.reshape(len(block), 1 if in_file_order else block.shape[1], -1)

    def _each(self, work: Callable[[Tile, NDArray[np.uint8]], None], frames: NDArray, span: range) -> None:
        """Call ``work(tile, memory)`` for all tiles, in threads; a row of the memory is for the span of one trace."""
        whole = len(span) == self.frames
        step = len(span) * self.dtype.itemsize
        if step % _SAME_SETS == 0 and not whole:
            step += _LINE
        most = max(1, min(_TILE, backend.budget(host()) // 16) // step)
        unused: deque[NDArray[np.uint8]] = deque()

        def work_on(tile: Tile) -> None:
            memory = unused.pop() if unused else np.empty((most, step), np.uint8)
            work(tile, memory)
            unused.append(memory)

        with ThreadPoolExecutor(backend.threads(), thread_name_prefix="gpucalcium-turn") as workers:
            list(workers.map(work_on, _tiles(frames.shape[1], frames.shape[2], most, whole)))

    def _runs(self, tile: Tile, memory: NDArray[np.uint8], span: range) -> Iterator[tuple[int, memoryview]]:
        """Byte in the file, and bytes in memory, of what lies in one piece in both."""
        size, step, data = len(span) * self.dtype.itemsize, memory.shape[1], _bytes_of(memory)
        begin = self.offset + span[0] * self.dtype.itemsize
        whole, at = step == self._trace, 0
        for pixel, count in self._pixels(tile):
            place = begin + pixel * self._trace
            if whole:
                yield place, data[at : at + count * step]
                at += count * step
                continue
            for _ in range(count):
                yield place, data[at : at + size]
                at, place = at + step, place + self._trace

    def _pixels(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """First, and how many, of the pixels of a tile that are neighbours in the file."""
        d1, d2, d3 = (*self.dims, 1)[:3]
        first, last = tile.columns.start, tile.columns.stop
        if not tile.in_file_order:
            for column in range(first, last):
                yield (
                    tile.rows.start + d1 * (column // d3 + d2 * (column % d3)),
                    tile.rows.stop - tile.rows.start,
                )
            return
        rows = self.rows or d1
        if rows == d1:
            yield first, last - first
            return
        while first < last:
            count = min(rows - first % rows, last - first)
            yield first % rows + d1 * (first // rows), count
            first += count


@dataclass(frozen=True)
class Tile:
    """Neighbouring pixels: some lines of a frame, and a piece of each."""

    rows: slice
    columns: slice
    in_file_order: bool
    """Whether the frame is one line, its pixels as in the file; else a line is a row of pixels."""

    @property
    def pixels(self) -> int:
        """How many they are."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)


def _tiles(lines: int, length: int, most: int, whole: bool) -> Iterator[Tile]:
    """Tiles of at most `most` pixels: long pieces of the lines, or of all lines if whole traces then lie in one run."""
    columns = min(length, max(_PIECE, most // lines) if whole and lines > 1 else most, most)
    rows = max(1, min(lines, most // columns))
    for i in range(0, lines, rows):
        for j in range(0, length, columns):
            yield Tile(slice(i, min(i + rows, lines)), slice(j, min(j + columns, length)), lines == 1)


def _bytes_of(array: NDArray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _write_at(file: int, run: memoryview, place: int) -> None:
    while run:  # at most 2 GiB at a time on Linux
        done = os.pwrite(file, run, place)
        run, place = run[done:], place + done


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | getattr(os, "O_BINARY", 0))
    try:
        yield file
    finally:
        os.close(file)


def reserve(path: Path, size: int, *, keep: bool = False) -> None:
    """Make a file of `size` bytes and take the space on the disk now: a full disk is noticed before the work.

    With `keep`, lengthen the file that is there, if it is shorter.
    """
    with path.open("r+b" if keep else "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except AttributeError:  # not on this system
            pass
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on this file system
                raise
        os.truncate(file.fileno(), max(size, os.fstat(file.fileno()).st_size))
