"""Power in a band and its level, against NumPy's FFT, on every wing."""

import numpy as np
import pytest
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
