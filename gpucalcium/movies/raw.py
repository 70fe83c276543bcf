"""Frames that lie uncompressed in a file, one behind the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.errors import MovieFileError
from gpucalcium.movies.source import PIECE, Source


class RawSource(Source):
    """Frames at fixed places in a file, read straight into the memory they are wanted in.

    Read, not mapped: a mapped movie counts as memory of the process, and its pages come in one by one.

    Parameters
    ----------
    path : Path
    shape, stored
        As in `Source`.
    offset : int or callable
        Byte where the first frame starts and the others follow; or ``offset(frames)``, where each of them starts.
    reversed_axes : bool
        Whether each frame is stored with its axes reversed, (d3, d2, d1): column by column.

    Raises
    ------
    MovieFileError
        The file is shorter than its header says.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        stored: DTypeLike,
        offset: int | Callable[[range], Sequence[int]] = 0,
        *,
        reversed_axes: bool = False,
    ) -> None:
        super().__init__(shape, stored, str(path))
        self.path = path
        self._frame_stored = math.prod(self.shape[1:]) * self.stored.itemsize
        self._offset = offset
        self._reversed = reversed_axes
        last = self._places(range(len(self))[-1:])[0]
        size = path.stat().st_size
        if last + self._frame_stored > size:
            raise MovieFileError(
                f"{path} is truncated: its header promises {len(self)} frames of {self.shape[1:]} {self.stored}, which "
                f"end at byte {last + self._frame_stored}, but the file has {size} bytes. Copy it again from where "
                "it was recorded"
            )

    @property
    def flat(self) -> RawSource | None:
        """The same frames with pixels as they lie in the file, (T, pixels, 1); None if that is their own order."""
        if not self._reversed:
            return None
        return RawSource(self.path, (len(self), math.prod(self.shape[1:]), 1), self.stored, self._offset)

    def part(self, rows: slice) -> RawSource:
        """Some rows (first axis) of each frame, which lie in one piece."""
        first, row = rows.start, self._frame_stored // self.shape[1]
        return RawSource(
            self.path,
            (len(self), rows.stop - first, *self.shape[2:]),
            self.stored,
            lambda frames: [place + first * row for place in self._places(frames)],
        )

    def _fill(self, wanted: range, out: NDArray) -> None:
        with self.path.open("rb", buffering=0) as file:
            if self._is_plain:
                self._read_runs(file, wanted, out)
                if not self.stored.isnative:
                    out.byteswap(inplace=True)
                return
            some = max(1, PIECE // self._frame_stored)
            shape = self.shape[:0:-1] if self._reversed else self.shape[1:]
            buffer = np.empty((min(some, len(wanted)), *shape), self.stored)
            for at in range(0, len(wanted), some):
                part = wanted[at : at + some]
                stored = buffer[: len(part)]
                self._read_runs(file, part, stored)
                axes = (0, *range(len(shape), 0, -1)) if self._reversed else None
                out[at : at + some] = stored.transpose(axes) if axes else stored

    @property
    def _is_plain(self) -> bool:
        """Whether the bytes of a frame can be used where they land (but for their order within a value)."""
        return not self._reversed and self.stored.itemsize == self.dtype.itemsize and self.stored.kind != "b"

    def _read_runs(self, file: RawIOBase, wanted: range, out: NDArray) -> None:
        """Read frames, those that lie one behind the other in one go."""
        into = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        size = self._frame_stored
        places = self._places(wanted)
        first = 0
        for k in range(1, len(places) + 1):
            if k == len(places) or places[k] != places[k - 1] + size:
                self._read_at(file, places[first], into[first * size : k * size], wanted[first])
                first = k

    def _places(self, frames: range) -> Sequence[int]:
        if callable(self._offset):
            return self._offset(frames)
        size = self._frame_stored
        return range(
            self._offset + frames.start * size, self._offset + frames.stop * size, frames.step * size
        )

    def _read_at(self, file: RawIOBase, place: int, into: memoryview, frame: int) -> None:
        file.seek(place)
        done = 0
        while done < len(into):
            got = file.readinto(into[done:])  # at most 2 GiB at a time on Linux
            if not got:
                raise MovieFileError(
                    f"{self.path} ended at byte {place + done}, in frame {frame + done // self._frame_stored}: it has "
                    "become shorter since it was opened"
                )
            done += got
