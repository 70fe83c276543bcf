"""Noise level of signals from the high end of their spectrum, where calcium has no power.

The standard deviation sigma of white noise is the height of its flat spectrum; fluorescence adds power
at low frequencies only, so the band above a quarter of the frame rate shows sigma alone
(Pnevmatikakis et al. 2016, Neuron 89:285, methods, "noise estimation").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._signals import as_float, band, shape_of, whole
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies import open_movie

NOISE_METHODS = ("mean", "median", "logmexp")
WELCH_SEGMENT = 256  # samples per segment of Welch's periodogram
WORKING_FACTOR = 4  # bytes of spectrum and power beside each byte of signals, generously


def get_noise_fft(
    Y: Array,
    noise_range: Sequence[float] = (0.25, 0.5),
    noise_method: str = "logmexp",
    max_num_samples_fft: int = 3072,
) -> tuple[Array, Array]:
    """Noise standard deviation of each signal, from one periodogram.

    Parameters
    ----------
    Y : array, (..., T), any real dtype
        Signals, time last.
    noise_range : (low, high), cycles per frame
        Band that holds noise only; bins with low < f <= high count.
    noise_method : "mean", "median" or "logmexp"
        How the power of the band is averaged. On a single periodogram the median reads 0.832 and the
        geometric mean ("logmexp") 0.748 of the true sigma of white noise (the median and the geometric
        mean of an exponential variable); they shrug off narrow peaks of real power in return.
    max_num_samples_fft : int, frames
        Longer signals are cut to their beginning, middle and end, a third of this number each.

    Returns
    -------
    sn : (...) float64
        Standard deviation in units of `Y`; 0 for a constant signal, NaN where `Y` holds NaN.
    psd : (..., bins) float32
        Periodogram 2 |X|^2 / T in the band.

    Raises
    ------
    ParameterError
        Unknown method, or no frequency bin in the band.
    """
    T = _length(Y)
    samples = _selected_samples(T, max_num_samples_fft)
    n = sum(s.stop - s.start for s in samples)
    low, high = _band_bins(n, noise_range)
    _check_method(noise_method)
    lead = shape_of(Y)[:-1]
    rows = int(np.prod(lead))
    flat = (Y if hasattr(Y, "reshape") else np.asarray(Y)).reshape(rows, T)
    tile = max(1, int(backend.budget() // (4 * n * (2 + WORKING_FACTOR))))
    levels, bands = [], []
    for at in range(0, max(rows, 1), tile):
        block = flat[at : at + tile]
        signals = as_float(backend.put(block if len(samples) == 1 else _join([block[:, s] for s in samples])))
        spectrum = backend.wing(signals).spectrum
        bands.append(spectrum.power(_without_origin(signals), low, high))
        levels.append(spectrum.level(bands[-1], noise_method))
    sn, psd = _join(levels), _join(bands, axis=0)
    return backend.like(Y, sn.reshape(lead)), backend.like(Y, psd.reshape(*lead, high - low))


def get_noise_welch(
    Y: Array,
    noise_range: Sequence[float] = (0.25, 0.5),
    noise_method: str = "logmexp",
    max_num_samples_fft: int = 3072,
) -> Array:
    """Noise standard deviation of each signal, from Welch's averaged periodogram.

    Parameters and selection of samples as for `get_noise_fft`; segments of 256 samples (Hann window, half
    overlapping, mean removed), bins low <= f <= high. Averaging tames the bias of the nonlinear means: on
    white noise "median" reads 0.991 and "logmexp" 0.987 of sigma.

    Returns
    -------
    sn : (...) float64
        Standard deviation in units of `Y`.
    """
    T = _length(Y)
    samples = _selected_samples(T, max_num_samples_fft)
    joined = Y if len(samples) == 1 else _join([Y[..., s] for s in samples])
    ends = band(noise_range, "noise_range")
    return _welch_level(joined, ends, noise_method, inclusive=True, like=Y)


def GetSn(fluor: Array, range_ff: Sequence[float] = (0.25, 0.5), method: str = "logmexp") -> Array:
    """Noise standard deviation of traces, from Welch's averaged periodogram of all samples.

    Parameters
    ----------
    fluor : array, (T,) or (K, T)
        Fluorescence traces.
    range_ff : (low, high), cycles per frame
        Band that holds noise only; bins with low < f < high count.
    method : "mean", "median" or "logmexp"
        How the power of the band is averaged.

    Returns
    -------
    sn : float64, scalar for one trace, else (K,)
        Standard deviation in units of `fluor`; 0 for a constant trace.
    """
    return _welch_level(fluor, band(range_ff, "range_ff"), method, inclusive=False, like=fluor)


def movie_noise(
    movie: object,
    noise_range: Sequence[float] = (0.25, 0.5),
    noise_method: str = "mean",
    max_num_samples_fft: int = 3072,
    *,
    transform: Callable[[Array], Array] | None = None,
) -> Array:
    """Noise standard deviation of every pixel of a movie (see `get_noise_fft`), in bounded memory.

    The selected frames are read once if their pixels fit the memory budget as float32, else once for each
    part of the field that fits.

    Parameters
    ----------
    movie : array-like, path or frame source, (T, d1, d2[, d3])
        Fluorescence.
    noise_range, noise_method, max_num_samples_fft
        As for `get_noise_fft`.
    transform : callable, optional
        Applied to each chunk of frames on the device first (a spatial filter); must keep the shape.

    Returns
    -------
    sn : (d1, d2[, d3]) float32
        In units of the movie; CuPy if `movie` is CuPy, else NumPy. A pixel that is NaN in a selected frame is NaN.

    Raises
    ------
    ParameterError
        Unknown method, or no frequency bin in the band: too few frames, or too narrow a band.
    """
    source = open_movie(movie)
    frames = _selected_samples(len(source), max_num_samples_fft)
    n = sum(s.stop - s.start for s in frames)
    low, high = _band_bins(n, noise_range)
    _check_method(noise_method)
    dims = tuple(source.shape[1:])
    pixels = int(np.prod(dims))
    part = max(1, min(pixels, int(backend.budget() // (2 * 4 * n))))
    levels = []
    for first in range(0, pixels, part):
        count = min(part, pixels - first)
        signals = _pixel_signals(source, frames, first, count, n, transform)
        tile = max(1, count // WORKING_FACTOR)
        for at in range(0, count, tile):
            spectrum = backend.wing(signals).spectrum
            power = spectrum.power(signals[at : at + tile], low, high)
            levels.append(spectrum.level(power, noise_method))
    return backend.like(movie, _join(levels).astype("float32").reshape(dims))


def axcov(data: Array, maxlag: int = 10) -> Array:
    """Autocovariance of each signal at lags -maxlag..maxlag, biased (divided by T).

    Parameters
    ----------
    data : array, (..., T)
        Signals; their means are removed.
    maxlag : int, frames
        Largest lag, less than T.

    Returns
    -------
    xcov : (..., 2 * maxlag + 1) float64
    """
    T, maxlag = _length(data), whole(maxlag, "maxlag", 0)
    if maxlag >= T:
        raise ParameterError(f"maxlag={maxlag}: a signal of {T} samples has lags 0..{T - 1}")
    signals = as_float(backend.put(data).reshape(-1, T))
    one_side = backend.wing(signals).spectrum.autocovariance(signals, maxlag)
    both = arrays.xp(one_side).concatenate([one_side[:, :0:-1], one_side], axis=1)
    return backend.like(data, both.reshape(*shape_of(data)[:-1], 2 * maxlag + 1))


def _pixel_signals(
    source: backend.FrameSource,
    frames: list[slice],
    first: int,
    count: int,
    n: int,
    transform: Callable[[Array], Array] | None,
) -> Array:
    """Pixels first..first+count-1 (C order) of the given frames, less their first value: (count, n) float32."""
    signals, origin, start = None, None, 0
    for piece in frames:
        for chunk in backend.stream(source, frames=piece):
            if transform is not None:
                chunk = transform(chunk)
            if origin is None:  # beside the frames: CuPy frames stay on their GPU, whatever device is active
                signals = arrays.xp(chunk).empty((count, n), "float32")
                origin = chunk[0].reshape(-1)[first : first + count].astype("float64")
            backend.wing(chunk).spectrum.collect(chunk, first, origin, signals, start)
            start += len(chunk)
    return signals


def _without_origin(signals: Array) -> Array:
    """Rows less their first sample, float32: constants become exact zeros, large offsets cost no digits."""
    return (signals.astype("float64") - signals[:, :1].astype("float64")).astype("float32")


def _welch_level(
    traces: Array, ends: tuple[float, float], method: str, *, inclusive: bool, like: Array
) -> Array:
    _check_method(method)
    T = _length(traces)
    lead = shape_of(traces)[:-1]
    segment = min(WELCH_SEGMENT, T)
    f = np.arange(segment // 2 + 1) / segment
    low, high = ends
    bins = np.flatnonzero((f >= low) & (f <= high) if inclusive else (f > low) & (f < high))
    if not len(bins):
        raise ParameterError(
            f"the band ({low}, {high}) holds no frequency of a segment of {segment} samples: "
            "use a wider band (at most 0 to 0.5 cycles per frame) or a longer signal"
        )
    x = as_float(backend.put(traces).reshape(-1, T))
    spectrum = backend.wing(x).spectrum
    sn = spectrum.level(spectrum.welch(x, segment, int(bins[0]), int(bins[-1]) + 1), method)
    return backend.like(like, sn.reshape(lead) if lead else sn[0])


def _selected_samples(T: int, most: int) -> list[slice]:
    """All of T samples, or `most // 3` each of the beginning (after the first), the middle and the end."""
    most = whole(most, "max_num_samples_fft", 3, "a number of samples")
    if most >= T:
        return [slice(0, T)]
    third = most // 3
    middle = T // 2 - third // 2
    return [slice(1, third + 1), slice(middle, middle + third), slice(T - third, T)]


def _band_bins(n: int, noise_range: Sequence[float]) -> tuple[int, int]:
    """Bins low..high-1 of a transform of n samples with noise_range[0] < k / n <= noise_range[1]."""
    low, high = band(noise_range, "noise_range")
    f = np.arange(n // 2 + 1) / n
    bins = np.flatnonzero((f > low) & (f <= high))
    if not len(bins):
        raise ParameterError(
            f"noise_range=({low}, {high}) holds no frequency of a signal of {n} samples: "
            "use a wider band (at most 0 to 0.5 cycles per frame) or a longer signal"
        )
    return int(bins[0]), int(bins[-1]) + 1


def _check_method(method: str) -> None:
    if method not in NOISE_METHODS:
        raise ParameterError(f"noise_method={method!r}: choose one of {', '.join(NOISE_METHODS)}")


def _length(Y: Array) -> int:
    shape = shape_of(Y)
    if not shape or shape[-1] == 0:
        raise ArrayShapeError(f"signals of shape {shape} have no samples: time is the last axis")
    return shape[-1]


def _join(parts: list[Array], axis: int = -1) -> Array:
    return parts[0] if len(parts) == 1 else arrays.xp(parts[0]).concatenate(parts, axis=axis)
