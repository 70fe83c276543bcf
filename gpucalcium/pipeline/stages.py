"""The stages of a run: how long each took, and a bar on the terminal while it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from numpy.typing import NDArray
from tqdm.auto import tqdm

from gpucalcium.backend import Array, FrameSource
from gpucalcium.movies.source import Source

BAR = "{desc:<20}{percentage:3.0f}% |{bar:30}| {elapsed_s:7.2f} s"


class Stages:
    """Stages one after the other, timed.

    Parameters
    ----------
    shown : bool
        Draw a bar for each on stderr.
    """

    def __init__(self, shown: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        """Duration of each finished stage, in order."""
        self._shown = shown
        self._bar: Any = None
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str, frames: int = 1) -> Iterator[None]:
        """Time what happens inside.

        The bar moves with the frames that are read from a `watched` movie; `frames` is how many will be, over
        all passes, as far as that can be known. It is full when the stage ends, and stays where it is if that fails.
        """
        start = time.perf_counter()
        with tqdm(total=frames, desc=name, disable=not self._shown, bar_format=BAR) as self._bar:
            yield
            self.seconds[name] = time.perf_counter() - start
            self.moved(frames)

    def moved(self, frames: int) -> None:
        """Move the bar of the present stage, at most to its end; any thread may call this."""
        with self._lock:
            self._bar.update(min(frames, self._bar.total - self._bar.n) if self._shown else 0)

    def watched(self, source: FrameSource) -> FrameSource:
        """The same movie, whose reading moves the bar of the present stage."""
        return _Watched(source, self) if self._shown else source


class _Watched(Source):
    """Frames of another source, where they are: those in a GPU's memory stay there."""

    working = 0

    def __init__(self, source: FrameSource, stages: Stages) -> None:
        super().__init__(source.shape, source.dtype, getattr(source, "name", "the movie"))
        self.made_from, self._stages = source, stages
        self.array = getattr(source, "array", None)

    def make(self, chunk: Array, frames: range) -> Array:
        """The chunk itself; the bar moves."""
        self._stages.moved(len(frames))
        return chunk

    def _fill(self, wanted: range, out: NDArray) -> None:
        self.made_from.read(slice(wanted.start, wanted.stop, wanted.step), out)
        self._stages.moved(len(wanted))
