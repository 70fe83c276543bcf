"""Movies cut into blocks of one shape, each a piece of a file of its own or of one: chunks of HDF5 and Zarr, N5."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium import backend
from gpucalcium.errors import MovieFileError
from gpucalcium.movies.source import PIECE, Source

Place = tuple[int, ...]
"""Which block: its number along each axis."""
_WORKERS = 4  # threads at most that share the blocks of one read
_BUDGET_SHARE = 64  # part of the memory budget that each thread may take for blocks in passing
_WORTH_SHARING = 1 << 20  # bytes of a read: less is read before the threads have started
_WORTH_SKIPPING = 1 << 16  # bytes of a frame within a block: less is read and dropped faster than passed over


class BlocksSource(Source):
    """Frames of a movie in blocks (frames, d1, d2[, d3]); those at the far edges may reach beyond the movie.

    Each block is asked for once in a read, and only for the frames that are wanted of it.

    Parameters
    ----------
    shape, stored, name
        As in `Source`.
    block : tuple of int
        Shape of the blocks.
    reversed_axes : bool
        Whether frames, and with them blocks, are stored with their axes reversed: column by column.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        stored: DTypeLike,
        name: str,
        block: tuple[int, ...],
        *,
        reversed_axes: bool = False,
    ) -> None:
        super().__init__(shape, stored, name)
        self.block, self._reversed = block, reversed_axes

    def _fill(self, wanted: range, out: NDArray) -> None:
        if self._reversed:
            out = out.transpose(0, *range(out.ndim - 1, 0, -1))
        parts = list(self._parts(wanted, out))
        workers = min(_WORKERS, backend.threads(), len(parts)) if out.nbytes >= _WORTH_SHARING else 1

        def work(first: int) -> None:
            memory = Memory()
            for place, frames, into in parts[first::workers]:
                self._fill_from(place, frames, into, memory)

        if workers == 1:
            work(0)
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="gpucalcium-read") as readers:
            list(readers.map(work, range(workers)))

    def _parts(self, wanted: range, out: NDArray) -> Iterator[tuple[Place, slice, NDArray]]:
        """The blocks that hold a part of what is wanted: the frames to take of each, and where they go."""
        numbers = [range(-(-n // b)) for n, b in zip(out.shape[1:], self.block[1:], strict=True)]
        for number, at, frames in self._in_blocks(wanted):
            for place in product(*numbers):
                field = tuple(slice(k * b, (k + 1) * b) for k, b in zip(place, self.block[1:], strict=True))
                yield (number, *place), frames, out[(at, *field)]

    def _in_blocks(self, wanted: range) -> Iterator[tuple[int, slice, slice]]:
        """Number of each block in time, the places in `wanted` that it serves, and its frames that go there."""
        long, step = self.block[0], wanted.step
        for number in range(wanted[0] // long, wanted[-1] // long + 1):
            start = number * long
            first = max(0, -((wanted.start - start) // step))
            last = min(len(wanted), -((wanted.start - start - long) // step))
            if first < last:
                inside = wanted[first:last]
                yield number, slice(first, last), slice(inside[0] - start, inside[-1] + 1 - start, step)

    def _damaged(self, place: Place, why: Any) -> MovieFileError:
        first = place[0] * self.block[0]
        last = min(first + self.block[0], len(self)) - 1
        return MovieFileError(
            f"{self.name}: of {len(self)} frames, {first} to {last} cannot be read, in block {place}: {why}. The file "
            "may be truncated or corrupt; copy it again from where it was recorded"
        )

    @abstractmethod
    def _fill_from(self, place: Place, frames: slice, into: NDArray, memory: Memory) -> None:
        """Read some frames of a block into `into`, which leaves out what reaches beyond the movie."""


class Memory:
    """Bytes that blocks are read into one after the other, kept while a read lasts."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
        """An array in these bytes."""
        size = math.prod(shape) * dtype.itemsize
        if len(self._bytes) < size:
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Stored:
    """Where the values of a block lie."""

    path: Path
    offset: int
    size: int


class RawBlocks(BlocksSource):
    """Blocks whose values lie uncompressed in files, in C order: read from there, past the library that wrote them.

    A library reads a block whole each time, into memory of its own, and one block at a time; here just the frames
    that are wanted are read, by as many threads as ask, and blocks as wide as the movie straight to where they go.

    Parameters
    ----------
    shape, stored, name
        As in `Source`.
    block : tuple of int
        Shape of the blocks; all are stored whole, also those that reach beyond the movie.
    find : callable
        Where a block lies; None if it is not stored, its values all being `fill`.
    fill : number
    reversed_axes : bool
        As in `BlocksSource`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        stored: DTypeLike,
        name: str,
        block: tuple[int, ...],
        find: Callable[[Place], Stored | None],
        fill: Any = 0,
        *,
        reversed_axes: bool = False,
    ) -> None:
        super().__init__(shape, stored, name, block, reversed_axes=reversed_axes)
        self._find, self._value = find, fill
        self._frame_stored = math.prod(block[1:]) * self.stored.itemsize
        self._as_stored = self.stored == self.dtype

    def _fill_from(self, place: Place, frames: slice, into: NDArray, memory: Memory) -> None:
        try:
            found = self._find(place)
            if found is None:
                into[...] = self._value
                return
            if found.size != self.block[0] * self._frame_stored:
                raise EOFError(
                    f"it has {found.size} bytes, where {self.block[0] * self._frame_stored} were expected"
                )
            with found.path.open("rb", buffering=0) as file:
                for at, part in self._pieces(frames):
                    target = into[at]
                    is_direct = self._as_stored and part.step == 1 and target.shape[1:] == self.block[1:]
                    is_direct = is_direct and target.flags.c_contiguous
                    shape = (part.stop - part.start, *self.block[1:])
                    values = target if is_direct else memory.array(shape, self.stored)
                    file.seek(found.offset + part.start * self._frame_stored)
                    _read_exactly(file, values)
                    if not is_direct:
                        target[...] = values[(slice(None, None, part.step), *map(slice, target.shape[1:]))]
        except (OSError, EOFError, RuntimeError, ValueError) as err:
            raise self._damaged(place, err) from err

    def _pieces(self, frames: slice) -> Iterator[tuple[slice, slice]]:
        """Frames of a block in pieces that are read at once, each with its place among those wanted."""
        wanted = range(frames.start, frames.stop, frames.step)
        step = wanted.step
        some = max(1, min(PIECE, backend.budget() // _BUDGET_SHARE) // (self._frame_stored * step))
        if step > 1 and self._frame_stored >= _WORTH_SKIPPING:
            some = 1
        for at in range(0, len(wanted), some):
            part = wanted[at : at + some]
            yield slice(at, at + len(part)), slice(part[0], part[-1] + 1, step if len(part) > 1 else 1)


def _read_exactly(file: Any, values: NDArray) -> None:
    into = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    done = 0
    while done < len(into):
        got = file.readinto(into[done:])
        if not got:
            raise EOFError(f"the file ends {len(into) - done} bytes early")
        done += got
