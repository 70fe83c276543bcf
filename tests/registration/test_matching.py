"""The matched filter: its window, its noise, its band, and that it is fair to the template itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from gpucalcium.backend import to_numpy
from gpucalcium.backend.stencils import difference_kernel
from gpucalcium.registration import matching
from gpucalcium.registration.matching import Matcher, Noise


def cells(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Spots on a smooth background."""
    rng = np.random.default_rng(seed)
    spots = gaussian_filter((rng.uniform(size=shape) > 0.985).astype(float), 1.5) * 60
    return (40 + spots + 20 * gaussian_filter(rng.normal(size=shape), 8) / 0.05).astype(np.float32)


def white(shape: tuple[int, ...], level: float) -> Noise:
    """Noise that is the same at all frequencies and pixels."""
    k = matching.wave_number(shape)
    return Noise(np.full_like(k, level), np.ones_like(k), np.ones_like(k), np.ones(shape))


def test_taper_is_symmetric_and_zero_on_the_margin():
    taper = matching.taper(40, 3.0, 6.0)
    assert_array_equal(taper, taper[::-1])
    assert not taper[:3].any()
    assert (taper[10:30] == 1).all()
    assert (np.diff(taper[:10]) >= 0).all()
    assert_array_equal(matching.taper(1, 0.0, 0.1), [1.0])


@pytest.mark.parametrize("shape", [(16, 12), (15, 13), (8, 9, 5), (1, 9)])
def test_isotropic_keeps_what_is_isotropic(shape):
    k = matching.wave_number(shape)
    power = 1.0 / (0.01 + k**2)
    ring = matching.isotropic(power, shape)
    outside = k > 0
    assert_allclose(ring[outside], power[outside], rtol=0.5)  # a ring is one cycle wide
    flat = matching.isotropic(np.ones_like(k), shape)
    assert_allclose(flat[outside], 1.0)


def test_isotropic_of_nothing_is_nothing():
    assert not matching.isotropic(np.zeros((6, 4)), (6, 6)).any()


def test_multiplicity_makes_the_sums_of_the_full_transform():
    for n in (7, 8):
        image = np.random.default_rng(n).normal(size=(5, n))
        half = np.abs(np.fft.rfftn(image)) ** 2
        assert (half * matching.multiplicity((5, n))).sum() == pytest.approx(
            (np.abs(np.fft.fftn(image)) ** 2).sum()
        )


def test_noise_is_what_is_left_beside_the_mean_image():
    rng = np.random.default_rng(3)
    shape, frames, sigma = (48, 50), 200, 5.0
    image = cells(shape).astype(float)
    movie = image + rng.normal(0, sigma, (frames, *shape))
    window = matching.window(shape, (0, 0))
    centred = image - image.mean()
    power = (np.abs(np.fft.rfftn((movie - image.mean()) * window, axes=(1, 2))) ** 2).mean(0)
    noise = Noise.measured(power, movie.mean(0) - image.mean(), movie.var(0), frames)
    expected = sigma**2 * (window**2).sum()
    assert_allclose(np.median(noise.spectrum), expected, rtol=0.05)
    assert_allclose(np.median(noise.deviation), 1.0, rtol=0.05)
    coherent = matching.isotropic(np.abs(np.fft.rfftn(centred * window)) ** 2, shape)
    assert_allclose(noise.structure[0, 1:6], coherent[0, 1:6], rtol=0.2)


@pytest.mark.parametrize("shape", [(40, 36), (41, 37), (24, 20, 7), (1, 64)])
@pytest.mark.parametrize("high_pass", [False, True])
def test_template_finds_itself_at_zero_with_peak_one(wing, shape, high_pass):
    kernel = difference_kernel((2,) * len(shape), (3,) * len(shape)) if high_pass and 1 not in shape else None
    template = cells(shape)
    bound = tuple(0 if n == 1 else 3 for n in shape)
    found = Matcher.make(template, bound, white(shape, 10.0), kernel).locate(wing.put(template[None]))
    assert_allclose(to_numpy(found.shifts), 0, atol=1e-4)
    assert_allclose(to_numpy(found.peaks), 1, atol=1e-4)
    assert not to_numpy(found.clamped).any()
    assert not to_numpy(found.empty).any()


def test_brightness_and_a_gradient_do_not_matter():
    template = cells((64, 60))
    matcher = Matcher.make(template, (4, 4), white((64, 60), 1.0))
    frame = np.roll(template, (2, -1), (0, 1))
    ramp = np.linspace(0, 5, 60, dtype=np.float32)
    frames = np.stack([frame, frame * 3, frame + 500, frame + ramp])
    found = matcher.locate(frames)
    assert_allclose(found.shifts[0], (-2, 1), atol=0.1)
    for other in found.shifts[1:]:
        assert_allclose(other, found.shifts[0], atol=0.05)
    assert found.peaks[1] == pytest.approx(3 * found.peaks[0], rel=1e-3)


def test_beyond_the_bound_is_clamped_and_flagged():
    template = cells((64, 60))
    matcher = Matcher.make(template, (4, 4), white((64, 60), 1.0))
    frames = np.stack([np.roll(template, s, (0, 1)) for s in ((5, 0), (-5, -5), (3, 4), (0, 0))])
    found = matcher.locate(frames)
    assert_array_equal(found.clamped[[0, 1]], True)
    assert not found.clamped[3]
    assert (np.abs(found.shifts) <= 4).all()
    assert found.shifts[0, 0] == -4
    assert_allclose(found.shifts[1], (4, 4))
    assert_allclose(found.shifts[2], (-3, -4), atol=0.15)  # the window is closed


def test_frames_without_signal_stay_where_they_are():
    template = cells((48, 44))
    frames = np.stack(
        [template, np.full_like(template, 7), np.full_like(template, np.nan), np.zeros_like(template)]
    )
    found = Matcher.make(template, (4, 4), white((48, 44), 1.0)).locate(frames)
    assert_array_equal(found.empty, [False, True, True, True])
    assert_array_equal(found.shifts[1:], 0)


def test_a_template_without_structure_finds_nothing():
    flat = np.full((20, 22), 5, np.float32)
    k = matching.wave_number((20, 22))
    nothing = Noise.unknown(np.zeros_like(k), (20, 22))
    found = Matcher.make(flat, (3, 3), nothing).locate(np.random.default_rng(0).normal(size=(2, 20, 22)))
    assert_array_equal(found.shifts, 0)
    assert found.empty.all()
