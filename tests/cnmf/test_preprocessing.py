import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter

from gpucalcium.cnmf.preprocessing import (
    find_unsaturated_pixels,
    interpolate_missing_data,
    pooled_time_constants,
    preprocess_data,
)


def test_interpolates_in_time_and_holds_the_ends():
    Y = np.array([[0.0, np.nan, 2.0, 3.0], [np.nan, 5.0, np.nan, np.nan], [np.nan] * 4, [1.0, 2, 3, 4]])
    given = Y.copy()
    filled, which = interpolate_missing_data(Y)
    assert_array_equal(filled, [[0, 1, 2, 3], [5, 5, 5, 5], [0, 0, 0, 0], [1, 2, 3, 4]])
    assert_array_equal(Y, given)
    assert [pixel for pixel, _ in which] == [0, 1, 2]
    assert_array_equal(which[1][1], [0, 2, 3])


def test_counts_pixels_of_images_in_fortran_order():
    Y = np.ones((3, 4, 5))
    Y[1, 2, 3] = np.nan
    filled, which = interpolate_missing_data(Y)
    assert which[0][0] == 1 + 3 * 2
    assert_array_equal(filled, 1)


def test_nothing_missing_is_nothing_copied():
    for Y in (np.ones((2, 3)), np.ones((2, 3), int)):
        assert interpolate_missing_data(Y)[0] is Y


def test_unsaturated_pixels():
    Y = np.full((6, 400), 10.0)
    Y[2, :4] = 255  # 1 % of the frames
    Y[4, :1] = 255  # 0.25 %
    assert_array_equal(find_unsaturated_pixels(Y), [0, 1, 3, 4, 5])
    assert_array_equal(find_unsaturated_pixels(Y, saturationTime=0.02), np.arange(6))


def test_unsaturated_pixels_of_the_reference(reference):
    """The reference returns the pixels that are saturated."""
    Y = reference.inputs("noise")[0]["Y"]
    rows = Y.reshape(len(Y), -1, order="F").T[::37]
    mine = find_unsaturated_pixels(rows, saturationValue=120)
    theirs = np.ravel(reference.load("noise")["unsaturated"])
    assert_array_equal(np.setdiff1d(np.arange(len(rows)), mine), theirs)


def test_preprocess_returns_noise_of_a_filled_movie():
    rng = np.random.default_rng(0)
    Y = 3 * rng.standard_normal((40, 3000))
    Y[7, 100:110] = np.nan
    filled, sn, g, psx = preprocess_data(Y, noise_method="mean")
    assert np.isfinite(filled).all()
    assert_allclose(sn, 3, rtol=0.1)
    assert g is None
    assert psx is None
    again = preprocess_data(filled, sn=np.ones(40))
    assert_array_equal(again[1], 1)


@pytest.mark.parametrize("include_noise", [False, True])
@pytest.mark.parametrize("p, g", [(1, [0.9]), (2, [1.5, -0.55])])
def test_time_constants_of_all_pixels_together(p, g, include_noise):
    rng = np.random.default_rng(1)
    spikes = rng.random((60, 4000)) < 0.02
    clean = lfilter([1], np.r_[1, -np.array(g)], spikes)
    Y = clean + 0.2 * rng.standard_normal(clean.shape)
    mine = pooled_time_constants(Y, np.full(60, 0.2), p, lags=5, include_noise=include_noise)
    assert_allclose(mine, g, atol=0.05)
    through = preprocess_data(Y, sn=np.full(60, 0.2), compute_g=True, p=p, include_noise=include_noise)[2]
    assert_array_equal(through, mine)


def test_pooled_constants_of_the_reference(reference):
    stored = reference.load("noise")
    Y = reference.inputs("noise")[0]["Y"]
    rows = Y.reshape(len(Y), -1, order="F").T[::37]
    sn = stored["get_noise_fft_mean_sn"]
    for p in (1, 2):
        theirs = np.ravel(stored[f"pre_processing_estimate_time_constant_p{p}"])
        assert_allclose(pooled_time_constants(rows, sn, p), theirs, rtol=1e-2)
