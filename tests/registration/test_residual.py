"""Residual motion: components against the singular value decomposition, displacement against known motion."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration.apply import displace
from gpucalcium.registration.residual import residual_motion
from tests.registration.scenes import moving_cells

SCENE = moving_cells(T=120, shape=(64, 60), largest=3.0, noise=1.0)


def registered():
    return displace(SCENE.movie, SCENE.shifts.astype("float32"), border="nan")


def test_components_are_those_of_the_decomposition():
    found = residual_motion(SCENE.movie, components=4)
    deviations = (SCENE.movie - SCENE.movie.mean(axis=0)).reshape(120, -1).astype(float)
    u, s, v = np.linalg.svd(deviations, full_matrices=False)
    assert_allclose(found.variance, (s**2 / (s**2).sum())[:4], rtol=1e-3)
    assert_allclose(np.abs(np.sum(found.components.reshape(4, -1) * v[:4], axis=1)), 1, atol=5e-3)
    assert_allclose(np.abs(np.sum(found.scores * (u * s)[:, :4], axis=0)), (s**2)[:4], rtol=5e-3)


def test_ends_are_means_of_frames():
    found = residual_motion(SCENE.movie, components=2, share=0.05)
    order = np.argsort(found.scores[:, 1])
    assert_allclose(found.low[1], SCENE.movie[order[:6]].mean(axis=0), rtol=1e-4)
    assert_allclose(found.high[1], SCENE.movie[order[-6:]].mean(axis=0), rtol=1e-4)


def test_motion_is_seen_and_its_absence(wing):
    moving = residual_motion(wing.put(SCENE.movie), components=4)
    still = residual_motion(wing.put(registered()), components=4)
    order = np.argsort(moving.scores[:, 0])
    apart = np.mean(SCENE.shifts[order[:12]], axis=0) - np.mean(SCENE.shifts[order[-12:]], axis=0)
    assert np.linalg.norm(apart) > 2
    assert_allclose(moving.offsets[0], apart, atol=0.5)  # means of frames that move are blurred
    assert moving.rigid.max() > 2
    assert still.rigid.max() < 0.2
    assert_allclose(moving.field[0].reshape(-1, 2).mean(axis=0), apart, atol=1)
    assert (moving.max_local >= moving.mean_local).all()
    assert still.mean_local.max() < 0.5


def test_part_of_the_field_that_moves_is_found():
    """The lower half is moved, the upper is not: as a whole little, locally much."""
    rng = np.random.default_rng(0)
    still = registered()[:, 5:-5, 5:-5]
    still = np.where(np.isfinite(still), still, 30)
    sway = np.where(rng.random(120) < 0.5, 0.75, -0.75)
    moved = displace(still, np.stack([0 * sway, sway], axis=1).astype("float32"), border="reflect")
    movie = np.concatenate([still[:, :27], moved[:, 27:]], axis=1)
    found = residual_motion(movie, components=6)
    worst = int(found.mean_local.argmax())
    assert found.grid.counts == (3, 3)
    assert np.abs(found.field[worst, -1, :, 1]).max() == pytest.approx(1.5, abs=0.3)
    assert_allclose(found.field[worst, 0], 0, atol=0.3)


@pytest.mark.parametrize("chunk", [5, 37])
def test_chunks_change_rounding_only(chunk):
    whole = residual_motion(SCENE.movie, components=3)
    with backend.limit(chunk_frames=chunk, memory=3 << 20):  # and the sample is not kept
        parts = residual_motion(SCENE.movie, components=3)
    assert_allclose(parts.variance, whole.variance, rtol=1e-5)
    assert_allclose(parts.low, whole.low, rtol=1e-4)
    assert_allclose(parts.offsets, whole.offsets, atol=1e-2)


def test_looks_at_evenly_spaced_frames():
    found = residual_motion(SCENE.movie, components=3, frames=50)
    assert_array_equal(found.frames, np.arange(0, 120, 3))
    assert found.scores.shape == (40, 3)


def test_volumes():
    movie = np.repeat(SCENE.movie[:40, :50, :28, None], 6, axis=3)
    found = residual_motion(open_movie(movie), components=2)
    assert found.offsets.shape == (2, 3)
    assert found.grid.counts == (3, 1, 1)
    assert found.rigid.max() > 1


@pytest.mark.parametrize("shape", [(2, 9, 7), (3, 1, 1), (5, 40, 1)])
def test_little_to_look_at(shape):
    movie = np.random.default_rng(0).normal(size=shape)
    found = residual_motion(movie)
    assert len(found.variance) == min(shape[0] - 1, shape[1] * shape[2])
    assert np.isfinite(found.field).all()


def test_constant_movie_does_not_move():
    found = residual_motion(np.full((9, 30, 30), 4, "uint8"))
    assert_array_equal(found.offsets, 0)
    assert_array_equal(found.field, 0)
    assert_array_equal(found.variance, 0)


def test_missing_values_count_as_the_mean():
    movie = SCENE.movie.copy()
    movie[:, :2] = np.nan
    movie[7] = np.nan
    found = residual_motion(movie, components=3)
    for values in (found.low, found.scores, found.offsets, found.field):
        assert np.isfinite(values).all()
    assert_allclose(found.scores[7], 0, atol=1e-3)


def test_errors():
    with pytest.raises(MovieShapeError, match=r"1 frame\(s\)"):
        residual_motion(SCENE.movie[:1])
    for name, value in (("components", 0), ("frames", 1), ("max_shift", 0)):
        with pytest.raises(ParameterError, match=f"{name} is too small"):
            residual_motion(SCENE.movie, **{name: value})
    with pytest.raises(ParameterError, match=r"share=0\.6"):
        residual_motion(SCENE.movie, share=0.6)
