"""A function of the caller's on every patch of a movie."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.cnmf.dispatch import mapper
from gpucalcium.cnmf.patch_grid import (
    Window,
    extract_patch_coordinates,
    patch_windows,
    read_window,
    read_windows,
    reads_windows,
)
from gpucalcium.errors import MovieShapeError
from gpucalcium.movies import open_movie


def apply_to_patch(
    mmap_file: Any,
    shape: Sequence[int],
    dview: Any,
    rf: Any,
    stride: Any,
    function: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> tuple[list[Any], list[NDArray[np.int64]], tuple[int, ...]]:
    """Call ``function(frames, *args, **kwargs)`` on each of the overlapping patches that cover a field of view.

    Parameters
    ----------
    mmap_file : (d, T) array, path or movie
        What `load_memmap` returns first, or anything that `open_movie` takes.
    shape : (T, d1, d2[, d3])
        Of the movie.
    dview : optional
        What `CNMF` takes: an executor, a pool, a view of a cluster; None: one patch after the other in this process.
    rf, stride
        Half size of a patch and overlap, pixels; see `patch_windows`.
    function : callable
        Gets a NumPy array (T, h, w[, p]) in the movie's dtype.

    Returns
    -------
    results : list
        In the order of the patches, the first axis outermost. One that has the shape of a patch is flattened in
        Fortran order, so that it goes with `pixels`.
    pixels : list of int arrays
        Of each patch, counted in Fortran order.
    grid : tuple of int
        Patches along each axis, as a shape for `results`.

    Raises
    ------
    MovieShapeError
        The movie has another shape.
    """
    movie = _movie(mmap_file, tuple(int(n) for n in shape))
    source = open_movie(movie)
    if tuple(source.shape) != tuple(shape):
        raise MovieShapeError(f"the movie has shape {source.shape}, but shape={tuple(shape)} was given")
    dims = source.shape[1:]
    windows = patch_windows(dims, rf, stride)
    pixels, _ = extract_patch_coordinates(dims, rf, stride)
    if dview is None:
        results = [_call(_Call(function, args, kwargs, source, window)) for window in windows]
    elif isinstance(movie, (str, os.PathLike)):
        calls = [_Call(function, args, kwargs, os.fspath(movie), window) for window in windows]
        results = mapper(dview)(_call, calls)
    else:
        calls = [_Call(function, args, kwargs, _frames(source, window), None) for window in windows]
        results = mapper(dview)(_call, calls)
    grid = [len({(window[axis].start, window[axis].stop) for window in windows}) for axis in range(len(dims))]
    return results, pixels, tuple(grid)


class _Call(NamedTuple):
    """What one patch needs, in any process."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    movie: Any
    """The movie, or the patch itself if there is no window."""
    window: Window | None


def _call(call: _Call) -> Any:
    frames = call.movie if call.window is None else _frames(open_movie(call.movie), call.window)
    result = call.function(frames, *call.args, **call.kwargs)
    if np.shape(result) == frames.shape[1:]:
        return np.asarray(result).ravel(order="F")
    return result


def _frames(source: FrameSource, window: Window) -> NDArray:
    read = read_window(source, window) if reads_windows(source) else read_windows(source, [window])[0]
    return backend.to_numpy(read)


def _movie(given: Any, shape: tuple[int, ...]) -> Any:
    """A (d, T) map as the file it lies in, another (d, T) array as frames; anything else as it is."""
    if getattr(given, "ndim", 0) != 2 or given.shape != (math.prod(shape[1:]), shape[0]):
        return given
    name = getattr(given, "filename", None)
    if name is not None and str(name).endswith(".mmap"):
        return Path(name)
    return np.reshape(given.T, shape, order="F")
