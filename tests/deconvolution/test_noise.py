"""Noise levels of known noise, of stored references, and streamed from movies, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.deconvolution import GetSn, axcov, get_noise_fft, get_noise_welch, movie_noise
from gpucalcium.errors import ArrayShapeError, ParameterError

METHODS = ["mean", "median", "logmexp"]


@pytest.fixture(scope="module")
def white():
    return np.random.default_rng(0).standard_normal((2000, 3000)).astype(np.float32)


@pytest.mark.parametrize(("method", "reads", "within"), [("mean", 1, 0.01), ("logmexp", 0.748, 0.005)])
def test_white_noise_reads_its_sigma(wing, white, method, reads, within):
    sn, _ = get_noise_fft(wing.put(white), noise_method=method)
    assert abs(float(sn.mean()) - reads) < within


@pytest.mark.parametrize(("method", "reads"), [("mean", 1), ("median", 0.991), ("logmexp", 0.987)])
def test_welch_tames_the_bias_of_nonlinear_means(white, method, reads):
    assert GetSn(white[:300], method=method).mean() == pytest.approx(reads, abs=0.01)


def test_reference(reference):
    ref, (movie, traces) = reference.load("noise"), reference.inputs("noise")
    pixels = movie["Y"].reshape(len(movie["Y"]), -1, order="F").T[::37]
    L = traces["Y"]
    for method in METHODS:
        sn = get_noise_fft(pixels, noise_method=method)[0]
        assert_allclose(sn, ref[f"get_noise_fft_{method}_sn"], rtol=1e-5)
        assert_allclose(
            get_noise_fft(L, noise_method=method)[0], ref[f"get_noise_fft_long_{method}_sn"], rtol=1e-5
        )
        assert_allclose(GetSn(L, method=method), ref[f"GetSn_{method}"], rtol=1e-5)
    sn, psd = get_noise_fft(pixels, noise_method="mean")
    assert_allclose(psd, ref["get_noise_fft_noopencv_mean_psd"], rtol=1e-3, atol=1e-4 * psd.max())
    # the stored band 0.1..0.3 lacks its last bin, 90 / 300: there 90 * (1 / 300) exceeds 0.3 by rounding
    sn = get_noise_fft(pixels, (0.1, 0.3 - 1e-9), "mean")[0]
    assert_allclose(sn, ref["get_noise_fft_range_mean_sn"], rtol=1e-5)
    assert_allclose(get_noise_welch(L), ref["get_noise_welch"], rtol=1e-5)
    scale = ref["axcov"].max()
    assert_allclose(axcov(L, 10), ref["axcov"].reshape(6, -1), atol=1e-6 * scale)


@pytest.mark.parametrize("T", [3071, 3072, 3073, 5001])
def test_long_signals_are_read_in_three_pieces(T):
    x = np.random.default_rng(1).normal(size=T)
    if T > 3072:
        chosen = np.concatenate([x[1:1025], x[T // 2 - 512 : T // 2 + 512], x[-1024:]])
        x[1025 : T // 2 - 512] = 1e6  # not looked at
    else:
        chosen = x
    f = np.arange(len(chosen) // 2 + 1) / len(chosen)
    power = np.abs(np.fft.rfft(chosen)) ** 2 / len(chosen)
    expected = np.sqrt(power[(f > 0.25) & (f <= 0.5)].mean())
    assert_allclose(get_noise_fft(x, noise_method="mean")[0], expected, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_constants_have_no_noise(wing, method):
    x = wing.put(np.full((3, 257), 5.3))
    assert not backend.to_numpy(get_noise_fft(x, noise_method=method)[0]).any()
    assert not backend.to_numpy(GetSn(x, method=method)).any()


@pytest.mark.parametrize("offset", [0, 1e6])
def test_offset_changes_nothing(offset):
    x = np.random.default_rng(2).normal(size=(2, 400)) + offset
    assert_allclose(get_noise_fft(x)[0], get_noise_fft(x - offset)[0], rtol=1e-4)


def test_nan_stays_in_its_signal(wing):
    x = np.random.default_rng(3).normal(size=(2, 100))
    x[1, 4] = np.nan
    sn = backend.to_numpy(get_noise_fft(wing.put(x))[0])
    assert_array_equal(np.isnan(sn), [False, True])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
def test_any_real_dtype_and_layout(dtype):
    x = np.random.default_rng(4).integers(0, 200, (4, 5, 130))
    expected = get_noise_fft(x.astype(np.float32))[0]
    assert_allclose(get_noise_fft(np.asfortranarray(x.astype(dtype)))[0], expected, rtol=1e-6)
    assert_allclose(GetSn(x[0].astype(dtype)), GetSn(x[0].astype(np.float32)), rtol=1e-6)


def test_kind_and_shape_of_results(wing):
    x = wing.put(np.random.default_rng(5).normal(size=(2, 3, 90)))
    sn, psd = get_noise_fft(x)
    assert backend.is_cupy(sn) == backend.is_cupy(psd) == (wing.device == "cuda")
    assert sn.shape == (2, 3)
    assert psd.shape[:2] == (2, 3)
    assert np.ndim(backend.to_numpy(GetSn(x[0, 0]))) == 0
    assert get_noise_fft(x[:0])[0].shape == (0, 3)


def movie_of(shape, dtype="float32"):
    return np.random.default_rng(6).normal(100, 10, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(40, 7, 11), (40, 3, 4, 5), (40, 1, 1)])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("method", METHODS)
def test_movie_noise_is_that_of_its_pixels(wing, shape, dtype, method):
    movie = movie_of(shape, dtype)
    expected = get_noise_fft(np.moveaxis(movie, 0, -1), noise_method=method)[0]
    got = movie_noise(wing.put(movie), noise_method=method)
    assert got.dtype == np.float32
    assert backend.is_cupy(got) == (wing.device == "cuda")
    assert_allclose(backend.to_numpy(got), expected, rtol=1e-4)


def test_budget_and_chunks_change_nothing(wing):
    movie = movie_of((100, 31, 17))
    whole = movie_noise(movie, max_num_samples_fft=60)
    assert_allclose(
        whole,
        get_noise_fft(np.moveaxis(movie, 0, -1), max_num_samples_fft=60, noise_method="mean")[0],
        rtol=1e-4,
    )
    with backend.limit(memory="150KiB", chunk_frames=7):
        assert_array_equal(movie_noise(movie, max_num_samples_fft=60), whole)


def test_errors_name_the_mend():
    x = np.zeros((2, 50))
    with pytest.raises(ParameterError, match="wider band"):
        get_noise_fft(x, (0.3, 0.301))
    with pytest.raises(ParameterError, match="wider band"):
        GetSn(x, (0.6, 0.9))
    with pytest.raises(ParameterError, match="mean, median, logmexp"):
        get_noise_fft(x, noise_method="mode")
    with pytest.raises(ParameterError, match="samples, 3 or more"):
        get_noise_fft(x, max_num_samples_fft=2)
    with pytest.raises(ArrayShapeError, match="time is the last axis"):
        GetSn(np.zeros((3, 0)))
    with pytest.raises(ParameterError, match=r"lags 0\.\.49"):
        axcov(x, 50)
