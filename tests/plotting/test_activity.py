"""Traces with the frames marked in which cells are active."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting import activity_figure


def spans(figure):
    """(first, last) seconds of what is marked, row by row."""
    return [
        [path.vertices[:4, 0].min().round(6) for path in bars.get_paths()]
        + [path.vertices[:4, 0].max().round(6) for path in bars.get_paths()]
        for bars in figure.axes[0].collections
        if type(bars).__name__ == "PolyCollection"
    ]


def test_active_frames_are_marked():
    traces = np.random.default_rng(0).random((2, 50))
    probabilities = np.zeros((2, 50))
    probabilities[0, 10:20], probabilities[0, 40:], probabilities[1, 0] = 0.5, 0.9, 1
    figure = activity_figure(traces, probabilities, frame_rate=10, spikes=traces > 0.9, names=["3", "7"])
    assert_allclose(spans(figure)[0], [1, 4, 2, 5])
    assert_allclose(spans(figure)[1], [0, 0.1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["3", "7"]


@pytest.mark.parametrize("shape", [(0, 10), (1, 1), (1, 0), (3, 9000)])
def test_any_number_of_cells_and_frames(shape):
    activity_figure(np.ones(shape), np.ones(shape), frame_rate=30.0).draw_without_rendering()


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ArrayShapeError, match=r"\(2, 5\) beside \(2, 4\)"):
        activity_figure(np.ones((2, 5)), np.ones((2, 4)), frame_rate=1)
