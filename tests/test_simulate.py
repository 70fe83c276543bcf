"""The simulator keeps to its own model, so that it can judge everything else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import lfilter

from gpucalcium.errors import ParameterError
from gpucalcium.simulate import ar_coefficients, two_photon

STILL = {"T": 400, "shape": (61, 53), "K": 12, "seed": 3}
MOVING = {"T": 150, "shape": (64, 70), "K": 14, "motion": 4.0, "resting": 40.0, "seed": 5}


@pytest.fixture(scope="module")
def still():
    return two_photon(**STILL, dtype="float32")


@pytest.fixture(scope="module")
def moving():
    return two_photon(**MOVING)


def in_images(columns, dims):
    return columns.T.reshape(-1, dims[1], dims[0]).transpose(0, 2, 1)


def test_expected_frames_are_the_factorised_model(still):
    model = in_images(still.A @ still.C + still.b @ still.f, still.dims)
    assert_allclose(still.expected(), model, rtol=2e-6)
    assert_array_equal(still.expected(slice(30, 35)), still.expected()[30:35])


def test_noise_is_photons_plus_reading():
    scene = two_photon(**STILL, gain=3.0, read_noise=5.0, offset=100.0, dtype="float32")
    expected = scene.expected()
    residual = scene.movie - expected
    # 1.4 million samples: the mean of the residual has a standard error near 0.012, the variance ratio 0.0012
    assert abs(residual.mean()) < 0.06
    z = residual**2 / (3.0 * (expected - 100.0) + 25.0)
    assert_allclose(z.mean(), 1, atol=0.006)
    assert_allclose(scene.movie.mean(0), expected.mean(0), atol=6 * np.sqrt(3 * 150 / 400))


def test_camera_rounds_and_clips(still):
    camera = two_photon(**STILL)
    assert camera.movie.dtype == np.uint16
    assert_array_equal(camera.movie, np.rint(np.maximum(still.movie, 0)))


def test_same_seed_same_movie_on_any_number_of_threads(moving, monkeypatch):
    monkeypatch.setattr("gpucalcium.backend.threads", lambda: 1)
    again = two_photon(**MOVING)
    assert_array_equal(again.movie, moving.movie)
    assert (again.A != moving.A).nnz == 0
    assert not np.array_equal(two_photon(**MOVING | {"seed": 6}).movie, moving.movie)


@pytest.mark.parametrize("rise_s", [None, 0.08])
def test_traces_follow_their_spikes(rise_s):
    scene = two_photon(200, (48, 48), 5, rise_s=rise_s, rate_hz=1.0, seed=1)
    g, _ = ar_coefficients(20.0, 0.6, rise_s)
    assert_array_equal(scene.g, g)
    calcium = lfilter([1.0], np.r_[1.0, -g], scene.S, axis=1)
    assert_allclose(scene.C, calcium + scene.resting[:, None], rtol=1e-4)
    assert_array_equal(scene.S > 0, scene.spike_counts > 0)


def test_spike_rate_and_bursts():
    lone = two_photon(4000, (64, 64), 20, rate_hz=1.0, burst=0.0, seed=2).spike_counts
    bursting = two_photon(4000, (64, 64), 20, rate_hz=1.0, burst=0.5, seed=2).spike_counts
    # log-normal rates of median 1 Hz and sigma 0.35 have mean 1.063 Hz; 20 cells scatter by 8 %
    assert_allclose(lone.sum() / 20 / 200, 1.063, rtol=0.25)
    assert_allclose(bursting.sum() / lone.sum(), 2.0, rtol=0.03)  # a geometric tail of mean 1 follows each


def test_footprints_lie_where_the_centres_say(still):
    assert_array_equal(still.A.max(axis=0).toarray().ravel(), 1)
    images = in_images(still.A.toarray(), still.dims)
    for image, center in zip(images, still.centers, strict=True):
        weights = image.sum()
        rows, columns = np.indices(image.shape)
        found = [(rows * image).sum() / weights, (columns * image).sum() / weights]
        assert_allclose(found, center, atol=0.6)  # lobed outlines are not symmetric
        assert 0.5 * np.pi * 4.5**2 < np.count_nonzero(image > 0.25) < 2 * np.pi * 4.5**2


def test_distance_between_cells_is_kept(still):
    apart = np.linalg.norm(still.centers[:, None] - still.centers, axis=2) + 1e9 * np.eye(len(still.centers))
    assert apart.min() >= 1.6 * 4.5


def test_shifts_are_those_of_fourier_cross_correlation(moving):
    """An independent estimate: high-passed frame against frame, phase slope by a dense search."""
    clean = moving.expected() - moving.expected().mean(axis=(1, 2), keepdims=True)
    taper = np.multiply.outer(np.hanning(clean.shape[1]), np.hanning(clean.shape[2]))
    reference = int(np.argmin(np.abs(moving.motion).sum(axis=1)))
    template = np.conj(np.fft.fft2(clean[reference] * taper))
    worst = 0.0
    for frame in range(0, len(clean), 10):
        cross = np.fft.ifft2(np.fft.fft2(clean[frame] * taper) * template).real
        peak = np.array(np.unravel_index(np.argmax(cross), cross.shape))
        size = np.array(cross.shape)
        displaced = (peak + size // 2) % size - size // 2
        worst = max(worst, np.abs(displaced - (moving.motion[frame] - moving.motion[reference])).max())
    assert worst <= 1.0  # whole-pixel peak of a tapered frame, and the sign of both axes


def test_motion_moves_the_scene_exactly(moving):
    """Undoing the true displacement by spline interpolation gives back the resting scene."""
    from scipy.ndimage import shift

    model = in_images(moving.A @ moving.C + moving.b @ moving.f, moving.dims)
    inner = (slice(8, -8), slice(8, -8))
    for frame in (20, 75, 140):
        registered = shift(moving.expected()[frame], moving.shifts[frame], order=5, mode="mirror")
        difference = (registered - model[frame])[inner]
        fringe = np.abs(difference) > 1.0  # cells less than half inside are not in the truth
        assert fringe.mean() < 0.05
        assert np.abs(difference[~fringe]).mean() < 0.1


def test_cells_cut_by_the_border_are_kept_apart(moving, still):
    assert still.A_border.shape[1] == 0
    on_the_rim = np.ones(moving.dims, bool)
    on_the_rim[1:-1, 1:-1] = False
    rim = on_the_rim.ravel(order="F").astype(float)
    assert moving.A_border.shape[1] > 0
    assert np.all(moving.A_border.T @ rim > 0)


def test_tissue_enters_at_the_border(moving):
    frame = int(np.argmax(moving.motion[:, 0]))
    top = moving.expected()[frame, :3]
    assert top.std() > 0.5
    assert np.abs(moving.motion).max() == pytest.approx(4.0, abs=1e-5)
    assert_array_equal(moving.motion, -moving.shifts)


def test_snr_is_that_of_the_matched_filter(still):
    """SNR from the noise of the least-squares trace of isolated cells, measured."""
    noise = (still.movie - still.expected()).transpose(0, 2, 1).reshape(len(still.movie), -1)
    energy = np.asarray(still.A.multiply(still.A).sum(axis=0)).ravel()
    measured = (still.A.T @ noise.T / energy[:, None]).std(axis=1)
    predicted = (still.C.max(axis=1) - still.resting) / still.snr()
    assert_allclose(measured, predicted, rtol=0.25)  # activity adds photons to those at rest
    assert np.all(measured >= 0.9 * predicted)


def test_edges():
    assert two_photon(1, (40, 40), 3).movie.shape == (1, 40, 40)
    empty = two_photon(5, (40, 40), 0)
    assert empty.A.shape == (1600, 0)
    assert empty.C.shape == (0, 5)
    assert two_photon(3, (40, 40), 2, motion=2.0, rate_hz=0).spike_counts.sum() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": 500}, "do not fit 61x53"),
        ({"T": 0}, "T >= 1"),
        ({"radius": 20}, "4 radii"),
        ({"burst": 1.0}, "burst"),
        ({"gain": 0}, "gain must be > 0"),
        ({"motion": -1}, "must be >= 0"),
        ({"rise_s": 2.0}, "rise_s < decay_s"),
        ({"dtype": "int8"}, "uint16 or float32"),
    ],
)
def test_impossible_scenes_are_refused(change, message):
    with pytest.raises(ParameterError, match=message):
        two_photon(**STILL | change)
