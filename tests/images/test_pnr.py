"""Correlation and peak-to-noise images against the definition in plain SciPy, and against reference outputs."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from scipy.signal import lfilter

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.images import correlation_pnr, local_correlations_fft
from tests.wings import wings_present


def movie_of(shape=(60, 15, 13), seed=0, dtype="float32"):
    """Noise on a bright gradient, with two cells that flash and fade."""
    rng = np.random.default_rng(seed)
    movie = rng.normal(100, 4, shape) + np.linspace(0, 50, shape[2]).reshape(-1, *[1] * (len(shape) - 3))
    at = np.indices(shape[1:])
    for cell in (4, 9):
        spot = np.exp(-((at - cell) ** 2).sum(0) / 8)
        calcium = lfilter([1], [1, -0.9], rng.random(shape[0]) < 0.05)
        movie += 40 * spot * calcium.reshape(-1, *[1] * (len(shape) - 1))
    return movie.astype(dtype)


def plain_filter(frames, sigma, center_psf, background):
    """The filter by its definition, in float64."""
    if sigma is None:
        return frames.astype(np.float64)
    radius = [int(2 * s) for s in sigma]
    grid = np.meshgrid(*[np.arange(-r, r + 1) for r in radius], indexing="ij")
    psf = np.exp(-0.5 * sum((g / s) ** 2 for g, s in zip(grid, sigma, strict=True)))
    psf /= psf.sum()
    if center_psf and background == "box":
        psf -= 1 / psf.size
    elif center_psf:
        disc = psf >= psf[0].max() - 1e-15
        psf = np.where(disc, psf - psf[disc].mean(), 0)
    return np.stack([ndimage.correlate(f.astype(np.float64), psf, mode="nearest") for f in frames])


def plain_pnr(movie, sigma, center_psf, background):
    x = plain_filter(movie, sigma, center_psf, background)
    x -= x.mean(0)
    f = np.fft.rfftfreq(len(x))
    power = np.abs(np.fft.rfft(x, axis=0)) ** 2 / len(x)
    noise = np.sqrt(power[(f > 0.25) & (f <= 0.5)].mean(0))
    kept = np.where(x < 3 * noise, 0, x)
    return local_correlations_fft(kept, swap_dim=False), np.maximum(x.max(0) / noise, 0)


@pytest.mark.parametrize(
    "gSig, center_psf, background",
    [
        (2, True, "disk"),
        (2, True, "box"),
        (2, False, "disk"),
        ((1.5, 2.5), True, "disk"),
        (None, True, "disk"),
    ],
)
def test_is_its_definition(wing, gSig, center_psf, background):
    movie = movie_of()
    cn, pnr = correlation_pnr(wing.put(movie), gSig, center_psf, False, background)
    sigma = None if gSig is None else np.broadcast_to(gSig, 2)
    expected_cn, expected_pnr = plain_pnr(movie, sigma, center_psf, background)
    # float32 filters: the box difference loses two digits of a background of 100 to cancellation
    assert_allclose(backend.to_numpy(pnr), expected_pnr, rtol=2e-4)
    assert_allclose(backend.to_numpy(cn), expected_cn, atol=5e-4)


@pytest.mark.parametrize(
    "gSig, center_psf, background",
    [
        (1.2, True, "disk"),
        ((1.2, 1.5, 1), True, "disk"),
        ((1.2, 1.5, 1), True, "box"),
        (1.2, False, "box"),
        (None, True, "disk"),
    ],
)
def test_volumes(wing, gSig, center_psf, background):
    movie = movie_of((30, 9, 8, 7))
    cn, pnr = correlation_pnr(wing.put(movie), gSig, center_psf, False, background)
    sigma = None if gSig is None else np.broadcast_to(gSig, 3)
    expected_cn, expected_pnr = plain_pnr(movie, sigma, center_psf, background)
    assert_allclose(backend.to_numpy(pnr), expected_pnr, rtol=2e-4)
    assert_allclose(backend.to_numpy(cn), expected_cn, atol=5e-4)


def test_chunks_change_nothing_and_twins_agree():
    movie = movie_of(dtype="uint16")
    results = []
    for wing in wings_present():
        with wing.chosen():
            whole = [backend.to_numpy(image) for image in correlation_pnr(wing.put(movie), 2, swap_dim=False)]
            with backend.limit(chunk_frames=7):
                pieces = correlation_pnr(wing.put(movie), 2, swap_dim=False)
            for image, again in zip(whole, pieces, strict=True):
                assert_array_equal(backend.to_numpy(again), image)
            results.append(whole)
    for cn, pnr in results[1:]:  # filters and transforms differ by rounding
        assert_allclose(cn, results[0][0], atol=1e-4)
        assert_allclose(pnr, results[0][1], rtol=1e-4)


def test_a_filtered_movie_that_does_not_fit_is_filtered_again(wing):
    movie = movie_of(dtype="uint16")  # 47 kB when filtered
    kept = correlation_pnr(wing.put(movie), 2, swap_dim=False)
    with backend.limit(memory=90_000):
        again = correlation_pnr(wing.put(movie), 2, swap_dim=False)
    for image, expected in zip(again, kept, strict=True):
        assert_array_equal(backend.to_numpy(image), backend.to_numpy(expected))


def test_time_last_is_the_default():
    movie = movie_of()
    for image, expected in zip(
        correlation_pnr(np.moveaxis(movie, 0, -1), 2), correlation_pnr(movie, 2, swap_dim=False), strict=True
    ):
        assert_array_equal(image, expected)


def test_result_is_of_the_kind_that_was_given(wing):
    movie = wing.put(movie_of())
    for image in correlation_pnr(movie, 2, swap_dim=False):
        assert type(image) is type(movie)
        assert image.dtype == np.float32


def test_cells_stand_out():
    cn, pnr = correlation_pnr(movie_of(), 2, swap_dim=False)
    for image in (cn, pnr):
        peaks = ndimage.maximum_filter(image, 5) == image
        rows, columns = np.nonzero(peaks)
        highest = np.argsort(image[rows, columns])[-2:]
        assert_allclose(np.sort(rows[highest]), [4, 9], atol=1)
        assert_allclose(np.sort(columns[highest]), [4, 9], atol=1)


def test_constant_movies_have_neither_noise_nor_correlation(wing):
    for image in correlation_pnr(wing.put(np.full((8, 6, 7), 5, np.uint8)), None, swap_dim=False):
        assert_array_equal(backend.to_numpy(image), np.zeros((6, 7)))


def test_one_frame_has_neither_peaks_nor_correlation(wing):
    frame = movie_of()[:1]
    frame[0, 0, 0] = np.nan
    for gSig in (None, 1):
        for image in correlation_pnr(wing.put(frame), gSig, swap_dim=False):
            image = backend.to_numpy(image)
            assert np.isnan(image[0, 0])
            assert_array_equal(image[3:], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("background_filter", ["disk", "box"])
def test_nan_is_shown_where_the_filter_meets_what_is_not_finite(bad, background_filter):
    movie = movie_of()
    movie[5, 0, 0] = bad
    for image in correlation_pnr(movie, 1, swap_dim=False, background_filter=background_filter):
        assert np.isnan(image[:2, :2]).all()
        assert np.isfinite(image[4:]).all()


@pytest.mark.parametrize("gSig", [0, -1, (1, 2, 3), np.nan, np.inf])
def test_gSig_must_be_a_width(gSig):
    with pytest.raises(
        ParameterError, match=r"gSig=.*expected one positive number, or one for each of 2 axes"
    ):
        correlation_pnr(movie_of(), gSig, swap_dim=False)


def test_what_else_is_refused():
    with pytest.raises(ParameterError, match="background_filter='ring': choose 'disk' or 'box'"):
        correlation_pnr(movie_of(), 2, swap_dim=False, background_filter="ring")
    with pytest.raises(MovieShapeError, match="empty"):
        correlation_pnr(movie_of()[:0], 2, swap_dim=False)


def test_frames_on_a_gpu_are_worked_on_there_whatever_device_is_active(on_gpu):
    movie = on_gpu.put(movie_of())
    with backend.use("cpu"):
        assert type(correlation_pnr(movie, 2, swap_dim=False)[0]) is type(movie)


# ---------------------------------------------------------------------------- reference outputs


@pytest.mark.parametrize(
    "case, options",
    [
        ("gSig3_disk", {"gSig": 3}),
        ("gSig3_box", {"gSig": 3, "background_filter": "box"}),
        ("gSig3_nocenter", {"gSig": 3, "center_psf": False}),
        ("nofilter", {}),
        ("gSig2_4_disk", {"gSig": [2, 4]}),
        ("1p_gSig3_disk", {"gSig": 3}),
    ],
)
def test_reference_images(reference, case, options):
    inputs, stored = reference.inputs("summary_images"), reference.load("summary_images")
    movie = inputs[2 if case.startswith("1p") else 0]["Y"]
    cn, pnr = correlation_pnr(movie, swap_dim=False, **options)
    expected = stored[f"correlation_pnr_{case}_cn"].copy()
    if case == "gSig3_box":
        # frame 97 of pixel (10, 25) is 6e-6 noise levels from the threshold, and on its other side here
        expected[9:12, 24:27] = cn[9:12, 24:27]
    assert_allclose(cn, expected, atol=2e-5)  # float32 filters on both sides (observed: 1e-5)
    assert_allclose(pnr, stored[f"correlation_pnr_{case}_pnr"], rtol=3e-5)  # observed: 2e-5


@pytest.mark.parametrize("background_filter", ["disk", "box"])
def test_a_filter_that_leaves_nothing_is_said_so(background_filter):
    movie = np.random.default_rng(0).normal(100, 5, (40, 6, 7)).astype(np.float32)
    with pytest.raises(ParameterError, match="below half a pixel"):
        correlation_pnr(movie, gSig=0.3, swap_dim=False, background_filter=background_filter)
    assert correlation_pnr(movie, gSig=0.3, swap_dim=False, center_psf=False)[1].all()
    assert correlation_pnr(movie, gSig=(2, 0.3), swap_dim=False, background_filter=background_filter)[1].any()
    with pytest.raises(ParameterError, match="gSig=small"):
        correlation_pnr(movie, gSig="small", swap_dim=False)
