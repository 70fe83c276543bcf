"""Power in a band and its level, against NumPy's FFT, on every wing."""

import numpy as np
import pytest
import scipy.signal
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import wings_present


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (31, 5, 13), (33, 3, 4, 11), (64, 32, 2)])
def test_collect_turns_frames_into_signals(wing, dtype, shape):
    frames = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    pixels = frames[0].size
    first, count = pixels // 3, pixels - pixels // 3
    flat = frames.reshape(len(frames), -1)[:, first : first + count]
    origin = flat[0].astype(np.float64)
    signals = wing.put(np.full((count, len(frames) + 5), np.nan, np.float32))
    backend.wing(signals).spectrum.collect(wing.put(frames), first, wing.put(origin), signals, 3)
    got = backend.to_numpy(signals)
    assert_array_equal(got[:, 3:-2], (flat - origin).T.astype(np.float32))
    assert np.isnan(got[:, :3]).all()
    assert np.isnan(got[:, -2:]).all()


@pytest.mark.parametrize("T", [2, 31, 64, 300, 1000])
def test_power_is_the_periodogram(wing, T):
    signals = np.random.default_rng(1).normal(size=(37, T)).astype(np.float32)
    low, high = T // 4, T // 2 + 1
    expected = (2 / T * np.abs(np.fft.rfft(signals.astype(np.float64))) ** 2)[:, low:high]
    device = wing.put(signals)
    got = backend.wing(device).spectrum.power(device, low, high)
    assert got.dtype == np.float32
    # float32 transforms err by about log2(T) ulp of the largest coefficient
    assert_allclose(backend.to_numpy(got), expected, rtol=1e-5, atol=1e-5 * expected.max())


@pytest.mark.parametrize("method", ["mean", "median", "logmexp"])
@pytest.mark.parametrize("bins", [1, 2, 7, 32, 150])
def test_level_is_the_mean_median_or_geometric_mean(wing, method, bins):
    band = np.random.default_rng(2).exponential(3, (5, bins)).astype(np.float32)
    band[1] = 0
    band[2] = band[2, 0]  # ties
    x = band.astype(np.float64)
    with np.errstate(divide="ignore"):
        half = {
            "mean": x.mean(1),
            "median": np.median(x, 1),
            "logmexp": np.exp(np.log(x + 1e-10).mean(1)),
        }[method]
    expected = np.where(band.any(1), np.sqrt(half / 2), 0)
    device = wing.put(band)
    assert_allclose(
        backend.to_numpy(backend.wing(device).spectrum.level(device, method)), expected, rtol=1e-12
    )


@pytest.mark.parametrize("method", ["mean", "median", "logmexp"])
def test_nan_power_has_no_level(wing, method):
    band = np.ones((2, 40), np.float32)
    band[1, 7] = np.nan
    device = wing.put(band)
    sn = backend.to_numpy(backend.wing(device).spectrum.level(device, method))
    assert sn[0] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(sn[1])


@pytest.mark.parametrize("method", ["mean", "median", "logmexp"])
def test_twins_agree(method):
    signals = np.random.default_rng(3).normal(size=(40, 301)).astype(np.float32)
    levels = []
    for wing in wings_present():
        with wing.chosen():
            device = wing.put(signals)
            spectrum = backend.wing(device).spectrum
            levels.append(backend.to_numpy(spectrum.level(spectrum.power(device, 75, 151), method)))
    for other in levels[1:]:
        assert_allclose(other, levels[0], rtol=1e-5)


@pytest.mark.parametrize(("T", "segment"), [(1, 1), (2, 2), (31, 31), (300, 256), (1000, 256), (257, 33)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_welch_is_that_of_scipy(wing, T, segment, dtype):
    signals = np.random.default_rng(4).normal(50, 1, (37, T)).astype(dtype)
    _, expected = scipy.signal.welch(
        signals.astype(float), nperseg=segment, noverlap=segment // 2, window="hann", detrend="constant"
    )
    low, high = segment // 5, segment // 2 + 1
    device = wing.put(signals)
    got = backend.wing(device).spectrum.welch(device, segment, low, high)
    assert got.dtype == np.float32
    # float32 signals of 50 hold 2e-6 of their noise, and float32 transforms err by log2(segment) ulp
    expected = expected[:, low:high]
    assert_allclose(backend.to_numpy(got), expected, rtol=2e-5, atol=2e-5 * expected.max() + 1e-12)


@pytest.mark.parametrize(("T", "most"), [(1, 0), (7, 6), (8, 3), (300, 12)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_autocovariance_is_the_mean_of_products(wing, T, most, dtype):
    signals = np.random.default_rng(5).normal(1e4, 1, (5, T)).astype(dtype)
    x = signals.astype(float) - signals.astype(float).mean(axis=1, keepdims=True)
    expected = np.stack([(x[:, lag:] * x[:, : T - lag]).sum(axis=1) / T for lag in range(most + 1)], axis=1)
    device = wing.put(signals)
    got = backend.wing(device).spectrum.autocovariance(device, most)
    assert_allclose(backend.to_numpy(got), expected, rtol=1e-10, atol=1e-10)


def test_threads_change_no_bit(monkeypatch):
    signals = np.random.default_rng(6).normal(size=(301, 700)).astype(np.float32)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        spectrum = backend.wing(signals).spectrum
        density = spectrum.welch(signals, 256, 65, 128)
        results.append((density, spectrum.level(density, "median"), spectrum.autocovariance(signals, 7)))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_array_equal(a, b)
