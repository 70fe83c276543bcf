"""Piecewise-rigid registration against known displacement fields."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, map_coordinates

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from gpucalcium.registration.rigid import RigidParams

MARGIN = 10


def breathing(T: int = 40, shape: tuple[int, ...] = (84, 76), local: float = 1.5, seed: int = 0):
    """Cells on a dim ground, moved by a frame's shift and stretched locally; and the field, at every pixel."""
    rng = np.random.default_rng(seed)
    canvas = tuple(n + 2 * MARGIN for n in shape)
    spots = gaussian_filter((rng.uniform(size=canvas) > 0.99).astype(float), 1.8)
    image = 30 + 40 * spots / spots.max()
    shifts = rng.uniform(-3, 3, (T, len(shape)))
    phases = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij"))
    modes = np.cos(np.pi * phases)
    amplitudes = rng.uniform(-local, local, (T, len(shape), len(shape)))
    at = np.indices(shape) + MARGIN
    fields = shifts.reshape(T, -1, *(1,) * len(shape)) + np.tensordot(amplitudes, modes, 1)
    movie = np.array([map_coordinates(image, at + field, order=3) for field in fields])
    return (movie + rng.normal(0, 2, movie.shape)).astype(np.float32), fields


def at_centres(fields: np.ndarray, grid) -> np.ndarray:
    """A field of every pixel (T, ndim, ...) where the patches have their middle, (T, *counts, ndim)."""
    where = np.stack(np.meshgrid(*grid.centres, indexing="ij"))
    return np.array([[map_coordinates(a, where, order=1) for a in f] for f in fields]).transpose(
        0, *range(2, where.ndim + 1), 1
    )


def rms(found: np.ndarray, truth: np.ndarray) -> float:
    error = np.asarray(found, np.float64) - truth
    error -= error.mean(axis=tuple(range(error.ndim - 1)))
    return float(np.sqrt((error**2).mean()))


SMALL = PiecewiseParams(rigid=RigidParams(max_shifts=(5, 5)), strides=(24, 24), overlaps=(12, 12))


@pytest.fixture(scope="module")
def scene():
    return breathing()


def test_a_local_field_is_found(wing, scene):
    movie, fields = scene
    found = register_piecewise(open_movie(wing.put(movie)), SMALL)
    truth = at_centres(fields, found.grid)
    assert rms(found.field, truth) < 0.5 * rms(
        np.broadcast_to(found.shifts[:, None, None], truth.shape), truth
    )
    assert found.field.dtype == np.float32
    assert found.field.shape == (len(movie), *found.grid.counts, 2)
    assert not found.quality.clamped.any()


def test_no_deviation_is_rigid(scene):
    movie, _ = scene
    params = PiecewiseParams(rigid=SMALL.rigid, strides=(24, 24), overlaps=(12, 12), max_deviation_rigid=0)
    found = register_piecewise(open_movie(movie), params)
    assert_array_equal(found.field, np.broadcast_to(found.shifts[:, None, None], found.field.shape))


def test_sink_out_and_means_agree(wing, scene):
    movie = scene[0][:20]
    frames = wing.put(movie)
    out = wing.put(np.zeros(movie.shape, np.float32))
    written = np.zeros(movie.shape, np.float32)

    def sink(start, part):
        written[start : start + len(part)] = part

    found = register_piecewise(open_movie(frames), SMALL, sink=sink, out=out, offset=3.0)
    assert_array_equal(backend.to_numpy(out), written)
    whole = np.nanmean(written, axis=0) + 3
    inside = np.isfinite(written).all(axis=0)
    assert_allclose(np.mean(found.split_templates, axis=0)[inside], whole[inside], rtol=0.02)


def test_bad_parameters_are_named(scene):
    movie = scene[0][:4]
    with pytest.raises(ParameterError, match="max_deviation_rigid=-1"):
        PiecewiseParams(max_deviation_rigid=-1)
    with pytest.raises(ParameterError, match="splits_els=0"):
        PiecewiseParams(splits_els=0)
    with pytest.raises(ParameterError, match="shifts_opencv=False"):
        PiecewiseParams(rigid=RigidParams(gSig_filt=(3, 3)), fourier=True)
    with pytest.raises(ArrayShapeError, match="template has shape"):
        register_piecewise(open_movie(movie), SMALL, template=np.zeros((3, 3), np.float32))
    with pytest.raises(ArrayShapeError, match="out is"):
        register_piecewise(open_movie(movie), SMALL, out=np.zeros((3, 3), np.float32))
