"""One-photon movies in one call: the same as `MotionCorrect` set by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.registration import MotionCorrect
from gpucalcium.registration.apply import displace
from gpucalcium.registration.one_photon import motion_correct_oneP_nonrigid, motion_correct_oneP_rigid
from tests.registration.scenes import error, moving_cells

SCENE = moving_cells(T=30)


@pytest.fixture(autouse=True)
def _temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))


def test_rigid(tmp_path):
    path = tmp_path / "movie.npy"
    np.save(path, SCENE.movie)
    mc = motion_correct_oneP_rigid(str(path), (2, 2), (6, 6), splits_rig=3, border_nan="copy")
    by_hand = MotionCorrect(
        str(path), gSig_filt=(2, 2), max_shifts=(6, 6), splits_rig=3, border_nan="copy"
    ).motion_correct()
    assert_array_equal(mc.shifts_rig, by_hand.shifts_rig)
    assert error(mc.shifts_rig, SCENE.shifts) < 0.15
    assert mc.mmap_file[0].endswith(".mmap")
    assert by_hand.mmap_file == [None]


def test_nonrigid():
    how = {"strides": (24, 24), "overlaps": (12, 12), "splits_els": 3}
    mc = motion_correct_oneP_nonrigid(
        SCENE.movie,
        2,
        6,
        **how,
        upsample_factor_grid=4,
        max_deviation_rigid=2,
        splits_rig=3,
        save_movie=False,
    )
    by_hand = MotionCorrect(
        SCENE.movie, gSig_filt=2, max_shifts=6, **how, max_deviation_rigid=2, splits_rig=3, pw_rigid=True
    ).motion_correct()
    assert_array_equal(mc.x_shifts_els, by_hand.x_shifts_els)
    given = motion_correct_oneP_nonrigid(
        SCENE.movie, 2, 6, **how, upsample_factor_grid=4, max_deviation_rigid=2, save_movie=False,
        new_templ=displace(SCENE.movie, SCENE.shifts.astype("float32"), border="reflect").mean(axis=0),
    )  # fmt: skip
    assert error(given.shifts_rig, SCENE.shifts) < 0.15
    assert given.mmap_file == [None]
