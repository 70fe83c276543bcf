"""Movies whose time axis is the last one, as the documented summary-image functions take them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.movies import open_movie
from gpucalcium.movies.source import Source


class TimeLast(Source):
    """Frames of something that gives NumPy arrays when sliced (HDF5, Zarr), stored (d1, d2[, d3], T)."""

    def __init__(self, data: Any) -> None:
        super().__init__((data.shape[-1], *data.shape[:-1]), data.dtype, f"the movie ({type(data).__name__})")
        self._data = data

    def _fill(self, wanted: range, out: NDArray) -> None:
        out[...] = np.moveaxis(self._data[..., wanted.start : wanted.stop : wanted.step], -1, 0)


def open_with_time(movie: Any, swap_dim: bool) -> FrameSource:
    """A source of frames; with `swap_dim`, the last axis of an array is time.

    Files, lists of files and sources know which axis is time: for these `swap_dim` means nothing.
    """
    if not swap_dim or isinstance(movie, str | os.PathLike | list | tuple) or hasattr(movie, "read"):
        return open_movie(movie)
    if backend.is_cupy(movie) or isinstance(movie, np.ndarray):
        return open_movie(backend.array_module(movie).moveaxis(movie, -1, 0) if movie.ndim else movie)
    if hasattr(movie, "__cuda_array_interface__"):
        return open_with_time(backend.put(movie), swap_dim)
    if hasattr(movie, "__array_interface__"):
        return open_with_time(np.asarray(movie), swap_dim)
    if hasattr(movie, "__dlpack__"):
        return open_with_time(np.from_dlpack(movie), swap_dim)
    if getattr(movie, "shape", None):
        return TimeLast(movie)
    return open_movie(movie)
