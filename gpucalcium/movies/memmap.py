"""The memory maps that processes of one analysis share: headerless float32, described by the file's name.

``<base>_d1_<rows>_d2_<columns>_d3_<planes or 1>_order_<C|F>_frames_<T>.mmap`` holds a matrix (pixels, T), pixels
in Fortran order. Order F: frame after frame; order C: trace after trace.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend.device import cpu as host
from gpucalcium.errors import MovieFileError
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source
from gpucalcium.movies.traces_file import TracesFile

_NAME = re.compile(r"(?P<base>.*)_d1_(\d+)_d2_(\d+)_d3_(\d+)_order_(?P<order>[CF])_frames_(\d+)_*")
VALUE = np.dtype(np.float32)
_BLOCK = 512 << 20  # bytes of frames that are read together, so that each trace gives a long run
_SHARE_OF_BUDGET = 4  # what such a block may take, at most
_READERS = 4  # reads by which one that reads on may be ahead of or behind another


@dataclass(frozen=True)
class MapName:
    """What the name of a memory map says."""

    base: str
    dims: tuple[int, ...]
    """(d1, d2) or, with more than one plane, (d1, d2, d3)."""
    order: str
    """'F': frames are contiguous; 'C': traces are."""
    T: int

    @classmethod
    def parse(cls, path: Path) -> MapName:
        """Read the fields from the right, so that `base` may be anything.

        Raises
        ------
        MovieFileError
            The name does not have the fields.
        """
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise MovieFileError(
                f"{path}: the name of a memory map ends in _d1_<rows>_d2_<columns>_d3_<planes>_order_<C|F>_frames_<T>"
                ".mmap, as its file has no header; give it the name that it was written under"
            )
        d1, d2, d3, frames = (int(match[k]) for k in (2, 3, 4, 6))
        return cls(match["base"], (d1, d2) if d3 == 1 else (d1, d2, d3), match["order"], frames)

    def __str__(self) -> str:
        d1, d2, d3 = (*self.dims, 1)[:3]
        return f"{self.base}_d1_{d1}_d2_{d2}_d3_{d3}_order_{self.order}_frames_{self.T}.mmap"

    @property
    def bytes(self) -> int:
        """Size that the file must have."""
        return math.prod(self.dims) * self.T * VALUE.itemsize


def check_map(path: Path) -> MapName:
    """What the name says, once the file has the size for it.

    Raises
    ------
    MovieFileError
        The size does not fit the name: truncated, or renamed.
    """
    about = MapName.parse(path)
    size = path.stat().st_size
    if size != about.bytes:
        raise MovieFileError(
            f"{path} has {size} bytes; {about.T} frames of {about.dims} as float32, as its name says, are "
            f"{about.bytes}. It is truncated or was renamed: write it again"
        )
    return about


def open_mmap(path: Path) -> Source:
    """Frames of a memory map of either order."""
    about = check_map(path)
    shape = (about.T, *about.dims)
    if about.order == "F":
        return RawSource(path, shape, VALUE, reversed_axes=True)
    return TracesSource(path, shape, VALUE)


class TracesSource(Source):
    """Frames of a movie that is stored trace after trace.

    A few frames are a few values of each of many traces. Who reads on and on is therefore served from a block of many
    frames that was read in long runs; who picks frames here and there gets just these.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], stored: np.dtype, offset: int = 0) -> None:
        super().__init__(shape, stored, str(path))
        self.traces = TracesFile(path, self.shape[1:], len(self), self.stored, offset)
        self._lock = Lock()
        self._next = 0  # frame after the last one that was asked for
        self._block: tuple[range, NDArray] | None = None

    @property
    def flat(self) -> TracesSource:
        """The same frames with their pixels as they lie in the file, (T, pixels, 1)."""
        shape = (len(self), math.prod(self.shape[1:]), 1)
        return TracesSource(self.traces.path, shape, self.stored, self.traces.offset)

    @property
    def keeps(self) -> int:
        """Bytes of the block, which `backend.stream` counts."""
        return self._block_length * self.frame_bytes

    @property
    def _block_length(self) -> int:
        most = min(_BLOCK, backend.budget(host()) // _SHARE_OF_BUDGET)
        return min(len(self), most // self.frame_bytes)

    def _fill(self, wanted: range, out: NDArray) -> None:
        last = wanted[-1] + 1
        with self._lock:
            length = self._block_length
            reads_on = abs(wanted[0] - self._next) <= _READERS * (last - wanted[0])
            self._next = last
            if wanted.step > 1 or not reads_on or length < 2 * len(wanted):
                self.traces.read(wanted, out)
                return
            done = 0
            while done < len(wanted):
                frames, block = self._block_with(wanted[done], length)
                count = min(frames.stop, last) - wanted[done]
                at = wanted[done] - frames.start
                self._copy(block[at : at + count], out[done : done + count])
                done += count
            if last == len(self):
                self._block = None

    def _block_with(self, frame: int, length: int) -> tuple[range, NDArray]:
        """Frames around `frame`, and which they are; kept until others are needed, whose memory theirs becomes.

        Their pixels are in the order of the file: they are put in that of frames when they are handed out.
        """
        if self._block is None or frame not in self._block[0]:
            memory = self._block[1] if self._block else np.empty((0, 0), self.dtype)
            self._block = None
            first = frame // length * length
            frames = range(first, min(first + length, len(self)))
            if len(memory) < len(frames):
                memory = np.empty((len(frames), math.prod(self.shape[1:])), self.dtype)
            self.traces.read(frames, memory[: len(frames)])
            self._block = frames, memory
        return self._block

    def _copy(self, block: NDArray, out: NDArray) -> None:
        if math.prod(self.shape[2:]) == 1:
            out[...] = block.reshape(out.shape)
            return
        reversed_frames = block.reshape(len(block), *self.shape[:0:-1])
        backend.wing(block).layout.frames_to_fortran(reversed_frames, self.dtype, 0, out.reshape(block.shape))
