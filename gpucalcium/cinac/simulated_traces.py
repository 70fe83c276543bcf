"""When simulated cells are active, and how bright they are then."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ONSET_GAP = 4  # frames between onsets, at least
PER_FRAMES = 1000  # frames that rates are counted in
RISES = ((2, (2, 5)), (5, (3, 8)), (None, (5, 10)))
"""Up to so many frames of rise: lowest and highest amplitude, in baselines."""
DECAY_LEFT = 3.0  # time constants in a decay: 5 % are left at its end
DRIFT_FRAMES = 60  # time constant of the drifts of cells that have no transients
DRIFT = 0.15  # their standard deviation, in baselines

Range = tuple[int, int]


def draw_raster(
    rng: np.random.Generator, n_frames: int, per_thousand: tuple[float, float], durations: Range
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Onsets and durations of the transients of one cell.

    Parameters
    ----------
    rng : Generator
    n_frames : int
    per_thousand : (lowest, highest)
        Transients in a thousand frames.
    durations : (lowest, highest)
        Frames from onset to peak, both included. Shortened where the next onset or the end comes first, so that each
        transient is a run of its own.

    Returns
    -------
    onsets, durations : (n,) int64
        Onsets increase by `ONSET_GAP` at least.
    """
    count = int(np.rint(rng.uniform(*per_thousand) * n_frames / PER_FRAMES))
    count = min(count, (n_frames - 1) // ONSET_GAP)
    free = n_frames - 1 - count * (ONSET_GAP - 1)
    onsets = 1 + np.sort(rng.choice(free, count, replace=False)) + np.arange(count) * (ONSET_GAP - 1)
    lengths = rng.integers(durations[0], durations[1] + 1, count)
    return onsets, np.minimum(lengths, np.diff(np.append(onsets, n_frames + 1)) - 1)


def draw_trace(
    rng: np.random.Generator,
    n_frames: int,
    onsets: NDArray[np.int64],
    durations: NDArray[np.int64],
    decay_factor: float,
    max_decay: float,
) -> NDArray[np.float32]:
    """Brightness (T,) of one cell above its baseline, in baselines.

    Each transient rises linearly, reaches its amplitude in its last active frame, and decays exponentially, to 5 %
    within ``max(duration * decay_factor, max_decay)`` frames; transients add up.
    """
    trace = np.zeros(n_frames, np.float32)
    for onset, duration in zip(onsets, durations, strict=True):
        low, high = next(range_ for most, range_ in RISES if most is None or duration <= most)
        amplitude = rng.integers(low, high + 1)
        trace[onset : onset + duration] += amplitude * np.arange(1, duration + 1) / duration
        span = max(duration * decay_factor, max_decay)
        behind = np.arange(1, min(int(2 * span), n_frames - onset - duration) + 1)
        trace[onset + duration : onset + duration + len(behind)] += amplitude * np.exp(
            -DECAY_LEFT * behind / span
        )
    return trace


def draw_drift(rng: np.random.Generator, n_frames: int) -> NDArray[np.float32]:
    """Slow random fluctuation (T,) of what is no cell, in baselines: no transients."""
    return DRIFT * slow_noise(rng, n_frames, DRIFT_FRAMES)


def slow_noise(rng: np.random.Generator, n_frames: int, frames: float) -> NDArray[np.float32]:
    """Noise (T,) of unit variance that forgets within so many frames (first-order autoregressive)."""
    from scipy.signal import lfilter

    keep = float(np.exp(-1 / frames))
    steps = rng.standard_normal(n_frames) * np.sqrt(1 - keep**2)
    steps[0] = rng.standard_normal()
    return lfilter([1.0], [1.0, -keep], steps).astype(np.float32)


def raster_of(n_frames: int, onsets: NDArray[np.int64], durations: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(T,) frames from onset to peak of each transient."""
    active = np.zeros(n_frames, bool)
    for onset, duration in zip(onsets, durations, strict=True):
        active[onset : onset + duration] = True
    return active
