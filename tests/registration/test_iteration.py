"""Frame after frame against a template that follows; one frame moved."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.registration.iteration import (
    apply_shift_iteration,
    motion_correct_iteration,
    motion_correct_iteration_fast,
    motion_correct_online,
)
from tests.registration.scenes import error, moving_cells

SCENE = moving_cells(T=40, shape=(48, 41), largest=3.0)
TEMPLATE = SCENE.movie.mean(axis=0)
STORED_GRID = 32
"""Stored frames were sampled at coordinates rounded to 1/32 pixel; ours are exact."""


@pytest.mark.parametrize(
    ("border", "key"), [(True, "True"), (False, "False"), ("min", "min"), ("copy", "copy")]
)
def test_stored_frames_are_met(reference, border, key):
    frame, stored = reference.inputs("motion")[0]["Y"][0], reference.load("motion")
    shift = np.array([1.3, -2.6])
    rounded = np.round(shift * STORED_GRID) / STORED_GRID
    expected = stored[f"apply_shift_iteration_{key}"]
    assert_allclose(apply_shift_iteration(frame, rounded, border), expected, atol=1e-3)
    exact = apply_shift_iteration(frame, shift, border)
    assert_array_equal(np.isnan(exact), np.isnan(expected))
    assert np.nanmax(np.abs(exact - expected)) < 1.5  # 0.014 px times the steepest slope of the frame


def test_whole_pixels_are_moved_exactly(wing):
    frame = SCENE.movie[0]
    moved = apply_shift_iteration(wing.put(frame), (2, -3))
    assert backend.is_cupy(moved) == (wing.name != "cpu")
    assert_allclose(
        backend.to_numpy(moved)[5:-5, 5:-5], np.roll(frame, (2, -3), (0, 1))[5:-5, 5:-5], atol=1e-3
    )
    volume = np.stack([frame] * 4, axis=-1)
    moved = backend.to_numpy(apply_shift_iteration(wing.put(volume), (2, -3, 0), True))
    assert_allclose(moved[2:, :-3], np.roll(volume, (2, -3), (0, 1))[2:, :-3], atol=1e-3)
    assert np.isnan(moved[:2]).all()


def test_stored_iteration_is_met(reference):
    frame, stored = reference.inputs("motion")[0]["Y"][1], reference.load("motion")
    moved, template, shift, corr = motion_correct_iteration(frame, stored["bin_median"], 10, 8, 8)
    assert_allclose(shift, stored["motion_correct_iteration_shift"], atol=1e-4)
    assert_allclose(corr, stored["motion_correct_iteration_corr"], atol=1e-6)
    assert_allclose(moved, stored["motion_correct_iteration_img"], atol=1.5)  # see STORED_GRID
    assert_allclose(template, stored["motion_correct_iteration_template"], atol=1.5 / 11)
    fast, shift = motion_correct_iteration_fast(frame, stored["bin_median"], 8, 8)
    assert_allclose(shift, stored["motion_correct_iteration_fast_shift"], atol=1e-4)
    assert_array_equal(fast, moved)


def test_stored_online_run_is_met(reference):
    """Its first template took the frames of a bin from all over the movie (one in five); ours come in a row."""
    made, stored = reference.inputs("motion")[0], reference.load("motion")
    first = np.median(made["Y"][:50].reshape(10, 5, 64, 60).mean(axis=0), axis=0)
    found = motion_correct_online(made["Y"], 0, 8, 8, template=first, init_frames_template=50)
    assert_allclose(found.shifts, stored["motion_correct_online_shifts"], atol=0.01)
    assert_allclose(found.xcorrs, stored["motion_correct_online_xcorrs"], atol=1e-4)
    assert_allclose(found.template, stored["motion_correct_online_template"], atol=0.1)
    ours = motion_correct_online(made["Y"], 0, 8, 8, init_frames_template=50)
    theirs = error(stored["motion_correct_online_shifts"][0], -made["shifts"])
    assert error(ours.shifts[0], -made["shifts"]) < theirs + 0.02


def test_finds_the_motion(wing):
    found = motion_correct_online(wing.put(SCENE.movie), 0, 6, 6, n_iter=2)
    assert found.shifts.shape == (2, 40, 2)
    assert error(found.shifts[1], SCENE.shifts) < 0.2  # uncorrected: 1.7
    assert (found.xcorrs > 0.97).all()


def test_chunks_change_nothing():
    whole = motion_correct_online(SCENE.movie, 0, 6, 6)
    with backend.limit(chunk_frames=3):
        for part, same in zip(motion_correct_online(SCENE.movie, 0, 6, 6), whole, strict=True):
            assert_array_equal(part, same)


def test_offset_is_added_to_frames():
    dark = SCENE.movie - 40
    raised = motion_correct_online(dark, 40, 6, 6)
    plain = motion_correct_online(SCENE.movie, 0, 6, 6)
    assert_allclose(raised.shifts, plain.shifts, atol=1e-3)


def test_template_is_a_running_mean():
    template, moved = TEMPLATE, []
    for number, frame in enumerate(SCENE.movie[:5]):
        image, template, _, _ = motion_correct_iteration(frame, template, number, 6, 6)
        moved.append(image)
    assert_allclose(template, np.mean(moved, axis=0), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_frame_without_anything_stays_and_teaches_nothing(value):
    frame = np.full(TEMPLATE.shape, value, "float32")
    moved, template, shift, corr = motion_correct_iteration(frame, np.ones_like(TEMPLATE) * 3, 4, 5, 5)
    assert_array_equal(shift, [0, 0])
    assert_array_equal(moved, frame)
    assert (corr, template.min(), template.max()) == (0, 3, 3)


def test_holes_are_taken_from_the_template():
    frame = SCENE.movie[3].copy()
    frame[10:14, 20:24] = np.nan
    _, template, shift, _ = motion_correct_iteration(frame, TEMPLATE, 9, 6, 6)
    whole = motion_correct_iteration(SCENE.movie[3], TEMPLATE, 9, 6, 6)
    assert_allclose(shift, whole[2], atol=0.1)
    assert np.isfinite(template).all()


def test_no_search_is_no_shift():
    moved, _, shift, corr = motion_correct_iteration(SCENE.movie[0], TEMPLATE, 1, 0, 0)
    assert_array_equal(shift, [0, 0])
    assert_array_equal(moved, SCENE.movie[0])
    assert 0.9 < corr <= 1


def test_errors():
    with pytest.raises(ArrayShapeError, match="template has shape"):
        motion_correct_iteration_fast(SCENE.movie[0], TEMPLATE[1:])
    with pytest.raises(ParameterError, match="less than half"):
        motion_correct_iteration(SCENE.movie[0], TEMPLATE, 1)
    with pytest.raises(ParameterError, match="frame_num=-1"):
        motion_correct_iteration(SCENE.movie[0], TEMPLATE, -1, 5, 5)
    with pytest.raises(MovieValueError, match="no finite number"):
        motion_correct_iteration(SCENE.movie[0], TEMPLATE * np.nan, 1, 5, 5)
    with pytest.raises(NotSupportedError, match="MotionCorrect registers volumes"):
        motion_correct_online(SCENE.movie[..., None])
    with pytest.raises(ParameterError, match="n_iter=0"):
        motion_correct_online(SCENE.movie, 0, 5, 5, n_iter=0)
    with pytest.raises(ParameterError, match="border_nan='max'"):
        apply_shift_iteration(TEMPLATE, (0, 0), "max")
    with pytest.raises(ArrayShapeError, match="one number per axis"):
        apply_shift_iteration(TEMPLATE, (0, 0, 0))
    with pytest.raises(ParameterError, match="finite"):
        apply_shift_iteration(TEMPLATE, (0, np.nan))
