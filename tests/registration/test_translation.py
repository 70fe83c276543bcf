"""Displacement between two images: exact ones found, stored results met, bounds closed, edges named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import fourier_shift, gaussian_filter

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, GpuUnavailable, MovieValueError, ParameterError
from gpucalcium.registration.translation import register_translation, register_translation_3d

IMAGE = gaussian_filter(np.random.default_rng(0).normal(size=(31, 42)), 1.5, mode="wrap")
VOLUME = gaussian_filter(np.random.default_rng(1).normal(size=(17, 14, 9)), 1.2, mode="wrap")


def moved(image, by):
    return np.fft.ifftn(fourier_shift(np.fft.fftn(image), by)).real


@settings(deadline=None, max_examples=30)
@given(st.tuples(st.integers(-80, 80), st.integers(-80, 80)))
def test_tenths_of_a_pixel_are_found_exactly(tenths):
    by = np.array(tenths) / 10
    found, _, phase = register_translation(moved(IMAGE, by), IMAGE, 10)
    assert_allclose(found, by, atol=1e-9)
    assert abs(phase) < 1e-9


@pytest.mark.parametrize("factor", [1, 3, 10, 50])
def test_error_is_at_most_half_a_step_of_the_grid(factor):
    by = np.array([1.236, -3.871])
    found, *_ = register_translation(moved(IMAGE, by), IMAGE, factor)
    assert_allclose(found, by, atol=0.5 / factor + 1e-9)


def test_volumes(wing):
    by = np.array([2.3, -1.4, 0.6])
    given = wing.put(moved(VOLUME, by)), wing.put(VOLUME)
    found, freq, _ = register_translation_3d(*given, 10, max_shifts=(4, 4, 2))
    assert_allclose(found, by, atol=1e-9)
    assert_allclose(backend.to_numpy(freq), np.fft.fftn(moved(VOLUME, by)), atol=1e-9)


@pytest.mark.parametrize("factor", [1, 10, 50])
def test_stored_results_are_met(reference, factor):
    movie, stored = reference.inputs("motion")[0]["Y"], reference.load("motion")
    found = [register_translation(f, stored["bin_median"], factor, max_shifts=(8, 8))[0] for f in movie[:30]]
    assert_allclose(found, stored[f"register_translation_up{factor}"], atol=1e-6)


def test_stored_volumes_are_met(reference):
    movie, stored = reference.inputs("motion")[2]["Y"], reference.load("motion")
    found = [register_translation_3d(f, stored["bin_median_3d"], 10, max_shifts=(4, 4, 2))[0] for f in movie]
    assert_allclose(found, stored["register_translation_3d"], atol=1e-6)


@pytest.mark.parametrize(
    ("key", "bounds"),
    [("max2", {"max_shifts": (2, 2)}), ("bounds", {"shifts_lb": [-1, -1], "shifts_ub": [2, 2]})],
)
def test_both_ends_of_the_window_belong_to_it(reference, key, bounds):
    """The stored results leave the upper end out: the largest they reach is 1.7; below 1.5 both are the same."""
    movie, stored = reference.inputs("motion")[0]["Y"], reference.load("motion")
    theirs = stored[f"register_translation_{key}"]
    found = np.array([register_translation(f, stored["bin_median"], 10, **bounds)[0] for f in movie[:30]])
    assert found.max() == 2.0
    assert theirs.max() == 1.7
    inside = (np.abs(theirs) < 1.5).all(axis=1) & (np.abs(found) < 1.5).all(axis=1)
    assert inside.sum() >= 5
    assert_allclose(found[inside], theirs[inside], atol=1e-6)


def test_zero_holds_an_axis():
    frame = moved(IMAGE, (2.3, -1.4))
    assert_allclose(register_translation(frame, IMAGE, 10, max_shifts=(0, 5))[0][0], 0)
    assert_array_equal(register_translation(frame, IMAGE, 10, max_shifts=0)[0], [0, 0])
    found, *_ = register_translation(frame, IMAGE, 10, shifts_lb=(2, -3), shifts_ub=(2, 3))
    assert found[0] == 2
    assert_allclose(found[1], -1.4, atol=0.3)


def test_transforms_may_be_given():
    frame = moved(IMAGE, (1.2, -3.4))
    plain = register_translation(frame, IMAGE, 10)
    given = register_translation(np.fft.fftn(frame), np.fft.fftn(IMAGE), 10, space="fourier")
    assert_allclose(given[0], plain[0])
    assert_allclose(given[1], plain[1], atol=1e-9)
    _, _, phase = register_translation(np.fft.fftn(frame) * 1j, np.fft.fftn(IMAGE), 10, space="fourier")
    assert phase == pytest.approx(np.pi / 2)  # the correlation is imaginary, and says so


def test_twins_agree(wing):
    frame = moved(IMAGE, (1.2, -3.4)).astype("float32")
    found, freq, _ = register_translation(wing.put(frame), wing.put(IMAGE), 10)
    assert_allclose(found, [1.2, -3.4], atol=1e-9)
    assert backend.is_cupy(freq) == (wing.name != "cpu")
    assert_allclose(backend.to_numpy(freq), np.fft.fftn(frame.astype(float)), atol=1e-4)
    mixed, freq, _ = register_translation(frame, wing.put(IMAGE), 10)  # one on the host
    assert_array_equal(mixed, found)
    assert not backend.is_cupy(freq)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64", "bool"])
def test_any_dtype_and_order(dtype):
    image = np.rint(100 + 20 * IMAGE / IMAGE.std()).clip(0, 250)
    image = (image > 100 if dtype == "bool" else image).astype(dtype)
    for frame in (np.roll(image, (3, -2), (0, 1)), np.asfortranarray(np.roll(image, (3, -2), (0, 1)))):
        assert_array_equal(register_translation(frame, image)[0], [3, -2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_pixels_are_taken_from_the_target(bad):
    frame = moved(IMAGE, (2, -3))
    frame[::7, ::5] = bad
    assert_array_equal(register_translation(frame, IMAGE)[0], [2, -3])
    target = IMAGE.copy()
    target[5:9, 5:9] = bad
    assert_array_equal(register_translation(moved(IMAGE, (2, -3)), target)[0], [2, -3])


@pytest.mark.parametrize("frame", [np.full((31, 42), 7.3), np.full((31, 42), np.nan)])
def test_nothing_to_register_stays(frame):
    shifts, *_ = register_translation(frame, IMAGE if np.isfinite(frame).all() else IMAGE * 0 + 1.1, 10)
    assert_array_equal(shifts, [0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 1, 5)])
def test_short_axes(shape):
    image = np.random.default_rng(0).normal(size=shape)
    shifts, *_ = register_translation(image, image, 10, max_shifts=6)
    assert_array_equal(shifts, np.zeros(len(shape)))


def test_errors():
    with pytest.raises(ArrayShapeError, match=r"\(31, 42\), target_image \(31, 41\)"):
        register_translation(IMAGE, IMAGE[:, :-1])
    with pytest.raises(ArrayShapeError, match="use register_translation"):
        register_translation_3d(IMAGE, IMAGE)
    with pytest.raises(ParameterError, match="space='Fourier'"):
        register_translation(IMAGE, IMAGE, space="Fourier")
    with pytest.raises(ParameterError, match=r"upsample_factor=0\.5"):
        register_translation(IMAGE, IMAGE, 0.5)
    with pytest.raises(ParameterError, match="no whole-pixel lag on axis 1"):
        register_translation(IMAGE, IMAGE, shifts_lb=(0, 1.2), shifts_ub=(1, 1.8))
    with pytest.raises(ParameterError, match=r"max_shifts=\(1, 2, 3\)"):
        register_translation(IMAGE, IMAGE, max_shifts=(1, 2, 3))
    with pytest.raises(ParameterError, match="max_shifts=-1"):
        register_translation(IMAGE, IMAGE, max_shifts=-1)
    with pytest.raises(MovieValueError, match="no finite number"):
        register_translation(IMAGE, IMAGE * np.nan)
    with pytest.raises(MovieValueError, match="space='fourier'"):
        register_translation(IMAGE * np.nan, IMAGE, space="fourier")


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch):
    def absent(device):
        raise GpuUnavailable(f"no {device}")

    monkeypatch.setattr(backend, "use", absent)
    with pytest.raises(GpuUnavailable, match="no cuda"):
        register_translation(IMAGE, IMAGE, use_cuda=True)
