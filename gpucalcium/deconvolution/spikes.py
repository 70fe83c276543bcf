"""Firing rates of cells from dF/F: `infer_spikes`.

Deconvolution with a kernel that is not known. The kernel is the one that explains the trace with the least
total of transients; the rate is the mean over kernels near it and over solutions of the trace with noise
added (perturb and solve: Papandreou & Yuille 2011, ICCV, "Perturb-and-MAP random fields"), which also tells
how sure it is. docs/theory/spikes.md has the reasons and what was measured.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._signals import checked_traces, number, per_trace, shape_of, whole
from gpucalcium.deconvolution.noise import GetSn
from gpucalcium.deconvolution.oasis_ar2 import SCRATCH_PER_SAMPLE, solve_ar2
from gpucalcium.errors import ParameterError

SHORTEST = 20  # samples of about 30 Hz or less: fewer tell neither noise nor decay
BASELINE_RATE = 3.0  # Hz: drift is slower than that
BASELINE_SMOOTHING = 0.25  # of the window of the percentile
TWICING = 3  # rounds of the baseline; five change correlations with the truth by less than 0.003
STEP = 1.4  # between the decay times tried; a parabola through the best three refines


@dataclass(frozen=True, kw_only=True)
class SpikeSettings:
    """How `infer_spikes` works; the defaults were chosen as docs/theory/spikes.md says."""

    sampling_rate: float = 30.0
    """Hz; faster traces are averaged down to about this rate: transients are slower, and noise is."""
    baseline_window: float | None = 30.0
    """Seconds, about; the baseline is a low percentile in windows of this length. None: a constant."""
    baseline_percentile: float = 10.0
    shortest_decay: float = 0.1
    """Seconds; together with `longest_decay` the range in which decay times are sought."""
    longest_decay: float = 4.0
    search_rise: float = 0.04
    """Seconds; rise time while the decay time is sought."""
    search_noise: float = 0.8
    """Residual left in that search, as a share of the noise: with all of it, noise draws decays out."""
    widening: float = 1.15
    """The decay with the least total, times this: the penalty of the search favours short ones."""
    rises: tuple[float, ...] = (0.02, 0.04, 0.06, 0.09)
    """Seconds; rise times over which rates are averaged."""
    spread: tuple[float, ...] = (0.87, 1.0, 1.15)
    """Multiples of the decay time over which rates are averaged."""
    repeats: int = 1
    """Noisy copies of the trace for each pair of rise and decay."""
    smoothing: float = 0.1
    """Seconds; standard deviation of the Gaussian that turns spikes into rates."""
    exponent: float = 0.8
    """Of the rate: below 1 since the indicators, binding calcium cooperatively, brighten more than in proportion."""

    def __post_init__(self) -> None:
        for name in (
            "sampling_rate",
            "shortest_decay",
            "longest_decay",
            "search_rise",
            "search_noise",
            "widening",
            "exponent",
        ):
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name}={getattr(self, name)}: must be greater than 0")
        if self.longest_decay < self.shortest_decay:
            raise ParameterError(
                f"longest_decay={self.longest_decay} is below shortest_decay={self.shortest_decay}"
            )
        if self.baseline_window is not None and not self.baseline_window > 0:
            raise ParameterError(
                f"baseline_window={self.baseline_window}: seconds, greater than 0, or None for no drift"
            )
        if not 0 <= self.baseline_percentile <= 100:
            raise ParameterError(f"baseline_percentile={self.baseline_percentile}: between 0 and 100")
        if self.smoothing < 0 or self.repeats < 1:
            raise ParameterError(
                f"smoothing={self.smoothing}, repeats={self.repeats}: expected 0 or more seconds, and 1 or more"
            )
        if not self.rises or not self.spread or min(*self.rises, *self.spread) <= 0:
            raise ParameterError(
                f"rises={self.rises}, spread={self.spread}: one or more values greater than 0"
            )


@dataclass(frozen=True)
class SpikeInference:
    """Firing rates and what they rest on; arrays as the traces given, (T,) or (K, T), and scalars or (K,)."""

    rate: Array
    """(T,) or (K, T) float32, in `unit`; the mean over solutions."""
    rate_sd: Array
    """(T,) or (K, T) float32, standard deviation among solutions: how far noise and an unknown kernel move the rate."""
    unit: str
    """"spikes/s" where the amplitude of a spike was given; else "dF/F/s": the peak dF/F of what begins per second."""
    baseline: Array
    """(T,) or (K, T) float32, dF/F of the cell at rest."""
    decay_time: Array
    """(K,) float64, seconds: fitted, or as given; NaN for constant traces."""
    noise: Array
    """(K,) float64, standard deviation of the noise of a sample, after averaging to `sampling_rate`."""
    sampling_rate: float
    """Hz at which spikes were sought."""


def infer_spikes(
    dff: Array,
    frame_rate: float,
    *,
    amplitude: float | Array | None = None,
    decay_time: float | Array | None = None,
    seed: int = 0,
    settings: SpikeSettings | None = None,
) -> SpikeInference:
    """Firing rate of each cell from its dF/F, with the time constants found from the trace itself.

    Parameters
    ----------
    dff : array, (T,) or (K, T), any real dtype
        dF/F, as a fraction or in percent; drift and an offset do no harm. A result does not depend on which
        other traces are in the batch.
    frame_rate : float, Hz
    amplitude : float or (K,), optional
        Peak dF/F of the transient of a single spike, in the unit of `dff`. Given: rates are in spikes/s.
    decay_time : float or (K,), optional
        Seconds in which a transient falls to 1/e. Default: found for each trace.
    seed : int
        Of the noise added to copies of the traces.
    settings : SpikeSettings, optional

    Returns
    -------
    SpikeInference
        CuPy arrays for CuPy traces, else NumPy.

    Raises
    ------
    ParameterError, ArrayShapeError
        NaN or infinite samples (the message names the traces), less than 20 samples, values out of range.

    Notes
    -----
    On recordings with simultaneous electrode (docs/theory/spikes.md) the correlation with the true rate, at
    7.5 Hz and smoothed over 0.2 s, has a median of 0.94.
    """
    settings = settings or SpikeSettings()
    if not isinstance(settings, SpikeSettings):
        raise ParameterError(f"settings={settings!r}: expected a SpikeSettings")
    frame_rate, seed = number(frame_rate, "frame_rate"), whole(seed, "seed", 0)
    if not frame_rate > 0:
        raise ParameterError(f"frame_rate={frame_rate}: frames per second, greater than 0")
    traces = checked_traces(dff).astype(np.float32)
    K, T = traces.shape
    block = max(1, round(frame_rate / settings.sampling_rate))
    if -(-T // block) < SHORTEST:
        raise ParameterError(
            f"{T} frames at {frame_rate} Hz are {T / frame_rate:.2f} s: give at least {SHORTEST * block} frames"
        )
    size = None if amplitude is None else _positive(amplitude, K, "amplitude")
    decay = np.full(K, np.nan) if decay_time is None else _positive(decay_time, K, "decay_time")
    xp = arrays.xp(traces)
    rate, spread, rest = (xp.zeros((K, T), np.float32) for _ in range(3))
    noise = np.zeros(K)
    solver = _Solver(settings, frame_rate / block, -(-T // block), seed)
    rows = max(1, backend.budget() // (2 * SCRATCH_PER_SAMPLE * solver.copies * solver.samples))
    for at in range(0, K, rows):
        part = slice(at, min(at + rows, K))
        coarse = _averaged(traces[part], block)
        drift = _drift(coarse, solver.rate, settings)
        found = solver.solve(
            coarse - drift, decay[part], None if size is None else size[part], given=decay_time is not None
        )
        for result, piece in ((rate, found.rate), (spread, found.sd), (rest, drift + found.level[:, None])):
            result[part] = _at_frames(piece, block, T)
        decay[part], noise[part] = found.decay, found.noise

    def as_given(x: Array) -> Array:
        return backend.like(dff, x[0] if len(shape_of(dff)) == 1 else x)

    return SpikeInference(
        rate=as_given(rate),
        rate_sd=as_given(spread),
        unit="dF/F/s" if size is None else "spikes/s",
        baseline=as_given(rest),
        decay_time=as_given(decay),
        noise=as_given(noise),
        sampling_rate=solver.rate,
    )


@dataclass(frozen=True)
class _Rates:
    """Of one group of traces, at the sampling rate of the search."""

    rate: Array
    sd: Array
    level: Array
    decay: NDArray[np.float64]
    noise: NDArray[np.float64]


class _Solver:
    """Finds decay times and rates of traces (K, samples) without drift, sampled at `rate` Hz."""

    def __init__(self, settings: SpikeSettings, rate: float, samples: int, seed: int) -> None:
        self.settings, self.rate, self.samples = settings, rate, samples
        shortest = max(settings.shortest_decay, 1.3 * settings.search_rise, 1 / rate)
        steps = max(1, int(np.log(settings.longest_decay / shortest) / np.log(STEP)) + 1)
        self._decays = shortest * STEP ** np.arange(max(steps, 1))
        self._kernels = list(itertools.product(settings.spread, settings.rises)) * settings.repeats
        self.copies = max(len(self._kernels), len(self._decays))
        # in pairs of opposite sign, so that their mean is the trace itself
        pairs = np.random.default_rng(seed).standard_normal((-(-len(self._kernels) // 2), samples))
        self._noise = (
            np.stack([pairs, -pairs], 1).reshape(-1, samples)[: len(self._kernels)].astype(np.float32)
        )
        impulse = np.zeros(2 * int(np.ceil(8 * settings.smoothing * rate)) + 1)
        impulse[len(impulse) // 2] = 1
        self._bump = _smoothed(impulse, settings.smoothing * rate)

    def solve(
        self, traces: Array, decay: NDArray[np.float64], amplitude: NDArray[np.float64] | None, *, given: bool
    ) -> _Rates:
        xp = arrays.xp(traces)
        noise = np.atleast_1d(backend.to_numpy(GetSn(traces))).astype(np.float64)
        alive = np.flatnonzero(noise > 0)
        rate, sd = xp.zeros(traces.shape, np.float32), xp.zeros(traces.shape, np.float32)
        level, found = xp.asarray(traces.mean(axis=1)), decay.copy()
        if alive.size:
            index = xp.asarray(alive)
            living, sn = traces[index], noise[alive]
            if not given:
                found[alive] = self._decay_of(living, sn)
            transients, base = self._transients(living, sn, found[alive])
            rates = self._rates(transients, None if amplitude is None else amplitude[alive])
            rate[index], sd[index] = rates.mean(axis=1), rates.std(axis=1)
            level[index] = xp.asarray(base.astype(np.float32))
        return _Rates(rate, sd, level, found, noise)

    def _decay_of(self, traces: Array, noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """The decay time for which transients of the least total explain each trace up to its noise."""
        K, n = len(traces), len(self._decays)
        rises = np.full((K, n), self.settings.search_rise)
        spikes, _ = self._deconvolved(
            arrays.xp(traces).stack([traces] * n, axis=1),
            noise * self.settings.search_noise,
            np.broadcast_to(self._decays, (K, n)),
            rises,
        )
        total = np.log(np.maximum(backend.to_numpy(spikes.sum(axis=2)).astype(np.float64), 1e-300))
        best = np.argmin(total, axis=1)
        place = best.astype(np.float64)
        inner = np.flatnonzero((best > 0) & (best < n - 1))
        left, middle, right = (total[inner, best[inner] + i] for i in (-1, 0, 1))
        bend = left - 2 * middle + right
        place[inner] += np.divide((left - right) / 2, bend, out=np.zeros_like(bend), where=bend > 0)
        return self._decays[0] * STEP**place * self.settings.widening

    def _transients(
        self, traces: Array, noise: NDArray[np.float64], decay: NDArray[np.float64]
    ) -> tuple[Array, NDArray[np.float64]]:
        """Peaks of transients (K, copies, samples) of noisy copies, a kernel to each; and the level (K,)."""
        xp = arrays.xp(traces)
        shares, rises = np.array(self._kernels).T
        scale = xp.asarray(noise.astype(np.float32))[:, None, None]
        copies = traces[:, None] + scale * xp.asarray(self._noise)
        decays = decay[:, None] * shares
        spikes, level = self._deconvolved(copies, noise, decays, np.minimum(rises, 0.8 * decays))
        return spikes, level.mean(axis=1)

    def _deconvolved(
        self,
        copies: Array,
        noise: NDArray[np.float64],
        decays: NDArray[np.float64],
        rises: NDArray[np.float64],
    ) -> tuple[Array, NDArray[np.float64]]:
        """Least sum of spikes for each of `copies` (K, n, samples), as the peak of each transient; levels (K, n)."""
        K, n, samples = copies.shape
        d, r = np.exp(-1 / (self.rate * decays)), np.exp(-1 / (self.rate * rises))
        g = np.stack([d + r, -d * r], axis=-1).reshape(-1, 2)
        _, spikes, level, _ = solve_ar2(
            copies.reshape(-1, samples), g, np.repeat(noise, n), None, b_nonneg=False
        )
        peaks = arrays.xp(copies).asarray(_peak(d, r).astype(np.float32))
        return spikes.reshape(K, n, samples) * peaks[:, :, None], backend.to_numpy(level).reshape(K, n)

    def _rates(self, transients: Array, amplitude: NDArray[np.float64] | None) -> Array:
        """Smoothed and compressed rates (K, copies, samples): linear in lone spikes, whose integral stays one.

        A lone spike keeps its integral; where n coincide, the rate is n^exponent times as high.
        """
        xp, power = arrays.xp(transients), self.settings.exponent
        width = self.settings.smoothing * self.rate
        smooth = transients * np.float32(self.rate)
        if width > 0:
            smooth = arrays.ndimage(smooth).gaussian_filter(smooth, (0, 0, width))
        mean = smooth.mean(axis=1)
        if amplitude is None:
            weight = xp.maximum(mean.sum(axis=1), np.float32(1e-30))
            lone = (mean * mean).sum(axis=1) / weight  # height that is typical of the trace
            unit = xp.ones(len(lone), np.float32)
        else:
            unit = xp.asarray(amplitude.astype(np.float32))
            lone = unit * np.float32(self._bump.max() * self.rate)
        keep = self._bump.sum() / (self._bump**power * self._bump.max() ** (1 - power)).sum()
        factor = xp.maximum(lone, np.float32(1e-30)) ** np.float32(1 - power) * np.float32(keep) / unit
        return xp.maximum(smooth, 0) ** np.float32(power) * factor[:, None, None]


def _positive(value: float | Array, K: int, name: str) -> NDArray[np.float64]:
    values = per_trace(value, K, name)
    if not (values > 0).all():
        raise ParameterError(f"{name}={value}: must be greater than 0")
    return values.copy()


def _peak(d: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest sample of the impulse response (d^{k+1} - r^{k+1}) / (d - r)."""
    top = np.maximum(np.log(np.log(r) / np.log(d)) / np.log(d / r) - 1, 0)
    return np.maximum(*((d ** (k + 1) - r ** (k + 1)) / (d - r) for k in (np.floor(top), np.ceil(top))))


def _smoothed(x: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    return gaussian_filter1d(x, width) if width > 0 else x


def _averaged(traces: Array, block: int) -> Array:
    """Means of `block` frames; the last one of those that are left."""
    if block == 1:
        return traces
    xp, (K, T) = arrays.xp(traces), traces.shape
    whole = T // block * block
    means = traces[:, :whole].reshape(K, -1, block).mean(axis=2)
    return xp.concatenate([means, traces[:, whole:].mean(axis=1)[:, None]], axis=1) if whole < T else means


def _drift(traces: Array, rate: float, settings: SpikeSettings) -> Array:
    """Slow baseline (K, samples): a running percentile, smoothed; the fit finds what constant is left.

    What the first round leaves of a curved baseline the next ones find ("twicing": Tukey 1977, Exploratory Data
    Analysis, ch. 16).
    """
    xp, samples = arrays.xp(traces), traces.shape[1]
    drift = xp.zeros(traces.shape, np.float32)
    if settings.baseline_window is None:
        return drift
    block = max(1, int(rate / BASELINE_RATE))
    width = settings.baseline_window * rate / block
    for _ in range(TWICING):
        slow = xp.ascontiguousarray(_averaged(traces - drift, block))
        ranks = xp.full(len(slow), settings.baseline_percentile)
        window = min(max(1, int(width)), slow.shape[1])
        low = backend.wing(slow).quantile.running_percentile(slow, ranks, window)
        low = arrays.ndimage(low).gaussian_filter(low, (0, BASELINE_SMOOTHING * width))
        drift = drift + _at_frames(low, block, samples)
    return drift


def _at_frames(x: Array, block: int, frames: int) -> Array:
    """Straight lines between the middles of blocks, held at the ends: (K, frames) float32."""
    if block == 1:
        return x.astype(np.float32)
    xp, n = arrays.xp(x), x.shape[1]
    middles = (np.minimum(np.arange(1, n + 1) * block, frames) - 1 + np.arange(n) * block) / 2
    place = np.interp(np.arange(frames), middles, np.arange(n))
    low = np.minimum(place.astype(np.int64), n - 1)
    share = xp.asarray((place - low).astype(np.float32))
    left, right = x[:, xp.asarray(low)], x[:, xp.asarray(np.minimum(low + 1, n - 1))]
    return (left + (right - left) * share).astype(np.float32)
