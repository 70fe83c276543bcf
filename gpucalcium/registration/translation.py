"""Displacement between two images or volumes by the peak of their cross-correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError

REACH = 0.7
"""Pixels around the best whole-pixel lag that are searched on the fine grid: its neighbours' halves, and a margin."""
NO_SIGNAL = 1e-10
"""An image whose power, its mean left out, is less than this part of its mean's power is constant but for rounding."""

Bounds = Sequence[float] | NDArray | None


def register_translation(
    src_image: ArrayLike | Array,
    target_image: ArrayLike | Array,
    upsample_factor: int = 1,
    space: str = "real",
    shifts_lb: Bounds = None,
    shifts_ub: Bounds = None,
    max_shifts: Sequence[float] | float = (10, 10),
    use_cuda: bool = False,
) -> tuple[NDArray[np.float64], Array, float]:
    """How far an image lies from another, by circular cross-correlation.

    The real part of ``IFFT(FFT(src) conj FFT(target))`` is largest at the displacement s at which
    ``src[x + s] = target[x]``. Around its best whole-pixel lag it is evaluated on a grid of ``1 / upsample_factor``
    pixels by matrix products (Guizar-Sicairos et al. 2008). `MotionCorrect` has a better estimator, which neither
    wraps around nor follows the background; this one is for images that are alike but for their place.

    Parameters
    ----------
    src_image, target_image : (d1, d2[, d3]) array, real
        Their discrete Fourier transforms, complex, if `space` is "fourier". Pixels of `src_image` that are not finite
        take the target's value, and those of the target its mean.
    upsample_factor : int
        Points of the grid per pixel; 1 gives whole pixels.
    space : {'real', 'fourier'}
        What the two arrays are.
    shifts_lb, shifts_ub : sequence of one number per axis, optional
        Smallest and largest displacement, pixels, both included; what is not given is ``-max_shifts``, ``max_shifts``.
    max_shifts : number, or one per axis
        Largest displacement either way, pixels, both ends included; 0 holds an axis still. Never more than half of
        the axis, beyond which a circular correlation means the opposite displacement.
    use_cuda : bool
        True demands the GPU; else the arrays and ``backend.use`` decide. CuPy arrays are worked on where they are.

    Returns
    -------
    shifts : (ndim,) float64
        Displacement of `src_image` against `target_image`, pixels, axis order, within the bounds. What moves it back
        is the opposite. 0 where one of the images is constant.
    src_freq : (d1, d2[, d3]) complex128
        Transform of `src_image`; CuPy if that is CuPy.
    phasediff : float
        Phase of the correlation at its peak, radians; 0 but for rounding where both images are real.

    Raises
    ------
    ArrayShapeError
        Arrays of different shapes, or not of 2 or 3 axes.
    ParameterError
        Unknown space, a factor below 1, bounds that leave nothing.
    MovieValueError
        No finite pixel in the target; a transform that is not finite.
    GpuUnavailable
        ``use_cuda=True`` without a usable GPU.

    References
    ----------
    Guizar-Sicairos, Thurman & Fienup (2008), Opt. Lett. 33:156.
    """
    with backend.use("cuda") if use_cuda else nullcontext():
        src, target = _pair(src_image, target_image)
        bounds = _bounds(src.shape, shifts_lb, shifts_ub, max_shifts)
        if upsample_factor < 1 or upsample_factor != int(upsample_factor):
            raise ParameterError(
                f"upsample_factor={upsample_factor}: points per pixel, a whole number, 1 or more"
            )
        src_freq, target_freq = _spectra(src, target, space)
        shifts, phase = _displacement(src_freq, target_freq, bounds, int(upsample_factor))
    return shifts, backend.like(src_image, src_freq), phase


def register_translation_3d(
    src_image: ArrayLike | Array,
    target_image: ArrayLike | Array,
    upsample_factor: int = 1,
    space: str = "real",
    shifts_lb: Bounds = None,
    shifts_ub: Bounds = None,
    max_shifts: Sequence[float] | float = (10, 10, 10),
) -> tuple[NDArray[np.float64], Array, float]:
    """`register_translation` of volumes (d1, d2, d3); parameters, results and errors are the same."""
    shape = backend.put(src_image).shape
    if len(shape) != 3:
        raise ArrayShapeError(
            f"register_translation_3d takes volumes (d1, d2, d3), not {shape}; use register_translation"
        )
    return register_translation(
        src_image, target_image, upsample_factor, space, shifts_lb, shifts_ub, max_shifts
    )


def _pair(src_image: ArrayLike | Array, target_image: ArrayLike | Array) -> tuple[Array, Array]:
    """Both images where the work is done: on the GPU if one of them is there."""
    src, target = backend.put(src_image), backend.put(target_image)
    if backend.is_cupy(src) != backend.is_cupy(target):
        module = backend.array_module(src if backend.is_cupy(src) else target)
        src, target = module.asarray(src), module.asarray(target)
    if src.shape != target.shape or src.ndim not in (2, 3) or 0 in src.shape:
        raise ArrayShapeError(
            f"src_image has shape {src.shape}, target_image {target.shape}: two images (d1, d2) or volumes "
            "(d1, d2, d3) of one shape are compared"
        )
    return src, target


def _bounds(
    shape: tuple[int, ...], lower: Bounds, upper: Bounds, largest: Sequence[float] | float
) -> list[tuple[float, float]]:
    """Smallest and largest displacement per axis."""
    limits = _per_axis(largest, len(shape), "max_shifts")
    if any(m < 0 for m in limits):
        raise ParameterError(f"max_shifts={largest}: pixels, 0 or more")
    lows = [-m for m in limits] if lower is None else _per_axis(lower, len(shape), "shifts_lb")
    highs = limits if upper is None else _per_axis(upper, len(shape), "shifts_ub")
    found = []
    for axis, (n, low, high) in enumerate(zip(shape, lows, highs, strict=True)):
        low, high = max(low, -((n - 1) // 2)), min(high, n // 2)
        if math.ceil(low) > math.floor(high):
            raise ParameterError(
                f"shifts_lb={lower}, shifts_ub={upper} leave no whole-pixel lag on axis {axis} of {n} pixels: widen "
                "them, within half of the axis"
            )
        found.append((float(low), float(high)))
    return found


def _per_axis(value: Sequence[float] | NDArray | float, axes: int, name: str) -> list[float]:
    given = np.asarray(value, np.float64).ravel()
    if given.size not in (1, axes) or not np.isfinite(given).all():
        raise ParameterError(f"{name}={value}: {axes} finite numbers are needed, one per axis")
    return [float(v) for v in np.broadcast_to(given, axes)]


def _spectra(src: Array, target: Array, space: str) -> tuple[Array, Array]:
    xp, fft = backend.arrays.xp(src), backend.arrays.fft(src)
    if space == "fourier":
        if not bool((xp.isfinite(src).all()) & (xp.isfinite(target).all())):
            raise MovieValueError("a transform given with space='fourier' holds NaN or infinite values")
        return src.astype(np.complex128), target.astype(np.complex128)
    if space != "real":
        raise ParameterError(f"space={space!r}: expected 'real' (images) or 'fourier' (their transforms)")
    good = xp.isfinite(target)
    if not bool(good.any()):
        raise MovieValueError("target_image holds no finite number")
    values = xp.where(good, target, 0).astype(np.float64)
    level = values.sum() / good.sum()
    values = xp.where(good, values, level)
    filled = xp.where(xp.isfinite(src), src, values).astype(np.float64)
    return tuple(fft.fftn(image) for image in (filled, values))


def _displacement(
    src: Array, target: Array, bounds: list[tuple[float, float]], factor: int
) -> tuple[NDArray[np.float64], float]:
    """Peak of the correlation of two spectra within `bounds`, and its phase."""
    lags = [np.arange(math.ceil(low), math.floor(high) + 1.0) for low, high in bounds]
    if _is_constant(src) or _is_constant(target):
        return np.array([min(max(0.0, low), high) for low, high in bounds]), 0.0
    product = src * target.conj()
    best, phase = _largest(product, lags)
    if factor > 1:
        steps = np.arange(-int(REACH * factor), int(REACH * factor) + 1) / factor
        fine = [
            np.unique(np.clip(centre + steps, low, high)) if low < high else np.array([centre])
            for centre, (low, high) in zip(best, bounds, strict=True)
        ]
        best, phase = _largest(product, fine)
    return best, phase


def _is_constant(spectrum: Array) -> bool:
    power = abs(spectrum) ** 2
    mean = power[(0,) * power.ndim]
    return float(power.sum() - mean) <= NO_SIGNAL * float(mean)


def _largest(product: Array, points: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], float]:
    """Where, of a grid of `points` per axis, the inverse transform of `product` has the largest real part."""
    xp = backend.arrays.xp(product)
    values = product
    for n, at in zip(
        product.shape, points, strict=True
    ):  # an axis at a time: each leaves at the front, comes back last
        angle = 2j * np.pi * np.outer(np.fft.fftfreq(n), at)
        values = xp.tensordot(values, xp.asarray(np.exp(angle)), axes=(0, 0))
    index = int(xp.argmax(values.real.ravel()))
    peak = complex(backend.to_numpy(values.ravel()[index : index + 1])[0])
    where = np.unravel_index(index, values.shape)
    return np.array([at[i] for at, i in zip(points, where, strict=True)]), math.atan2(peak.imag, peak.real)
