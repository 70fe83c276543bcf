"""The movie before and after registration, held against each other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError
from gpucalcium.movies import open_movie
from gpucalcium.registration import MotionCorrect, RegisteredMovie, RigidParams, register_rigid
from gpucalcium.registration.check import check_motion_correction, check_registration
from tests.registration.scenes import moving_cells

SCENE = moving_cells(T=50, shape=(64, 60), largest=3.0, noise=1.0)


def test_registration_improves_what_it_should(wing):
    movie = SCENE.movie[:24, :44, :40]
    mc = MotionCorrect(wing.put(movie), max_shifts=(6, 6), splits_rig=3).motion_correct()
    check = check_motion_correction(mc, components=3)
    assert check.after.correlations.mean() > check.before.correlations.mean() + 0.02
    assert check.after.crispness > 1.1 * check.before.crispness
    assert check.after.residual.rigid.max() < 0.2 < 2 < check.before.residual.rigid.max()
    assert_allclose(check.shifts, mc.shifts_rig)
    assert check.field is None
    assert set(check.facts()) >= {"frames", "largest shift (px)", "crispness", "motion left (px)"}


def test_piecewise_registration_is_checked_with_its_field():
    mc = MotionCorrect(SCENE.movie, max_shifts=(6, 6), pw_rigid=True, strides=(24, 24), overlaps=(12, 12))
    check = check_motion_correction(mc.motion_correct(), components=0)
    assert check.field.shape == (50, *check.grid.counts, 2)
    assert check.after.residual is None
    assert "local motion (px)" in check.facts()
    assert "motion left (px)" not in check.facts()


def test_same_pixels_count_before_and_after():
    moved = RegisteredMovie(open_movie(SCENE.movie), SCENE.shifts)
    check = check_registration(SCENE.movie, moved, SCENE.shifts, components=0)
    frames = moved.all_frames()
    assert_allclose(check.after.mean, np.nanmean(frames, axis=0), rtol=1e-5)
    ends = [
        np.quantile(np.ceil(np.maximum(s, 0)), 0.9, axis=0, method="higher")
        for s in (SCENE.shifts, -SCENE.shifts)
    ]
    (top, left), (bottom, right) = np.array(ends, int)
    inside = np.zeros((64, 60), bool)
    inside[top : 64 - bottom, left : 60 - right] = True
    assert (np.isfinite(frames).mean(axis=0) >= 0.9)[inside].all()
    expected = np.corrcoef(SCENE.movie[7][inside], SCENE.movie.mean(axis=0)[inside])[0, 1]
    assert_allclose(check.before.correlations[7], expected, atol=1e-6)


def test_what_fills_the_border_does_not_matter():
    found = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6)))
    filled = {
        border: check_registration(
            SCENE.movie,
            RegisteredMovie(open_movie(SCENE.movie), found.shifts, border=border),
            found,
            components=0,
        )
        for border in ("nan", "copy", "min")
    }
    for border in ("copy", "min"):
        assert_allclose(filled[border].after.crispness, filled["nan"].after.crispness, rtol=0.01)
        apart = np.abs(filled[border].after.correlations - filled["nan"].after.correlations)
        assert np.median(apart) < 1e-3
        assert (apart > 0.01).mean() < 0.2  # frames that moved farther than nine in ten
    assert filled["nan"].quality is found.quality


def test_chunks_change_nothing():
    whole = check_registration(SCENE.movie, SCENE.movie, SCENE.shifts, components=0)
    with backend.limit(chunk_frames=7):
        parts = check_registration(SCENE.movie, SCENE.movie, SCENE.shifts, components=0)
    assert_array_equal(parts.after.mean, whole.after.mean)
    assert_array_equal(parts.after.correlations, whole.after.correlations)


def test_one_frame():
    check = check_registration(SCENE.movie[:1], SCENE.movie[:1], np.zeros((1, 2)))
    assert check.after.residual is None
    assert check.after.correlations[0] == pytest.approx(1)


def test_errors():
    with pytest.raises(ArrayShapeError, match="belong together"):
        check_registration(SCENE.movie, SCENE.movie[:-1], SCENE.shifts)
    with pytest.raises(ArrayShapeError, match="belong together"):
        check_registration(SCENE.movie, SCENE.movie, SCENE.shifts[:-1])
