"""Frames in a stream of bytes that can only be read forwards, as compressed members of archives are."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.errors import MovieFileError
from gpucalcium.movies.source import PIECE, Source

_BLOCK = 1 << 20  # bytes that are read or passed over at a time


class InflatedSource(Source):
    """Frames one behind the other in a stream; to go back, the stream is opened and read again.

    Parameters
    ----------
    name, shape, stored
        As in `Source`.
    opened : callable
        Opens the stream anew, at its start.
    offset : int
        Byte of the stream where the first frame starts.
    reversed_axes : bool
        Whether each frame is stored with its axes reversed: column by column.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        stored: DTypeLike,
        opened: Callable[[], BinaryIO],
        offset: int,
        *,
        reversed_axes: bool = False,
    ) -> None:
        super().__init__(shape, stored, name)
        self._opened, self._offset, self._reversed = opened, offset, reversed_axes
        self._frame_stored = math.prod(self.shape[1:]) * self.stored.itemsize
        self._idle: tuple[BinaryIO, int] | None = None
        self._lock = Lock()

    def _fill(self, wanted: range, out: NDArray) -> None:
        stream, at = self._left_off(None) or (self._opened(), 0)
        if at > self._offset + wanted[0] * self._frame_stored:
            stream.close()
            stream, at = self._opened(), 0
        shape = self.shape[:0:-1] if self._reversed else self.shape[1:]
        buffer = np.empty(shape, self.stored)
        into = memoryview(buffer.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for number, frame in enumerate(wanted):
            place = self._offset + frame * self._frame_stored
            self._pass_over(stream, place - at, frame)
            self._read_into(stream, into, frame)
            at = place + self._frame_stored
            out[number] = buffer.T if self._reversed else buffer
        if spare := self._left_off((stream, at)):
            spare[0].close()

    def _left_off(self, stream: tuple[BinaryIO, int] | None) -> tuple[BinaryIO, int] | None:
        """Leave a stream, and the place it has come to, for the next reader; take what the last has left."""
        with self._lock:
            before, self._idle = self._idle, stream
        return before

    def _pass_over(self, stream: BinaryIO, count: int, frame: int) -> None:
        while count > 0:
            got = len(self._read(stream, min(count, _BLOCK), frame))
            count -= got

    def _read_into(self, stream: BinaryIO, into: memoryview, frame: int) -> None:
        done = 0
        while done < len(into):
            some = self._read(stream, min(len(into) - done, PIECE), frame)
            into[done : done + len(some)] = some
            done += len(some)

    def _read(self, stream: BinaryIO, count: int, frame: int) -> bytes:
        try:
            some = stream.read(count)
        except Exception as err:  # of the archive or the decompressor: all mean the same here
            raise self._damaged(frame, f"{type(err).__name__}: {err}") from err
        if not some:
            raise self._damaged(frame, "the data end there")
        return some

    def _damaged(self, frame: int, why: str) -> MovieFileError:
        return MovieFileError(
            f"{self.name}: frame {frame} of {len(self)} cannot be read: {why}. The file is truncated or corrupt; copy "
            "it again from where it was written"
        )


class Inflating(RawIOBase):
    """What a zlib stream inside a file holds, read forwards.

    Parameters
    ----------
    path : Path
    offset, length : int
        Where in the file the compressed bytes lie.
    """

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb")
        self._file.seek(offset)
        self._left = length
        self._zlib = zlib.decompressobj()
        self._rest = b""  # compressed, not yet used

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        """Next bytes; 0 at the end of the stream or of the file."""
        view = memoryview(into).cast("B")
        while not self._zlib.eof:
            if not self._rest:
                self._rest = self._file.read(min(_BLOCK, self._left))
                self._left -= len(self._rest)
            some = self._zlib.decompress(self._rest, len(view))
            ended = not self._rest
            self._rest = self._zlib.unconsumed_tail
            if some:
                view[: len(some)] = some
                return len(some)
            if ended:
                break
        return 0

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._file.close()
        super().close()
