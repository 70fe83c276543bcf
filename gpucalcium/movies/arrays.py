"""Movies in arrays: NumPy, CuPy, memory-mapped, HDF5, Zarr, and whatever else can be sliced."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import GpuCalciumError, MovieFileError
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import PIECE, Source


class ArraySource(Source):
    """Frames of an array in memory, on the host or on a GPU.

    `array` is the movie itself where it needs no conversion, so that chunks of it are views.
    """

    def __init__(self, movie: Any, name: str | None = None) -> None:
        super().__init__(movie.shape, movie.dtype, name or f"the movie ({type(movie).__name__})")
        if not backend.is_cupy(movie):
            movie = np.asarray(movie)
        if movie.dtype.kind == "b":
            movie = movie.view(np.uint8)
        self._movie = movie
        self.array = movie if movie.dtype == self.dtype and movie.dtype.isnative else None

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = self._movie[wanted.start : wanted.stop : wanted.step]
        if backend.is_cupy(frames):
            frames.astype(self.dtype, order="C", copy=False).get(out=out)
        else:
            np.copyto(out, frames, casting="unsafe")


class SlicedSource(Source):
    """Frames of something that gives NumPy arrays when sliced: an HDF5 or Zarr data set; two axes are one frame.

    `reversed_axes` says that each frame is stored column by column. Several threads may read at once: both libraries
    lock where they need to.
    """

    def __init__(self, data: Any, name: str, *, reversed_axes: bool = False) -> None:
        field = data.shape[1:] if len(data.shape) > 2 else data.shape
        frames = data.shape[0] if len(data.shape) > 2 else 1
        super().__init__((frames, *(field[::-1] if reversed_axes else field)), data.dtype, name)
        self._data, self._reversed = data, reversed_axes
        self._is_image = len(data.shape) == 2

    def _fill(self, wanted: range, out: NDArray) -> None:
        try:
            self._fill_from_file(wanted, out)
        except (MemoryError, GpuCalciumError):
            raise
        except Exception as err:  # HDF5, Zarr and each of their codecs raise errors of their own
            raise MovieFileError(
                f"{self.name}: of {len(self)} frames, {wanted[0]} to {wanted[-1]} cannot be read: {err}. The file may "
                "be truncated or corrupt; copy it again from where it was recorded"
            ) from err

    def _fill_from_file(self, wanted: range, out: NDArray) -> None:
        if self._is_image:
            out[0] = self._data[...].T if self._reversed else self._data[...]
        elif not self._reversed and self.stored == self.dtype and hasattr(self._data, "read_direct"):
            self._data.read_direct(out, np.s_[wanted.start : wanted.stop : wanted.step])
        else:
            for at, part in self._pieces(wanted):
                frames = self._data[part.start : part.stop : part.step]
                axes = (0, *range(frames.ndim - 1, 0, -1))
                out[at : at + len(part)] = frames.transpose(axes) if self._reversed else frames

    def _pieces(self, wanted: range) -> Iterator[tuple[int, range]]:
        """The frames in pieces, each with its place among them; none ends inside a chunk, which would be read twice."""
        long = (getattr(self._data, "chunks", None) or (1,))[0]
        span = max(1, PIECE // self.frame_bytes // long) * long
        at = 0
        while at < len(wanted):
            end = min((wanted[at] // span + 1) * span, wanted[-1] + 1)
            part = wanted[at : at + len(range(wanted[at], end, wanted.step))]
            yield at, part
            at += len(part)


def open_array(movie: Any) -> Source:
    """Source of an array, or of something that can be sliced like one."""
    if isinstance(movie, np.memmap) and (source := _open_mapped(movie)):
        return source
    if isinstance(movie, np.ndarray) or backend.is_cupy(movie):
        return ArraySource(movie)
    if hasattr(movie, "__cuda_array_interface__"):
        return ArraySource(backend.put(movie))
    if hasattr(movie, "__array_interface__"):
        return ArraySource(np.asarray(movie))
    if hasattr(movie, "__dlpack__"):
        return ArraySource(np.from_dlpack(movie))
    where = getattr(getattr(movie, "file", None), "filename", "")
    label = f"{where}:{movie.name}" if where else f"the movie ({type(movie).__name__})"
    return SlicedSource(movie, label)


def _open_mapped(movie: np.memmap) -> RawSource | None:
    """The file behind a memory map, if its frames can be read from there; None if they cannot."""
    turned = movie.transpose(0, *range(movie.ndim - 1, 0, -1))
    is_reversed = not movie.flags.c_contiguous
    if movie.mode != "r" or movie.filename is None or movie.ndim not in (3, 4) or 0 in movie.shape:
        return None
    if is_reversed and not turned.flags.c_contiguous:
        return None
    mapped = np.frombuffer(movie._mmap, np.uint8)  # type: ignore[attr-defined]
    in_map = movie.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
    if not 0 <= in_map <= mapped.nbytes - movie.nbytes:
        return None  # a copy that still carries the map's attributes
    first = movie.offset - movie.offset % mmap.ALLOCATIONGRANULARITY
    return RawSource(
        Path(movie.filename), movie.shape, movie.dtype, first + in_map, reversed_axes=is_reversed
    )
