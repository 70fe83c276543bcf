"""Registration alone: what is written, for one plane and for several."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cli import main
from gpucalcium.errors import OutputError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.pipeline import RunSettings, register_recording
from tests.registration.scenes import error, moving_cells

SCENE = moving_cells(T=40, shape=(48, 60))


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch):
    monkeypatch.setattr("gpucalcium.plotting.style.DOTS_PER_INCH", 30)
    monkeypatch.setattr("gpucalcium.report.page.SCREEN_DOTS_PER_INCH", 30)


def test_everything_is_written(tmp_path):
    asked = RunSettings(frame_rate=10, pw_rigid=True)
    (check,) = register_recording(SCENE.movie, tmp_path / "out", asked, save="hdf5")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"motion.npz", "report.html", "figures", "registered.h5"}
    with np.load(tmp_path / "out" / "motion.npz", allow_pickle=False) as motion:
        assert_array_equal(motion["shifts"], check.shifts)
        assert_array_equal(motion["field"], check.field)
        assert_array_equal(motion["centres_1"], check.grid.centres[1])
        assert_array_equal(motion["clamped"], check.quality.clamped)
    assert error(check.shifts, SCENE.shifts) < 0.15
    moved = open_movie(tmp_path / "out" / "registered.h5").read(slice(None))
    assert_allclose(moved.mean(axis=0), check.after.mean, rtol=1e-4)
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 6


def test_planes_go_into_folders_of_their_own(tmp_path):
    both = np.stack([SCENE.movie, SCENE.movie[::-1]], axis=1)
    checks = register_recording(both, tmp_path / "out", axes="TZYX")
    assert len(checks) == 2
    assert "plane_1/report.html" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "plane_0" / "motion.npz").exists()
    assert "30 Hz, assumed" in (tmp_path / "out" / "plane_0" / "report.html").read_text()


def test_command(tmp_path, capsys):
    np.save(tmp_path / "movie.npy", SCENE.movie)
    words = ["register", tmp_path / "movie.npy", "-o", tmp_path / "out", "--device", "cpu", "--frame-rate", 9]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert not end.value.code
    shown = capsys.readouterr()
    assert "motion left (px)" in shown.out
    assert "registration check" in shown.err
    assert "at 9 Hz" in (tmp_path / "out" / "report.html").read_text()


def test_errors(tmp_path):
    with pytest.raises(ParameterError, match="save='avi'"):
        register_recording(SCENE.movie, tmp_path / "out", save="avi")
    with pytest.raises(OutputError, match="does not exist"):
        register_recording(SCENE.movie, tmp_path / "no" / "out")
    assert not list(tmp_path.iterdir())
