"""What patches tell of each other, on displacements drawn from the model and from others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.smoothness import Evidence, Smoothness

GRID = PatchGrid.make((120, 110), (20, 20), (10, 10))
CENTRES = np.stack([x.ravel() for x in np.meshgrid(*GRID.centres, indexing="ij")], axis=1)


def evidence(error: float, grid: PatchGrid = GRID) -> Evidence:
    """Structure in the middle of every patch, spread over a third of it; independent errors."""
    centres = np.stack([x.ravel() for x in np.meshgrid(*grid.centres, indexing="ij")], axis=1)
    ndim = len(grid.shape)
    return Evidence(
        middle=np.repeat(centres[None], ndim, axis=0),
        spread=np.full((ndim, grid.n, ndim), 50.0),
        variance=np.full((ndim, grid.n), error**2),
        shared=np.eye(grid.n),
    )


def fields(frames: int, amplitude: float, seed: int) -> np.ndarray:
    """Smooth displacements at the middle of the patches, (frames, n, 2)."""
    rng = np.random.default_rng(seed)
    phase = (CENTRES + 0.5) / GRID.shape
    modes = np.cos(np.pi * phase).T
    return amplitude * np.einsum("tam,mp->tpa", rng.normal(size=(frames, 2, 2)), modes)


def smoothed(learned: Smoothness, shown: np.ndarray) -> np.ndarray:
    return np.einsum("apq,tqa->tpa", learned.at_centres.astype(float), shown)


@pytest.mark.parametrize("error", [0.05, 0.3])
def test_errors_become_smaller_and_displacements_do_not(error):
    rng = np.random.default_rng(1)
    truth = fields(200, 0.5, 2)
    shown = truth + rng.normal(0, error, truth.shape)
    learned = Smoothness.learned(shown[:100], evidence(error), GRID)
    found = smoothed(learned, shown[100:])
    assert np.sqrt(((found - truth[100:]) ** 2).mean()) < 0.55 * error
    slope = (found * truth[100:]).sum() / (truth[100:] ** 2).sum()
    assert 0.93 < slope < 1.03


def test_errors_alone_are_no_displacement():
    shown = np.random.default_rng(3).normal(0, 0.2, (150, GRID.n, 2))
    learned = Smoothness.learned(shown[:100], evidence(0.2), GRID)
    assert np.sqrt((smoothed(learned, shown[100:]) ** 2).mean()) < 0.06  # 0.2 before


def test_motion_that_the_sample_did_not_show_is_followed():
    rng = np.random.default_rng(10)
    still = rng.normal(0, 0.1, (100, GRID.n, 2))
    learned = Smoothness.learned(still, evidence(0.1), GRID, (0.3, 0.3))
    truth = fields(50, 0.7, 11)
    found = smoothed(learned, truth + rng.normal(0, 0.1, truth.shape))
    assert (found * truth).sum() / (truth**2).sum() > 0.93
    assert np.sqrt((smoothed(learned, rng.normal(0, 0.1, truth.shape)) ** 2).mean()) < 0.06


def test_the_size_of_errors_is_learned():
    """Only their ratios need to be known."""
    rng = np.random.default_rng(4)
    shown = fields(100, 0.5, 5) + rng.normal(0, 0.2, (100, GRID.n, 2))
    right, wrong = (Smoothness.learned(shown, evidence(e), GRID) for e in (0.2, 2.0))
    assert_allclose(wrong.at_centres, right.at_centres, atol=0.02)
    assert_allclose(wrong.limit, right.limit, rtol=0.1)


def test_a_patch_that_tells_nothing_is_told():
    truth = fields(100, 0.5, 6)
    blind = evidence(0.05)
    blind.variance[:, 7] = np.inf
    shown = truth + np.random.default_rng(7).normal(0, 0.05, truth.shape)
    shown[:, 7] = 30
    learned = Smoothness.learned(shown, blind, GRID)
    assert not learned.at_centres[:, :, 7].any()
    assert np.sqrt(((smoothed(learned, shown)[:, 7] - truth[:, 7]) ** 2).mean()) < 0.15


def test_no_patch_tells_anything():
    blind = evidence(1.0)
    blind.variance[:] = np.inf
    learned = Smoothness.learned(np.zeros((5, GRID.n, 2)), blind, GRID)
    assert not learned.at_centres.any()
    none = Smoothness.learned(np.zeros((0, GRID.n, 2)), evidence(1.0), GRID)
    assert not none.at_centres.any()


def test_the_limits_are_standard_deviations():
    rng = np.random.default_rng(8)
    shown = fields(300, 0.5, 9) + rng.normal(0, 0.1, (300, GRID.n, 2))
    learned = Smoothness.learned(shown, evidence(0.1), GRID)
    said = np.einsum("apq,tqa->tpa", learned.within.astype(float), shown)
    assert (np.abs(shown) > learned.limit[0].T).mean() < 0.01
    assert (np.abs(shown - said) > learned.limit[1].T).mean() < 0.01
    assert (learned.limit[1] < learned.limit[0]).all()


def test_one_patch_and_volumes():
    one = PatchGrid.make((20, 20), (20, 20), (0, 0))
    learned = Smoothness.learned(np.full((4, 1, 2), 0.3), evidence(0.1, one), one)
    assert np.isfinite(learned.at_centres).all()
    deep = PatchGrid.make((40, 36, 8), (16, 16, 8), (8, 8, 0))
    shown = np.random.default_rng(0).normal(size=(9, deep.n, 3))
    learned = Smoothness.learned(shown, evidence(0.1, deep), deep)
    assert learned.at_centres.shape == (3, deep.n, deep.n)
    assert np.isfinite(learned.at_centres).all()
