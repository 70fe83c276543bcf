"""How near a deconvolution is to the optimum of its convex problem: the conditions of Karush, Kuhn and Tucker.

Boyd & Vandenberghe 2004, Convex Optimization, section 5.5.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.deconvolution._signals import (
    as_given,
    checked_traces,
    coefficients,
    noise_levels,
    per_trace,
    shape_of,
)
from gpucalcium.errors import ArrayShapeError, ParameterError

NO_DECAY = 1e-30  # a slower root below which what there is at t = 0 is gone at t = 1


class KktResidual(NamedTuple):
    """By how much each trace misses the conditions of the optimum; all 0 there."""

    gradient: Array
    """(K,) float64: largest gain that a spike more (where there is none) or of another size (where there is one) would
    still bring per unit, relative to the largest correlation of data and impulse response."""
    negative: Array
    """(K,) float64: most negative spike, relative to the largest."""
    noise: Array | None
    """(K,) float64: |RSS / (sn^2 T) - 1|, or None where no noise is given."""


def kkt_residual(
    y: Array,
    c: Array,
    b: float | Array,
    g: Array,
    lam: float | Array,
    sn: float | Array | None = None,
) -> KktResidual:
    """Distance of calcium from the optimum of min |y - b - c|^2 / 2 + lam sum s, s_t = c_t - sum_i g_i c_{t-i} >= 0.

    With `sn`, also from |y - b - c|^2 = sn^2 T: the three together are those of least spikes within the noise.

    Parameters
    ----------
    y : array, (T,) or (K, T)
        Fluorescence.
    c : array, as y
        Calcium of `constrained_oasisAR1` or `constrained_oasisAR2` (of `constrained_foopsi`: with the initial decay,
        c + c1 d^t).
    b, lam : float or (K,)
        Baseline and penalty.
    g : float, (K,), (p,) or (K, p), p = 1 or 2
        AR coefficients, of real roots; (2,) is one pair for all traces.
    sn : float or (K,), optional
        Noise standard deviation.

    Returns
    -------
    KktResidual
        Its fields are scalars for one trace; CuPy if `y` is CuPy. float32 calcium reads about 1e-6.

    Raises
    ------
    ParameterError, ArrayShapeError
        Samples that are not finite, more than two coefficients, sizes that do not fit.

    Notes
    -----
    A spike at t >= 1 costs lam and lowers the residual by its correlation with the impulse response; calcium at t = 0
    decays by the slower root. A spike is one of more than 1e-4 of the largest: less is rounding of float32 calcium.
    """
    traces = checked_traces(y)
    K, T = traces.shape
    if shape_of(c) != shape_of(y):
        raise ArrayShapeError(f"c has shape {shape_of(c)}, y {shape_of(y)}: they are of the same traces")
    order = 1 if shape_of(g) in ((), (K,)) and shape_of(g) != (2,) else shape_of(g)[-1]
    if order not in (1, 2):
        raise ParameterError(f"g has shape {shape_of(g)}: give (p,) or (K, p), p = 1 or 2")
    xp = arrays.xp(traces)
    model = coefficients(g, K, order)
    pair = xp.asarray(np.concatenate([model, np.zeros((K, 2 - order))], axis=1))
    level, penalty = (xp.asarray(per_trace(x, K, name)) for x, name in ((b, "b"), (lam, "lam")))
    calcium = xp.asarray(backend.put(c)).reshape(K, T).astype("float32")
    spikes = _spikes(calcium.astype("float64"), pair)
    wing = backend.wing(traces).onnls
    gradient, reach = xp.empty((K, T), "float64"), xp.empty((K, T), "float64")
    wing.gradient_ar2(traces, pair, level, penalty, calcium, gradient)
    wing.gradient_ar2(traces, pair, level, 0 * penalty, 0 * calcium, reach)
    largest = spikes.max(axis=1)
    misses = xp.where(spikes > 1e-4 * largest[:, None], abs(gradient), xp.maximum(gradient, 0))
    scale = abs(reach).max(axis=1)
    residual = traces - calcium - level[:, None]
    noise = None
    if sn is not None:
        theta = xp.asarray(noise_levels(sn, K) ** 2 * T)
        noise = abs((residual * residual).sum(axis=1, dtype="float64") / xp.maximum(theta, 1e-300) - 1)
    relative = misses.max(axis=1) / xp.where(scale > 0, scale, 1.0)
    below = xp.maximum(-spikes.min(axis=1), 0) / xp.where(largest > 0, largest, 1.0)
    found = as_given(y, relative, below, *([] if noise is None else [noise]))
    return KktResidual(found[0], found[1], found[2] if noise is not None else None)


def _spikes(c: Array, g: Array) -> Array:
    """s_t = c_t - g_1 c_{t-1} - g_2 c_{t-2}, t >= 1, as if calcium had decayed by the slower root before; s_0 = c_0."""
    xp = arrays.xp(c)
    slow = (g[:, 0] + xp.sqrt(xp.maximum(g[:, 0] ** 2 + 4 * g[:, 1], 0))) / 2
    decays = slow > NO_DECAY
    before = xp.where(decays, c[:, 0] / xp.where(decays, slow, 1.0), 0.0)
    s = c.copy()
    s[:, 1:] -= g[:, :1] * c[:, :-1]
    s[:, 1:2] -= (g[:, 1] * before)[:, None]
    s[:, 2:] -= g[:, 1:] * c[:, :-2]
    return s
