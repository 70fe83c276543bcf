"""What happens in windows of an annotated cell: real transients, what only looks like one, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac.transients import putative_transients, runs

FULL_REAL, CROPPED_REAL, FULL_FAKE, CROPPED_FAKE, NEUROPIL = range(5)
"""What a window shows: the first of these that applies. Cropped: the window's border cuts it."""
REAL = (FULL_REAL, CROPPED_REAL)
FAKE = (FULL_FAKE, CROPPED_FAKE)
OTHER_CODE, REAL_CODE, FAKE_CODE = 2, 0, 1  # classes of frames, where there are three


@dataclass(frozen=True, eq=False)
class Events:
    """Transients of one cell, (n, 2) first and last frame, and how high they are in its smooth trace."""

    real: NDArray[np.int64]
    fake: NDArray[np.int64]
    real_heights: NDArray[np.float64]
    fake_heights: NDArray[np.float64]

    @classmethod
    def of(cls, truth: ArrayLike, smooth_trace: ArrayLike) -> Events:
        """Events of a cell.

        Parameters
        ----------
        truth : (T,)
            What is not 0 is active.
        smooth_trace : (T,)

        Returns
        -------
        Events
            Real: runs of the truth. Fake: putative transients (see `transients.putative_transients`) whose peak is at
            least one standard deviation above the lowest value, and without a true frame. Heights are from the lowest
            to the highest value in the event.
        """
        active, trace = np.asarray(truth) != 0, np.asarray(smooth_trace, np.float64)
        could_be = putative_transients(trace, trace.min() + trace.std()) if len(trace) else runs(active)
        before = np.r_[0, np.cumsum(active)]
        fake = could_be[before[could_be[:, 1] + 1] == before[could_be[:, 0]]]
        real = runs(active)
        return cls(real, fake, _heights(real, trace), _heights(fake, trace))

    def codes(self, n_frames: int) -> NDArray[np.int8]:
        """(T,) of each frame `REAL_CODE`, `FAKE_CODE` or `OTHER_CODE`."""
        out = np.full(n_frames, OTHER_CODE, np.int8)
        for places, code in ((self.fake, FAKE_CODE), (self.real, REAL_CODE)):
            for first, last in places:
                out[first : last + 1] = code
        return out

    def window(self, first: int, length: int) -> WindowEvents:
        """What frames `first` to ``first + length - 1`` show."""
        kinds = []
        for places, heights in ((self.real, self.real_heights), (self.fake, self.fake_heights)):
            seen = (places[:, 0] < first + length) & (places[:, 1] >= first)
            full = seen & (places[:, 0] >= first) & (places[:, 1] < first + length)
            kinds += [(places[full], heights[full]), (places[seen & ~full], heights[seen & ~full])]
        for category, (places, heights) in enumerate(kinds):
            if len(places):
                lengths = places[:, 1] - places[:, 0] + 1
                return WindowEvents(
                    category, len(places), int(lengths.max()), float(heights.min()), float(heights.max())
                )
        return WindowEvents(NEUROPIL, 0, 0, 0.0, 0.0)


@dataclass(frozen=True)
class WindowEvents:
    """What a window shows, and of that category how many, the longest (frames), the lowest and the highest."""

    category: int
    count: int
    longest: int
    lowest: float
    highest: float


def _heights(places: NDArray[np.int64], trace: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([np.ptp(trace[first : last + 1]) for first, last in places], np.float64)
