"""What goes in, checked: traces on their device, and numbers one a trace on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, arrays
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, ParameterError


def shape_of(x: Array) -> tuple[int, ...]:
    """Shape of an array of any kind, or of nested sequences."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def checked_traces(y: Array) -> Array:
    """`y` as (K, T) float32 or float64 on its device; ValueError naming traces that are not finite."""
    shape = shape_of(y)
    if len(shape) not in (1, 2) or shape[-1] == 0:
        raise ArrayShapeError(f"traces have shape {shape}: give one trace (T,) or traces (K, T), T >= 1")
    traces = as_float(backend.put(y).reshape(-1, shape[-1]))
    finite = backend.to_numpy(arrays.xp(traces).isfinite(traces).all(axis=1))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ParameterError(
            f"trace{'s' * (len(bad) > 1)} {', '.join(map(str, bad[:8]))}{' ...' * (len(bad) > 8)} of {len(finite)}: "
            "NaN or infinite samples; leave out or interpolate them first"
        )
    return traces


def as_float(x: Array) -> Array:
    """`x` in C order and float32 if that holds its values exactly, else float64: what the wings take."""
    if x.dtype.kind not in "biuf":
        raise ArrayTypeError(f"signals are of type {x.dtype}: give real numbers")
    dtype = np.float32 if x.dtype == np.float32 or np.can_cast(x.dtype, np.float32) else np.float64
    return arrays.xp(x).ascontiguousarray(x.astype(dtype, copy=False))


def whole(value: object, name: str, least: int, what: str = "a whole number") -> int:
    """`value` if it is a whole number of `least` or more, of whatever type."""
    try:
        if value == (number := int(value)) and number >= least:  # type: ignore[call-overload]
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ParameterError(f"{name}={value!r}: expected {what}, {least} or more")


def number(value: object, name: str) -> float:
    """`value` if it is one finite number."""
    numbers = _numbers(value, name)
    if numbers.size != 1 or not np.isfinite(numbers).all():
        raise ParameterError(f"{name}={value!r}: expected one finite number")
    return float(numbers.reshape(()))


def band(value: object, name: str) -> tuple[float, float]:
    """`value` as the ends of a band of frequencies."""
    ends = _numbers(value, name)
    if ends.shape != (2,) or not np.isfinite(ends).all():
        raise ParameterError(f"{name}={value!r}: expected two frequencies, (low, high), in cycles per frame")
    return float(ends[0]), float(ends[1])


def noise_levels(sn: float | Array, K: int) -> NDArray[np.float64]:
    """`sn` as one standard deviation a trace, on the host."""
    levels = per_trace(sn, K, "sn")
    if (levels < 0).any():
        raise ParameterError(f"sn={levels[levels < 0][0]:.4g}: a standard deviation is 0 or more")
    return levels


def _numbers(value: object, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(backend.to_numpy(value), dtype=np.float64)
    except (TypeError, ValueError) as err:
        raise ParameterError(f"{name}={value!r}: expected numbers") from err


def per_trace(value: float | Array, K: int, name: str) -> NDArray[np.float64]:
    """`value` as one float64 a trace, on the host."""
    host = _numbers(value, name).reshape(-1)
    if host.size not in (1, K):
        raise ArrayShapeError(f"{name} has {host.size} values for {K} traces: give one, or one a trace")
    if not np.isfinite(host).all():
        raise ParameterError(f"{name} is NaN or infinite: {host[~np.isfinite(host)][:3]}")
    return np.ascontiguousarray(np.broadcast_to(host, K))


def coefficients(g: float | Array, K: int, p: int) -> NDArray[np.float64]:
    """`g` as (K, p) float64 on the host."""
    host = _numbers(g, "g")
    if host.size not in (p, K * p):
        raise ArrayShapeError(f"g has shape {host.shape}: p={p} needs ({p},), or ({K}, {p}) for {K} traces")
    if not np.isfinite(host).all():
        raise ParameterError("g is NaN or infinite; leave it out to have it estimated")
    return np.broadcast_to(host.reshape(-1, p), (K, p)).copy()


def checked_events(optimize_g: int) -> int:
    """How many transients the time constants are to be fitted to, 0 for none."""
    return whole(optimize_g, "optimize_g", 0)


def as_given(y: Array, *results: Array) -> tuple[Array, ...]:
    """Results, an axis of traces first, in the kind of array `y` is; without that axis if `y` has none."""
    single = len(shape_of(y)) == 1
    return tuple(backend.like(y, x[0] if single else x) for x in results)
