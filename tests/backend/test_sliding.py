"""Sums of moving windows and fading covariances, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.backend.test_correlation import OFFSETS, frames_of, plain_sums
from tests.wings import REAL_DTYPES, wings_present


class Window:
    """The state of one window on one wing."""

    def __init__(self, wing, frames, offsets=OFFSETS):
        self.wing, self.offsets, rows, pixels = wing, wing.put(offsets), 2 + len(offsets), frames[0].size
        self.frames, self.pilot = wing.put(frames), wing.put(frames[0].copy())
        self.sums = wing.put(np.zeros((rows, pixels)))
        self.last = wing.put(np.full(pixels, np.nan, np.float32))
        self.counts = wing.put(np.zeros((2, pixels), np.int32))

    def move(self, first, window, at, every, number):
        snapshots = self.wing.put(np.zeros((number, *self.sums.shape)))
        backend.wing(self.frames).sliding.slide(
            self.frames,
            first,
            window,
            self.pilot,
            self.offsets,
            self.sums,
            self.last,
            self.counts,
            at,
            every,
            snapshots,
        )
        return backend.to_numpy(snapshots)


def expected_sums(frames, window, ends, offsets=OFFSETS):
    """Sums of each window above the first frame of all, in plain NumPy; 0 for a pixel that is constant in it."""
    sums = []
    for end in ends:
        part = frames[end - window : end]
        sums.append(plain_sums(np.concatenate([frames[:1], part]), offsets))
        sums[-1][:2, (part == part[0]).all(axis=0).ravel()] = 0
    return np.stack(sums)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_agrees_with_plain_numpy(wing, dtype):
    frames = frames_of((19, 5, 37), dtype)
    got = Window(wing, frames).move(0, 6, 5, 3, 5)
    expected = expected_sums(frames, 6, range(6, 19, 3))
    rtol = 1e-6 if np.dtype(dtype).kind == "f" else 0  # integer sums are exact; floats are rounded to 24 bits
    assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("window", [1, 2, 16])
@pytest.mark.parametrize("pixels", [40, 2047, 2049, 4100])
@pytest.mark.parametrize("offsets", [[], [1], [3000], list(range(1, 14))])
def test_windows_tiles_and_reaches(wing, window, pixels, offsets):
    movie = frames_of((17, 1, pixels), "int16")
    offsets = np.array([o for o in offsets if o < pixels], np.int64)
    got = Window(wing, movie, offsets).move(0, window, window - 1, 1, 18 - window)
    expected = expected_sums(movie, window, range(window, 18), offsets)
    assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_twins_and_the_number_of_calls_agree_bit_for_bit(dtype):
    movie = frames_of((29, 6, 37), dtype)
    results = []
    for wing in wings_present():
        results.append(Window(wing, movie).move(0, 9, 8, 2, 11))
        window = Window(wing, movie)
        pieces = [window.move(0, 9, 8, 2, 4), window.move(15, 9, 16, 2, 7)]
        results.append(np.concatenate(pieces))
    for result in results[1:]:
        assert_array_equal(result, results[0])


def test_threads_change_nothing(monkeypatch):
    movie = frames_of((11, 90, 91))
    results = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(Window(wings_present()[0], movie).move(0, 4, 3, 1, 8))
    assert_array_equal(results[1], results[0])
    assert_array_equal(results[2], results[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_forgotten_when_it_leaves(wing, bad):
    movie = frames_of((20, 1, 100), "float64")
    clean = Window(wing, movie).move(0, 5, 4, 1, 16)
    spoilt = movie.copy()
    spoilt[8, 0, 50] = bad
    got = Window(wing, spoilt).move(0, 5, 4, 1, 16)
    touched = np.isnan(got[:, 1])
    assert_array_equal(np.argwhere(touched), [[e, 50] for e in range(4, 9)])
    assert_array_equal(np.isnan(got[:, 0]), touched)
    assert_allclose(got[9:], clean[9:], rtol=1e-12)


def test_a_pixel_that_stands_still_has_no_variance_left(wing):
    movie = frames_of((20, 1, 60), "float32")
    movie[6:, 0, 10] = np.float32(1 / 3)
    got = Window(wing, movie).move(0, 5, 4, 1, 16)
    still = np.zeros(16, bool)
    still[6:] = True
    assert_array_equal((got[:, :2, 10] == 0).all(1), still)


def test_a_bright_frame_leaves_less_than_rounding(wing):
    """Of 1e6 noise levels: its square is 1e12 variances, its rounding 1e-16 of that for each frame added."""
    movie = np.random.default_rng(0).normal(0, 1, (40, 1, 50)).astype("float32")
    clean = Window(wing, movie).move(0, 8, 39, 1, 1)
    movie[10] += 1e6
    got = Window(wing, movie).move(0, 8, 39, 1, 1)
    assert_allclose(got, clean, atol=1e12 * 1.1e-16 * 2 * 16)


# ---------------------------------------------------------------------------- fading


def faded(wing, frames, rate, offsets=OFFSETS, chunks=()):
    pixels = frames[0].size
    mean, moments = wing.put(np.zeros(pixels)), wing.put(np.zeros((2 + len(offsets), pixels)))
    pilot, steps = wing.put(frames[0].copy()), wing.put(offsets)
    for part in np.split(frames, list(chunks)):
        part = wing.put(part)
        backend.wing(part).sliding.fade(part, rate, pilot, steps, mean, moments)
    return backend.to_numpy(mean), backend.to_numpy(moments)


def weighted(frames, rate, offsets=OFFSETS):
    """Weighted mean and covariances of all frames and, before them, a zero that has the weight left over."""
    x = frames.reshape(len(frames), -1).astype(np.float64)
    x = np.concatenate([np.zeros((1, x.shape[1])), x - x[0]])
    weights = rate * (1 - rate) ** np.arange(len(frames) - 1, -1, -1)
    weights = np.concatenate([[(1 - rate) ** len(frames)], weights])
    mean = weights @ x
    d = x - mean
    rows = [np.zeros(x.shape[1]), weights @ d**2]
    for offset in offsets:
        row = np.zeros(x.shape[1])
        row[: x.shape[1] - offset] = weights @ (d[:, : x.shape[1] - offset] * d[:, offset:])
        rows.append(row)
    return mean, np.stack(rows)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
def test_is_the_weighted_covariance(wing, dtype, rate):
    frames = frames_of((23, 5, 37), dtype)
    mean, moments = faded(wing, frames, rate)
    expected_mean, expected = weighted(frames, rate)
    assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-5)
    assert_allclose(moments, expected, rtol=1e-6, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("pixels", [40, 2049, 4100])
@pytest.mark.parametrize("offsets", [[], [3000], list(range(1, 14))])
def test_fading_over_tiles_and_reaches(wing, pixels, offsets):
    movie = frames_of((5, 1, pixels), "uint16")
    offsets = np.array([o for o in offsets if o < pixels], np.int64)
    assert_allclose(
        faded(wing, movie, 0.2, offsets)[1], weighted(movie, 0.2, offsets)[1], rtol=1e-9, atol=1e-9
    )


def test_fading_twins_and_chunks_agree_bit_for_bit():
    movie = frames_of((29, 6, 37))
    results = [
        faded(wing, movie, 0.07, chunks=chunks)
        for wing in wings_present()
        for chunks in ((), range(1, 29), (3, 11))
    ]
    for mean, moments in results[1:]:
        assert_array_equal(mean, results[0][0])
        assert_array_equal(moments, results[0][1])
