"""Runs of active frames, and what could be a transient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cinac.transients import putative_transients, runs, widened_to_transients
from gpucalcium.errors import ArrayShapeError


def runs_one_by_one(word):
    found, t = [], 0
    for value, group in itertools.groupby(word):
        n = len(list(group))
        if value:
            found.append((t, t + n - 1))
        t += n
    return found


def test_runs_of_all_words_of_ten_bits():
    for word in itertools.product((0, 1), repeat=10):
        assert [tuple(run) for run in runs(word).tolist()] == runs_one_by_one(word)


@pytest.mark.parametrize("active", [[], [0], [False, False]])
def test_no_runs(active):
    assert runs(active).shape == (0, 2)


def test_runs_of_other_numbers():
    assert_array_equal(runs([0, 0.5, -2, 0, np.nan]), [[1, 2], [4, 4]])
    assert_array_equal(runs(np.array([0, 255, 256], "uint16")), [[1, 2]])
    with pytest.raises(ArrayShapeError, match=r"not in \(2, 3\)"):
        runs(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("trace", "least", "expected"),
    [
        ([2, 1, 0, 1, 2, 3, 2, 1], None, "..aaaa.."),
        ([0, 1, 2, 1, 0, 1, 0, 0], None, "....aa.."),  # the first has no onset
        ([0, 1, 0, 1, 2, 3], None, "......"),  # the last has no peak
        ([3, 1, 2, 1, 5, 1], None, ".aabb."),
        ([3, 1, 2, 1, 5, 1], 3.0, "...aa."),
        ([3, 1, 2, 1, 5, 1], 9.0, "......"),
        ([3, 1, 1, 1, 2, 2, 1], None, ".aaaa.."),  # plateaus: from the first frame to the middle of the peak
        ([1, 1, 1], None, "..."),
        ([5], None, "."),
        ([], None, ""),
    ],
)
def test_from_onset_to_peak(trace, least, expected):
    found = putative_transients(trace, least)
    assert found.shape[1] == 2
    shown = ["."] * len(trace)
    for name, (first, last) in zip("abc", found, strict=False):
        shown[first : last + 1] = name * (last + 1 - first)
    assert "".join(shown) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), max_size=40))
def test_transients_rise(levels):
    trace = np.array(levels, float)
    for first, last in putative_transients(trace):
        assert trace[first:last].min() < trace[last]


def test_spikes_are_as_wide_as_the_transient_that_holds_them():
    trace = [3, 1, 2, 4, 3, 2, 1, 2, 1, 0, 0]
    spikes = [0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 1]
    assert_array_equal(widened_to_transients(spikes, trace).nonzero()[0], [1, 2, 3, 4, 10])
    assert spikes[1] == 0
