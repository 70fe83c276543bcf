"""Percentiles of every pixel over time, against NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.movies import baseline


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 1, 1), (31, 5, 7), (12, 3, 4, 5)])
def test_percentile_is_numpys(wing, shape, dtype):
    frames = (np.random.default_rng(0).gamma(2, 30, shape)).astype(dtype)
    for quantile in (0, 8, 50.5, 100):
        found = baseline.percentile(frames, quantile)
        assert found.dtype == np.float32 and found.shape == shape[1:]
        assert_allclose(found, np.percentile(frames, quantile, axis=0), rtol=2e-7)


def test_pixels_with_nan_have_none(wing):
    frames = np.random.default_rng(0).random((9, 3, 4)).astype(np.float32)
    frames[4, 1, 2] = np.nan
    found = baseline.percentile(frames, 10)
    assert_array_equal(np.argwhere(np.isnan(found)), [(1, 2)])


def test_tiles_change_nothing(monkeypatch):
    frames = np.random.default_rng(0).random((9, 13, 4)).astype(np.float32)
    whole = baseline.percentile(frames, 8)
    monkeypatch.setattr(baseline, "PIECE", 9 * 4 * 5)  # 5 pixels
    assert_array_equal(baseline.percentile(frames, 8), whole)
