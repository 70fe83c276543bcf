"""The memory maps that processes of one analysis share: headerless float32, described by the file's name.

``<base>_d1_<rows>_d2_<columns>_d3_<planes or 1>_order_<C|F>_frames_<T>.mmap`` holds a matrix (pixels, T), pixels
in Fortran order. Order F: frame after frame; order C: trace after trace.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MovieFileError
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import PIECE, Source

_NAME = re.compile(r"(?P<base>.*)_d1_(\d+)_d2_(\d+)_d3_(\d+)_order_(?P<order>[CF])_frames_(\d+)_*")
VALUE = np.dtype(np.float32)
_FAULT = 64 << 10  # bytes that a page fault may bring in
_MAPPED = 1 << 30  # bytes of address space taken at a time


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
    """Frames of a movie that is stored trace after trace."""

    def __init__(self, path: Path, shape: tuple[int, ...], stored: np.dtype, offset: int = 0) -> None:
        super().__init__(shape, stored, str(path))
        self._path, self._offset = path, offset

    def _fill(self, wanted: range, out: NDArray) -> None:
        """Gather slabs of the last axis; each is mapped only while it is read, so the map never fills memory."""
        slab_shape, size = self.shape[-2:0:-1], self.stored.itemsize
        pixels, frames = math.prod(slab_shape), len(self)
        touched = min(frames, wanted[-1] - wanted[0] + 1 + _FAULT // size) * size
        some = max(1, min(PIECE // (pixels * touched), _MAPPED // (pixels * frames * size)))
        for k in range(0, self.shape[-1], some):
            count = min(some, self.shape[-1] - k)
            offset = self._offset + k * pixels * frames * size
            mapped = np.memmap(self._path, self.stored, "r", offset, (count, *slab_shape, frames))
            part = mapped[..., wanted.start : wanted.stop : wanted.step]
            out[..., k : k + count] = part.transpose(range(part.ndim - 1, -1, -1))
            del mapped, part
