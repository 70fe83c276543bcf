"""One sweep over a movie with one template: shifts, registered frames, and the mean of each temporal split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.registration.apply import displace
from gpucalcium.registration.matching import Located
from gpucalcium.registration.record import SweepRecord
from gpucalcium.registration.template import average

WORKING_COPIES = 6  # float32 frames that the search, the spectra and the displaced frames need beside a chunk

Sink = Callable[..., object]

Mover = Callable[..., Array]
"""``mover(frames, found, border=, fourier=, offset=)``: frames displaced as found; options as in `displace`."""

Found = TypeVar("Found", bound=Located)
_Returned = TypeVar("_Returned", bound=Located, covariant=True)


class Finder(Protocol[_Returned]):
    """What a sweep registers with: a `Matcher`, or a `PatchMatcher`."""

    def locate(self, frames: Array) -> _Returned:
        """Where each of `frames` (n, d1, d2[, d3]) was found."""


def move_rigidly(frames: Array, found: Located, *, border: str, fourier: bool, offset: float) -> Array:
    """Each frame displaced as a whole."""
    return displace(frames, found.shifts, border=border, fourier=fourier, offset=offset)


@dataclass(frozen=True)
class FrameQuality:
    """How well each frame was found."""

    peak: NDArray[np.float32]
    """(T,) height of the correlation with the template; 1 for a frame that equals it, 0 for one without it."""
    clamped: NDArray[np.bool_]
    """(T,) the best match lay beyond `max_shifts`, or that of a patch beyond `max_deviation_rigid`."""
    no_signal: NDArray[np.bool_]
    """(T,) nothing of the template in the frame (constant, or all NaN); its shift is 0."""
    missing: NDArray[np.int32]
    """(T,) pixels that were NaN or infinite and were taken from the template."""

    @classmethod
    def joined(cls, parts: list[FrameQuality]) -> FrameQuality:
        """Quality of several recordings in sequence."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Swept(Generic[Found]):
    """What a sweep found."""

    found: Found
    """As the finder returned it, of all frames, in host memory."""
    means: list[NDArray[np.float32]]
    """Mean registered image of each split, `offset` not subtracted; NaN where no frame had a pixel."""

    @property
    def shifts(self) -> NDArray[np.float32]:
        """(T, ndim) displacement applied to the frame as a whole, pixels."""
        return self.found.shifts

    @property
    def quality(self) -> FrameQuality:
        """How well each frame was found."""
        return FrameQuality(self.found.peaks, self.found.clamped, self.found.empty, self.found.missing)


class Sweep:
    """Registers the frames of a movie, in order, and hands them on.

    Parameters
    ----------
    source : FrameSource
    move : Mover
        Displaces frames that were found: `move_rigidly`, or patch by patch.
    border, fourier, offset
        As in `displace`.
    """

    def __init__(
        self,
        source: FrameSource,
        move: Mover = move_rigidly,
        *,
        border: str,
        fourier: bool,
        offset: float = 0.0,
    ) -> None:
        self._source = source
        self._move = partial(move, border=border, fourier=fourier, offset=offset)
        self._offset = offset
        self._working = WORKING_COPIES * 4 * math.prod(source.shape[1:])

    def run(
        self,
        finder: Finder[Found],
        splits: list[range],
        *,
        frames: range | None = None,
        sink: Sink | None = None,
        out: Array | None = None,
        record: SweepRecord | None = None,
        label: str = "registering",
        bar: Any = None,
    ) -> Swept[Found]:
        """Register `frames` (default: all) to the template of `finder`.

        Parameters
        ----------
        splits : list of range
            Consecutive ranges that cover `frames`.
        sink : callable, optional
            ``sink(start, registered)`` receives NumPy frames in order, float32; what ``sink.prepare(frames)`` makes of
            them on the device, if there is such a method.
        out : (len(frames), d1, d2[, d3]) float32 array, optional
            Filled with the registered frames; on the device that registers, so that they need not leave it.
        record : SweepRecord, optional
            What is known of these frames already, and where to note the rest; only for sweeps over all frames.
        label : str
            What the progress bar says.
        bar : optional
            A bar to move instead, which several sweeps share.
        """
        begin, stop = (0, len(self._source)) if frames is None else (frames.start, frames.stop)
        under_way = _UnderWay(self, finder, splits, begin, sink, out, record)
        wanted = slice(under_way.done, stop)
        with nullcontext(bar) if bar is not None else stage(label, stop - begin) as bar:
            bar.update(under_way.done - begin)

            def step(chunk: Array) -> tuple[Array, ...]:
                result = under_way.step(chunk)
                bar.update(len(chunk))
                return result

            if sink is not None or record is not None:
                backend.pipe(self._source, step, under_way.receive, frames=wanted, working=self._working)
            else:
                for chunk in backend.stream(self._source, frames=wanted, working=self._working):
                    step(chunk)
        means = [mean + np.float32(self._offset) for mean in under_way.means.finished()]
        return Swept(_gathered(under_way.found), means)

    def looked_for(self, finder: Finder[Found], chunk: Array) -> Iterator[tuple[Found, Array]]:
        """Located and displaced frames of a chunk, in pieces that stay in the device's cache."""
        size = self._block(chunk)
        for start in range(0, len(chunk), size):
            yield from backend.retry_halved(partial(self._register, finder), chunk[start : start + size])

    def known(self, record: SweepRecord, start: int, chunk: Array) -> Iterator[tuple[Any, Array]]:
        """The same of frames, from `start` on, that were found before."""
        size, xp = self._block(chunk), backend.arrays.xp(chunk)
        for at in range(0, len(chunk), size):
            part = chunk[at : at + size]
            found = record.again(start + at, len(part), xp)
            yield found, self._move(part, found)

    def _block(self, chunk: Array) -> int:
        frame = 4 * math.prod(self._source.shape[1:])
        return max(1, backend.wing(chunk).registration.BLOCK_BYTES // frame)

    def _register(self, finder: Finder[Found], frames: Array) -> tuple[Found, Array]:
        found = finder.locate(frames)
        return found, self._move(frames, found)


class _UnderWay(Generic[Found]):
    """A sweep while it runs: what is found so far, and where frames and findings go; see `Sweep.run`."""

    def __init__(
        self,
        sweep: Sweep,
        finder: Finder[Found],
        splits: list[range],
        begin: int,
        sink: Sink | None,
        out: Array | None,
        record: SweepRecord | None,
    ) -> None:
        self._sweep, self._finder, self._begin = sweep, finder, begin
        self._sink, self._out, self._record = sink, out, record
        self._prepare = getattr(sink, "prepare", lambda moved: moved)
        self.done = begin if record is None else record.start
        self.found: list[Any] = [] if record is None else record.before()
        self.means = _SplitMeans(splits, record)

    def step(self, chunk: Array) -> tuple[Array, ...]:
        """Registered frames, if they are wanted, and what was found anew, if that is recorded."""
        sweep, record = self._sweep, self._record
        registered: list[Array] = []
        if record is None:
            self._take(sweep.looked_for(self._finder, chunk), registered)
            return (_joined(registered),) if registered else ()
        known = record.known(self.done, len(chunk))
        self._take(sweep.known(record, self.done, chunk[:known]), registered)
        before = len(self.found)
        self._take(sweep.looked_for(self._finder, chunk[known:]), registered)
        new = _columns(self.found[before:]) if known < len(chunk) else ()
        return (*([_joined(registered)] if registered else ()), *new)

    def _take(self, pieces: Iterator[tuple[Any, Array]], registered: list[Array]) -> None:
        for located, moved in pieces:
            self.found.append(located)
            self.means.add(moved)
            at = self.done - self._begin
            if self._out is not None:
                self._out[at : at + len(moved)] = moved
            self.done += len(moved)
            if self._sink is not None:
                registered.append(self._prepare(moved))

    def receive(self, start: int, *arrays: NDArray) -> None:
        """Hand on what `step` returned, once it is in host memory."""
        if self._sink is not None:
            self._sink(start, arrays[0])
            arrays = arrays[1:]
        if arrays and self._record is not None:
            self._record.note(*arrays)


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else backend.arrays.xp(pieces[0]).concatenate(pieces)


def _columns(found: list[Found]) -> tuple[Array, ...]:
    """Each field of all pieces as one array, where it is."""
    return tuple(_joined([getattr(part, f.name) for part in found]) for f in fields(found[0]))


def _gathered(found: list[Found]) -> Found:
    """All pieces as one, in host memory."""
    kind = type(found[0])
    return kind(
        *(np.concatenate([backend.to_numpy(getattr(part, f.name)) for part in found]) for f in fields(kind))
    )


class _SplitMeans:
    """Means over consecutive splits of frames that arrive in pieces of any length."""

    def __init__(self, splits: list[range], record: SweepRecord | None = None) -> None:
        self._lengths, self._record = [len(split) for split in splits], record
        self._means: list[NDArray[np.float32]] = [] if record is None else list(record.means)
        self._sums: Array = None
        self._counts: Array = None
        self._have = 0

    def add(self, frames: Array) -> None:
        """Count the next frames, (n, d1, d2[, d3])."""
        while len(frames):
            if self._sums is None:
                xp, shape = backend.arrays.xp(frames), frames.shape[1:]
                self._sums, self._counts, self._have = (
                    xp.zeros(shape, np.float64),
                    xp.zeros(shape, np.int32),
                    0,
                )
            missing = self._lengths[len(self._means)] - self._have
            part, frames = frames[:missing], frames[missing:]
            backend.wing(part).registration.add_frames(part, self._sums, self._counts)
            self._have += len(part)
            if len(part) == missing:
                self._means.append(average(self._sums, self._counts))
                self._sums = None
                if self._record is not None:
                    self._record.note_mean(len(self._means) - 1, self._means[-1])

    def finished(self) -> list[NDArray[np.float32]]:
        """One image per split."""
        return self._means
