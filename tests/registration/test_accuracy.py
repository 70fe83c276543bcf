"""How near to the truth rigid registration comes: small frames, few frames, bad frames, and real recordings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import simulate
from gpucalcium.backend import to_numpy
from gpucalcium.movies import open_movie
from gpucalcium.registration import RigidParams, register_rigid
from gpucalcium.registration.apply import displace
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from tests.registration.scenes import (
    crispness,
    error,
    imposed,
    likeness,
    misses,
    moving_cells,
    pair_likeness,
    plainly_found,
    real_movies,
)

SCENE = moving_cells(seed=2)
BAD = np.array([5, 20, 21, 40])


def found_in(movie, bound=(6, 6), **params):
    return register_rigid(open_movie(movie), RigidParams(max_shifts=bound, **params))


@pytest.fixture(scope="module")
def recordings(request):
    shared = request.getfixturevalue("shared")
    return real_movies(shared / "data/real/movies")


# ---------------------------------------------------------------------------- small frames, few frames


def test_small_frames_are_well_within_a_tenth_of_a_pixel(reference):
    errors = []
    for seed in range(1, 6):
        made = reference.simulate.moving_two_photon(T=100, shape=(64, 60), K=12, max_shift=4.0, seed=seed)
        errors.append([error(found_in(made["Y"], (m, m)).shifts, -made["shifts"]) for m in (4, 6)])
    assert (np.mean(errors, axis=0) < 0.09).all()  # 0.082; photons alone leave 0.05
    assert np.max(errors) < 0.12


def test_activity_is_what_small_frames_gain_from(reference, monkeypatch):
    made = reference.simulate.moving_two_photon(T=100, shape=(64, 60), K=12, max_shift=4.0, seed=1)
    aware = error(found_in(made["Y"]).shifts, -made["shifts"])
    monkeypatch.setattr("gpucalcium.registration.activity.LARGEST", 0)
    assert aware < 0.8 * error(found_in(made["Y"]).shifts, -made["shifts"])


def test_simulated_motion_of_our_own(wing):
    made = simulate.two_photon(T=30, shape=(44, 48), K=12, motion=2.0, seed=4)
    found = found_in(wing.put(made.movie), (3, 3)).shifts
    assert error(to_numpy(found), made.shifts) < 0.1


@pytest.mark.parametrize("T", [2, 3, 5, 15])
def test_few_frames_are_registered_to_each_other(wing, T):
    scene = moving_cells(T=T, largest=2.5, seed=1)
    assert error(found_in(wing.put(scene.movie)).shifts, scene.shifts) < 0.08


def test_noise_of_few_frames_does_not_hold_them():
    rng = np.random.default_rng(0)
    scene = moving_cells(T=4, largest=2.5, seed=3)
    noisy = scene.movie + rng.normal(0, 6, scene.movie.shape).astype(np.float32)
    assert (
        error(found_in(noisy).shifts, scene.shifts) < 0.35
    )  # a mean that held the frame itself would keep it still


# ---------------------------------------------------------------------------- bad frames


def _noise(n, level=0.0, deviation=2.0):
    return np.random.default_rng(0).normal(level, deviation, (n, *SCENE.movie.shape[1:])).astype(np.float32)


SPOILT = {
    "black": lambda frames: np.zeros_like(frames),
    "dark noise": lambda frames: _noise(len(frames)),
    "saturated": lambda frames: np.full_like(frames, 65535),
    "bright noise": lambda frames: _noise(len(frames), 20000, 100),
    "flash, clipped": lambda frames: np.minimum(frames * 40, 2000),
    "rows out of step": lambda frames: np.where(
        np.arange(frames.shape[1])[:, None] % 2 == 0, np.roll(frames, 6, 2), frames
    ),
    "elsewhere": lambda frames: moving_cells(T=len(frames), seed=99).movie,
    "no number": lambda frames: np.full_like(frames, np.nan),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_bad_frames_do_not_spoil_the_template(kind):
    movie = SCENE.movie.copy()
    movie[BAD] = SPOILT[kind](movie[BAD])
    found = found_in(movie)
    good = np.setdiff1d(np.arange(len(movie)), BAD)
    clean = error(found_in(SCENE.movie).shifts[good], SCENE.shifts[good])
    assert error(found.shifts[good], SCENE.shifts[good]) < clean + 0.01
    assert_allclose(found.quality.peak[good], 1, atol=0.15)
    assert np.isfinite(found.shifts).all()


@pytest.mark.parametrize("closed", [15, 30])
def test_shutter_closed_at_the_start(wing, closed):
    movie = SCENE.movie.copy()
    movie[:closed] = _noise(closed)
    found = found_in(wing.put(movie))
    assert error(found.shifts[closed:], SCENE.shifts[closed:]) < 0.04
    assert found.quality.peak[:closed].max() < 0.1


def test_frames_of_another_scene_are_known_by_their_peak(wing):
    movie = SCENE.movie.copy()
    movie[BAD] = moving_cells(T=len(BAD), seed=99).movie
    quality = found_in(wing.put(movie)).quality
    assert quality.peak[BAD].max() < 0.3
    assert np.delete(quality.peak, BAD).min() > 0.8


def test_flags_of_frames_that_cannot_be_found(wing):
    movie = SCENE.movie.copy()
    movie[3] = 12.0
    movie[4] = np.nan
    movie[7, 10:13, 20:24] = np.nan
    movie[9] = np.roll(SCENE.movie[9], 16, 0)
    quality = found_in(wing.put(movie)).quality
    assert_array_equal(np.flatnonzero(quality.no_signal), [3, 4])
    assert_array_equal(np.flatnonzero(quality.missing), [4, 7])
    assert quality.missing[7] == 12
    assert quality.peak[9] < 0.5


def test_beyond_the_bound_is_clamped_and_the_rest_is_not(wing):
    movie = moving_cells(largest=1.5, seed=2).movie[:30]
    movie[4], movie[11] = np.roll(movie[4], (6, 0), (0, 1)), np.roll(movie[11], (0, -5), (0, 1))
    found = found_in(wing.put(movie), (3, 3))
    assert_array_equal(np.flatnonzero(found.quality.clamped), [4, 11])
    assert found.shifts[4, 0] == -3
    assert found.shifts[11, 1] == 3
    assert (np.abs(found.shifts) <= 3).all()


@pytest.mark.parametrize("bound", [(0, 0), (0, 6), (6, 0)])
def test_an_axis_held_still_on_purpose_is_not_flagged(wing, bound):
    found = found_in(wing.put(SCENE.movie[:30]), bound)
    assert not found.quality.clamped.any()
    assert (np.abs(found.shifts).max(axis=0) > 0).tolist() == [m > 0 for m in bound]


# ---------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("change", [lambda y: y - 500, lambda y: y + 100_000, lambda y: y * 0.01])
def test_level_and_scale_do_not_matter(change):
    counts = np.rint(SCENE.movie)  # whole numbers keep their digits under the offset
    assert_allclose(found_in(change(counts)).shifts, found_in(counts).shifts, atol=5e-3)


def test_turned_frames_give_turned_shifts():
    plain = found_in(SCENE.movie).shifts
    assert_allclose(found_in(SCENE.movie.transpose(0, 2, 1)).shifts, plain[:, ::-1], atol=0.02)


# ---------------------------------------------------------------------------- real recordings


def test_imposed_shifts_of_simulated_frames(wing):
    still = simulate.two_photon(T=30, shape=(60, 56), K=24, resting=30, seed=2).movie
    scene = imposed(still)
    rms, share = misses(found_in(wing.put(scene.movie), (6, 6)).shifts, scene.shifts)
    assert rms < 0.08
    assert share == 0


@pytest.mark.parametrize(
    ("name", "most", "off"), [("demo_2p", 0.12, 0.0), ("zebrafish 0", 0.03, 0), ("zebrafish 1", 0.03, 0)]
)
def test_imposed_shifts_of_real_frames(recordings, name, most, off):
    for seed in range(2):
        scene = imposed(recordings[name], seed=seed)
        rms, share = misses(found_in(scene.movie, (8, 8)).shifts, scene.shifts)
        assert rms < most
        assert share <= off


def test_imposed_shifts_of_real_frames_by_high_pass(recordings):
    off = []
    for seed in range(3):
        scene = imposed(recordings["demo_2p"], seed=seed)
        found = found_in(scene.movie, (8, 8), gSig_filt=(3, 3)).shifts
        off.append(misses(found, scene.shifts)[1])
    assert np.mean(off) < 0.01  # 0.005; as much of cell-sized waves as the kernel passes: 0.07


@pytest.mark.parametrize(
    ("name", "edge", "like", "crisp"),
    [
        ("demo_2p", 5, 0.652, 1.004),
        ("zebrafish 0", 5, 0.995, 0.9995),
        ("zebrafish 1", 5, 0.995, 0.9995),
        ("sima", 10, 0.42, 1.0),
        ("pair", 10, 0.935, 0.85),
    ],
)
def test_real_movies_become_alike(recordings, name, edge, like, crisp):
    movie = recordings[name]
    out = np.empty(movie.shape, np.float32)
    register_rigid(open_movie(movie), RigidParams(max_shifts=(10, 10), border="reflect"), out=out)
    assert likeness(out, edge) >= like
    assert crispness(out, edge) / crispness(movie, edge) >= crisp


@pytest.mark.parametrize(
    ("name", "edge", "width", "like", "crisp"),
    [
        ("demo_2p", 5, 16, 0.653, 1.005),
        ("zebrafish 0", 5, 32, 0.995, 0.9995),
        ("sima", 10, 48, 0.42, 1.010),
    ],
)
def test_real_movies_become_more_alike_piece_by_piece(recordings, name, edge, width, like, crisp):
    movie = recordings[name]
    out = np.empty(movie.shape, np.float32)
    params = PiecewiseParams(
        rigid=RigidParams(max_shifts=(10, 10), border="reflect"),
        strides=(width, width),
        overlaps=(width // 2, width // 2),
    )
    register_piecewise(open_movie(movie), params, out=out)
    assert likeness(out, edge) >= like
    assert crispness(out, edge) / crispness(movie, edge) >= crisp


def judged(movie, shifts, edge):
    """Likeness and crispness of frames moved by Fourier transform, which smooths nothing."""
    moved = displace(movie, shifts, border="reflect", fourier=True)
    return np.array([likeness(moved, edge), crispness(moved, edge)])


@pytest.mark.parametrize(
    ("name", "edge"), [("demo_2p", 5), ("zebrafish 0", 5), ("zebrafish 1", 5), ("sima", 10)]
)
@pytest.mark.parametrize("high_pass", [None, (3, 3)])
def test_where_moving_does_not_smooth_plain_correlation_makes_frames_less_alike(
    recordings, name, edge, high_pass
):
    movie = recordings[name]
    ours = judged(movie, found_in(movie, (10, 10), gSig_filt=high_pass).shifts, edge)
    plain = judged(movie, plainly_found(movie, 10), edge)
    assert (ours >= plain * (1 - 5e-5)).all()


def test_likeness_after_interpolation_is_no_measure_of_registration(recordings):
    pair = recordings["pair"]
    blurred = displace(pair, np.tile(np.float32([0, 0.2]), (2, 1)), border="reflect")
    assert (
        pair_likeness(blurred, 22) > pair_likeness(pair, 22) + 0.018
    )  # both moved alike: nothing was registered
    assert crispness(blurred, 22) < 0.965 * crispness(pair, 22)
