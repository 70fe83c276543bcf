"""What a user's file holds, as planes: movies of one field of view each, (T, rows, columns)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.axes import movie_order
from gpucalcium.movies.npz import find_array
from gpucalcium.movies.source import Source

PLANE_RATIO = 4  # an axis this many times shorter than both others is that of the planes


@dataclass(frozen=True)
class Plane:
    """One field of view of a recording."""

    source: FrameSource
    """(T, rows, columns)."""
    name: str
    """'' where the recording has one plane, else 'plane_0', 'plane_1' ..."""


def open_planes(movie: Any, *, dataset: str | None = None, axes: str | None = None) -> list[Plane]:
    """Open a recording and take it apart into planes; only headers are read, but for compressed .npz files.

    Parameters
    ----------
    movie : path, array or source
        Anything that `open_movie` takes, or an .npz file.
    dataset : str, optional
        Which array of an .npz or HDF5 file; may be left out where only one can be a movie.
    axes : str, optional
        What each axis is: T (time), Z (plane), Y (row), X (column), for instance "TZYX" or "YXT". Default "TYX"
        with three axes. With four, the planes are the second axis (as TIFF stores them) or the last (as volumes
        are kept here): the one that is at least four times shorter than the others.

    Returns
    -------
    list of Plane

    Raises
    ------
    MovieNotFoundError, MovieFileError, DatasetNotFoundError, UnknownFormatError
        No such file; truncated or corrupt; no such array in it; unknown ending.
    MovieShapeError, ParameterError
        Axes that are no recording, that `axes` does not fit, or that can be read in two ways.
    """
    name = "mov" if dataset is None else dataset
    if (
        isinstance(movie, str | os.PathLike)
        and Path(movie).suffix.lower() == ".npz"
        and Path(movie).is_file()
    ):
        array, _ = find_array(Path(movie), name)
        axes = _checked_axes(axes, array.shape, array.label)
        source = open_movie(movie, var_name_hdf5=name, axes=axes)
        axes = movie_order(axes)
    else:
        source = open_movie(movie, var_name_hdf5=name)
        axes = _checked_axes(axes, source.shape, getattr(source, "name", "the movie"))
    if axes == "TYX":
        return [Plane(source, "")]
    if axes[0] != "T":
        raise ParameterError(
            f"axes={axes!r}: frames are read one after the other, so T must be the first axis of a file; "
            "save the movie as (T, rows, columns), or as an .npz file, which may have any order"
        )
    return [
        Plane(PlaneOf(source, axes, z), f"plane_{z}" if "Z" in axes else "")
        for z in range(source.shape[axes.index("Z")] if "Z" in axes else 1)
    ]


class PlaneOf(Source):
    """One plane of a movie of planes, or a movie whose rows and columns are exchanged."""

    def __init__(self, source: FrameSource, axes: str, plane: int) -> None:
        size = dict(zip(axes, source.shape, strict=True))
        name = getattr(source, "name", "the movie")
        super().__init__((size["T"], size["Y"], size["X"]), source.dtype, f"{name}, plane {plane}")
        self._source, self._axes, self._plane = source, axes, plane

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = self._source.read(slice(wanted.start, wanted.stop, wanted.step))
        if "Z" in self._axes:
            frames = np.take(frames, self._plane, axis=self._axes.index("Z"))
        left = self._axes.replace("Z", "")
        out[...] = frames.transpose([left.index(axis) for axis in "TYX"])


def _checked_axes(axes: str | None, shape: tuple[int, ...], name: str) -> str:
    if axes is None:
        return _guessed_axes(shape, name)
    axes = axes.upper()
    if sorted(axes) not in (sorted("TYX"), sorted("TZYX")):
        raise ParameterError(f"axes={axes!r}: expected each of T, Y, X once, and Z if there are planes")
    if len(axes) != len(shape):
        raise MovieShapeError(f"axes={axes!r} names {len(axes)} axes, but {name} has shape {shape}")
    return axes


def _guessed_axes(shape: tuple[int, ...], name: str) -> str:
    if len(shape) == 3:
        return "TYX"
    if len(shape) != 4:
        raise MovieShapeError(
            f"{name} has {len(shape)} axes, shape {shape}; a recording has three, (T, rows, columns), or four with "
            "planes. Name another order with axes, for instance axes='TZYX'"
        )
    _, second, third, last = shape
    if second * PLANE_RATIO <= min(third, last):
        return "TZYX"
    if last * PLANE_RATIO <= min(second, third):
        return "TYXZ"
    raise MovieShapeError(
        f"{name} has shape {shape}, and neither its second nor its last axis is short enough to be taken for planes: "
        "name the axes, for instance axes='TZYX'"
    )
