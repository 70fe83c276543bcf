"""Registration alone: what is written, for one plane and for several."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cli import main
from gpucalcium.errors import GpuCalciumError, OutputError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.pipeline import RunSettings, register_recording
from gpucalcium.pipeline.registration import find_motion
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


def registered_by(tmp_path, *options):
    """What the command writes down; its exit status and what it says."""
    np.save(tmp_path / "movie.npy", SCENE.movie)
    words = ["register", tmp_path / "movie.npy", "-o", tmp_path / "out", "--device", "cpu", *options]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    if end.value.code:
        return end.value.code
    with np.load(tmp_path / "out" / "motion.npz", allow_pickle=False) as motion:
        return dict(motion)


def test_options_of_the_command_are_those_of_motion_correct(tmp_path):
    from gpucalcium import MotionCorrect

    motion = registered_by(
        tmp_path, "--pw-rigid", "--max-shifts", "5,6", "--strides", "20,24", "--overlaps", "10",
        "--max-deviation-rigid", "2", "--gsig-filt", "4", "--niter-rig", "2",
    )  # fmt: skip
    mc = MotionCorrect(
        SCENE.movie, max_shifts=(5, 6), strides=(20, 24), overlaps=10, max_deviation_rigid=2, gSig_filt=4,
        niter_rig=2, pw_rigid=True, border_nan="copy",
    ).motion_correct()  # fmt: skip
    assert motion["field"].shape == (40, 2, 3, 2)
    assert_allclose(motion["field"][..., 0].reshape(40, -1), mc.x_shifts_els, atol=1e-5)


def test_options_of_rigid_registration(tmp_path):
    motion = registered_by(tmp_path, "--max-shift", "1", "--fourier")
    assert np.abs(motion["shifts"]).max() == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strides", "24"], "add --pw-rigid"),
        (["--max-shifts", "six"], "--max-shifts six: expected whole numbers of pixels"),
        (["--max-shifts", "3,4,5"], "one bound per axis"),
        (["--gsig-filt", "3", "--fourier"], "shifts_opencv=True"),
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, options, said):
    assert registered_by(tmp_path, *options) == 2
    assert said in capsys.readouterr().err


def test_parameters_of_the_group_motion():
    given = {"motion": {"max_shifts": [2, 2], "niter_rig": 2}}
    found = find_motion(open_movie(SCENE.movie), RunSettings(params=given))
    assert np.abs(found.shifts).max() == 2
    piecewise = find_motion(open_movie(SCENE.movie), RunSettings(params={"motion": {"pw_rigid": True}}))
    assert piecewise.field.ndim == 4
    for name, value in {"min_mov": 3.0, "border_nan": "min", "max_shfts": 3}.items():
        with pytest.raises(GpuCalciumError, match=name):
            find_motion(open_movie(SCENE.movie), RunSettings(params={"motion": {name: value}}))


def test_errors(tmp_path):
    with pytest.raises(ParameterError, match="save='avi'"):
        register_recording(SCENE.movie, tmp_path / "out", save="avi")
    with pytest.raises(OutputError, match="does not exist"):
        register_recording(SCENE.movie, tmp_path / "no" / "out")
    assert not list(tmp_path.iterdir())
