"""Smoothing of frames in place: stored results, plain formulas, edges. Others in test_movie.py."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.movies import movie

FRAMES = np.random.default_rng(3).gamma(4, 20, (9, 13, 17)).astype(np.float32)


def test_bilateral_agrees_with_the_reference(wing, recording, stored):
    blurred = movie(recording.copy(), fr=20).bilateral_blur_2D(5, 50, 5)
    assert_allclose(blurred[::30], stored["bilateral_blur_2D"], atol=2e-4)
    assert blurred.fr == 20


def test_bilateral_keeps_edges_and_its_defaults_blur():
    step = np.zeros((1, 8, 12), np.float32)
    step[:, :, 6:] = 1000
    assert_allclose(movie(step.copy()).bilateral_blur_2D(5, 10, 3), step, atol=1e-3)
    assert 0 < movie(step.copy()).bilateral_blur_2D()[0, 4, 5] < 500
    wide, narrow = (movie(FRAMES.copy()).bilateral_blur_2D(0, 1e4, s) for s in (3, 1))
    assert wide.std() < narrow.std() < FRAMES.std()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_blurs_keep_the_dtype_and_work_in_place(wing, dtype):
    for blur in (
        lambda m: m.bilateral_blur_2D(),
        lambda m: m.median_blur_2D(),
        lambda m: m.gaussian_blur_2D(),
        lambda m: m.guided_filter_blur_2D(FRAMES[0]),
    ):
        given = movie(FRAMES.clip(0, 127).astype(dtype))
        blurred = blur(given)
        assert blurred is given and blurred.dtype == dtype
        assert blurred.astype(float).std() < FRAMES.clip(0, 127).std()


def guided(p, I, radius, eps):  # noqa: E741
    """Every window by least squares, then the mean over windows."""
    pad = [(radius, radius)] * 2
    p, I = (np.pad(x, pad, mode="symmetric") for x in (p, I))  # noqa: E741
    side, dims = 2 * radius + 1, [n - 2 * radius for n in I.shape]
    a, b = np.empty(dims), np.empty(dims)
    for i, j in np.ndindex(*dims):
        x, y = I[i : i + side, j : j + side].ravel(), p[i : i + side, j : j + side].ravel()
        a[i, j] = np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + eps)
        b[i, j] = y.mean() - a[i, j] * x.mean()
    a, b = (ndimage.uniform_filter(z, side, mode="reflect") for z in (a, b))
    return a * I[radius : radius + dims[0], radius : radius + dims[1]] + b


@pytest.mark.parametrize(("radius", "eps"), [(2, 0.0), (5, 100.0), (0, 1.0)])
def test_guided_filter_fits_the_guide_in_every_window(wing, radius, eps):
    guide = FRAMES[0].astype(np.float64)
    filtered = movie(FRAMES.copy()).guided_filter_blur_2D(guide, radius, eps)
    for frame, result in zip(FRAMES, np.asarray(filtered), strict=True):
        assert_allclose(result, guided(frame, guide, radius, eps), rtol=1e-4, atol=2e-3)


def test_a_frame_guided_by_itself_stays_and_a_flat_guide_is_a_box():
    itself = movie(FRAMES[:1].copy()).guided_filter_blur_2D(FRAMES[0])
    assert_allclose(itself, FRAMES[:1], rtol=1e-3)
    flat = movie(FRAMES.copy()).guided_filter_blur_2D(np.full((13, 17), 5.0), 2)
    box = ndimage.uniform_filter(ndimage.uniform_filter(FRAMES, (0, 5, 5)), (0, 5, 5))
    assert_allclose(flat, box, rtol=1e-5)


def test_large_offsets_do_not_matter():
    plain = movie(FRAMES.astype(np.float64)).guided_filter_blur_2D(FRAMES[0], 3, 10)
    lifted = movie(FRAMES.astype(np.float64) + 2**16).guided_filter_blur_2D(FRAMES[0] + 2**16, 3, 10)
    assert_allclose(lifted - 2**16, plain, atol=0.1)  # float32 of 65,536 has steps of 1/128


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_change_nothing(chunk):
    whole = movie(FRAMES.copy()).bilateral_blur_2D(), movie(FRAMES.copy()).guided_filter_blur_2D(FRAMES[0])
    with backend.limit(chunk_frames=chunk):
        parts = (
            movie(FRAMES.copy()).bilateral_blur_2D(),
            movie(FRAMES.copy()).guided_filter_blur_2D(FRAMES[0]),
        )
    for a, b in zip(whole, parts, strict=True):
        assert_array_equal(a, b)


def test_nan_stays_near():
    frames = FRAMES.copy()
    frames[2, 6, 8] = np.nan
    blurred = movie(frames).bilateral_blur_2D(3)
    where = np.argwhere(np.isnan(blurred))
    assert len(where) and (where[:, 0] == 2).all() and (abs(where[:, 1:] - (6, 8)) <= 1).all()


def test_blurs_say_what_is_wrong():
    volumes = movie(np.ones((2, 3, 4, 5)))
    with pytest.raises(NotSupportedError, match="plane by plane"):
        volumes.guided_filter_blur_2D(np.ones((3, 4, 5)))
    frames = movie(FRAMES.copy())
    with pytest.raises(ArrayShapeError, match="the guide has shape"):
        frames.guided_filter_blur_2D(np.ones((3, 3)))
    with pytest.raises(ParameterError, match="neither can be negative"):
        frames.guided_filter_blur_2D(FRAMES[0], -1)
    with pytest.raises(MovieValueError, match="the guide holds NaN"):
        frames.guided_filter_blur_2D(np.full((13, 17), np.nan))


@pytest.mark.parametrize(
    "blur",
    [
        lambda m: m.gaussian_blur_2D(5, 3, 1.2, 0.8),
        lambda m: m.median_blur_2D(3),
        lambda m: m.bilateral_blur_2D(3, 20, 1),
    ],
)
def test_planes_of_volumes_are_blurred_alike(wing, blur):
    volumes = np.random.default_rng(0).gamma(2, 30, (6, 11, 9, 3)).astype(np.float32)
    planes = [np.asarray(blur(movie(volumes[..., k].copy(), fr=1))) for k in range(3)]
    assert_array_equal(np.asarray(blur(movie(volumes.copy(), fr=1))), np.stack(planes, axis=-1))


def test_integers_stay_within_their_range(wing):
    """A guided filter follows its guide beyond the frame's own values: these are clipped, not wrapped."""
    frames = np.zeros((3, 12, 12), np.uint8)
    frames[:, :, 6:] = 255
    guide = np.arange(144.0).reshape(12, 12) % 12
    expected = movie(frames.astype(np.float32), fr=1).guided_filter_blur_2D(guide, 3)
    assert expected.max() > 255.5 or expected.min() < -0.5
    blurred = movie(frames, fr=1).guided_filter_blur_2D(guide, 3)
    assert_array_equal(np.asarray(blurred), np.clip(np.rint(np.asarray(expected)), 0, 255))


def test_movies_that_cannot_be_written_to_are_not_blurred():
    frames = np.ones((2, 5, 5), np.float32)
    frames.flags.writeable = False
    with pytest.raises(ParameterError, match=r"mode='r\+'"):
        movie(frames, fr=1).median_blur_2D()


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 1, 6), (2, 5, 1), (3, 2, 2), (4, 33, 67), (2, 9, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_median_of_nine_pixels_is_scipys(wing, shape, dtype):
    frames = np.random.default_rng(0).normal(100, 30, shape).astype(dtype)
    size = (1, 3, 3, 1)[: len(shape)]
    expected = ndimage.median_filter(frames, size, mode="nearest")
    assert_array_equal(np.asarray(movie(frames, fr=1).median_blur_2D(3)), expected)
