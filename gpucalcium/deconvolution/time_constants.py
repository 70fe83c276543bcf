"""How fast calcium decays: autoregressive coefficients from the autocovariance of fluorescence.

Fluorescence y = b + c + noise with c an AR(p) process driven by spikes has the autocovariance
xi_j = sum_i g_i (xi_{j-i} - sn^2 [j = i]), j >= 1: the noise is in xi_0 only
(Pnevmatikakis et al. 2016, Neuron 89:285, methods).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.deconvolution._signals import checked_traces, noise_levels, number, shape_of, whole
from gpucalcium.deconvolution.noise import GetSn, axcov
from gpucalcium.errors import ArrayShapeError, ParameterError

ROOT_ABOVE_ONE = 0.95  # what stands in for a root that would let calcium grow
ROOT_BELOW_ZERO = 0.15  # ... or that would let it alternate
JITTER = 0.01  # sets replaced roots apart, so that two of them do not coincide
JITTER_SEED = 45


def estimate_time_constant(
    fluor: Array,
    p: int = 2,
    sn: float | Array | None = None,
    lags: int = 5,
    fudge_factor: float = 1.0,
) -> Array:
    """AR(p) coefficients of traces, by least squares on lags 1 to ``lags + p`` of the autocovariance.

    Parameters
    ----------
    fluor : array, (T,) or (K, T)
        Fluorescence traces.
    p : int
        Order, 1 or more.
    sn : float or (K,), optional
        Noise standard deviation in units of `fluor`; estimated by `GetSn` if absent.
    lags : int, frames
        Equations beyond the p that are needed.
    fudge_factor : float
        Multiplies the roots (the decay per frame): below 1 it takes back the bias towards long decays.

    Returns
    -------
    g : float64, (p,) for one trace, else (K, p)
        Real roots in place of complex ones (their real part); a root above 1 is replaced by about 0.95 and one
        below 0 by about 0.15, apart by a fixed random offset of s.d. 0.01 (the same for every trace and call).

    Raises
    ------
    ParameterError
        p < 1, lags < 0, a `fudge_factor` that is not above 0, or fewer than ``lags + p + 1`` samples; NaN or infinite
        samples (the message names the traces).
    """
    p, lags = whole(p, "p", 1, "the order of an autoregressive model"), whole(lags, "lags", 0)
    if not number(fudge_factor, "fudge_factor") > 0:
        raise ParameterError(f"fudge_factor={fudge_factor}: a factor of the decay per frame is above 0")
    shape = shape_of(fluor)
    if len(shape) not in (1, 2):
        raise ArrayShapeError(f"fluor has shape {shape}: give one trace (T,) or traces (K, T)")
    if shape[-1] <= lags + p:
        raise ParameterError(
            f"a trace of {shape[-1]} samples has no autocovariance at lag {lags + p}: "
            "use a longer trace, or smaller p or lags"
        )
    traces = checked_traces(fluor)
    variance = noise_levels(GetSn(traces) if sn is None else sn, len(traces)) ** 2
    xi = backend.to_numpy(axcov(traces, lags + p))[:, lags + p :]
    g = _with_tame_roots(_least_squares(xi, variance, p, lags), fudge_factor)
    return backend.like(fluor, g.reshape(*shape[:-1], p))


def estimate_parameters(
    fluor: Array,
    p: int = 2,
    sn: float | Array | None = None,
    g: Array | None = None,
    range_ff: Sequence[float] = (0.25, 0.5),
    method: str = "logmexp",
    lags: int = 5,
    fudge_factor: float = 1.0,
) -> tuple[Array, Array]:
    """Noise level and AR coefficients of traces: what is given is kept, what is None is estimated.

    Parameters
    ----------
    fluor, p, lags, fudge_factor
        As for `estimate_time_constant`; p = 0 asks for no coefficients.
    sn, g : optional
        Noise standard deviation(s) and AR coefficients, if known.
    range_ff, method
        As for `GetSn`.

    Returns
    -------
    g, sn
        As of `estimate_time_constant` and `GetSn`; g is array(0) for p = 0.
    """
    if sn is None:
        sn = GetSn(fluor, range_ff, method)
    if g is None:
        g = np.array(0) if whole(p, "p", 0) == 0 else estimate_time_constant(fluor, p, sn, lags, fudge_factor)
    return g, sn


def _least_squares(xi: NDArray, variance: NDArray, p: int, lags: int) -> NDArray:
    """Solve xi_j = sum_i g_i (xi_|j-i| - variance [j = i]), j = 1..lags+p, for each row of `xi` (K, lags+p+1)."""
    equations = np.arange(1, lags + p + 1)
    distance = np.abs(equations[:, None] - np.arange(1, p + 1))
    matrices = xi[:, distance] - variance[:, None, None] * (distance == 0)
    return np.einsum("kij,kj->ki", np.linalg.pinv(matrices), xi[:, 1:])


def _with_tame_roots(g: NDArray, fudge_factor: float) -> NDArray[np.float64]:
    """The AR coefficients whose roots are those of `g` (K, p), made real, put inside [0, 1], times `fudge_factor`."""
    p = g.shape[1]
    companion = np.zeros((len(g), p, p))  # its eigenvalues are the roots
    companion[:, 0] = g
    companion[:, np.arange(1, p), np.arange(p - 1)] = 1
    roots = np.linalg.eigvals(companion).real
    jitter = JITTER * np.random.default_rng(JITTER_SEED).standard_normal(p)
    roots = np.where(roots > 1, ROOT_ABOVE_ONE + jitter, roots)
    roots = fudge_factor * np.where(roots < 0, ROOT_BELOW_ZERO + jitter, roots)
    polynomial = np.zeros((len(g), p + 1))  # prod_i (x - root_i), highest power first
    polynomial[:, 0] = 1
    for root in roots.T:
        polynomial[:, 1:] -= root[:, None] * polynomial[:, :-1]
    return 0.0 - polynomial[:, 1:]
