"""Rendering of simulated movies: cells over neuropil and vessels, displaced, noisy, scaled once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gpucalcium.cinac.simulated_cells import WEIGHTS, PixelWeights
from gpucalcium.cinac.simulated_traces import slow_noise

MOVES = 1 / 60  # share of frames that are displaced
REACH = 2  # px, at most, along each axis
BACKGROUND = 40.0  # brightness between cells
NEUROPIL_MODES, NEUROPIL_WIDTH, NEUROPIL_FRAMES = 2, 12.0, 25.0  # modes, px, frames
VESSEL_WIDTH, VESSEL_LEFT = 3.0, 0.5  # px; brightness that is left
HIGHEST = 255


def draw_shifts(rng: np.random.Generator, n_frames: int) -> NDArray[np.int64]:
    """(T, 2) whole pixels by which frames are displaced: 1 in 60 of them, by up to 2 px."""
    shifts = rng.integers(-REACH, REACH + 1, (n_frames, 2), dtype=np.int64)
    return np.where(rng.random((n_frames, 1)) < MOVES, shifts, 0)


def draw_movie(
    rng: np.random.Generator,
    dims: tuple[int, int],
    weights: Sequence[PixelWeights],
    above: NDArray[np.float32],
    shifts: NDArray[np.int64],
    *,
    neuropil: float,
    n_vessels: int,
    noise_variance: float,
) -> NDArray[np.uint8]:
    """Movie of cells, from 0 to 255 over all its frames.

    Parameters
    ----------
    rng : Generator
    dims : (H, W)
    weights : sequence of PixelWeights
    above : (N, T) float32
        Brightness of each cell above its baseline, in baselines.
    shifts : (T, 2) int
        Displacement of each frame; pixels at the border are repeated.
    neuropil : float
        Standard deviation of each mode, in baselines of a cell.
    n_vessels : int
    noise_variance : float
        Where the noise-free movie goes from 0 to 1.

    Returns
    -------
    movie : (T, H, W) uint8
    """
    n_frames = above.shape[1]
    scene = np.full((dims[0] * dims[1], n_frames), BACKGROUND, np.float32)
    for cell, brightness in zip(weights, above, strict=True):
        shown = cell.at_rest[:, None] + cell.rising[:, None] * brightness
        scene[cell.pixels] = np.maximum(scene[cell.pixels], shown)
    for _ in range(NEUROPIL_MODES if neuropil > 0 else 0):
        field = _smooth_field(rng, dims) * np.float32(neuropil * WEIGHTS[0])
        scene += np.outer(field.ravel(), slow_noise(rng, n_frames, NEUROPIL_FRAMES))
    for _ in range(n_vessels):
        scene *= _vessel(rng, dims).reshape(-1, 1)
    movie = np.ascontiguousarray(scene.T).reshape(n_frames, *dims)
    for frame in np.flatnonzero(shifts.any(axis=1)):
        movie[frame] = _displaced(movie[frame], shifts[frame])
    _stretch(movie, 1.0)
    if noise_variance > 0:
        for image in movie:
            image += np.float32(np.sqrt(noise_variance)) * rng.standard_normal(dims, dtype=np.float32)
    _stretch(movie, HIGHEST)
    return np.rint(movie, out=movie).astype(np.uint8)


def _stretch(movie: NDArray[np.float32], highest: float) -> None:
    """Scale a movie in place: its lowest value becomes 0, its highest `highest`."""
    low, high = float(movie.min()), float(movie.max())
    movie -= low
    movie *= highest / max(high - low, float(np.finfo(np.float32).tiny))


def _smooth_field(rng: np.random.Generator, dims: tuple[int, int]) -> NDArray[np.float32]:
    """Smooth weights of a mode of neuropil, of root mean square 1."""
    field = gaussian_filter(rng.standard_normal(dims), NEUROPIL_WIDTH, mode="wrap")
    return (field / np.sqrt((field**2).mean())).astype(np.float32)


def _vessel(rng: np.random.Generator, dims: tuple[int, int]) -> NDArray[np.float32]:
    """What a bent band across the field of view leaves of the brightness of each pixel."""
    y, x = np.indices(dims)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = -np.sin(angle) * (x - rng.uniform(0, dims[1])) + np.cos(angle) * (y - rng.uniform(0, dims[0]))
    bend = rng.uniform(2, 6) * np.sin(along / rng.uniform(10, 25) + rng.uniform(0, 2 * np.pi))
    return np.where(np.abs(across + bend) < VESSEL_WIDTH / 2, VESSEL_LEFT, 1).astype(np.float32)


def _displaced(frame: NDArray[np.float32], shift: NDArray[np.int64]) -> NDArray[np.float32]:
    """A frame whose content is moved by `shift` (rows, columns)."""
    padded = np.pad(frame, REACH, mode="edge")
    y, x = REACH - shift
    return padded[y : y + frame.shape[0], x : x + frame.shape[1]]
