"""One sweep over a movie with one template: shifts, registered frames, and the mean of each temporal split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.registration.apply import displace
from gpucalcium.registration.matching import Located
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
    """(T,) the best match lay beyond `max_shifts`."""
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
    ) -> Swept[Found]:
        """Register `frames` (default: all, and then with a progress bar) to the template of `finder`.

        Parameters
        ----------
        splits : list of range
            Consecutive ranges that cover `frames`.
        sink : callable, optional
            ``sink(start, registered)`` receives NumPy frames in order, float32.
        out : (len(frames), d1, d2[, d3]) float32 array, optional
            Filled with the registered frames; on the device that registers, so that they need not leave it.
        """
        wanted = slice(None) if frames is None else slice(frames.start, frames.stop)
        means = _SplitMeans(splits)
        found: list[Found] = []
        done = 0

        def step(chunk: Array) -> tuple[Array, ...]:
            nonlocal done
            registered = []
            for located, moved in self._in_blocks(finder, chunk):
                found.append(located)
                means.add(moved)
                if out is not None:
                    out[done : done + len(moved)] = moved
                done += len(moved)
                if sink is not None:
                    registered.append(moved)
            bar.update(len(chunk) if frames is None else 0)
            return (_joined(registered),) if registered else ()

        with stage("registering", len(self._source)) as bar:
            if sink is not None:
                backend.pipe(self._source, step, sink, frames=wanted, working=self._working)
            else:
                for chunk in backend.stream(self._source, frames=wanted, working=self._working):
                    step(chunk)
        return Swept(_gathered(found), [mean + np.float32(self._offset) for mean in means.finished()])

    def _in_blocks(self, finder: Finder[Found], chunk: Array) -> Iterator[tuple[Found, Array]]:
        """Located and displaced frames of a chunk, in pieces that stay in the device's cache."""
        frame = 4 * math.prod(self._source.shape[1:])
        size = max(1, backend.wing(chunk).registration.BLOCK_BYTES // frame)
        for start in range(0, len(chunk), size):
            yield from backend.retry_halved(partial(self._register, finder), chunk[start : start + size])

    def _register(self, finder: Finder[Found], frames: Array) -> tuple[Found, Array]:
        found = finder.locate(frames)
        return found, self._move(frames, found)


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else backend.arrays.xp(pieces[0]).concatenate(pieces)


def _gathered(found: list[Found]) -> Found:
    """All pieces as one, in host memory."""
    kind = type(found[0])
    return kind(
        *(np.concatenate([backend.to_numpy(getattr(part, f.name)) for part in found]) for f in fields(kind))
    )


class _SplitMeans:
    """Means over consecutive splits of frames that arrive in pieces of any length."""

    def __init__(self, splits: list[range]) -> None:
        self._lengths = [len(split) for split in splits]
        self._means: list[NDArray[np.float32]] = []
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

    def finished(self) -> list[NDArray[np.float32]]:
        """One image per split."""
        return self._means
