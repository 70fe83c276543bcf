"""Arrays whose axes are not those of a movie: put in order, and one of their channels taken, as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.arrays import ArraySource, SlicedSource
from gpucalcium.movies.source import Source


def checked_axes(axes: str, shape: tuple[int, ...], name: str) -> str:
    """Letters of the axes, in capitals.

    Raises
    ------
    ParameterError
        Not each of T, Y, X once, and Z (planes) and C (channels) at most once.
    MovieShapeError
        Not as many as the array has axes.
    """
    letters = axes.upper()
    if not set("TYX") <= set(letters) <= set("TZYXC") or len(set(letters)) != len(letters):
        raise ParameterError(
            f"axes={axes!r}: expected each of T, Y, X once, and Z if there are planes, C if there are channels"
        )
    if len(letters) != len(shape):
        raise MovieShapeError(f"axes={axes!r} names {len(letters)} axes, but {name} has shape {shape}")
    return letters


def axes_by_name(names: Sequence[str], count: int) -> str | None:
    """The axes of an array with channels whose dimensions are named ("time", "c", "y" ...); None if they are not."""
    letters = "".join(name[:1].upper() for name in names)
    is_told = len(letters) == count == len(set(letters)) and set("TCYX") <= set(letters) <= set("TCZYX")
    return letters if is_told else None


def movie_order(axes: str) -> str:
    """The same axes as those of a movie: time, rows, columns; planes before or behind these, as they are stored."""
    if "Z" not in axes:
        return "TYX"
    return "TZYX" if axes.index("Z") < max(axes.index("Y"), axes.index("X")) else "TYXZ"


def open_arranged(data: Any, name: str, axes: str, channel: int | None) -> Source:
    """Frames of an array, HDF5 or Zarr data set whose axes are `axes`.

    Parameters
    ----------
    data
        Gives NumPy arrays when sliced.
    name : str
        What error messages call it.
    axes : str
        What each of its axes is: T, Y, X, Z (planes), C (channels), e.g. "YXT" or "TZYXC".
    channel : int, optional
        Which one, if there are several.

    Raises
    ------
    MovieShapeError, ParameterError
        `axes` does not fit; several channels, and none of them was asked for, or none where one was.
    """
    letters = checked_axes(axes, tuple(data.shape), name)
    channels = data.shape[letters.index("C")] if "C" in letters else 0
    if channel is None and channels > 1:
        raise ParameterError(
            f"{name} has {len(letters)} axes, {letters} {tuple(data.shape)}, and so {channels} channels: say "
            "which with channel=0, 1 ..."
        )
    if channel is not None and not -channels <= channel < channels:
        several = (
            f"has {channels} channels, counted from 0"
            if channels
            else f"has no channels, its axes are {axes}"
        )
        raise ParameterError(f"channel={channel}: {name} {several}")
    arranged = Rearranged(data, letters, (channel or 0) % max(1, channels))
    if isinstance(data, np.ndarray) or backend.is_cupy(data):
        return ArraySource(arranged[:], name)
    return SlicedSource(arranged, name)


class Rearranged:
    """An array seen as (T, ...) in the order of a movie; only what is asked for is read.

    Parameters
    ----------
    data
        Array, HDF5 or Zarr data set.
    axes : str
        Checked, see `checked_axes`.
    channel : int
        Which one to take, if there is such an axis.
    """

    def __init__(self, data: Any, axes: str, channel: int) -> None:
        self._data, self._axes, self._channel = data, axes, channel
        size = dict(zip(axes, data.shape, strict=True))
        self._order = movie_order(axes)
        self.shape, self.dtype = tuple(size[axis] for axis in self._order), data.dtype
        chunks = getattr(data, "chunks", None)
        self.chunks = None if chunks is None else (chunks[axes.index("T")],)

    def __getitem__(self, frames: slice) -> Any:
        taken = {"T": frames, "C": self._channel}
        values = self._data[tuple(taken.get(axis, slice(None)) for axis in self._axes)]
        left = self._axes.replace("C", "")
        return values.transpose([left.index(axis) for axis in self._order])


class TurnedSource(Source):
    """A movie whose frames are turned as they are read, time being its first axis already."""

    def __init__(self, source: FrameSource, axes: str) -> None:
        order = movie_order(axes)
        size = dict(zip(axes, source.shape, strict=True))
        name = getattr(source, "name", "the movie")
        super().__init__(tuple(size[axis] for axis in order), source.dtype, name)
        self._source, self._turned = source, [axes.index(axis) for axis in order]
        self.about = getattr(source, "about", {})

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = self._source.read(slice(wanted.start, wanted.stop, wanted.step))
        out[...] = frames.transpose(self._turned)


def turned(source: FrameSource, axes: str) -> FrameSource:
    """A movie of which time is the first axis, its rows before its columns.

    Raises
    ------
    MovieShapeError, ParameterError
        `axes` does not fit; time is not the first; there are channels.
    """
    name = getattr(source, "name", "the movie")
    letters = checked_axes(axes, source.shape, name)
    if letters[0] != "T" or "C" in letters:
        raise ParameterError(
            f"axes={axes!r}: {name} is read frame by frame, so T must be the first axis, and channels are chosen with "
            "channel=... alone. Save the movie as .npy, .npz, .h5 or .zarr, whose axes may have any order"
        )
    return source if letters == movie_order(letters) else TurnedSource(source, letters)
