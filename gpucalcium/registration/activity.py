"""What changes in place from frame to frame, measured where it is, and the filter that it disturbs least.

A cell that brightens pulls the best match towards itself. On large frames many cells pull in all directions; on small
ones a few decide, and an average noise spectrum (`matching.Noise`) does not know which. Here the covariance N of
registered frames is that of photons, pixel by pixel, and of modes of activity, block by block. The filter h with the
least error minimises sum_a <(dh/da) N (dh/da)> while sum_a <(dh/da) (dT/da)> = 1, hence

    - sum_a d/da N d/da h  =  - sum_a d^2/da^2 T      (docs/theory/registration.md),

which for stationary noise is the whitened matched filter h = T / N again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

BLOCK = 32  # pixels: wider than a cell, so that its modes fit; far smaller than a frame, whose shift is no activity
FEWEST_BLOCKS = (
    4  # of a frame: a mode that fills half of it is hard to tell from what an error of the shift leaves
)
MODES = 6  # per block at most
FEWEST = 25  # frames that modes are measured from
LARGEST = 10_000  # pixels of a frame: above, so many cells average out that modes gain nothing
WHITE_ABOVE = 0.4  # cycles per pixel: there frames hold photon noise alone
SMOOTHING = 2.0  # pixels, of the photon variance
IMAGE_SHARE = 0.01
"""Of the template's variance: distortion and interpolation leave that much. With less noise they would be taken for
activity."""
RANGE = 20.0  # no pixel's photon noise is more than this times, or less than one part in this of, the median
SPARE, TURNS = (
    4,
    12,
)  # more vectors than modes, and how often they are multiplied: what stands out of noise is exact
STEPS = 40  # of conjugate gradients; the error of shifts then is within 1 % of that of the solution

Slices = tuple[slice, ...]
Operator = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Activity:
    """Covariance of registered frames about their mean: independent photon noise, and modes within blocks."""

    photons: NDArray[np.float64]
    """(d1, d2[, d3]) variance."""
    modes: tuple[tuple[Slices, NDArray[np.float64]], ...]
    """For each block that has any: where it lies, and (k, pixels) images, scaled by their standard deviation."""
    margins: tuple[int, ...]
    """Pixels at either end of each axis that shifted frames need not show: the filter is zero there."""

    @classmethod
    def measured(
        cls, residuals: NDArray[np.float32], level: float, margins: tuple[int, ...]
    ) -> Activity | None:
        """From registered frames.

        Parameters
        ----------
        residuals : (n, d1, d2[, d3]) float32
            Registered frames minus their mean; 0 where nothing was recorded.
        level : float
            Variance of photon and read noise, which interpolation has lowered in `residuals`.
        margins : tuple of int

        Returns
        -------
        Activity, or None where there are too few frames or blocks, or no noise.
        """
        if len(residuals) < FEWEST or not level > 0 or not residuals.any():
            return None
        places = blocks(residuals.shape[1:])
        if len(places) < FEWEST_BLOCKS:
            return None
        photons = level * _photon_shape(residuals)
        found = ((at, _modes(residuals, photons, at, taper)) for at, taper in places)
        return cls(photons, tuple((at, images) for at, images in found if len(images)), margins)

    def covariance(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """N x, of the shape of `x`."""
        result = self.photons * x
        for at, images in self.modes:
            weights = np.einsum("kp,p->k", images, x[at].ravel())
            result[at] += np.einsum("kp,k->p", images, weights).reshape(result[at].shape)
        return result

    def filter(
        self, image: NDArray[np.float64], signal: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The filter that finds `image` with the least error.

        The image as a whole counts as a mode, too: were it not at the maximum of its own correlation, then changes
        of brightness would move it.

        Parameters
        ----------
        image : (d1, d2[, d3])
            Template, its mean subtracted.
        signal, noise : (d1, d2//2+1), or with three axes
            Share of the template's power that is no noise, and power spectrum of the noise: where to begin.
        """
        shape, inside = image.shape, _inside(image.shape, self.margins)
        waves = _waves(shape)
        square = sum(np.abs(k) ** 2 for k in waves)
        weight = np.divide(1.0, square * noise, out=np.zeros_like(noise), where=square * noise > 0)

        def image_of(spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
            return scipy.fft.irfftn(spectrum, s=shape)

        def disturbance(h: NDArray[np.float64]) -> NDArray[np.float64]:
            spectrum = scipy.fft.rfftn(h)
            total = np.zeros_like(spectrum)
            for k in waves:
                slope = image_of(k * spectrum)
                total -= k * scipy.fft.rfftn(self.covariance(slope) + image * np.vdot(image, slope))
            return inside * image_of(total)

        def stationary(r: NDArray[np.float64]) -> NDArray[np.float64]:
            return inside * image_of(weight * scipy.fft.rfftn(r))

        return _solved(disturbance, inside * image_of(square * signal * scipy.fft.rfftn(image)), stationary)


def _solved(apply: Operator, b: NDArray[np.float64], precondition: Operator) -> NDArray[np.float64]:
    """Preconditioned conjugate gradients for apply(x) = b."""
    x, r = np.zeros_like(b), b.copy()
    z = precondition(r)
    p, size = z, float(np.vdot(r, z))
    enough = 1e-12 * size
    for _ in range(STEPS):
        if not size > enough:
            break
        step = apply(p)
        length = size / float(np.vdot(p, step))
        x += length * p
        r -= length * step
        z = precondition(r)
        before, size = size, float(np.vdot(r, z))
        p = z + (size / before) * p
    return x


def white_level(noise: NDArray[np.float64], radius: NDArray[np.float64]) -> float:
    """Variance of a pixel by the high end of a noise spectrum; `radius` in cycles per pixel on the same grid."""
    return float(np.median(noise[radius > min(WHITE_ABOVE, 0.8 * radius.max())]))


def blocks(shape: tuple[int, ...]) -> list[tuple[Slices, NDArray[np.float64]]]:
    """Blocks that overlap by half and the taper of each; squares of tapers sum to one at every pixel."""
    sides = [min(BLOCK, n) for n in shape]
    starts = [
        np.unique(np.rint(np.linspace(0, n - side, math.ceil(2 * (n - side) / side) + 1)).astype(int))
        for n, side in zip(shape, sides, strict=True)
    ]
    taper = np.ones(())
    for n, side in zip(shape, sides, strict=True):
        taper = np.multiply.outer(
            taper, np.sin(np.pi * (np.arange(side) + 0.5) / side) if side < n else np.ones(n)
        )
    places = [
        tuple(slice(int(a), int(a) + side) for a, side in zip(corner, sides, strict=True))
        for corner in product(*starts)
    ]
    total = np.zeros(shape)
    for at in places:
        total[at] += taper**2
    return [(at, taper / np.sqrt(total[at])) for at in places]


def _modes(
    residuals: NDArray[np.float32], photons: NDArray[np.float64], at: Slices, taper: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Principal components of a block that stand out of photon noise, (k, pixels).

    Among white noise of variance 1 in p pixels and n frames, components have variances up to (sqrt p + sqrt n)^2 / n
    (Marchenko and Pastur 1967); what is larger is activity, and p / n of it is noise.
    """
    n, deviation = len(residuals), np.sqrt(photons[at])
    whitened = (residuals[(slice(None), *at)] * (taper / deviation).astype(np.float32)).reshape(n, -1)
    pixels = float((taper**2).sum())
    variances, courses = _leading((whitened @ whitened.T).astype(np.float64) / n)
    loud = np.flatnonzero(variances > (math.sqrt(pixels) + math.sqrt(n)) ** 2 / n)
    scale = np.sqrt((variances[loud] - pixels / n) / (n * variances[loud]))
    return (courses[:, loud] * scale).T @ whitened.astype(np.float64) * deviation.ravel()


def _leading(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The `MODES` largest eigenvalues, ascending, and eigenvectors, by subspace iteration.

    Many times cheaper than all eigenvectors, above all where other threads keep the cores busy.
    """
    basis = covariance[:, : MODES + SPARE]
    for _ in range(TURNS):
        basis = np.linalg.qr(covariance @ basis)[0]
    values, turn = np.linalg.eigh(basis.T @ covariance @ basis)
    return values[-MODES:], basis @ turn[:, -MODES:]


def _photon_shape(residuals: NDArray[np.float32]) -> NDArray[np.float64]:
    """Photon variance of each pixel relative to the median: mean square difference of neighbours, smoothed."""
    total = np.zeros(residuals.shape[1:])
    for axis in range(total.ndim):
        if total.shape[axis] > 1:
            between = np.square(np.diff(residuals, axis=axis + 1)).mean(axis=0, dtype=np.float64)
            total += np.pad(
                between, [(1, 0) if a == axis else (0, 0) for a in range(total.ndim)], mode="edge"
            )
            total += np.pad(
                between, [(0, 1) if a == axis else (0, 0) for a in range(total.ndim)], mode="edge"
            )
    smooth = gaussian_filter(total, SMOOTHING)
    return np.clip(smooth / max(float(np.median(smooth)), np.finfo(float).tiny), 1 / RANGE, RANGE)


def _inside(shape: tuple[int, ...], margins: tuple[int, ...]) -> NDArray[np.float64]:
    inside = np.zeros(shape)
    inside[tuple(slice(m, n - m) for m, n in zip(margins, shape, strict=True))] = 1
    return inside


@lru_cache(maxsize=4)
def _waves(shape: tuple[int, ...]) -> tuple[NDArray[np.complex128], ...]:
    """Multiplying a spectrum of rfftn by these differentiates the image along each axis."""
    axes = [scipy.fft.fftfreq(n) for n in shape[:-1]] + [scipy.fft.rfftfreq(shape[-1])]
    for axis, n in zip(axes, shape, strict=True):
        if n % 2 == 0:
            axis[n // 2] = 0  # the derivative of what alternates is zero at the pixels
    return tuple(np.meshgrid(*(2j * np.pi * k for k in axes), indexing="ij", sparse=True))
