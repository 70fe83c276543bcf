"""Template matching and moving frames: stored results, simulated motion, SciPy, edges."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.movies import load_memmap, movie


@pytest.fixture(scope="session")
def moving(reference):
    """Images that move rigidly by up to 4 pixels, and stored results for them."""
    return reference.inputs("motion")[0]["Y"], reference.load("motion")


def scene(shape=(31, 29), seed=0):
    image = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.2)
    return ((image - image.min()) * 1000).astype(np.float32)


def rolled(shifts, image=None):
    """Frames whose content the `shifts` move back to where it is in the image."""
    image = scene() if image is None else image
    return np.stack([np.roll(image, (-int(a), -int(b)), (0, 1)) for a, b in shifts])


# ---------------------------------------------------------------------------- finding shifts


def test_shifts_agree_with_the_reference(wing, moving):
    frames, stored = moving
    shifts, xcorrs = movie(frames).extract_shifts(8, 8)
    # float32 correlations there, float64 here
    assert_allclose(shifts, stored["movie_extract_shifts_shifts"], atol=3e-4)
    assert_allclose(xcorrs, stored["movie_extract_shifts_xcorrs"], atol=1e-6)


@pytest.mark.parametrize("method", ["opencv", "skimage"])
def test_correlation_is_the_formula(wing, method):
    """R of one frame, displacement by displacement."""
    from gpucalcium import backend
    from gpucalcium.movies.template_matching import Template

    template, frame = scene().astype(np.float64), scene(seed=1)
    inner = template[2:-2, 3:-3]
    expected = np.empty((5, 7))
    for a, b in np.ndindex(5, 7):
        part, cut = frame[a : a + 27, b : b + 23].astype(np.float64), inner
        if method == "skimage":
            part, cut = part - part.mean(), cut - cut.mean()
        expected[a, b] = (cut * part).sum() / np.sqrt((cut**2).sum() * (part**2).sum())
    found = Template(template, (2, 3), method == "skimage").correlations(backend.put(frame[None]))
    assert_allclose(backend.to_numpy(found)[0], expected, atol=1e-9)


@pytest.mark.parametrize("method", ["opencv", "skimage"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_whole_shifts_are_found(method, dtype):
    image = np.round(scene() / 4).astype(dtype)
    truth = np.array([(0, 0), (3, -2), (-4, 1), (2, 5), (-3, -5)])
    shifts, xcorrs = movie(rolled(truth, image)).extract_shifts(6, 5, image, method)
    assert_allclose(shifts, truth, atol=0.3)  # the parabola is biased where the image is rough
    assert shifts.shape == (5, 2) and xcorrs.shape == (5, 1)


def test_shift_at_the_bound_and_axes_held_still():
    truth = [(3, 0), (-3, 0), (0, 2)]
    shifts, _ = movie(rolled(truth)).extract_shifts(0, 3, scene())
    assert_array_equal(shifts[:, 1], 0)
    assert_allclose(shifts[:2, 0], [3, -3])


def test_negative_movies_are_raised():
    truth = [(1, 1), (0, -2), (0, 0)]
    raised = movie(rolled(truth) - 500).extract_shifts(3, 3, scene() - 500)[0]
    assert_allclose(raised, truth, atol=0.3)


def test_missing_pixels_come_from_the_template_and_dark_frames_stay_finite():
    frames = rolled([(2, 1)] * 4)
    frames[1, 5:9, 7] = np.nan
    frames[2] = 0
    frames[3] = np.nan
    shifts, xcorrs = movie(frames).extract_shifts(4, 4, scene())
    assert np.isfinite(shifts).all() and np.isfinite(xcorrs).all()
    assert_allclose(shifts[:2], [(2, 1)] * 2, atol=0.3)
    assert_allclose(shifts[3], 0, atol=0.3)


def test_the_default_template_is_the_median_of_what_is_known():
    frames = rolled([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)])
    frames[0, 3, 4] = np.nan
    by_default = movie(frames).extract_shifts(3, 3)
    given = movie(frames).extract_shifts(3, 3, np.nanmedian(frames, axis=0))
    for a, b in zip(by_default, given, strict=True):
        assert_allclose(a, b, atol=1e-5)


def test_chunks_change_nothing(moving):
    from gpucalcium import backend

    frames = movie(moving[0][:20])
    whole = frames.extract_shifts(6, 6, moving[0].mean(axis=0))
    with backend.limit(chunk_frames=3):
        parts = frames.extract_shifts(6, 6, moving[0].mean(axis=0))
    for a, b in zip(whole, parts, strict=True):
        assert_array_equal(a, b)


def test_finding_says_what_is_wrong():
    frames = movie(rolled([(0, 0), (1, 1)]))
    with pytest.raises(ParameterError, match="less than half"):
        frames.extract_shifts(5, 16)
    with pytest.raises(ParameterError, match="Method unknown"):
        frames.extract_shifts(method="fft")
    with pytest.raises(ArrayShapeError, match="template has shape"):
        frames.extract_shifts(template=np.ones((3, 3)))
    with pytest.raises(MovieValueError, match="no finite number"):
        frames.extract_shifts(template=np.full((31, 29), np.nan))
    with pytest.raises(ArrayShapeError, match="motion_correct_3d"):
        movie(np.ones((2, 9, 9, 9))).extract_shifts(1, 1)


# ---------------------------------------------------------------------------- moving frames


def test_moved_frames_agree_with_the_reference(wing, recording, stored):
    shifts = np.tile([1.5, -2], (120, 1))
    moved = movie(recording, fr=20).apply_shifts(shifts, "cubic")
    assert_allclose(moved[::30], stored["apply_shifts_opencv"], atol=1e-3)
    assert moved.fr == 20 and moved.dtype == np.float32
    by_skimage = movie(recording[::30]).apply_shifts(shifts[:4], "cubic", "skimage")
    # the reference leaves zeros where nothing is known, this is the reflection
    inside = np.s_[:, 4:-4, 4:-4]
    assert_allclose(by_skimage[inside], stored["apply_shifts_skimage"][inside], atol=1e-3)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "area", "lanczos4"])
def test_whole_shifts_are_exact(wing, interpolation):
    frames = np.random.default_rng(0).integers(0, 200, (3, 11, 13)).astype(np.uint8)
    shifts = [(0, 0), (2, -3), (-1, 4)]
    moved = movie(frames).apply_shifts(shifts, interpolation)
    for frame, by, result in zip(frames, shifts, np.asarray(moved), strict=True):
        assert_allclose(result, ndimage.shift(frame, by, order=0, mode="reflect"), atol=1e-4)


@pytest.mark.parametrize("method", ["opencv", "skimage"])
def test_linear_is_scipys(wing, method):
    frames = np.random.default_rng(0).random((4, 11, 13)).astype(np.float32)
    shifts = np.array([(0.25, -0.5), (7.3, 2.6), (-1.9, -12.2), (25.5, 0)])
    moved = movie(frames).apply_shifts(shifts, "linear", method)
    for frame, by, result in zip(frames, shifts, np.asarray(moved), strict=True):
        assert_allclose(result, ndimage.shift(frame, by, order=1, mode="reflect"), atol=1e-4)


@pytest.mark.parametrize("interpolation", ["cubic", "lanczos4"])
def test_nothing_beyond_the_frames_own_range(interpolation):
    frames = (np.random.default_rng(0).random((5, 12, 14)) > 0.5).astype(np.float32)
    moved = movie(frames).apply_shifts(np.full((5, 2), 0.5), interpolation)
    assert moved.min() >= 0 and moved.max() <= 1
    assert_allclose(
        movie(np.full((2, 5, 6), 3.0)).apply_shifts([(0.3, 1.7)] * 2, interpolation), 3, rtol=1e-6
    )


def test_nan_stays_where_it_is_moved_to():
    frames = np.ones((1, 9, 9), np.float32)
    frames[0, 4, 4] = np.nan
    moved = movie(frames).apply_shifts([(1, 0)], "nearest")
    assert_array_equal(np.argwhere(np.isnan(moved[0])), [(5, 4)])


def test_blanks_are_cut_off():
    moved = movie(rolled([(2, 0), (-1, 3)])).apply_shifts([(2, 0), (-1, 3)], remove_blanks=True)
    assert moved.shape == (2, 28, 26)
    assert_allclose(moved[0], moved[1], atol=1e-3)


def test_volumes_move():
    volume = ndimage.gaussian_filter(np.random.default_rng(0).random((8, 9, 7)), 1).astype(np.float32)
    moved = movie(volume[None]).apply_shifts([(1, 0, -2)])
    assert_allclose(moved[0, 1:, :, :-2], volume[:-1, :, 2:], atol=1e-5)


def test_online_moves_into_a_movie_or_a_map(tmp_path):
    frames = movie(rolled([(1, 0), (0, 2)]))
    moved = frames.apply_shifts_online([(1, 0), (0, 2)])
    assert_array_equal(moved, frames.apply_shifts([(1, 0), (0, 2)], "cubic"))
    name = frames.apply_shifts_online([(1, 0), (0, 2)], tmp_path / "moved")
    values, dims, T = load_memmap(name)
    assert "order_F" in name and dims == (31, 29) and T == 2
    assert_array_equal(values.T.reshape(2, 31, 29, order="F"), moved)


def test_moving_says_what_is_wrong():
    frames = movie(rolled([(0, 0), (1, 1)]))
    with pytest.raises(ParameterError, match="Interpolation method not available"):
        frames.apply_shifts([(0, 0)] * 2, "spline")
    with pytest.raises(ParameterError, match="Interpolation method not available"):
        frames.apply_shifts([(0, 0)] * 2, "lanczos4", "skimage")
    with pytest.raises(ParameterError, match="Method unknown"):
        frames.apply_shifts([(0, 0)] * 2, method="numpy")
    with pytest.raises(ArrayShapeError, match="shifts have shape"):
        frames.apply_shifts([(0, 0)])
    with pytest.raises(ParameterError, match="NaN"):
        frames.apply_shifts([(0, np.nan)] * 2)


# ---------------------------------------------------------------------------- both


@pytest.mark.parametrize("method", ["opencv", "skimage"])
def test_motion_is_corrected(moving, method):
    frames, stored = moving
    moved, shifts, xcorrs, template = movie(frames, fr=20).motion_correct(8, 8, method=method)
    left = shifts + stored["rigid_true_shifts"]
    assert (np.abs(left - np.median(left, axis=0)) < 0.5).mean() > 0.9
    assert moved.shape == frames.shape and xcorrs.shape == (100, 1) and template.shape == frames.shape[1:]
    inside = np.s_[:, 6:-6, 6:-6]
    still = np.std(np.asarray(moved)[inside], axis=0).mean()
    assert still < 0.9 * np.std(frames[inside], axis=0).mean()
    assert moved.fr == 20


def test_motion_is_corrected_to_a_given_template():
    truth = [(1, -1), (2, 0), (0, 0)]
    moved, shifts, _, template = movie(rolled(truth)).motion_correct(
        4, 4, template=scene(), remove_blanks=True, interpolation="nearest"
    )
    assert_allclose(shifts, truth, atol=0.3)
    assert_allclose(template, scene() - np.percentile(scene(), 8), rtol=1e-5)
    assert moved.shape[1] < 31


def test_frames_of_the_first_template():
    frames = movie(rolled([(0, 0), (1, 1), (-1, 0), (0, 2)]))
    few = frames.motion_correct(4, 4, num_frames_template=4)
    assert_allclose(few[1] - few[1][0], np.array([(0, 0), (1, 1), (-1, 0), (0, 2)]), atol=0.6)
    with pytest.raises(ParameterError, match="num_frames_template=0"):
        frames.motion_correct(4, 4, num_frames_template=0)
    with pytest.raises(ParameterError, match="Interpolation method not available"):
        frames.motion_correct(4, 4, interpolation="spline")


def test_one_frame_stays():
    moved, shifts, _, _ = movie(scene()[None]).motion_correct()
    assert_allclose(shifts, 0, atol=0.05)
    assert_allclose(moved[0], scene(), atol=0.05 * np.ptp(scene()))


def test_volumes_are_corrected(reference, moving):
    frames = reference.inputs("motion")[2]["Y"]
    moved, shifts, xcorrs, template = movie(frames).motion_correct_3d(2, 4, 4)
    left = shifts + moving[1]["volume_true_shifts"]
    assert np.abs(left - np.median(left, axis=0)).mean() < 0.25
    assert moved.shape == frames.shape and xcorrs.shape == (30, 1) and template.shape == frames.shape[1:]
    cut = movie(frames).motion_correct_3d(2, 4, 4, template=template, remove_blanks=True)[0]
    assert cut.shape[1] < moved.shape[1]
    with pytest.raises(ArrayShapeError, match="use motion_correct"):
        movie(np.ones((2, 9, 9))).motion_correct_3d()
    with pytest.raises(ParameterError, match="not supported for volumes"):
        movie(frames).motion_correct_3d(interpolation="linear")
