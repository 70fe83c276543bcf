"""Frames into traces and back, tile by tile: against plain indexing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.backend import turning


@given(
    n=st.integers(1, 27),
    lines=st.integers(1, 6),
    length=st.integers(1, 27),
    taken=st.data(),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
)
@settings(deadline=None)
def test_rectangles(n, lines, length, taken, dtype):
    frames = np.arange(n * lines * length).reshape(n, lines, length).astype(dtype)
    rows, columns = (
        slice(first, taken.draw(st.integers(first + 1, size)))
        for first, size in ((taken.draw(st.integers(0, size - 1)), size) for size in (lines, length))
    )
    part = frames[:, rows, columns]
    expected = part.transpose(2, 1, 0).reshape(-1, n)
    traces = np.full((len(expected) + 1, n + 3), -1, np.float32)
    turning.to_traces(frames, rows, columns, traces)
    assert_array_equal(traces[:-1, :n], expected.astype(np.float32))
    assert (traces[-1] == -1).all()
    assert (traces[:, n:] == -1).all()

    back = np.zeros_like(frames)
    shifted = np.roll(traces, 2, axis=1)
    turning.to_frames(shifted, 2, rows, columns, back)
    assert_array_equal(back[:, rows, columns], part.astype(np.float32).astype(dtype))
    back[:, rows, columns] = 0
    assert not back.any()


@pytest.mark.parametrize("shape", [(64, 1, 4096), (40, 64, 64)])
def test_there_and_back(shape):
    frames = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    everything = slice(0, shape[1]), slice(0, shape[2])
    traces = np.empty((shape[1] * shape[2], shape[0]), np.float32)
    turning.to_traces(frames, *everything, traces)
    back = np.empty_like(frames)
    turning.to_frames(traces, 0, *everything, back)
    assert_array_equal(back, frames)
