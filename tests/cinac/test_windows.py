"""Windows of frames: where they start, and which are the most active."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cinac import (
    load_data_for_cell_type_prediction,
    load_data_for_prediction,
    window_starts,
)
from gpucalcium.cinac.windows import most_active
from gpucalcium.errors import MovieShapeError, ParameterError
from tests.cinac.given import blinking


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(0, 1500), st.floats(0, 0.99))
def test_windows_cover_every_frame(length, more, overlap):
    n = length + more
    starts = window_starts(n, length, overlap)
    assert starts[0] == 0
    assert starts[-1] == n - length
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts) <= math.ceil(length * (1 - overlap))).all()
    covered = np.zeros(n, bool)
    for start in starts:
        covered[start : start + length] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("n", "overlap", "expected"),
    [
        (250, 0, [0, 100, 150]),
        (230, 0.5, [0, 50, 100, 130]),
        (101, 0.5, [0, 1]),
        (100, 0, [0]),
        (100, 0.9, [0]),
        (200, 0, [0, 100]),
        (163, 0.7, [0, 31, 62, 63]),
        (1, 0.5, [0]),
        (99, 0.5, [0]),
    ],
)
def test_known_starts(n, overlap, expected):
    assert_array_equal(window_starts(n, 100, overlap), expected)


@pytest.mark.parametrize("overlap", [1, 1.5, -0.1, math.nan, math.inf, -math.inf])
def test_impossible_overlaps(overlap):
    with pytest.raises(ParameterError, match="at least 0 and less than 1"):
        window_starts(200, 100, overlap)


def test_impossible_lengths():
    with pytest.raises(ParameterError, match="window_len=0"):
        window_starts(20, 0, 0.5)
    with pytest.raises(MovieShapeError, match="a movie of 0 frames"):
        window_starts(0, 10, 0.5)


def flipped(image):
    return image[::-1].copy()


def turned(image):
    return np.rot90(image)


def test_windows_of_a_cell_and_their_changed_copies():
    made = blinking()
    patches, first = load_data_for_prediction(made, 1, 20, 0.5, [flipped, turned], 60)
    assert (
        first
        == [patch.index_movie for patch in patches]
        == [s for s in (0, 10, 20, 30, 40) for _ in range(3)]
    )
    assert [patch.data_augmentation_fct for patch in patches] == [None, flipped, turned] * 5
    assert {(patch.cell, patch.window_len, patch.cinac_recording.identifier) for patch in patches} == {
        (1, 20, "r")
    }
    assert patches[0].last_index_movie == 19
    assert load_data_for_prediction(made, 0, 20, 0, None, 60)[1] == [0, 20, 40]
    assert load_data_for_prediction(made, 0, 20, 0, [], 45)[1] == [0, 20, 25]


@pytest.mark.parametrize("load", [load_data_for_prediction, load_data_for_cell_type_prediction])
@pytest.mark.parametrize("n", [1, 2, 19])
def test_short_movies_are_told_of(load, n):
    with pytest.warns(UserWarning, match=f"'r' has {n} frames, fewer than the 20"):
        patches, first = load(blinking(n), 0, 20, 0.5, None, n)
    assert first == [0]
    assert patches[0].last_index_movie == 19


@pytest.mark.parametrize("cell", [-1, 2])
@pytest.mark.parametrize("load", [load_data_for_prediction, load_data_for_cell_type_prediction])
def test_cells_that_are_not_there(load, cell):
    with pytest.raises(ParameterError, match="has 2 cells"):
        load(blinking(), cell, 20, 0.5, None, 60)


def test_most_active_windows_first():
    made = blinking()
    patches, first = load_data_for_cell_type_prediction(
        made, 0, 15, 0, [flipped], 60, n_windows_len_to_keep_by_cell=2
    )
    assert first == [0, 0, 45, 45]
    assert [patch.data_augmentation_fct for patch in patches] == [None, flipped] * 2
    assert load_data_for_cell_type_prediction(made, 0, 15, 0, None, 60, 1)[1] == [0]
    assert len(load_data_for_cell_type_prediction(made, 0, 15, 0, None, 60, 99)[1]) == 4
    with pytest.raises(ParameterError, match="keep one at least"):
        load_data_for_cell_type_prediction(made, 0, 15, 0, None, 60, 0)


def score(trace, start, length):
    """By the words of the specification, with loops: peaks of a plain trace, no two in neighbouring frames."""
    peaks = [i for i in range(1, len(trace) - 1) if trace[i - 1] < trace[i] > trace[i + 1]]
    heights = sorted(trace[i] for i in peaks if start <= i < start + length)
    if not heights:
        return -math.inf
    place = 0.9 * (len(heights) - 1)
    low = heights[int(place)]
    limit = low + (place - int(place)) * (heights[min(int(place) + 1, len(heights) - 1)] - low)
    high = [h for h in heights if h >= limit - 1e-12]
    return sum(high) / len(high)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 6))
def test_order_of_activity(seed, length, n_windows):
    trace = np.random.default_rng(seed).normal(size=120)
    starts = window_starts(120, length, 0.3)
    scores = [score(trace, start, length) for start in starts]
    expected = sorted(range(len(starts)), key=lambda k: (-scores[k], k))[:n_windows]
    assert_array_equal(most_active(trace, starts, length, n_windows), starts[expected])


def test_windows_without_peaks_come_last_in_order_of_time():
    starts = np.array([0, 10, 20])
    assert_array_equal(most_active(np.zeros(30), starts, 10, 3), starts)
    trace = -np.arange(30.0)
    trace[15] = -13.5  # a low peak is better than none
    assert_array_equal(most_active(trace, starts, 10, 1), [10])


def test_global_randomness_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    made = blinking()
    load_data_for_prediction(made, 0, 20, 0.5, [flipped], 60)
    load_data_for_cell_type_prediction(made, 0, 20, 0.5, [flipped], 60)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
