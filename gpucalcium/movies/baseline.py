"""Baselines of every pixel over time, and what is left without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from gpucalcium import backend
from gpucalcium.errors import ParameterError
from gpucalcium.movies.resizing import LINEAR, weights
from gpucalcium.movies.source import PIECE

DFF_METHODS = ("only_baseline", "delta_f_over_f", "delta_f_over_sqrt_f")


def binned_baseline(movie: NDArray, window: int, quantile: float, order: str = "F") -> NDArray[np.float32]:
    """Percentile of each pixel in bins of `window` frames, linear in between.

    Parameters
    ----------
    movie : (T, ...) array
    window : int
        Frames a bin. The movie is mirrored at both ends to a whole number of bins.
    quantile : float
        Percentile, 0 to 100.
    order : {'F', 'C'}
        Whether a bin takes `window` frames in a row, or every N-th of N bins.

    Returns
    -------
    baseline : (T, ...) float32
    """
    frames = len(movie)
    window = max(1, window)
    bins = -(-frames // window)
    missing = bins * window - frames
    before = missing // 2
    padded = np.pad(np.arange(frames), (before, missing - before), mode="reflect")
    members = padded.reshape((window, bins), order="F") if order == "F" else padded.reshape((window, bins))
    levels = np.stack([percentile(movie[index], quantile) for index in members.T])
    at = (before + np.arange(frames)) * ((bins - 1) / max(1, bins * window - 1))
    lower = np.minimum(at.astype(np.int64), max(0, bins - 2))
    share = (at - lower).astype(np.float32).reshape(-1, *(1,) * (movie.ndim - 1))
    baseline = np.empty(movie.shape, np.float32)
    for part in pieces(movie):
        above = levels[np.minimum(lower[part] + 1, bins - 1)]
        baseline[part] = levels[lower[part]] + share[part] * (above - levels[lower[part]])
    return baseline


def window_baseline(movie: NDArray, window: int, quantile: float) -> NDArray[np.float32]:
    """Percentile of each pixel in windows that start every `window` frames, the last reaching to the end;
    stretched linearly over the movie."""
    frames = len(movie)
    starts = [*range(0, frames - 2 * window + 1, window)]
    starts.append(starts[-1] + window if starts else 0)
    ends = [*starts[1:], frames]
    levels = np.stack([percentile(movie[a:b], quantile) for a, b in zip(starts, ends, strict=True)])
    flat = weights(len(levels), frames, LINEAR) @ levels.reshape(len(levels), -1)
    return flat.reshape(movie.shape)


def percentile(frames: NDArray, quantile: float) -> NDArray[np.float32]:
    """Percentile of each pixel over `frames` (n, ...), linear between values; NaN where one is NaN.

    In tiles of pixels, on the active device.
    """
    flat = frames.reshape(len(frames), -1)
    is_exact = frames.dtype.kind in "iu" and frames.dtype.itemsize <= 2
    wide = np.float32 if is_exact or frames.dtype == np.float32 else np.float64
    step = max(1, PIECE // (len(frames) * np.dtype(wide).itemsize))
    out = np.empty(flat.shape[1], np.float32)
    for at in range(0, flat.shape[1], step):
        traces = backend.put(np.ascontiguousarray(flat[:, at : at + step].T, wide))
        xp = backend.arrays.xp(traces)
        level = backend.wing(traces).quantile.percentile(traces, xp.full(len(traces), float(quantile)))
        level = xp.where(xp.isnan(traces).any(axis=1), wide(np.nan), level)
        out[at : at + step] = backend.to_numpy(level)
    return out.reshape(frames.shape[1:])


def without_baseline(movie: NDArray, baseline: NDArray, method: str, out: NDArray) -> None:
    """F − F0, (F − F0) / F0 or (F − F0) / √F0, into `out`."""
    for part in pieces(movie):
        change = movie[part] - baseline[part]
        if method == "delta_f_over_f":
            change /= baseline[part]
        elif method == "delta_f_over_sqrt_f":
            change /= np.sqrt(baseline[part])
        out[part] = change


def bleaching(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """``a exp(−b t) + c`` fitted to the brightness of the frames; a line where that does not converge."""
    t = np.arange(len(level), dtype=np.float64)
    guess = (level[0] - level[-1], 1e-6, level[-1])
    try:
        with np.errstate(over="ignore"):
            a, b, c = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, t, level, p0=guess)[0]
            fitted = a * np.exp(-b * t) + c
    except (RuntimeError, TypeError):  # no convergence; fewer frames than parameters
        fitted = np.full_like(level, np.nan)
    if np.isfinite(fitted).all():
        return fitted
    return np.asarray(np.polyval(np.polyfit(t, level, min(1, len(level) - 1)), t), np.float64)


def check_quantile(quantile: float, name: str) -> None:
    """Refuse what is no percentile."""
    if not 0 <= quantile <= 100:
        raise ParameterError(f"{name}={quantile}: a percentile lies between 0 and 100")


def pieces(movie: NDArray) -> list[slice]:
    """Frames in pieces that stay in the cache."""
    step = max(1, PIECE // max(1, movie[:1].nbytes))
    return [slice(at, at + step) for at in range(0, len(movie), step)]
