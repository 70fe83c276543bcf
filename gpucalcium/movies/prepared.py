"""A movie as it is wanted in a file: shifted, bordered, resized, raised. Computed as it is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.resizing import AREA, resize, resized_length, weights
from gpucalcium.movies.source import PIECE, Source


class Prepared(Source):
    """Frames of another source after some changes, as float32.

    Parameters
    ----------
    source : FrameSource
    border : int
        Pixels at each edge of the field of view that are set to the smallest value of the movie.
    resize_fact : (float, float, float)
        Factors of the rows, the columns and time; averages when it shrinks.
    add : float
        Added to every value, last.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        border: int = 0,
        resize_fact: tuple[float, ...] = (1, 1, 1),
        add: float = 0,
    ) -> None:
        if len(resize_fact) != 3:
            raise ParameterError(f"resize_fact={resize_fact}: three factors, of rows, columns and time")
        fx, fy, fz = resize_fact
        frames = resized_length(len(source), fz)
        field = (resized_length(source.shape[1], fx), resized_length(source.shape[2], fy), *source.shape[3:])
        super().__init__((frames, *field), np.float32, getattr(source, "name", "the movie"))
        if border < 0 or 2 * border >= min(source.shape[1:3]):
            raise ParameterError(
                f"border_to_0={border}: a field of view of {source.shape[1:3]} has no such border"
            )
        self._source, self._border, self._add = source, border, np.float32(add)
        self._lowest = minimum(source) if border else 0.0
        self._in_time = None if frames == len(source) else weights(len(source), frames, AREA)

    def _fill(self, wanted: range, out: NDArray) -> None:
        read_each = max(1, len(self._source) // len(self))
        frame_bytes = int(np.prod(self._source.shape[1:])) * 4
        some = max(1, PIECE // (frame_bytes * read_each))
        for at in range(0, len(wanted), some):
            out[at : at + some] = self._some(wanted[at : at + some])
        if self._add:
            out += self._add

    def _some(self, wanted: range) -> NDArray[np.float32]:
        if self._in_time is None:
            return self._in_space(slice(wanted.start, wanted.stop, wanted.step))
        mixed = self._in_time[list(wanted)]
        first, last = int(mixed.indices.min()), int(mixed.indices.max()) + 1
        frames = self._in_space(slice(first, last))
        flat = mixed[:, first:last] @ frames.reshape(len(frames), -1)
        return flat.reshape(len(wanted), *self.shape[1:])

    def _in_space(self, frames: slice) -> NDArray[np.float32]:
        values: NDArray = self._source.read(frames).astype(np.float32, copy=self._border > 0)
        if b := self._border:
            for axis in (1, 2):
                edges = np.moveaxis(values, axis, 0)
                edges[:b] = edges[-b:] = self._lowest
        for axis in (1, 2):
            if values.shape[axis] != self.shape[axis]:
                values = resize(values, axis, self.shape[axis], AREA)
        return values


class Shifted(Source):
    """Frames displaced by known shifts, bicubic, reflecting at the edge; float32.

    Parameters
    ----------
    source : FrameSource, (T, d1, d2)
    shifts : (T, 2) array-like
        Displacement applied to each frame, in pixels, rows first.
    """

    def __init__(self, source: FrameSource, shifts: ArrayLike) -> None:
        super().__init__(source.shape, np.float32, getattr(source, "name", "the movie"))
        self._source, self._shifts = source, np.ascontiguousarray(shifts, np.float32)
        if len(self.shape) != 3 or self._shifts.shape != (len(self), 2):
            raise MovieShapeError(
                f"xy_shifts of shape {self._shifts.shape} for {self.name}, {self.shape}: images (T, d1, d2) and one "
                "shift (rows, columns) for each frame are expected"
            )

    def _fill(self, wanted: range, out: NDArray) -> None:
        some = max(1, PIECE // self.frame_bytes)
        for at in range(0, len(wanted), some):
            part = slice(wanted[at], wanted[min(at + some, len(wanted)) - 1] + 1, wanted.step)
            frames = self._source.read(part)
            warp = backend.wing(frames).registration.warp
            out[at : at + some] = warp(frames, self._shifts[part], 0.0, "reflect")


def minimum(source: FrameSource) -> float:
    """Smallest value of a movie, NaN left out."""
    with backend.use("cpu"):
        return float(min(np.nanmin(backend.to_numpy(chunk)) for chunk in backend.stream(source)))
