"""Window and scale of Welch's periodogram: shared by both wings (P. Welch 1967, IEEE Trans. Audio 15:70)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hann(segment: int) -> NDArray[np.float64]:
    """The periodic Hann window; a single sample is left as it is."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(segment) / segment) if segment > 1 else np.ones(1)


def one_sided(segment: int, low: int, high: int, pieces: int) -> NDArray[np.float64]:
    """What turns the sum of |X_k|^2 of `pieces` tapered segments into a density, for bins k = low..high-1.

    The mean and, of an even segment, the Nyquist bin have no mirror image and count once, all others twice.
    """
    alone = np.isin(2 * np.arange(low, high), [0, segment])
    return np.where(alone, 1.0, 2.0) / (pieces * np.square(hann(segment)).sum())


def pieces_of(length: int, segment: int) -> tuple[int, int]:
    """How many segments that overlap by half a signal has, and from how far apart they start."""
    step = segment - segment // 2
    return (length - segment) // step + 1, step
