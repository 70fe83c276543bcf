"""Sweeps that are interrupted anywhere, in chunks of any length, and go on to the same bits."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.movies import open_movie
from gpucalcium.registration import PiecewiseParams, RigidParams, register_piecewise, register_rigid
from gpucalcium.registration.journal import Journal
from gpucalcium.registration.record import SweepRecord
from tests.registration.scenes import moving_cells

T = 20
MOVIE = moving_cells(T=T, shape=(24, 22), largest=1.5).movie
RIGID = RigidParams(max_shifts=(3, 3), splits_rig=4, niter_rig=2)
PIECEWISE = PiecewiseParams(rigid=RIGID, strides=(10, 10), overlaps=(6, 6), splits_els=3)


class File:
    """Frames that are on the disk, or on the way to it, and what fails when it is full."""

    def __init__(self) -> None:
        self.frames = np.full(MOVIE.shape, -1, np.float32)
        self.there, self.resumed, self.most = 0, False, T

    def __call__(self, start: int, frames: np.ndarray) -> None:
        if start >= self.most:
            raise OSError("no space left")
        self.frames[start : start + len(frames)] = frames
        self.there = start + len(frames)

    def sync(self) -> int:
        return self.there


def register(params, file: File, path: Path | None):
    register = register_rigid if isinstance(params, RigidParams) else register_piecewise
    source = open_movie(MOVIE)
    if path is None:
        return register(source, params, sink=file)
    with patch("gpucalcium.registration.journal.SYNC_SECONDS", 0.0), Journal(path, "run", file) as journal:
        return register(source, params, sink=file, journal=journal)


@pytest.mark.parametrize("params", [RIGID, PIECEWISE], ids=["rigid", "piecewise"])
@given(fails=st.lists(st.integers(0, T), min_size=1, max_size=3), chunk=st.integers(1, T), lost=st.booleans())
@settings(max_examples=12, deadline=None)
def test_interrupted_anywhere(params, fails, chunk, lost):
    whole = File()
    expected = register(params, whole, None)
    file = File()
    with TemporaryDirectory() as folder, backend.limit(chunk_frames=chunk):
        path = Path(folder) / "journal"
        for most in fails:
            file.most = most
            try:
                register(params, file, path)
                return  # the chunk was longer than what was left
            except OSError:
                assert path.exists()
            file.resumed = not lost  # else the file is gone, and its journal still there
            if lost:
                file.frames[...] = -1
        file.most = T
        found = register(params, file, path)
        assert not path.exists()
    assert_array_equal(file.frames, whole.frames)
    for name in ("shifts", "template", "used_template", "split_templates"):
        assert_array_equal(getattr(found, name), getattr(expected, name))
    assert_array_equal(found.quality.peak, expected.quality.peak)


def test_begins_with_the_split_that_was_not_finished(tmp_path):
    splits = [range(5), range(5, 12), range(12, 20)]
    mean = np.ones((3, 4), np.float32)
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "journal", "run") as journal:
        record = SweepRecord(journal, "rigid", splits, kept=True)
        assert (record.start, record.means, record.before(), record.known(0, 20)) == (0, [], [], 0)
        for n in (5, 4):
            record.note(np.zeros((n, 2), np.float32), *(np.zeros(n, kind) for kind in ("f4", "i4", "?", "?")))
        record.note_mean(0, mean)
        raise KeyboardInterrupt
    with Journal(tmp_path / "journal", "run") as journal:
        record = SweepRecord(journal, "rigid", splits, kept=True)
        assert record.start == 5
        assert_array_equal(record.means, [mean])
        assert len(record.before()[0].shifts) == 5
        assert (record.known(5, 20), record.known(8, 20), record.known(9, 20)) == (4, 1, 0)
        assert SweepRecord(journal, "rigid", splits, kept=False).start == 0  # nothing is on the disk
        assert SweepRecord(journal, "piecewise", splits, kept=True).start == 0
