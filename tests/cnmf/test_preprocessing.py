import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter

from gpucalcium import backend
from gpucalcium.cnmf.preprocessing import (
    find_unsaturated_pixels,
    interpolate_missing_data,
    pooled_time_constants,
    preprocess_data,
)
from gpucalcium.deconvolution import get_noise_fft
from gpucalcium.errors import ArrayShapeError, ParameterError


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


def movie(d=30, T=400):
    rng = np.random.default_rng(3)
    return lfilter([1], [1, -0.9], rng.random((d, T)) < 0.05) + 0.3 * rng.standard_normal((d, T))


def test_every_argument_counts():
    Y = movie()
    plain = preprocess_data(Y, compute_g=True)
    for options, which in (
        ({"noise_range": (0.1, 0.3)}, 1),
        ({"noise_method": "median"}, 1),
        ({"max_num_samples_fft": 90}, 1),
        ({"sn": np.full(30, 0.3)}, 1),
        ({"p": 1}, 2),
        ({"lags": 9}, 2),
        ({"include_noise": True}, 2),
        ({"pixels": np.arange(7)}, 2),
    ):
        other = preprocess_data(Y, compute_g=True, **options)[which]
        assert other.shape != plain[which].shape or np.abs(other - plain[which]).max() > 1e-4, options
    mask = np.arange(30) < 7
    assert_array_equal(
        preprocess_data(Y, compute_g=True, pixels=mask)[2],
        preprocess_data(Y, compute_g=True, pixels=np.arange(7))[2],
    )
    # processes are those of old scripts
    assert_array_equal(preprocess_data(Y, None, "dview", 7)[1], plain[1])


def test_missing_values_are_filled_or_left(caplog):
    Y = movie()
    Y[4, 10:20] = np.nan
    Y[6] = np.nan
    with caplog.at_level("WARNING"):
        filled, sn, g, _ = preprocess_data(Y, compute_g=True)
    assert "2 pixels" in caplog.text
    assert sn[6] == 0
    assert np.isfinite(g).all()
    assert not filled[6].any()
    left, sn, _, _ = preprocess_data(Y, check_nan=False)
    assert left is Y
    assert_array_equal(np.flatnonzero(np.isnan(sn)), [4, 6])
    with pytest.raises(ParameterError, match=r"\[4 6\]"):
        preprocess_data(Y, check_nan=False, compute_g=True)
    assert np.isfinite(preprocess_data(Y, check_nan=False, compute_g=True, pixels=[0, 1, 2])[2]).all()


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16", "float64"])
def test_any_type(dtype):
    Y = np.round(20 * movie() + 20).clip(0, 255)
    expected = preprocess_data(Y.astype(np.float64), compute_g=True)
    got = preprocess_data(np.asfortranarray(Y.astype(dtype)), compute_g=True)
    assert got[0].dtype == dtype
    assert_allclose(got[1], expected[1], rtol=1e-5)
    assert_allclose(got[2], expected[2], rtol=1e-6)


def test_one_pixel_and_constants():
    y = movie()[0]
    one = preprocess_data(y, compute_g=True)
    many = preprocess_data(y[None], compute_g=True)
    assert one[1] == many[1][0]
    assert_array_equal(one[2], many[2])
    flat = preprocess_data(np.full((3, 50), 7), compute_g=True)
    assert not flat[1].any()
    assert_array_equal(flat[2], 0)


def test_what_is_on_a_gpu_stays_there(on_gpu):
    Y = movie()
    Y[3, 5:9] = np.nan
    host = preprocess_data(Y, compute_g=True)
    filled, sn, g, _ = preprocess_data(on_gpu.put(Y), compute_g=True)
    assert backend.is_cupy(filled)
    assert backend.is_cupy(sn)
    assert_array_equal(backend.to_numpy(filled), host[0])
    assert_allclose(backend.to_numpy(sn), host[1], rtol=1e-5)
    assert_allclose(g, host[2], rtol=1e-5)
    assert_array_equal(find_unsaturated_pixels(on_gpu.put(host[0])), find_unsaturated_pixels(host[0]))
    assert_allclose(backend.to_numpy(sn), get_noise_fft(host[0], max_num_samples_fft=3000)[0], rtol=1e-5)


def test_budget_changes_nothing():
    Y = movie()
    whole = pooled_time_constants(Y, np.full(30, 0.3), 2, include_noise=True)
    with backend.limit(memory="40KiB"):
        assert_allclose(pooled_time_constants(Y, np.full(30, 0.3), 2, include_noise=True), whole, rtol=1e-12)


@pytest.mark.parametrize("options", [{"p": 0}, {"lags": 0}, {"lags": 399}])
def test_models_that_cannot_be_fitted(options):
    with pytest.raises(ArrayShapeError, match=next(iter(options))):
        preprocess_data(movie(), compute_g=True, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sn": np.ones(3)}, "sn has 3 values for 5 pixels"),
        ({"sn": -np.ones(5)}, "sn=-1"),
        ({"compute_g": True, "p": 1.5}, "p=1.5"),
        ({"compute_g": True, "lags": 2.5}, "lags=2.5"),
        ({"compute_g": True, "pixels": [0, 99]}, "one or more of 5 pixels"),
        ({"compute_g": True, "pixels": []}, "one or more of 5 pixels"),
    ],
)
def test_values_that_do_not_fit_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        preprocess_data(np.random.default_rng(0).normal(size=(5, 80)), **options)


@pytest.mark.parametrize(
    "options",
    [{"saturationValue": v} for v in (0, np.nan, "full")]
    + [{"saturationThreshold": "near"}, {"saturationTime": np.nan}],
)
def test_what_saturation_is_has_to_be_a_number(options):
    with pytest.raises(ParameterError, match=f"{next(iter(options))}="):
        find_unsaturated_pixels(np.ones((2, 30)), **options)


def test_no_pixels_and_lists():
    assert find_unsaturated_pixels(np.zeros((0, 30))).shape == (0,)
    Y = np.random.default_rng(0).normal(size=(2, 80))
    of_list, of_array = (preprocess_data(x, compute_g=True)[:3] for x in (Y.tolist(), Y))
    for a, b in zip(of_list, of_array, strict=True):
        assert_array_equal(a, b)
