"""Small movies with known motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
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


def imposed(movie: np.ndarray, largest: int = 4, seed: int = 0) -> Scene:
    """Known whole-pixel motion of real frames: each is cropped at a place drawn at random, up to `largest` away."""
    drawn = np.random.default_rng(seed).integers(-largest, largest + 1, (len(movie), 2))
    rows, columns = (n - 2 * largest for n in movie.shape[1:])
    frames = [
        frame[largest + r : largest + r + rows, largest + c : largest + c + columns]
        for frame, (r, c) in zip(movie, drawn, strict=True)
    ]
    return Scene(np.stack(frames), drawn.astype(float))


def misses(found: np.ndarray, truth: np.ndarray, beyond: float = 0.5) -> tuple[float, float]:
    """RMS error in pixels, and the share of frames off by more than `beyond`; the median per axis is taken off."""
    difference = np.asarray(found, np.float64) - truth
    difference -= np.median(difference, axis=0)
    return float(np.sqrt((difference**2).mean())), float((np.abs(difference).max(axis=1) > beyond).mean())


def likeness(movie: np.ndarray, edge: int) -> float:
    """Mean correlation of frames with their mean, `edge` pixels left out on every side."""
    inside = movie[:, edge:-edge, edge:-edge].astype(np.float64).reshape(len(movie), -1)
    inside -= inside.mean(axis=1, keepdims=True)
    template = inside.mean(axis=0)
    return float((inside @ template / np.linalg.norm(inside, axis=1) / np.linalg.norm(template)).mean())


def pair_likeness(movie: np.ndarray, edge: int) -> float:
    """Correlation of the first two frames, `edge` pixels left out on every side."""
    first, second = (frame[edge:-edge, edge:-edge].ravel() for frame in movie[:2])
    return float(np.corrcoef(first, second)[0, 1])


def plainly_found(movie: np.ndarray, bound: int, grid: int = 10) -> np.ndarray:
    """Displacements by the largest plain circular correlation with a median template, to 1/`grid` pixel.

    Nothing is weighted, tapered or filtered: of all displacements, to the grid, the one that makes a frame most like
    the template. (T, 2) float32.
    """
    bins = np.array_split(np.asarray(movie, np.float64), max(1, len(movie) // 10))
    template = np.median([frames.mean(axis=0) for frames in bins], axis=0)
    conjugate = np.fft.fft2(template - template.mean()).conj()
    rows, columns = (np.fft.fftfreq(n) for n in movie.shape[1:])
    coarse, fine = np.arange(-bound, bound + 1.0), np.arange(-1.5 * grid, 1.5 * grid + 1) / grid
    found = []
    for frame in movie:
        spectrum = np.fft.fft2(frame) * conjugate
        at = np.zeros(2)
        for steps in (coarse, fine):
            along = [
                np.exp(2j * np.pi * np.outer(a + steps, k)) for a, k in zip(at, (rows, columns), strict=True)
            ]
            map_ = (along[0] @ spectrum @ along[1].T).real
            at = at + steps[list(np.unravel_index(map_.argmax(), map_.shape))]
        found.append(-at)
    return np.array(found, np.float32)


def crispness(movie: np.ndarray, edge: int) -> float:
    """Frobenius norm of the gradient of the mean image, `edge` pixels left out on every side."""
    mean = movie[:, edge:-edge, edge:-edge].mean(axis=0, dtype=np.float64)
    return float(np.linalg.norm(np.gradient(mean)))


def real_movies(folder: Path) -> dict[str, np.ndarray]:
    """Recordings in `folder`, (T, d1, d2) each; the last is one place at two times."""
    planes = np.load(folder / "zebrafish_2planes.npz", allow_pickle=False)["movie"]
    pair = [tifffile.imread(folder / f"nonrigid_pair_{name}.tif") for name in ("reference", "moved")]
    return {
        "demo_2p": tifffile.imread(folder / "demo_2p_30x40.tif"),
        "zebrafish 0": np.ascontiguousarray(planes[:, 0]),
        "zebrafish 1": np.ascontiguousarray(planes[:, 1]),
        "sima": tifffile.imread(folder / "sima/example.tif"),
        "pair": np.stack(pair),
    }
