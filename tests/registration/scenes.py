"""Small movies with known motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

MARGIN = 10  # pixels of scenery beyond the field of view: real content comes in at the borders


@dataclass(frozen=True)
class Scene:
    """A movie, and the displacement that registers each of its frames."""

    movie: np.ndarray
    shifts: np.ndarray


def moving_cells(
    T: int = 60, shape: tuple[int, int] = (64, 60), largest: float = 4.0, noise: float = 2.0, seed: int = 0
) -> Scene:
    """Cells of changing brightness on a smooth background, moved rigidly, with noise."""
    rng = np.random.default_rng(seed)
    canvas = tuple(n + 2 * MARGIN for n in shape)
    spots = gaussian_filter((rng.uniform(size=canvas) > 0.99).astype(float), 1.8)
    active = gaussian_filter((rng.uniform(size=canvas) > 0.998).astype(float), 1.8)
    background = gaussian_filter(rng.normal(size=canvas), 9)
    image = 30 + 25 * spots / spots.max() + 10 * background / np.abs(background).max()
    shifts = rng.uniform(-largest, largest, (T, 2))
    shifts -= shifts.mean(0)
    shifts *= largest / np.abs(shifts).max()
    at = np.indices(shape).reshape(2, -1) + MARGIN
    frames = []
    for s in shifts:
        scenery = image + 20 * rng.uniform() * active / active.max()
        frames.append(map_coordinates(scenery, at + s[:, None], order=3).reshape(shape))
    movie = np.array(frames) + rng.normal(0, noise, (T, *shape))
    return Scene(movie.astype(np.float32), shifts)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """RMS error in pixels once the mean per axis, which no recording can tell, is taken off."""
    difference = np.asarray(found, np.float64) - truth
    return float(np.sqrt(((difference - difference.mean(0)) ** 2).mean()))


def slope(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Found displacement against the true one, per axis: 1 is neither too small nor too large."""
    return np.array([np.polyfit(truth[:, a], np.asarray(found)[:, a], 1)[0] for a in range(truth.shape[1])])
