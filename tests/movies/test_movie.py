"""Methods of `movie`: against stored results of the reference, plain formulas, and edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.movies import movie, resizing
from gpucalcium.movies.resizing import weights

FRAMES = np.random.default_rng(3).gamma(4, 20, (37, 11, 7)).astype(np.float32)


def example(frames=FRAMES, fr=10.0):
    return movie(frames.copy(), fr=fr)


# ---------------------------------------------------------------------------- resize


@pytest.mark.parametrize(
    ("key", "factors"),
    [
        ("resize_fx05_fy05", (0.5, 0.5, 1)),
        ("resize_fx2_fy1", (2, 1, 1)),
        ("resize_fz05", (1, 1, 0.5)),
        ("resize_fx05_fy075_fz025", (0.5, 0.75, 0.25)),
    ],
)
def test_resize_agrees_with_the_reference(wing, stored, recording, key, factors):
    resized = movie(recording, fr=20).resize(*factors)
    assert_allclose(resized, stored[key], rtol=1e-6)  # float32, another order of sums
    assert resized.fr == 20 * factors[2]


@pytest.mark.parametrize("interpolation", [0, 1, 2, 3, 4])
def test_resizing_keeps_constants_and_the_mean_of_ramps(interpolation):
    for n, new in [(7, 7), (7, 3), (7, 15), (1, 4), (9, 1)]:
        matrix = weights(n, new, interpolation).toarray()
        assert matrix.shape == (new, n)
        assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
        assert_allclose((matrix @ np.arange(n)).mean(), (n - 1) / 2, atol=0.51 if interpolation == 0 else 0.3)


@given(n=st.integers(1, 40), new=st.integers(1, 40))
@settings(deadline=None)
def test_area_preserves_what_is_there(n, new):
    """Each entry gives equally much in all: light is neither lost nor made."""
    matrix = weights(n, new, 3).toarray()
    assert_allclose(matrix.sum(axis=0) * n / new, 1, rtol=1e-5)


@pytest.mark.parametrize(("interpolation", "order"), [(1, 1), (2, None)])
def test_interpolation_between_pixels(interpolation, order):
    line = np.random.default_rng(0).normal(size=12)
    at = (np.arange(30) + 0.5) * 12 / 30 - 0.5
    if order == 1:
        expected = np.interp(at, np.arange(12), line)
    else:
        padded = np.pad(line, 3, mode="edge")
        expected = [
            sum(padded[int(np.floor(x)) + k + 3] * _bicubic(x - np.floor(x) - k) for k in range(-1, 3))
            for x in at
        ]
    assert_allclose(weights(12, 30, interpolation) @ line, expected, rtol=1e-5, atol=1e-6)


def _bicubic(x, a=-0.75):
    x = abs(x)
    return (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pieces_change_nothing(axis, monkeypatch):
    whole = resizing.resize(FRAMES, axis, 5)
    monkeypatch.setattr(resizing, "PIECE", 4 * FRAMES.size // FRAMES.shape[0 if axis else 1] * 3)
    assert_array_equal(resizing.resize(FRAMES, axis, 5), whole)
    assert whole.shape == tuple(5 if a == axis else n for a, n in enumerate(FRAMES.shape))


def test_resize_says_what_it_gives():
    halved = example().resize(0.5, 1, 1)
    assert halved.shape == (37, 5, 7)
    slower = example(FRAMES[:20], fr=30).resize(fz=0.3)
    assert slower.shape == (6, 11, 7)
    assert slower.fr == 9
    assert example(FRAMES[:1]).resize(fz=0.5).shape == (1, 11, 7)
    assert_array_equal(example().resize(), FRAMES)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_resize_keeps_the_dtype(wing, dtype):
    frames = np.array([[[0, 1, 255]]]).astype(dtype)
    for interpolation in range(5):
        resized = movie(frames, fr=1).resize(1, 2.4, 1, interpolation)
        assert resized.dtype == dtype
        assert resized.max() <= (255 if dtype == "uint8" else 400)
    assert_array_equal(
        movie(np.array([[[0, 1, 1, 1]]], dtype), fr=1).resize(fy=0.5)[0, 0],
        [0 if dtype != "float64" else 0.5, 1],
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((0.01, 1, 1), "at least 0.09"), ((1, 1, 0), "factor of 0"), ((1, 2, 1, 9), "interpolation=9")],
)
def test_resize_refuses(arguments, text):
    with pytest.raises(ParameterError, match=text):
        example().resize(*arguments)


# ---------------------------------------------------------------------------- shape


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("shape", [(5, 3, 2), (5, 3, 2, 4)])
def test_matrices_of_pixels_and_time(order, shape):
    frames = np.random.default_rng(0).normal(size=shape)
    m = movie(frames, fr=3)
    matrix = m.to2DPixelxTime(order)
    assert matrix.shape == (frames[0].size, 5)
    assert_array_equal(matrix, np.stack([f.ravel("C" if order == "F" else "F") for f in frames], axis=1))
    back = matrix.to3DFromPixelxTime(shape, order)
    assert_array_equal(back, frames)
    assert back.fr == 3
    assert_array_equal(m.to_2D("C"), np.stack([f.ravel() for f in frames]))


def test_matrices_agree_with_the_reference(stored, recording):
    assert_array_equal(movie(recording, fr=20).to2DPixelxTime()[::50], stored["to2DPixelxTime"])
    assert_array_equal(movie(recording, fr=20).to_2D()[:, ::50], stored["to_2D"])


def test_crop_is_a_view():
    m = example()
    cropped = m.crop(1, 2, 3, 1, 4, 5)
    assert_array_equal(cropped, FRAMES[4:-5, 1:-2, 3:-1])
    assert np.shares_memory(cropped, m)
    assert_array_equal(m.crop(), FRAMES)
    for wrong in ({"crop_top": 6, "crop_bottom": 5}, {"crop_end": -1}):
        with pytest.raises(ParameterError, match="cropping"):
            m.crop(**wrong)


# ---------------------------------------------------------------------------- images


def test_bin_median_agrees_with_the_reference(stored, recording):
    """The reference takes every n-th frame into a bin; the movie is reordered so that these are in a row."""
    n = len(recording) // 10
    reordered = recording.reshape(10, n, *recording.shape[1:]).swapaxes(0, 1).reshape(recording.shape)
    assert_allclose(movie(reordered, fr=1).bin_median(), stored["bin_median"], rtol=1e-6)


def test_bin_median():
    expected = np.median(FRAMES[:35].reshape(7, 5, 11, 7).mean(axis=1), axis=0)
    assert_allclose(example().bin_median(5), expected, rtol=1e-5)
    assert_allclose(example().bin_median(1000), FRAMES.mean(axis=0), rtol=1e-5)
    assert_array_equal(example(FRAMES[:1]).bin_median(), FRAMES[0])
    volumes = FRAMES.reshape(37, 11, 7, 1)
    assert_allclose(movie(volumes, fr=1).bin_median_3d(5)[..., 0], expected, rtol=1e-5)
    with pytest.raises(ArrayShapeError, match="bin_median_3d"):
        example().bin_median_3d()
    with pytest.raises(ParameterError, match="window=0"):
        example().bin_median(0)


def test_bin_median_ignores_nan():
    frames = FRAMES.copy()
    frames[3, 2, 2] = np.nan
    image = movie(frames, fr=1).bin_median(5)
    assert np.isfinite(image).all()


def test_zproject(stored, recording):
    pytest.importorskip("matplotlib").use("agg")
    for method in ("mean", "median", "std"):
        assert_allclose(movie(recording, fr=1).zproject(method), stored[f"zproject_{method}"], rtol=1e-4)
    with pytest.raises(ParameterError, match="Method not implemented"):
        example().zproject("mode")


def test_calc_min():
    frames = FRAMES.copy()
    frames[4, 0, 0], frames[5, 1, 1] = -3, np.nan
    assert movie(frames, fr=1).calc_min() == -3
    assert movie(np.full((2, 2, 2), 7, np.uint8), fr=1).calc_min() == 7


def test_local_correlations_of_long_movies_are_maxima_over_chunks():
    from gpucalcium.images import local_correlations

    frames = np.random.default_rng(0).normal(size=(3100, 4, 3)).astype(np.float32)
    parts = [local_correlations(p, True, swap_dim=False) for p in (frames[:1500], frames[1500:])]
    assert_array_equal(movie(frames, fr=1).local_correlations(eight_neighbours=True), np.maximum(*parts))
    assert_array_equal(
        movie(np.moveaxis(frames[:50], 0, -1), fr=1).local_correlations(swap_dim=True),
        local_correlations(frames[:50], False, swap_dim=False),
    )


# ---------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("method", ["only_baseline", "delta_f_over_f", "delta_f_over_sqrt_f"])
def test_dff_agrees_with_the_reference(wing, stored, recording, method):
    change, level = movie(recording, fr=20).computeDFF(secsWindow=1, quantilMin=8, method=method)
    assert_allclose(change[::30], stored[f"computeDFF_{method}_movie_every30"], atol=2e-5)
    assert_allclose(level[::30], stored[f"computeDFF_{method}_baseline_every30"], rtol=1e-6)


@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("seconds", [0.01, 0.7, 1.7, 3.7, 50])
def test_dff_has_the_length_of_the_movie(seconds, order):
    change, level = example().computeDFF(seconds, order=order)
    assert change.shape == level.shape == FRAMES.shape
    assert_allclose(change + level, FRAMES, rtol=1e-5)
    assert change.fr == 10


def test_dff_of_a_constant_is_zero():
    change, level = movie(np.full((9, 2, 2), 4, np.uint16), fr=2).computeDFF(1, method="delta_f_over_f")
    assert_array_equal(change, 0)
    assert_array_equal(level, 4)
    assert change.dtype == np.float32


def test_dff_in_place():
    m, expected = example(), example().computeDFF(1)
    change, level = m.computeDFF(1, in_place=True)
    assert np.shares_memory(change, m)
    assert_array_equal(m, expected[0])
    assert_array_equal(level, expected[1])
    with pytest.raises(ParameterError, match=r"uint8 cannot hold.*astype"):
        movie(np.ones((3, 2, 2), np.uint8), fr=1).computeDFF(1, in_place=True)


def test_dff_refuses():
    with pytest.raises(ParameterError, match="Unknown method"):
        example().computeDFF(method="df")
    with pytest.raises(ParameterError, match="between 0 and 100"):
        example().computeDFF(quantilMin=101)
    with pytest.raises(MovieValueError, match=r"All pixels must be positive.*smallest is 0"):
        movie(FRAMES * 0, fr=1).computeDFF(method="delta_f_over_f")


def test_remove_baseline_agrees_with_the_reference(wing, stored, recording):
    m = movie(recording, fr=20)
    assert_allclose(m.removeBL(30, 8)[::30], stored["removeBL"], atol=2e-5)
    assert_allclose(m.removeBL(30, 8, returnBL=True)[::30], stored["removeBL_returnBL"], rtol=1e-6)


@pytest.mark.parametrize("window", [1, 18, 19, 36, 37, 38, 500])
def test_remove_baseline_of_any_window(window):
    level = example().removeBL(window, returnBL=True)
    assert level.shape == FRAMES.shape
    if window > 18:  # less than two windows: one level
        assert_allclose(level, np.broadcast_to(np.percentile(FRAMES, 8, axis=0), FRAMES.shape), rtol=1e-5)
    assert_allclose(example().removeBL(window) + level, FRAMES, rtol=1e-4, atol=1e-4)
    m = example()
    assert np.shares_memory(m.removeBL(window, in_place=True), m)


def test_debleach_removes_the_fall():
    t = np.arange(400)
    fall = 80 * np.exp(-t / 150) + 100
    noise = np.random.default_rng(0).normal(0, 2, (400, 8, 8))
    flat = movie((fall[:, None, None] + noise).astype(np.float32), fr=10).debleach()
    level = np.median(flat, axis=(1, 2))
    assert level.std() < 0.6  # the noise of a median of 64 pixels is 0.3
    assert_allclose(np.median(level), np.median(fall), atol=1)


@pytest.mark.parametrize("frames", [1, 2, 3, 30])
def test_debleach_of_short_and_straight_movies(frames):
    steady = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None], (frames, 2, 2)).copy()
    assert np.ptp(movie(steady, fr=1).debleach()) < 0.5


# ---------------------------------------------------------------------------- filters


def test_blurs_agree_with_the_reference(stored, recording):
    def blurred(**sizes):
        return movie(recording.copy(), fr=20).gaussian_blur_2D(**sizes)[::30]

    plain = blurred(kernel_size_x=5, kernel_size_y=5, kernel_std_x=1.5, kernel_std_y=1.5)
    assert_allclose(plain, stored["gaussian_blur_2D"], rtol=2e-6)
    uneven = blurred(kernel_size_x=7, kernel_size_y=3, kernel_std_x=2, kernel_std_y=1)
    assert_allclose(uneven, stored["gaussian_blur_2D_aniso"], rtol=2e-6)
    assert_array_equal(movie(recording.copy(), fr=20).median_blur_2D(3)[::30], stored["median_blur_2D"])


def test_blurs_work_in_place(wing):
    m = example()
    assert m.gaussian_blur_2D() is m
    assert not np.allclose(m, FRAMES)
    m = example()
    assert m.median_blur_2D() is m
    assert_array_equal(m[4], ndimage.median_filter(FRAMES[4], 3, mode="nearest"))


@pytest.mark.parametrize("border", ["replicate", "reflect", "reflect101", "constant", 1])
def test_what_lies_beyond_the_border(wing, border):
    mode = {
        "replicate": "nearest",
        1: "nearest",
        "reflect": "reflect",
        "reflect101": "mirror",
        "constant": "constant",
    }
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 1.3) ** 2)
    kernel /= kernel.sum()
    expected = ndimage.convolve1d(
        ndimage.convolve1d(FRAMES[0], kernel, 0, mode=mode[border]), kernel, 1, mode=mode[border]
    )
    blurred = example().gaussian_blur_2D(5, 5, 1.3, 1.3, border)
    assert_allclose(blurred[0], expected, rtol=1e-5)


def test_a_standard_deviation_of_zero_follows_from_the_size():
    assert_array_equal(example().gaussian_blur_2D(5, 5, 0, -1), example().gaussian_blur_2D(5, 5, 1.1, 1.1))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m.gaussian_blur_2D(4, 5), "must be odd"),
        (lambda m: m.gaussian_blur_2D(borderType="wrap"), "replicate"),
        (lambda m: m.median_blur_2D(2), "must be odd"),
    ],
)
def test_blurs_refuse(call, text):
    with pytest.raises(ParameterError, match=text):
        call(example())


# ---------------------------------------------------------------------------- traces


def test_traces_from_masks(wing):
    masks = np.random.default_rng(0).random((3, 11, 7))
    traces = example().extract_traces_from_masks(masks)
    expected = np.einsum("tij,nij->tn", FRAMES.astype(np.float64), masks) / masks.sum(axis=(1, 2))
    assert_allclose(traces, expected, rtol=1e-5)
    assert traces.fr == 10
    one = example().extract_traces_from_masks(masks[1] > 0.5)
    assert_allclose(one[:, 0], FRAMES[:, masks[1] > 0.5].mean(axis=1), rtol=1e-5)
    with pytest.raises(ArrayShapeError, match="do not fit"):
        example().extract_traces_from_masks(masks[:, :5])
    with pytest.raises(ParameterError, match="mask 0 sums to 0"):
        example().extract_traces_from_masks(masks * 0)
