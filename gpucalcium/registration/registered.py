"""A registered movie that is kept as what it was made from: the recording and how its frames are displaced."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies.memmap import VALUE
from gpucalcium.movies.save_options import Recording
from gpucalcium.movies.source import Source
from gpucalcium.registration.apply import displace, displace_field
from gpucalcium.registration.output import open_output
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.recordings import lowest_of

WORKING_COPIES = 4  # float32 frames beside a chunk, spectra included


class RegisteredMovie(Source):
    """Frames of a recording, displaced when they are read: a later stage streams them, and nothing is written.

    A stage that streams them on a GPU gets them displaced there, in the chunks that the recording is uploaded in.

    Parameters
    ----------
    source : FrameSource
        The recording, (T, d1, d2[, d3]).
    shifts : (T, ndim) array, optional
        Displacement to apply to each frame, pixels, axis order; this, or `field`.
    field : ``(T, *counts, ndim)`` array, optional
        Displacement of each patch of `grid`.
    grid : PatchGrid, optional
        Where the patches of `field` lie.
    border, offset
        As in `displace` and `displace_field`.
    **how
        Other options of `displace` (with shifts) or of `displace_field` (with a field).

    Attributes
    ----------
    shifts, field : array or None
        As given, float32.

    Raises
    ------
    ArrayShapeError
        Not one shift per frame and axis, or not one per frame, patch and axis.
    ParameterError
        Both of shifts and field, or neither; a field without its grid.
    """

    def __init__(
        self,
        source: FrameSource,
        shifts: NDArray | None = None,
        *,
        field: NDArray | None = None,
        grid: PatchGrid | None = None,
        border: str = "nan",
        offset: float = 0.0,
        **how: Any,
    ) -> None:
        name = getattr(source, "name", type(source).__name__)
        super().__init__(source.shape, VALUE, f"{name} (registered)")
        if (shifts is None) == (field is None) or (field is None) != (grid is None):
            raise ParameterError("give either shifts, or a field together with its grid")
        self.made_from = source
        self.about = getattr(source, "about", {})
        self._moves: NDArray[np.float32] = np.ascontiguousarray(
            field if shifts is None else shifts, np.float32
        )
        self.shifts = None if shifts is None else self._moves
        self.field = None if field is None else self._moves
        self.grid = grid
        self.working = WORKING_COPIES * 4 * math.prod(source.shape[1:])
        self._border, self._offset, self._how = border, offset, how
        ndim = len(source.shape) - 1
        needed = (len(source), *(() if grid is None else grid.counts), ndim)
        if self._moves.shape != needed:
            raise ArrayShapeError(
                f"{'shifts' if grid is None else 'field'} has shape {self._moves.shape}; {len(source)} frames with "
                f"{ndim} axes need {needed}"
            )

    def make(self, chunk: Array, frames: range) -> Array:
        """Frames `frames` of this movie from a chunk with the same frames of the recording, on its device."""
        moves = backend.arrays.xp(chunk).asarray(self._moves[frames.start : frames.stop : frames.step])
        how = {"border": self._border, "offset": self._offset, **self._how}
        if self.grid is None:
            return displace(chunk, moves, **how)
        return displace_field(chunk, moves, self.grid, **how)

    def _fill(self, wanted: range, out: NDArray) -> None:
        done = 0
        for chunk in backend.stream(self, frames=slice(wanted.start, wanted.stop, wanted.step)):
            out[done : done + len(chunk)] = backend.to_numpy(chunk)
            done += len(chunk)

    def send(
        self,
        sink: Callable[[int, NDArray], object],
        prepare: Callable[[Array], Array] = lambda moved: moved,
    ) -> None:
        """Displace all frames on the active device; ``sink(start, prepare(frames))`` receives them in order."""
        with stage(f"{self.name}: displacing", len(self)) as bar:

            def step(chunk: Array) -> Array:
                bar.update(len(chunk))
                return prepare(chunk)

            backend.pipe(self, step, sink)

    def all_frames(self) -> NDArray[np.float32]:
        """The whole movie in memory."""
        out = np.empty(self.shape, np.float32)

        def sink(start: int, frames: NDArray) -> None:
            out[start : start + len(frames)] = frames

        self.send(sink)
        return out

    def without_negative(self) -> RegisteredMovie:
        """The same movie minus its smallest value, if that is negative; reads it once to know."""
        lowest = 0.0
        for chunk in backend.stream(self):
            lowest = min(lowest, lowest_of(chunk))
        return self._less(lowest) if lowest < 0 else self

    def _less(self, amount: float) -> RegisteredMovie:
        """The same movie minus `amount`."""
        return RegisteredMovie(
            self.made_from,
            self.shifts,
            field=self.field,
            grid=self.grid,
            border=self._border,
            offset=self._offset + amount,
            **self._how,
        )

    def write(
        self,
        where: str | os.PathLike[str],
        *,
        format: str = "mmap",
        dtype: DTypeLike = "float32",
        order: str = "F",
        fill: float = 0,
    ) -> Path:
        """Write the movie into a file, in bounded memory; parameters as in `open_output`.

        Returns
        -------
        path : Path
            Of the file, which is there once it is whole.
        """
        about = Recording(**self.about)
        with open_output(
            where, self.shape, dtype=dtype, format=format, order=order, fill=fill, about=about
        ) as output:
            self.send(output.sink, output.prepare)
        return output.path
