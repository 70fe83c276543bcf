"""Movies of correlation images against one image after the other, and against reference outputs."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import gpucalcium
from gpucalcium import backend
from gpucalcium.errors import MemoryBudgetError, MovieShapeError, ParameterError
from gpucalcium.images import (
    local_correlations,
    local_correlations_fft,
    local_correlations_movie,
    local_correlations_movie_offline,
    local_correlations_multicolor,
)
from tests.images.test_correlations import brute_force, movie_of
from tests.wings import REAL_DTYPES, wings_present

T = 40


def image(part, eight=True, order=1):
    return local_correlations(part, eight, False, order)


@pytest.mark.parametrize("window, stride", [(30, 1), (7, 3), (7, 7), (5, 8), (40, 1), (1, 1), (2, 1)])
@pytest.mark.parametrize("eight", [True, False])
def test_simple_is_the_image_of_each_window(wing, window, stride, eight):
    movie = movie_of((T, 7, 11))
    got = local_correlations_movie(
        wing.put(movie), fr=20, window=window, stride=stride, swap_dim=False, eight_neighbours=eight
    )
    expected = np.stack([image(movie[s : s + window], eight) for s in range(0, T - window + 1, stride)])
    assert len(got) == (T - window) // stride + 1
    assert_allclose(backend.to_numpy(got), expected, atol=1e-6)
    assert_allclose(
        backend.to_numpy(got)[-1], brute_force(movie[(len(got) - 1) * stride :][:window], eight), atol=1e-5
    )


@pytest.mark.parametrize(
    "dtype, offset",
    [(d, 0) for d in REAL_DTYPES] + [(d, 1e4) for d in ("int16", "uint16", "int64", "float32", "float64")],
)
def test_every_real_dtype_and_offset(wing, dtype, offset):
    movie = movie_of((20, 4, 5), dtype=dtype)
    movie = movie + np.asarray(offset, dtype) if offset else movie
    got = local_correlations_movie(wing.put(movie), window=9, stride=4, swap_dim=False)
    for k, one in enumerate(backend.to_numpy(got)):
        assert_allclose(one, brute_force(movie[4 * k : 4 * k + 9], True), atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 4, 3, 5), (20, 1, 6), (20, 6, 1), (20, 1, 1), (20, 3, 1, 4)])
def test_volumes_and_lines(wing, shape):
    movie = movie_of(shape)
    for mode in ("simple", "cumulative", "exponential"):
        got = backend.to_numpy(
            local_correlations_movie(wing.put(movie), window=9, stride=11, swap_dim=False, mode=mode)
        )
        assert_allclose(got[0], image(movie[:9]), atol=1e-6)
    got = local_correlations_movie(wing.put(movie), window=9, stride=2, swap_dim=False)
    assert_allclose(backend.to_numpy(got)[5], image(movie[10:19]), atol=1e-6)


def test_cumulative_is_the_image_of_all_frames_so_far(wing):
    movie = movie_of((T, 7, 11))
    got = local_correlations_movie(wing.put(movie), window=9, stride=4, swap_dim=False, mode="cumulative")
    expected = np.stack([image(movie[:end]) for end in range(9, T + 1, 4)])
    assert_array_equal(backend.to_numpy(got), expected)


def weighted_correlations(movie, weights):
    """Definition: Pearson's r with weights, mean over 4 neighbours."""
    y = movie.reshape(len(movie), -1).astype(np.float64)
    d = y - weights @ y
    covariance = d.T @ (weights[:, None] * d)
    rho = (covariance / np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))).reshape(
        *movie.shape[1:] * 2
    )
    expected = np.zeros(movie.shape[1:])
    for i, j in np.ndindex(*expected.shape):
        beside = [(i + a, j + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        beside = [q for q in beside if min(q) >= 0 and q[0] < expected.shape[0] and q[1] < expected.shape[1]]
        expected[i, j] = np.mean([rho[i, j, *q] for q in beside])
    return expected


@pytest.mark.parametrize("offset", [0, 1e4])
def test_exponential_weights(wing, offset):
    movie = movie_of((T, 5, 6)) + np.float32(offset)
    window, stride = 8, 3
    got = local_correlations_movie(
        wing.put(movie),
        window=window,
        stride=stride,
        swap_dim=False,
        eight_neighbours=False,
        mode="exponential",
    )
    assert len(got) == (T - window) // stride + 1
    for k, one in enumerate(backend.to_numpy(got)):
        weights = np.full(window, 1 / window)
        for _ in range(k * stride):
            weights = np.append(weights * (1 - 1 / window), 1 / window)
        assert_allclose(one, weighted_correlations(movie[: len(weights)], weights), atol=1e-5)


@pytest.mark.parametrize("mode", ["simple", "cumulative", "exponential"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 39])
def test_chunks_change_nothing(wing, mode, chunk):
    movie = wing.put(movie_of((T, 5, 6)))
    whole = local_correlations_movie(movie, window=7, stride=2, swap_dim=False, mode=mode)
    with backend.limit(chunk_frames=chunk):
        again = local_correlations_movie(movie, window=7, stride=2, swap_dim=False, mode=mode)
    assert_array_equal(backend.to_numpy(again), backend.to_numpy(whole))


@pytest.mark.parametrize("mode", ["simple", "cumulative", "exponential"])
def test_twins_agree_bit_for_bit(mode):
    movie = movie_of((T, 9, 10))
    movies = [
        backend.to_numpy(local_correlations_movie(wing.put(movie), window=7, swap_dim=False, mode=mode))
        for wing in wings_present()
    ]
    for other in movies[1:]:
        assert_array_equal(other, movies[0])


def test_many_starts_of_the_sums_do_not_show():
    """Sums start anew every 128 frames, above another pilot: the last bits differ from those of one window alone."""
    movie = movie_of((500, 4, 5), dtype="int16")
    got = local_correlations_movie(movie, window=6, swap_dim=False)
    expected = np.stack([image(movie[s : s + 6]) for s in range(495)])
    assert_allclose(got, expected, atol=2e-7)
    strides = local_correlations_movie(movie, window=6, stride=5, swap_dim=False)
    assert_allclose(strides, expected[::5], atol=2e-7)


def test_what_is_not_finite_is_nan_while_it_is_in_the_window(wing):
    movie = movie_of((T, 5, 6))
    movie[13, 2, 0] = np.nan
    got = backend.to_numpy(local_correlations_movie(wing.put(movie), window=7, swap_dim=False))
    expected = np.stack([image(movie[s : s + 7]) for s in range(T - 6)])
    assert_array_equal(np.argwhere(np.isnan(got)), [[s, 2, 0] for s in range(7, 14)])
    assert_allclose(got, expected, atol=1e-6)
    for mode in ("cumulative", "exponential"):
        got = local_correlations_movie(wing.put(movie), window=7, swap_dim=False, mode=mode)
        nan = np.isnan(backend.to_numpy(got))
        assert_array_equal(np.argwhere(nan), [[s, 2, 0] for s in range(7, T - 6)])


@pytest.mark.parametrize("mode", ["simple", "cumulative", "exponential"])
def test_constant_movies_are_zero(wing, mode):
    movie = wing.put(np.full((9, 3, 4), 0.1))
    got = local_correlations_movie(movie, window=3, swap_dim=False, mode=mode)
    assert_array_equal(backend.to_numpy(got), np.zeros((7, 3, 4)))


def test_a_pixel_that_stands_still_in_a_window_is_zero_there(wing):
    movie = movie_of((T, 4, 5))
    movie[20:, 1, 2] = np.float32(1 / 3)
    got = backend.to_numpy(local_correlations_movie(wing.put(movie), window=7, swap_dim=False))
    assert_array_equal(got[20:, 1, 2], 0)
    assert np.all(got[:20, 1, 2] != 0)
    assert_allclose(got[25], image(movie[25:32]), atol=1e-6)


def test_result_is_a_movie_with_its_rate_or_of_the_kind_that_was_given(wing):
    movie = wing.put(movie_of((T, 4, 5)))
    for got in (
        local_correlations_movie(movie, fr=20, window=5, stride=4, swap_dim=False),
        local_correlations_movie_offline(movie, fr=20, window=5, stride=4, swap_dim=False),
    ):
        assert got.dtype == np.float32
        if wing.device == "cpu":
            assert isinstance(got, gpucalcium.movie)
            assert got.fr == 5
        else:
            assert type(got) is type(movie)


def test_time_last_files_and_layouts(tmp_path):
    movie = movie_of((T, 4, 5), dtype="uint16")
    expected = local_correlations_movie(movie, window=9, stride=2, swap_dim=False)
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    for same, swap_dim in (
        (np.moveaxis(movie, 0, -1), True),
        (tmp_path / "movie.tif", True),
        (tmp_path / "movie.tif", False),
        (np.asfortranarray(movie), False),
        (movie.astype(">u2"), False),
        (movie[:, :, ::-1].copy()[:, :, ::-1], False),
    ):
        got = local_correlations_movie(same, window=9, stride=2, swap_dim=swap_dim)
        assert_array_equal(got, expected)
    offline = local_correlations_movie_offline(movie, window=9, stride=2, swap_dim=False)
    assert_array_equal(local_correlations_movie_offline(tmp_path / "movie.tif", window=9, stride=2), offline)
    first = local_correlations_movie(movie, 20, window=9, swap_dim=False)
    assert_array_equal(first, local_correlations_movie(movie[:20], window=9, swap_dim=False))


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        np.int16, hnp.array_shapes(min_dims=3, max_dims=4, max_side=6), elements=st.integers(-1000, 1000)
    ),
    st.data(),
)
def test_every_window_is_in_range_and_has_its_own_image(movie, data):
    window = data.draw(st.integers(1, len(movie)))
    stride = data.draw(st.integers(1, 4))
    got = local_correlations_movie(movie, window=window, stride=stride, swap_dim=False)
    assert got.shape == ((len(movie) - window) // stride + 1, *movie.shape[1:])
    assert np.all(np.abs(got) <= 1)
    for k, one in enumerate(got):
        assert_allclose(one, image(movie[k * stride : k * stride + window]), atol=1e-6)


def test_memory_does_not_grow_with_the_movie(tmp_path):
    dims, peaks = (64, 64), []
    for n in (300, 1200):
        np.save(
            tmp_path / f"{n}.npy", np.random.default_rng(0).integers(0, 4000, (n, *dims)).astype("uint16")
        )
        with backend.limit(memory="12MiB"):
            tracemalloc.start()
            got = local_correlations_movie(tmp_path / f"{n}.npy", window=20, stride=10)
            peaks.append(tracemalloc.get_traced_memory()[1] - got.nbytes)
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1 + 4 * 120 * 64 * 64  # but for the images themselves
    with backend.limit(memory="1MiB"), pytest.raises(MemoryBudgetError, match="windows of 20 frames"):
        local_correlations_movie(tmp_path / "300.npy", window=20, stride=10)


# ---------------------------------------------------------------------------- rolling window


def test_rolling_window_is_the_image_of_each_window_but_the_first(wing):
    movie = movie_of((T, 5, 6))
    got = local_correlations_fft(wing.put(movie), swap_dim=False, rolling_window=9)
    expected = np.stack([image(movie[k + 1 : k + 10]) for k in range(T - 9)])
    assert_allclose(backend.to_numpy(got), expected, atol=1e-6)
    assert type(got) is type(wing.put(movie))


def test_rolling_window_in_volumes_and_with_four_neighbours(wing):
    movie = movie_of((20, 3, 4, 5))
    for corners in (True, False):
        got = local_correlations_fft(wing.put(movie), corners, False, rolling_window=12)
        assert_allclose(backend.to_numpy(got)[3], brute_force(movie[4:16], corners), atol=1e-5)


def test_opencv_chose_between_two_ways_to_the_same_sums():
    movie = movie_of((T, 5, 6))
    for window in (None, 9):
        images = [
            local_correlations_fft(movie, swap_dim=False, opencv=opencv, rolling_window=window)
            for opencv in (True, False)
        ]
        assert_array_equal(images[0], images[1])


# ---------------------------------------------------------------------------- offline


@pytest.mark.parametrize("window, stride", [(10, 10), (10, 15), (10, 4), (15, 1), (40, 3), (100, 100)])
def test_offline_windows_the_last_aligned_to_the_end(wing, window, stride):
    movie = movie_of((T, 5, 6))
    got = local_correlations_movie_offline(wing.put(movie), window=window, stride=stride, swap_dim=False)
    length = min(window, T)
    starts = sorted({*range(0, T - length + 1, stride), T - length})
    expected = np.stack([image(movie[s : s + length]) for s in starts])
    assert len(got) == 1 + -(-(T - length) // stride)
    assert_allclose(backend.to_numpy(got), expected, atol=1e-6)


@pytest.mark.parametrize("stride", [4, 10])
def test_offline_order_and_neighbours(wing, stride):
    movie = movie_of((T, 5, 6))
    got = local_correlations_movie_offline(
        wing.put(movie), window=10, stride=stride, swap_dim=False, eight_neighbours=False, order_mean=2
    )
    assert_allclose(backend.to_numpy(got)[1], brute_force(movie[stride : stride + 10], False, 2), atol=1e-5)


@pytest.mark.parametrize("shape", [(T, 5, 6), (T, 5, 6, 2)])
@pytest.mark.parametrize("stride", [8, 12])
@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("blur", [True, False])
def test_offline_without_baseline_and_blurred(wing, shape, stride, level, blur):
    movie = movie_of(shape, dtype="uint16")
    got = local_correlations_movie_offline(
        wing.put(movie),
        window=12,
        stride=stride,
        swap_dim=False,
        remove_baseline=level,
        winSize_baseline=5,
        quantil_min_baseline=20,
        gaussian_blur=blur,
    )
    for k, start in enumerate([*range(0, 29, stride), 28][: len(got)]):
        part = gpucalcium.movie(movie[start : start + 12].astype("float32"), fr=10)
        part = part.removeBL(5, 20) if level else part
        part = part.gaussian_blur_2D() if blur else part
        assert_allclose(backend.to_numpy(got)[k], image(np.asarray(part)), atol=2e-6)


def test_offline_in_colour(wing):
    movie = movie_of((T, 5, 6))
    got = local_correlations_movie_offline(
        wing.put(movie), window=10, stride=6, swap_dim=False, ismulticolor=True
    )
    assert got.shape == (6, 4, 5, 3)
    expected = local_correlations_multicolor(movie[6:16], False)
    assert_allclose(backend.to_numpy(got)[1], expected, atol=1e-6)


def test_offline_takes_workers_and_the_first_frames():
    movie = movie_of((T, 5, 6))
    got = local_correlations_movie_offline(movie, 25, window=10, stride=10, swap_dim=False, dview=object())
    assert_array_equal(
        got, local_correlations_movie_offline(movie[:25], window=10, stride=10, swap_dim=False)
    )


# ---------------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 41}, "window=41: the movie has 40 frames; give 1 to 40"),
        ({"window": 0}, "window=0: expected a whole number of frames, 1 or more"),
        ({"stride": 0}, "stride=0: expected a whole number"),
        ({"tot_frames": 41}, "tot_frames=41: the movie has 40 frames"),
        ({"mode": "fast"}, "mode='fast': expected one of simple, exponential, cumulative"),
        ({"fr": 0}, "frame rate"),
    ],
)
def test_parameters_of_the_movie_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        local_correlations_movie(movie_of(), swap_dim=False, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 10.5}, "window=10.5: expected a whole number"),
        ({"Tot_frames": 41}, "Tot_frames=41: the movie has 40 frames"),
        ({"order_mean": -1}, "order_mean=-1"),
        ({"winSize_baseline": 0}, "winSize_baseline=0"),
        ({"quantil_min_baseline": 101}, "quantil_min_baseline=101"),
    ],
)
def test_parameters_of_offline_movies_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        local_correlations_movie_offline(movie_of(), swap_dim=False, **options)


def test_no_movie_and_no_directions():
    with pytest.raises(MovieShapeError):
        local_correlations_movie(np.zeros((3, 4)), swap_dim=False)
    with pytest.raises(MovieShapeError, match="two rows and two columns"):
        local_correlations_movie_offline(np.zeros((9, 1, 4)), swap_dim=False, ismulticolor=True)


def test_frames_on_a_gpu_are_worked_on_there_whatever_device_is_active(on_gpu):
    movie = on_gpu.put(movie_of((T, 5, 6)))
    with backend.use("cpu"):
        for mode in ("simple", "cumulative", "exponential"):
            got = local_correlations_movie(movie, window=8, stride=3, swap_dim=False, mode=mode)
            assert type(got) is type(movie)


# ---------------------------------------------------------------------------- reference outputs


def test_reference_offline(reference, diagonals):
    """Equal to the definition with the two misplaced diagonal terms of the reference's local_correlations."""
    Y, stored = reference.inputs("summary_images")[0]["Y"], reference.load("summary_images")
    expected = stored["local_correlations_movie_offline"]
    got = local_correlations_movie_offline(Y, 300, fr=20, window=100, stride=100, swap_dim=False)
    for k, start in enumerate((0, 100, 200)):
        part = Y[start : start + 100]
        assert_allclose(expected[k] + diagonals(part), got[k], atol=2e-6)


def test_reference_rolling_window(reference):
    """The reference measures each frame from the mean of the window that ends with it, and divides by the root mean
    square of such differences: reproduced here by that formula, whose values pass 1. Ours is Pearson's correlation in
    the last window."""
    Y, stored = reference.inputs("summary_images")[0]["Y"], reference.load("summary_images")
    expected, w = stored["local_correlations_fft_rolling50_last"], 50

    def rolling_mean(x):
        return np.stack([x[k : k + w].mean(0) for k in range(len(x) - w + 1)])

    y = Y[-150:].astype(np.float64)
    d = y[w - 1 :] - rolling_mean(y)
    z = d[w - 1 :] / np.sqrt(rolling_mean(d**2))
    padded = np.pad(z[-w:], ((0, 0), (1, 1), (1, 1)))
    rows, columns = Y.shape[1:]
    total, number = np.zeros((rows, columns)), np.zeros((rows, columns))
    inside = np.pad(np.ones((rows, columns)), 1)
    for i in range(3):
        for j in range(3):
            if (i, j) != (1, 1):
                total += (padded[:, 1:-1, 1:-1] * padded[:, i : i + rows, j : j + columns]).mean(0)
                number += inside[i : i + rows, j : j + columns]
    assert_allclose(total / number, expected, atol=1e-5)  # the reference sums in float32
    assert expected.max() > 2
    got = local_correlations_fft(Y, swap_dim=False, rolling_window=w)
    assert got.shape == (250, 48, 40)
    assert_allclose(got[-1], local_correlations(Y[-w:], swap_dim=False), atol=1e-6)


@pytest.mark.parametrize("fr", [None, "fast", 0, -3, np.nan])
@pytest.mark.parametrize("function", [local_correlations_movie, local_correlations_movie_offline])
def test_a_frame_rate_is_a_positive_number(function, fr):
    with pytest.raises(ParameterError, match="fr="):
        function(np.zeros((40, 3, 4), np.float32), fr=fr, swap_dim=False)
