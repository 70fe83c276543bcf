"""Files that take frames as they come, in order, and are never held whole."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.backend.device import cpu as host
from gpucalcium.movies.traces_file import TracesFile

_AT_ONCE = (
    2 << 20
)  # bytes that are turned at a time: they are written from the cache, out of memory that is used again
_STRETCH = 4080  # frames of a trace that are written together, nearly 16 KiB,
_COLLECTED = 1 << 30  # in so many bytes at most


class FramesFile(ABC):
    """A file that the frames of a movie go to.

    Parameters
    ----------
    shape : (T, d1, d2[, d3])
    dtype : dtype
        Of what is stored. What comes in another is converted as `backend.cpu.layout.stored_as` says.
    fill : float
        What integers have in place of NaN.
    fortran : bool
        Whether the pixels of a frame are stored in Fortran order.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, fill: float = 0, *, fortran: bool = False
    ) -> None:
        self.shape, self.dtype, self.fill, self._fortran = shape, dtype, fill, fortran
        self._pixels = math.prod(shape[1:])

    def prepare(self, frames: Array) -> Array:
        """Frames (n, d1, d2[, d3]) on a GPU as they lie in the file, (n, pixels), if that is better done there.

        Frames in the host's memory stay as they are: `write` turns them piece by piece, in the cache.
        """
        return self._stored(frames) if backend.is_cupy(frames) else frames

    @abstractmethod
    def write(self, first: int, frames: NDArray) -> None:
        """Put frames, (n, d1, d2[, d3]) or what `prepare` made of them, into their place."""

    @abstractmethod
    def sync(self) -> int:
        """Wait until the disk has what was written; returns how many frames from the first on it has."""

    @abstractmethod
    def close(self) -> None:
        """No frame follows."""

    def _stored(self, frames: Array, out: Array | None = None) -> Array:
        layout = backend.wing(frames).layout
        op = layout.frames_to_fortran if self._fortran else layout.stored_as
        return op(frames, self.dtype, self.fill, out)


class RawFrames(FramesFile):
    """Frames that lie one behind the other from byte `offset` on."""

    def __init__(
        self,
        path: Path,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        fill: float = 0,
        *,
        fortran: bool = False,
    ) -> None:
        super().__init__(shape, dtype, fill, fortran=fortran)
        self._offset, self._end = offset, 0
        self._frame = self._pixels * dtype.itemsize
        self._turned = np.empty((max(1, _AT_ONCE // self._frame), self._pixels), dtype)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)

    def write(self, first: int, frames: NDArray) -> None:
        """See `FramesFile`."""
        if frames.ndim == 2 or (frames.dtype == self.dtype and not self._fortran):
            self._put(first, np.ascontiguousarray(frames))
        else:
            some = len(self._turned)
            for at in range(0, len(frames), some):
                piece = frames[at : at + some]
                self._put(first + at, self._stored(piece, self._turned[: len(piece)]))
        self._end = first + len(frames)

    def sync(self) -> int:
        """See `FramesFile`."""
        end = self._end
        os.fsync(self._file)
        return end

    def close(self) -> None:
        """See `FramesFile`."""
        os.close(self._file)

    def _put(self, first: int, stored: NDArray) -> None:
        rest = memoryview(stored.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        place = self._offset + first * self._frame
        while rest:  # at most 2 GiB at a time on Linux
            done = os.pwrite(self._file, rest, place)
            rest, place = rest[done:], place + done


class _Collected(FramesFile):
    """Frames that are written many at a time: whole blocks of `length`, counted from the first frame."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, fill: float, length: int, *, fortran: bool
    ) -> None:
        super().__init__(shape, dtype, fill, fortran=fortran)
        self._length, self._have = length, 0
        self._block = np.empty((length, self._pixels), dtype)
        self._start = 0  # frame that the block begins with

    def write(self, first: int, frames: NDArray) -> None:
        """See `FramesFile`."""
        if not self._have:  # it may be the first call, of a run that goes on
            self._start = first
        done = 0
        while done < len(frames):
            room = self._length - (self._start + self._have) % self._length
            some = frames[done : done + room]
            into = self._block[self._have : self._have + len(some)]
            if some.ndim == 2:  # prepared
                into[...] = some
            else:
                self._stored(some, into)
            self._have, done = self._have + len(some), done + len(some)
            if len(some) == room:
                self._empty()

    def close(self) -> None:
        """See `FramesFile`."""
        if self._have:
            self._empty()

    def _empty(self) -> None:
        self._write_block(self._start, self._block[: self._have])
        self._start, self._have = self._start + self._have, 0

    @abstractmethod
    def _write_block(self, first: int, frames: NDArray) -> None:
        """Write frames as they are stored, (n, pixels)."""


class TracesFrames(_Collected):
    """A file that holds the movie trace after trace, see `TracesFile`."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, fill: float = 0) -> None:
        frame = math.prod(shape[1:]) * dtype.itemsize
        length = max(1, min(shape[0], _STRETCH, min(_COLLECTED, backend.budget(host()) // 4) // frame))
        super().__init__(shape, dtype, fill, length, fortran=True)
        self._file = TracesFile(path, shape[1:], shape[0], dtype)

    def sync(self) -> int:
        """See `FramesFile`."""
        end = self._start
        with self._file.path.open("rb") as file:
            os.fsync(file.fileno())
        return end

    def _write_block(self, first: int, frames: NDArray) -> None:
        self._file.write(frames, first)


class ChunkedFrames(_Collected):
    """A data set that is stored in chunks of `length` whole frames (Zarr), each written once.

    `sync` counts chunks that were handed to the system, which keeps them if the process is killed.
    """

    def __init__(self, data: Any, dtype: np.dtype, fill: float, length: int) -> None:
        super().__init__(data.shape, dtype, fill, length, fortran=False)
        self._data = data

    def sync(self) -> int:
        """See `FramesFile`."""
        return self._start

    def _write_block(self, first: int, frames: NDArray) -> None:
        self._data[first : first + len(frames)] = frames.reshape(-1, *self.shape[1:])
