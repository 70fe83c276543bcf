"""A registered movie that is kept as what it was made from: the recording and its shifts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ArrayShapeError
from gpucalcium.movies.files import target, written_whole
from gpucalcium.movies.memmap import VALUE, MapName
from gpucalcium.movies.memmap_write import write_map
from gpucalcium.movies.source import Source
from gpucalcium.registration.apply import displace

WORKING_COPIES = 4  # float32 frames beside a chunk, spectra included


class RegisteredMovie(Source):
    """Frames of a recording, displaced when they are read: a later stage streams them, and nothing is written.

    Parameters
    ----------
    source : FrameSource
        The recording, (T, d1, d2[, d3]).
    shifts : (T, ndim) array
        Displacement to apply, pixels, axis order.
    border, fourier, offset
        As in `displace`.

    Raises
    ------
    ArrayShapeError
        Not one shift per frame and axis.
    """

    def __init__(
        self,
        source: FrameSource,
        shifts: NDArray,
        *,
        border: str = "nan",
        fourier: bool = False,
        offset: float = 0.0,
    ) -> None:
        name = getattr(source, "name", type(source).__name__)
        super().__init__(source.shape, VALUE, f"{name} (registered)")
        self.shifts: NDArray[np.float32] = np.ascontiguousarray(shifts, np.float32)
        if self.shifts.shape != (len(source), len(source.shape) - 1):
            raise ArrayShapeError(
                f"shifts have shape {self.shifts.shape}; {len(source)} frames with {len(source.shape) - 1} axes need "
                f"{(len(source), len(source.shape) - 1)}"
            )
        self._source, self._border, self._fourier, self._offset = source, border, fourier, offset

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = slice(wanted.start, wanted.stop, wanted.step)
        out[...] = backend.to_numpy(self._displaced(self._source.read(frames), self.shifts[frames]))

    def _displaced(self, frames: Array, shifts: NDArray[np.float32]) -> Array:
        moves = backend.arrays.xp(frames).asarray(shifts)
        return displace(frames, moves, border=self._border, fourier=self._fourier, offset=self._offset)

    def send(self, sink: Callable[[int, NDArray], object]) -> None:
        """Displace all frames on the active device; ``sink(start, frames)`` receives them in order."""
        done = 0

        def step(chunk: Array) -> Array:
            nonlocal done
            moves = self.shifts[done : done + len(chunk)]
            moved = self._displaced(chunk, moves)
            done += len(chunk)
            return moved

        backend.pipe(self._source, step, sink, working=WORKING_COPIES * 4 * math.prod(self.shape[1:]))

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

        def sink(start: int, frames: NDArray) -> None:
            nonlocal lowest
            lowest = float(np.fmin.reduce(frames, axis=None, initial=lowest))

        self.send(sink)
        return RegisteredMovie(
            self._source,
            self.shifts,
            border=self._border,
            fourier=self._fourier,
            offset=self._offset + lowest,
        )

    def write(self, base: str, order: str) -> Path:
        """Write a memory map in order 'F' or 'C', its name beginning with `base`; float32, bounded memory."""
        if order != "F":
            return write_map(self, target(base), order)
        with map_writer(base, self.shape) as (path, sink):
            self.send(sink)
        return path


@contextmanager
def map_writer(base: str, shape: tuple[int, ...]) -> Iterator[tuple[Path, Callable[[int, NDArray], object]]]:
    """A memory map in order F that frames are written to as they come; it takes its name once it is whole.

    Parameters
    ----------
    base : str
        How its name begins; without a folder it lies in that for temporary files.
    shape : (T, d1, d2[, d3])

    Yields
    ------
    path, sink
        Its final name, and ``sink(start, frames)``, to be called in order of the frames.
    """
    beside = target(base)
    path = beside.with_name(str(MapName(beside.name, shape[1:], "F", shape[0])))
    axes = (0, *range(len(shape) - 1, 0, -1))
    with written_whole(path) as temporary, temporary.open("wb") as file:

        def sink(start: int, frames: NDArray) -> None:
            file.write(np.ascontiguousarray(frames.transpose(axes), VALUE).data)

        yield path, sink
