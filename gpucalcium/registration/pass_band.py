"""What of a high-pass filter for one-photon movies remains in the matched filter of registration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

KEPT_POWER = 0.35
"""Exponent of the gain beyond its maximum. Filtered frames hold filtered noise, N |H|^2, and a template is divided by
noise to the power 0.65 (`matching.SPECTRUM_POWER`): of |H| that each of template and frame brings, |H|^0.35 is left."""
LINE = 257  # frequencies at which the gain is looked at along an axis, from 0 to 1/2 cycle per pixel


def passed(images: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images as the matched filter takes them, reflected at their border and multiplied by a gain of frequencies.

    Up to its strongest frequency the gain is that of `kernel`: what is smooth goes. A kernel of a cell's size damps
    fine detail, too, which is the part of a frame that tells most exactly where it lies; the noise is damped with it,
    so in a filter that divides by the noise most of this comes back.

    Parameters
    ----------
    images : (..., d1, d2[, d3])
        One, or several along leading axes.
    kernel : (odd, odd[, odd])
        Symmetric, see `RigidParams.high_pass`.
    """
    axes = tuple(range(images.ndim - kernel.ndim, images.ndim))
    frequencies = [np.arange(images.shape[a]) / (2 * images.shape[a]) for a in axes]
    return idctn(dctn(images, axes=axes) * gain(kernel, frequencies), axes=axes)


def gain(kernel: NDArray[np.float64], frequencies: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of `passed` at these frequencies of each axis, cycles per pixel; 1 where `kernel` passes most along an axis."""
    lines = [np.abs(_response(kernel, axis)) for axis in range(kernel.ndim)]
    most = max(line.max() for line in lines)
    response = np.abs(_transfer(kernel, frequencies))
    if not most > 0:  # a Gaussian of a fraction of a pixel: nothing passes
        return response
    radius = np.zeros(())
    for line, along in zip(lines, frequencies, strict=True):
        strongest = np.argmax(line) / (2 * (LINE - 1))
        share = along / strongest if strongest else np.zeros_like(along)
        radius = np.add.outer(radius, share**2)
    response = response / most
    return np.where(radius > 1, response**KEPT_POWER, response)


def _response(kernel: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Along one axis, where the others are at rest."""
    line = np.linspace(0, 0.5, LINE)
    return _transfer(kernel, [line if a == axis else np.zeros(1) for a in range(kernel.ndim)]).ravel()


def _transfer(kernel: NDArray[np.float64], frequencies: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Fourier transform of a symmetric kernel around its middle."""
    result = kernel
    for axis, along in enumerate(frequencies):
        places = np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2
        waves = np.cos(2 * np.pi * np.multiply.outer(along, places))
        result = np.moveaxis(np.tensordot(waves, result, axes=([1], [axis])), 0, axis)
    return result
