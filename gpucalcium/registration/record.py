"""What a sweep found before it was interrupted, and where it notes what it finds."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.arrays import Namespace
from gpucalcium.registration.journal import Journal
from gpucalcium.registration.matching import Located
from gpucalcium.registration.patch_matching import LocatedPatches


class SweepRecord:
    """One sweep over all frames in the journal of a run.

    A sweep that is taken up again starts at the temporal split that was being averaged, or written: the means of
    those before it are known, and where frames were found need not be looked for again. Their sums are then
    built from the same frames in the same order, so that not a bit of a result differs.

    Parameters
    ----------
    journal : Journal
    stage : str
        Name of the sweep; each sweep of a run has its own.
    splits : list of range
        Temporal splits that means are taken of.
    kept : bool
        Whether registered frames are only counted, so that nothing is to be done again for those that were found;
        else those are made once more that are not on the disk for certain.
    """

    def __init__(self, journal: Journal, stage: str, splits: list[range], *, kept: bool) -> None:
        self._journal, self._stage = journal, stage
        self._known = journal.found(stage)
        count = journal.count(stage)
        whole = [split for split in splits if split.stop <= (count if kept else min(count, journal.written))]
        self.start = whole[-1].stop if whole else 0
        """The first frame that the sweep has to do something with."""
        self.means = [journal.kept[self._mean(i)] for i in range(len(whole))]
        """Of the splits before."""

    def _mean(self, split: int) -> str:
        return f"{self._stage} {split}"

    def before(self) -> list[Located]:
        """Where the frames before `start` were found; one piece, or none."""
        return [self._located(slice(0, self.start))] if self.start else []

    def known(self, start: int, most: int) -> int:
        """How many of the `most` frames from `start` on need not be looked for."""
        count = len(next(iter(self._known.values()))) if self._known else 0
        return max(0, min(most, count - start))

    def again(self, start: int, count: int, xp: Namespace) -> Located:
        """Where known frames were found, on the device of `xp`."""
        return self._located(slice(start, start + count), xp)

    def _located(self, frames: slice, xp: Namespace | None = None) -> Located:
        kind = LocatedPatches if "field" in self._known else Located
        arrays = (self._known[f.name][frames] for f in fields(kind))
        return kind(*(array if xp is None else xp.asarray(array) for array in arrays))

    def note(self, *arrays: NDArray) -> None:
        """Where the next frames were found: the fields of `Located`, or of `LocatedPatches`, in order."""
        kind = LocatedPatches if len(arrays) == len(fields(LocatedPatches)) else Located
        self._journal.append(
            self._stage, **{f.name: array for f, array in zip(fields(kind), arrays, strict=True)}
        )

    def note_mean(self, split: int, mean: NDArray[np.float32]) -> None:
        """The mean registered image of a split that is finished."""
        self._journal.keep(self._mean(split), mean)
