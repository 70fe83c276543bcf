"""Several movies as one, and part of a movie as a movie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.about import joined
from gpucalcium.movies.source import PIECE, Source


class Chain(Source):
    """Movies of one field of view, one after the other; of the dtype that holds the values of all.

    Raises
    ------
    MovieShapeError
        No movie at all, or fields of view of different sizes.
    """

    def __init__(self, parts: Sequence[FrameSource]) -> None:
        if not parts:
            raise MovieShapeError("an empty list is no movie: name at least one file or array")
        first = parts[0]
        for part in parts[1:]:
            if part.shape[1:] != first.shape[1:]:
                raise MovieShapeError(
                    f"Files have FOVs with different sizes: {_name(first)} has {first.shape[1:]}, {_name(part)} has "
                    f"{part.shape[1:]}. Crop them to one size first"
                )
        name = _name(first) if len(parts) == 1 else f"{_name(first)} and {len(parts) - 1} more"
        super().__init__(
            (sum(map(len, parts)), *first.shape[1:]), np.result_type(*(part.dtype for part in parts)), name
        )
        self.parts = tuple(parts)
        self.about = joined([getattr(part, "about", {}) for part in parts])
        self._starts = np.cumsum([0, *map(len, parts)])

    def _fill(self, wanted: range, out: NDArray) -> None:
        at = 0
        while at < len(wanted):
            index = int(np.searchsorted(self._starts, wanted[at], "right")) - 1
            part, start = self.parts[index], int(self._starts[index])
            inside = wanted[at:]
            inside = inside[: len(range(inside.start, min(inside.stop, start + len(part)), inside.step))]
            frames = slice(inside.start - start, inside.stop - start, inside.step)
            into = out[at : at + len(inside)]
            if part.dtype == self.dtype:
                part.read(frames, into)
            else:
                into[...] = part.read(frames)
            at += len(inside)


class Selection(Source):
    """Some frames of a movie, and part of its field of view.

    Parameters
    ----------
    source : FrameSource
    subindices : int, slice, range, sequence of int, boolean mask, or tuple or list of these
        Frames; as a tuple, or a list that holds slices, one selector per axis. A single frame stays a movie of one
        frame.
    """

    def __init__(self, source: FrameSource, subindices: Any) -> None:
        selectors = selectors_of(subindices)
        if len(selectors) > len(source.shape):
            raise ParameterError(
                f"subindices has {len(selectors)} selectors; {_name(source)} has {len(source.shape)} axes"
            )
        picked = [
            _picked(s, n, axis) for axis, (s, n) in enumerate(zip(selectors, source.shape, strict=False))
        ]
        picked += [range(n) for n in source.shape[len(picked) :]]
        super().__init__(tuple(map(len, picked)), source.dtype, f"{_name(source)} (part)")
        self._source = source
        self._frames, self._field = picked[0], picked[1:]
        self.about = _of_part(getattr(source, "about", {}), int(picked[0][0]))
        self._whole_field = all(
            isinstance(axis, range) and axis == range(n)
            for axis, n in zip(self._field, source.shape[1:], strict=True)
        )

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = self._frames[wanted.start : wanted.stop : wanted.step]
        whole_frame = int(np.prod(self._source.shape[1:])) * self.dtype.itemsize
        most = max(1, PIECE // whole_frame) if not self._whole_field else len(frames)
        at = 0
        for run in _runs(frames, most):
            count = len(range(run.start, run.stop, run.step))
            if self._whole_field:
                self._source.read(run, out[at : at + count])
            else:
                out[at : at + count] = _cropped(self._source.read(run), self._field)
            at += count


class OneChannel(Source):
    """One of the channels of a movie (T, channels, rows, columns)."""

    def __init__(self, source: FrameSource, channel: int) -> None:
        if len(source.shape) != 4:
            raise ParameterError(
                f"channel={channel}: {_name(source)} has no channels, its shape is {source.shape}"
            )
        channels = source.shape[1]
        if not -channels <= channel < channels:
            raise ParameterError(
                f"channel={channel}: {_name(source)} has {channels} channels, counted from 0"
            )
        self._picked = Selection(source, (slice(None), channel))
        super().__init__(
            (len(source), *source.shape[2:]), source.dtype, f"{_name(source)}, channel {channel}"
        )
        self.about = getattr(source, "about", {})

    def _fill(self, wanted: range, out: NDArray) -> None:
        self._picked.read(slice(wanted.start, wanted.stop, wanted.step), out[:, None])


class PickedImages(Source):
    """Frames put together from images of a movie, in even steps; `numbers` (T[, planes]) says from which."""

    def __init__(self, source: FrameSource, numbers: NDArray[np.int64]) -> None:
        super().__init__((*numbers.shape, *source.shape[1:]), source.dtype, _name(source))
        self._source, self._numbers = source, numbers.reshape(len(numbers), -1)

    def _fill(self, wanted: range, out: NDArray) -> None:
        images = self._numbers.shape[1]
        step = int(self._numbers[0, 1] - self._numbers[0, 0]) if images > 1 else 1
        for at, frame in enumerate(wanted):
            first = int(self._numbers[frame, 0])
            taken = slice(first, first + (images - 1) * step + 1, step)
            self._source.read(taken, out[at].reshape(images, *self._source.shape[1:]))


class OneColour(Source):
    """One of the colours of a movie (images, rows, columns, colours), as frames of `shape`."""

    def __init__(self, source: FrameSource, channel: int, shape: tuple[int, ...]) -> None:
        colours = source.shape[-1]
        if not -colours <= channel < colours:
            raise ParameterError(f"channel={channel}: {_name(source)} has {colours} colours, counted from 0")
        super().__init__(shape, source.dtype, f"{_name(source)}, colour {channel}")
        self._source, self._colour = source, channel
        self._images = len(source) // len(self)

    def _fill(self, wanted: range, out: NDArray) -> None:
        images = self._images
        for at, frame in enumerate(wanted):
            values = self._source.read(slice(frame * images, (frame + 1) * images))
            out[at] = values[..., self._colour].reshape(out.shape[1:])


def _of_part(about: Mapping[str, Any], first: int) -> Mapping[str, Any]:
    """What is known of a recording of which `first` frames at the start are left out."""
    if not (first and "fr" in about):
        return about
    return {**about, "start_time": about.get("start_time", 0.0) + first / about["fr"]}


def selectors_of(subindices: Any) -> tuple[Any, ...]:
    """The selectors of the first axes: one for each in a tuple or in a list of slices and the like; else of frames."""
    if isinstance(subindices, list) and any(isinstance(one, slice | range) for one in subindices):
        return tuple(subindices)
    return subindices if isinstance(subindices, tuple) else (subindices,)


def _picked(selector: Any, length: int, axis: int) -> range | NDArray[np.int64]:
    """Indices of one axis; a range with positive step where that says it all."""
    if isinstance(selector, range):
        selector = np.asarray(selector)
    if isinstance(selector, slice):
        found = range(length)[selector]
        return found if found.step > 0 else np.asarray(found)
    if np.ndim(selector) == 0:
        selector = [selector]
    try:
        picked = np.arange(length)[np.asarray(selector)]
    except IndexError as err:
        raise ParameterError(f"subindices of axis {axis}: {err}; its length is {length}") from err
    step = int(picked[1] - picked[0]) if len(picked) > 1 else 1
    if len(picked) and step > 0 and np.array_equal(picked, np.arange(picked[0], picked[-1] + 1, step)):
        return range(int(picked[0]), int(picked[-1]) + 1, step)
    return picked


def _runs(frames: range | NDArray[np.int64], most: int) -> Iterable[slice]:
    """The frames as slices of at most `most` frames."""
    if isinstance(frames, range):
        for at in range(0, len(frames), most):
            part = frames[at : at + most]
            yield slice(part.start, part.stop, part.step)
    else:
        for frame in map(int, frames):
            yield slice(frame, frame + 1, 1)


def _cropped(frames: NDArray, field: Sequence[range | NDArray[np.int64]]) -> NDArray:
    for axis, picked in enumerate(field, 1):
        index: Any = slice(picked.start, picked.stop, picked.step) if isinstance(picked, range) else picked
        frames = frames[(slice(None),) * axis + (index,)]
    return frames


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
