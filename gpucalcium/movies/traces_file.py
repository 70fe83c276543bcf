"""Files that hold a movie trace after trace: frames are turned into traces, and back, tile by tile.

A tile is a few neighbouring pixels over many frames: whole cache lines of the frames on one side, long runs of the
traces on the other, so that neither memory nor disk is touched in crumbs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import MovieFileError

_TILE = 4 << 20  # bytes that are turned at a time, by each thread
_LINE = 512  # bytes of a frame that are turned together: 8 cache lines, few pages
_ROWS = (
    16  # frames turned at a time: more lie on more pages than the processor keeps at hand (6 times slower)
)


@dataclass(frozen=True)
class TracesFile:
    """Where the traces of a movie lie: pixels in Fortran order, `frames` values of `dtype` for each.

    Parameters
    ----------
    path : Path
    dims : tuple of int
        (d1, d2[, d3]) of a frame.
    frames : int
    dtype : dtype
    offset : int
        Byte where the first trace starts.
    """

    path: Path
    dims: tuple[int, ...]
    frames: int
    dtype: np.dtype
    offset: int = 0

    def write(self, block: NDArray, first: int) -> None:
        """Write frames `block` (n, *dims), of any dtype, as frames `first` ... of the traces.

        Written, not mapped: twice as fast in a file that is new, and it does not count as memory.

        Raises
        ------
        OSError
            The disk is full.
        """

        def write_tile(tile: Tile) -> None:
            traces = np.empty(tile.shape(len(block)), self.dtype)
            frames = _volumes(block)[tile.of_frames]
            for row in range(0, len(frames), _ROWS):
                traces[..., row : row + _ROWS] = frames[row : row + _ROWS].T
            for place, run in self._runs(tile, traces, first):
                if os.pwrite(file, run, place) != len(run):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

        file = os.open(self.path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        self._each(write_tile, block, file)

    def read(self, wanted: range, out: NDArray) -> None:
        """Read the frames `wanted` into `out` (n, *dims), C order, of any dtype.

        Raises
        ------
        MovieFileError
            The file has become shorter.
        """
        first, span = wanted[0], wanted[-1] - wanted[0] + 1

        def read_tile(tile: Tile) -> None:
            traces = np.empty(tile.shape(span), self.dtype)
            for place, run in self._runs(tile, traces, first):
                if os.preadv(file, [run], place) != len(run):
                    raise MovieFileError(
                        f"{self.path} ended before byte {place + len(run)}: it has become shorter since it was opened"
                    )
            picked, frames = traces[..., :: wanted.step], _volumes(out)[tile.of_frames]
            for row in range(0, len(frames), _ROWS):
                frames[row : row + _ROWS] = picked[..., row : row + _ROWS].T

        file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._each(read_tile, out, file, span)

    def _each(self, work: Callable[[Tile], None], block: NDArray, file: int, span: int = 0) -> None:
        most = max(1, min(_TILE, backend.budget() // 16)) // ((span or len(block)) * self.dtype.itemsize)
        try:
            with ThreadPoolExecutor(backend.threads()) as workers:
                list(workers.map(work, _tiles(self.dims, most, _volumes(block))))
        finally:
            os.close(file)

    def _runs(self, tile: Tile, traces: NDArray, first: int) -> Iterator[tuple[int, memoryview]]:
        """Byte in the file and bytes in memory of what lies in one piece in both."""
        d1, d2 = self.dims[:2]
        size, length = self.dtype.itemsize, traces.shape[-1]
        together = tile.rows.stop - tile.rows.start if length == self.frames else 1
        for k, plane in enumerate(traces, tile.planes.start):
            for j, column in enumerate(plane, tile.columns.start):
                start = tile.rows.start + d1 * (j + d2 * k)
                bytes_of = memoryview(column.reshape(-1).view(np.uint8))
                step = together * length * size
                for number in range(len(bytes_of) // step):
                    pixel = start + number * together
                    place = self.offset + (pixel * self.frames + first) * size
                    yield place, bytes_of[number * step : (number + 1) * step]


@dataclass(frozen=True)
class Tile:
    """Neighbouring pixels."""

    rows: slice
    columns: slice
    planes: slice

    @property
    def of_frames(self) -> tuple[slice, ...]:
        """Index into frames (n, d1, d2, d3)."""
        return slice(None), self.rows, self.columns, self.planes

    def shape(self, frames: int) -> tuple[int, ...]:
        """Of the traces: (planes, columns, rows, frames)."""
        return (*(part.stop - part.start for part in (self.planes, self.columns, self.rows)), frames)


def _volumes(frames: NDArray) -> NDArray:
    return frames if frames.ndim == 4 else frames[..., None]


def _tiles(dims: tuple[int, ...], most: int, frames: NDArray) -> Iterator[Tile]:
    """Tiles of about `most` pixels: long along the axis along which `frames` lie in memory, then along the rows."""
    d1, d2, d3 = (*dims, 1)[:3]
    if frames.strides[1] == frames.itemsize:  # column by column, as in the file
        planes = columns = 1
    else:
        line = max(1, min(_LINE // frames.itemsize, most))
        planes = min(line, d3)
        columns = min(max(1, line // planes), d2)
    rows = max(1, min(d1, most // (planes * columns)))
    for k in range(0, d3, planes):
        for j in range(0, d2, columns):
            for i in range(0, d1, rows):
                yield Tile(
                    slice(i, min(i + rows, d1)), slice(j, min(j + columns, d2)), slice(k, min(k + planes, d3))
                )


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
