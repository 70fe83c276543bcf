"""Correlation images against the double loop over pixels and neighbours, and against reference outputs."""

import tracemalloc
from itertools import product

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

import gpucalcium
from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.images import local_correlations, local_correlations_fft, max_correlation_image, mean_image
from tests.wings import REAL_DTYPES, wings_present


def movie_of(shape=(40, 7, 11), seed=0, dtype="float32"):
    """Noise with a part that neighbours share."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=shape[:1] + (1,) * (len(shape) - 1)) * rng.uniform(0, 2, shape[1:])
    values = 60 + 15 * (rng.normal(size=shape) + shared)
    return (values > 60 if dtype == "bool" else values.clip(0, 127)).astype(dtype)


def neighbours_of(pixel, shape, corners):
    for step in product((-1, 0, 1), repeat=len(shape)):
        there = tuple(np.add(pixel, step))
        inside = all(0 <= i < n for i, n in zip(there, shape, strict=True))
        if any(step) and inside and (corners or np.count_nonzero(step) == 1):
            yield there


def brute_force(movie, corners, order=1):
    """The definition: for each pixel, Pearson's r with each neighbour in turn, then the mean."""
    y = movie.astype(np.float64)
    image = np.zeros(y.shape[1:])
    for pixel in np.ndindex(*image.shape):
        a = y[(slice(None), *pixel)]
        rhos = []
        for there in neighbours_of(pixel, image.shape, corners):
            b = y[(slice(None), *there)]
            rhos.append(np.corrcoef(a, b)[0, 1] if a.std() and b.std() else 0.0)
        rhos = np.array(rhos)
        if not len(rhos):
            continue
        image[pixel] = (
            np.mean(rhos**order) ** (1 / order) if order else np.prod(rhos.clip(0)) ** (1 / len(rhos))
        )
    return image


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("eight", [True, False])
def test_is_the_double_loop(wing, eight, offset):
    movie = movie_of() + np.float32(offset)
    expected = brute_force(movie, eight)
    assert_allclose(
        backend.to_numpy(local_correlations(wing.put(movie), eight, swap_dim=False)), expected, atol=1e-5
    )
    last = np.ascontiguousarray(np.moveaxis(movie, 0, -1))
    assert_allclose(backend.to_numpy(local_correlations(wing.put(last), eight)), expected, atol=1e-5)


@pytest.mark.parametrize("order", [0, 2, 4])
def test_order_of_the_mean(wing, order):
    movie = movie_of()
    expected = brute_force(movie, True, order)
    got = local_correlations(wing.put(movie), swap_dim=False, order_mean=order)
    assert_allclose(backend.to_numpy(got), expected, atol=1e-5)


def test_odd_orders_keep_the_sign():
    opposed = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, -2.0]])[:, None]
    assert_allclose(local_correlations(opposed, swap_dim=False, order_mean=3), -np.ones((1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    "shape", [(12, 4, 3, 5), (9, 1, 3, 4), (9, 3, 1, 4), (9, 3, 4, 1), (9, 1, 1, 4), (9, 2, 1, 1)]
)
def test_volumes(wing, shape):
    movie = movie_of(shape)
    device_movie = wing.put(movie)
    six, all26 = brute_force(movie, False), brute_force(movie, True)
    for eight in (True, False):
        got = local_correlations(device_movie, eight, swap_dim=False)
        assert_allclose(backend.to_numpy(got), six, atol=1e-5)
    got = local_correlations_fft(device_movie, True, swap_dim=False)
    assert_allclose(backend.to_numpy(got), all26, atol=1e-5)
    got = local_correlations_fft(device_movie, False, swap_dim=False)
    assert_allclose(backend.to_numpy(got), six, atol=1e-5)


def test_one_plane_of_a_volume_is_the_image():
    movie = movie_of()
    assert_array_equal(
        local_correlations_fft(movie[..., None], swap_dim=False)[..., 0],
        local_correlations(movie, swap_dim=False),
    )


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_every_real_dtype(wing, dtype):
    movie = movie_of((20, 5, 6), dtype=dtype)
    got = backend.to_numpy(local_correlations(wing.put(movie), swap_dim=False))
    assert got.dtype == np.float32
    assert_allclose(got, brute_force(movie, True), atol=1e-5)


@pytest.mark.parametrize(
    "movie",
    [
        np.ones((1, 3, 4)),
        np.full((9, 3, 4), 7, np.uint8),
        np.full((9, 3, 4), 0.1),
        np.arange(9.0).reshape(9, 1, 1),
    ],
    ids=["one frame", "constant", "constant fraction", "one pixel"],
)
def test_without_variance_or_neighbours_it_is_zero(wing, movie):
    for function in (local_correlations, local_correlations_fft, max_correlation_image):
        got = backend.to_numpy(function(wing.put(movie), swap_dim=False))
        assert_array_equal(got, np.zeros(movie.shape[1:]))


def test_a_constant_pixel_counts_as_a_neighbour_without_correlation(wing):
    movie = movie_of()
    movie[:, 3, 4] = 5
    got = backend.to_numpy(local_correlations(wing.put(movie), swap_dim=False))
    assert got[3, 4] == 0
    assert_allclose(got, brute_force(movie, True), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_pixel_that_is_not_finite_is_nan_and_no_neighbour(wing, bad):
    movie = movie_of((20, 5, 6)).astype(np.float64)
    movie[7, 2, 0] = bad
    got = backend.to_numpy(local_correlations(wing.put(movie), False, swap_dim=False))
    clean = brute_force(movie_of((20, 5, 6)), False)
    assert_array_equal(np.argwhere(np.isnan(got)), [[2, 0]])
    assert_allclose(got[:, 2:], clean[:, 2:], atol=1e-5)
    right = movie[:, 2, 1]
    others = [np.corrcoef(right, movie[:, r, c])[0, 1] for r, c in ((1, 1), (3, 1), (2, 2))]
    assert_allclose(got[2, 1], np.mean(others), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 39])
def test_chunk_size_changes_nothing(wing, chunk):
    movie = wing.put(movie_of())
    functions = (
        local_correlations,
        lambda y, **k: max_correlation_image(y, 15, **k),
        lambda y, **_: mean_image(y),
    )
    for function in functions:
        whole = backend.to_numpy(function(movie, swap_dim=False))
        with backend.limit(chunk_frames=chunk):
            assert_array_equal(backend.to_numpy(function(movie, swap_dim=False)), whole)


def test_twins_agree_bit_for_bit():
    movie = movie_of((30, 20, 21))
    images = [
        backend.to_numpy(local_correlations(wing.put(movie), swap_dim=False)) for wing in wings_present()
    ]
    for image in images[1:]:
        assert_array_equal(image, images[0])


def test_result_is_of_the_kind_that_was_given(wing):
    movie = wing.put(movie_of())
    for result in (
        local_correlations(movie, swap_dim=False),
        max_correlation_image(movie, swap_dim=False),
        mean_image(movie),
    ):
        assert type(result) is type(movie)


def test_files_and_data_sets_are_read_like_arrays(tmp_path):
    movie = movie_of(dtype="uint16")
    expected = local_correlations(movie, swap_dim=False)
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    np.save(tmp_path / "movie.npy", movie)
    for path in (tmp_path / "movie.tif", str(tmp_path / "movie.npy")):
        for swap_dim in (True, False):  # a file's time axis is known
            assert_array_equal(local_correlations(path, swap_dim=swap_dim), expected)
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        first = file.create_dataset("first", data=movie)
        last = file.create_dataset("last", data=np.moveaxis(movie, 0, -1))
        assert_array_equal(local_correlations(first, swap_dim=False), expected)
        assert_array_equal(local_correlations(last), expected)
        with backend.limit(chunk_frames=7):
            assert_array_equal(local_correlations(last), expected)


@pytest.mark.parametrize("dtype", ["uint16", "int32"])  # int32 is widened on the way
def test_a_file_larger_than_the_budget_is_read_within_it(tmp_path, dtype):
    movie = np.random.default_rng(0).integers(0, 4000, (600, 96, 64)).astype(dtype)
    np.save(tmp_path / "movie.npy", movie)
    expected = local_correlations(movie, swap_dim=False)
    budget = movie.nbytes // 4
    images = 30 * 8 * movie[0].size  # sums and their evaluation, whatever the length
    with backend.limit(memory=budget):
        tracemalloc.start()
        got = local_correlations(tmp_path / "movie.npy")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert_array_equal(got, expected)
    assert peak < budget + images


def test_layout_and_byte_order_do_not_matter():
    movie = movie_of(dtype="float32")
    expected = local_correlations(movie, swap_dim=False)
    read_only = movie.copy()
    read_only.flags.writeable = False
    for same in (
        np.asfortranarray(movie),
        movie.astype(">f4"),
        movie[:, :, ::-1].copy()[:, :, ::-1],
        read_only,
    ):
        assert_array_equal(local_correlations(same, swap_dim=False), expected)


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.int16, hnp.array_shapes(min_dims=3, max_dims=4, max_side=6), elements=st.integers(-1000, 1000)
    ),
    st.integers(-20000, 20000),
)
def test_ignores_offset_sign_and_direction(movie, offset):
    image = local_correlations(movie, swap_dim=False)
    assert image.shape == movie.shape[1:]
    assert np.all(np.abs(image) <= 1)
    assert_array_equal(local_correlations(movie + np.int16(offset), swap_dim=False), image)
    assert_array_equal(local_correlations(-movie, swap_dim=False), image)
    assert_allclose(local_correlations(movie[::-1], swap_dim=False), image, atol=1e-6)
    assert_allclose(local_correlations(movie[:, ::-1], swap_dim=False), image[::-1], atol=1e-6)
    assert_allclose(local_correlations(movie * np.float32(0.37), swap_dim=False), image, atol=2e-6)


# ---------------------------------------------------------------------------- maximum over bins, mean


@pytest.mark.parametrize(
    "bin_size, lengths",
    [(10, [10, 10, 10, 10]), (15, [13, 13, 14]), (27, [40]), (1000, [40]), (26, [20, 20])],
)
def test_maximum_over_equal_bins(wing, bin_size, lengths):
    movie = movie_of()
    parts = np.split(movie, np.cumsum(lengths)[:-1])
    expected = np.max([brute_force(part, True) for part in parts], axis=0)
    got = max_correlation_image(wing.put(movie), bin_size, swap_dim=False)
    assert_allclose(backend.to_numpy(got), expected, atol=1e-5)


def test_maximum_skips_bins_in_which_a_pixel_is_nan():
    movie = movie_of()
    movie[3, 2, 2] = np.nan
    got = max_correlation_image(movie, 20, swap_dim=False)
    assert_array_equal(got[2, 2], local_correlations(movie[20:], swap_dim=False)[2, 2])


def test_mean(wing):
    movie = movie_of(dtype="int16")
    assert_allclose(backend.to_numpy(mean_image(wing.put(movie))), movie.mean(0), rtol=1e-6)
    assert_allclose(backend.to_numpy(mean_image(wing.put(movie), 7)), movie[:7].mean(0), rtol=1e-6)


# ---------------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize("order", [-1, 1.5, "2"])
def test_order_must_be_a_whole_number(order):
    with pytest.raises(ParameterError, match=r"order_mean=.*whole number"):
        local_correlations(movie_of(), swap_dim=False, order_mean=order)


@pytest.mark.parametrize("movie", [np.zeros((3, 4)), np.zeros((0, 3, 4)), np.float32(1)])
def test_what_is_no_movie_is_refused(movie):
    for swap_dim in (True, False):
        with pytest.raises(MovieShapeError):
            local_correlations(movie, swap_dim=swap_dim)


def test_bins_frames_and_windows_are_checked():
    with pytest.raises(ParameterError, match="bin_size=0"):
        max_correlation_image(movie_of(), 0, swap_dim=False)
    for wrong, message in ((0, "expected a whole number"), (41, "the movie has 40 frames")):
        with pytest.raises(ParameterError, match=f"Tot_frames={wrong}: {message}"):
            mean_image(movie_of(), wrong)
    for wrong, message in ((0, "expected a whole number"), (40, "the movie has 40 frames")):
        with pytest.raises(ParameterError, match=f"rolling_window={wrong}: {message}"):
            local_correlations_fft(movie_of(), swap_dim=False, rolling_window=wrong)


def test_frames_on_a_gpu_are_worked_on_there_whatever_device_is_active(on_gpu):
    movie = on_gpu.put(movie_of())
    with backend.use("cpu"):
        assert type(local_correlations(movie, swap_dim=False)) is type(movie)


# ---------------------------------------------------------------------------- reference outputs


@pytest.fixture(scope="module")
def stored(reference):
    """Reference outputs of CaImAn 1.12.1, with the movies they were made from."""
    (two_photon, volume, _) = reference.inputs("summary_images")
    return reference.load("summary_images") | {"Y": two_photon["Y"], "V": volume["Y"]}


# 2e-6 on all: the reference sums in float32 (observed: 7e-7)
def test_reference_images(stored):
    Y = stored["Y"]
    assert_allclose(local_correlations(Y, False, False), stored["local_correlations_4"], atol=2e-6)
    assert_allclose(local_correlations(Y, False, False, 2), stored["local_correlations_4_order2"], atol=2e-6)
    last = np.moveaxis(Y, 0, -1)
    assert_allclose(local_correlations(last), stored["local_correlations_fft_8"], atol=2e-6)
    assert_allclose(local_correlations_fft(last), stored["local_correlations_fft_8"], atol=2e-6)
    assert_allclose(local_correlations_fft(Y, False, False), stored["local_correlations_fft_4"], atol=2e-6)


def test_reference_eight_neighbours(stored, diagonals):
    """The reference's local_correlations with 8 neighbours adds two of the four diagonal terms to the wrong pixels (it
    differs from its own local_correlations_fft, which is right, by 0.05); with those moved it is equal."""
    Y = stored["Y"]
    last = np.moveaxis(Y, 0, -1)
    expected = stored["local_correlations_8"] + diagonals(Y)
    assert_allclose(local_correlations(Y, True, False), expected, atol=2e-6)
    expected = stored["local_correlations_8_swapdim"] + diagonals(Y)
    assert_allclose(local_correlations(last), expected, atol=2e-6)
    movie = gpucalcium.movie(Y, fr=20)
    expected = stored["movie_local_correlations"] + diagonals(Y)
    assert_allclose(movie.local_correlations(eight_neighbours=True, swap_dim=False), expected, atol=2e-6)


@pytest.mark.parametrize("order", [0, 2])
def test_reference_orders_with_eight_neighbours(stored, order):
    """Against the definition. The reference's misplaced diagonals reach it through a power or a product, so it is
    compared where they do not reach: in the first column, all of whose pixels have their own terms."""
    Y = stored["Y"]
    got = local_correlations(Y, True, False, order)
    assert_allclose(got, brute_force(Y, True, order), atol=1e-5)
    expected = stored[f"local_correlations_8_order{order}"][:, 0]
    known = np.isfinite(expected) & (got[:, 0] > 0)
    assert known.any()
    assert_allclose(got[:, 0][known], expected[known], atol=1e-5)


def test_reference_geometric_mean(stored):
    """Where no correlation is negative: there the reference is NaN, or takes two negatives for a positive."""
    Y = stored["Y"]
    any_negative = np.zeros(Y.shape[1:], bool)
    for pixel in np.ndindex(*any_negative.shape):
        a = Y[(slice(None), *pixel)]
        any_negative[pixel] = any(
            np.corrcoef(a, Y[(slice(None), *there)])[0, 1] < 0
            for there in neighbours_of(pixel, any_negative.shape, False)
        )
    got = local_correlations(Y, False, False, 0)
    assert_array_equal(got[any_negative], 0)
    assert_allclose(got[~any_negative], stored["local_correlations_4_order0"][~any_negative], atol=1e-5)


def test_reference_volumes(stored):
    V = stored["V"]
    for eight in (False, True):
        expected = stored[f"local_correlations_3d_eight{eight:d}"]
        assert_allclose(local_correlations(V, eight, False), expected, atol=2e-6)
        expected = stored[f"local_correlations_fft_3d_eight{eight:d}"]
        assert_allclose(local_correlations_fft(V, eight, False), expected, atol=2e-6)


def test_reference_maximum_and_mean(stored):
    for bin_size in (100, 140, 1000):
        expected = stored[f"max_correlation_image_bin{bin_size}"]
        assert_allclose(max_correlation_image(stored["Y"], bin_size, swap_dim=False), expected, atol=2e-6)
    assert_allclose(mean_image(stored["Y"]), stored["mean_image"], rtol=3e-7)
