"""Windows merged by their maximum, against a loop over frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cinac.merge import merge_windows


def by_loop(shape, cells, starts, predictions):
    merged = np.zeros(shape, np.float32)
    for cell, start, window in zip(cells, starts, predictions, strict=True):
        for i, row in enumerate(window):
            if start + i < shape[1]:
                for k, value in enumerate(row):
                    merged[cell, start + i, k] = max(merged[cell, start + i, k], value)
    return merged


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 3]), st.integers(0, 2**31)
)
def test_equals_a_loop_in_any_order_and_any_batches(n_cells, n_frames, length, classes, seed):
    rng = np.random.default_rng(seed)
    pairs = np.array(
        [(c, s) for c in range(n_cells) for s in range(n_frames) if rng.random() < 0.3] or [(0, 0)]
    )
    predictions = rng.random((len(pairs), length, classes)).astype(np.float32)
    expected = by_loop((n_cells, n_frames, classes), *pairs.T, predictions)
    order = rng.permutation(len(pairs))
    merged = np.zeros_like(expected)
    for batch in np.array_split(order, rng.integers(1, len(order) + 1)):
        merge_windows(merged, *pairs[batch].T, predictions[batch])
    assert_array_equal(merged, expected)


@pytest.mark.parametrize("classes", [1, 3])
def test_windows_side_by_side_keep_their_classes_apart(classes):
    """No overlap, and a length that does not divide the movie: the last window covers its end."""
    starts, length, frames = np.array([0, 4, 6]), 4, 10
    predictions = np.random.default_rng(1).random((3, length, classes)).astype(np.float32)
    merged = np.zeros((1, frames, classes), np.float32)
    merge_windows(merged, np.zeros(3, int), starts, predictions)
    assert_array_equal(merged[0, :4], predictions[0])
    assert_array_equal(merged[0, 4:6], predictions[1, :2])
    assert_array_equal(merged[0, 6:8], np.maximum(predictions[1, 2:], predictions[2, :2]))
    assert_array_equal(merged[0, 8:], predictions[2, 2:])
