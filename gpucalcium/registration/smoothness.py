"""What the patches of a frame tell of each other: displacement is smooth, and how smooth is learned from the recording.

The displacement that a patch shows is that of the frame, plus the average of a local field over the structure in the
patch, plus an error whose variance follows from the noise. With a Gaussian prior for the field the best estimate at the
middle of every patch is linear in what all patches show (Gaussian process regression: Rasmussen & Williams 2006,
eq. 2.25), so one matrix per axis serves all frames. docs/theory/registration.md has the derivation.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium.backend import fourier
from gpucalcium.registration.matching import FEW, Noise, few_ends, taper, wave_number, window
from gpucalcium.registration.patches import PatchGrid

REACHES = 0.125 * 1.5 ** np.arange(7)  # of the side of the frame: lengths over which a field may change,
QUIET_REACH = 0.5  # of the side of the frame, where the field is too small to tell
LEAST_PLANES = 10
LEAST_REACH = 0.5  # of a patch: within it a field averages out
GAINS = np.exp(np.linspace(-6, 10, 48))  # variance of the field over that of the errors, likewise
TRUST = 0.5  # standard deviation of the logarithm of what theory gets the variance of errors wrong by
FITTED_PATCHES = 64  # enough to tell three lengths and two variances
PRIOR_FRAMES = 20.0  # of the recording, as many as the covariance of a stationary field counts
LEARNING_ROUNDS = 10  # more change displacements by less than 0.001 px on simulated movies
LEARNED_PATCHES = (
    300  # more stay with the stationary covariance: cubes of their number would take longer than frames
)
FARTHEST = 3.0  # standard deviations from what the others say: what is beyond counts as if it were there


def patch_window(width: tuple[int, ...], taper_share: float) -> NDArray[np.float64]:
    """What weighs the pixels of a patch."""
    inside = np.ones(())
    for w in width:
        inside = np.multiply.outer(inside, _taper(w, taper_share))
    return inside


def _taper(width: int, share: float) -> NDArray[np.float64]:
    """No margin, since a patch is read where the frame lies; but among few planes the fraction that is left tells.

    Among fewer than `LEAST_PLANES` what a margin leaves out tells more.
    """
    if LEAST_PLANES <= width < FEW:
        return taper(width, *few_ends(width))
    return taper(width, 0.0, share * width)


@dataclass(frozen=True)
class Evidence:
    """What each patch of a template can tell of displacement along each axis; P patches."""

    middle: NDArray[np.float64]
    """(ndim, P, ndim) where in the frame the structure lies that shows displacement along the first axis, pixels."""
    spread: NDArray[np.float64]
    """(ndim, P, ndim) variance of that place, pixels^2."""
    variance: NDArray[np.float64]
    """(ndim, P) of the error, pixels^2; infinite where a patch tells nothing."""
    shared: NDArray[np.float64]
    """(P, P) correlation of errors: the share of pixels in common."""

    @classmethod
    def of(
        cls,
        image: NDArray[np.float64],
        kernels: NDArray[np.complex64],
        grid: PatchGrid,
        noise: Noise,
        taper_share: float,
    ) -> Evidence:
        """For the template `image` and the filters of its patches."""
        inside = patch_window(grid.width, taper_share)
        spectrum = scipy.fft.rfftn(image - image.mean()) * np.sqrt(noise.weight)
        half = scipy.fft.irfftn(spectrum, s=image.shape) / np.sqrt(noise.deviation)
        moments = [
            _moments(np.gradient(half, axis=a) ** 2 if n > 1 else np.ones_like(half), grid, inside)
            for a, n in enumerate(image.shape)
        ]
        return cls(
            np.stack([middle for middle, _ in moments]),
            np.stack([spread for _, spread in moments]),
            _error_variance(image, kernels, grid, noise),
            _shared(grid, taper_share),
        )


@dataclass(frozen=True)
class Smoothness:
    """How the displacements that patches show are combined; see `patches.settle` of the wings."""

    within: NDArray[np.float32]
    """(ndim, P, P): what all patches together say of what each of them should show."""
    at_centres: NDArray[np.float32]
    """(ndim, P, P): what they say of the field at the middle of each."""
    limit: NDArray[np.float32]
    """(2, ndim, P) pixels: how far from its frame, and from what all patches say, a patch is believed."""

    @classmethod
    def none(cls, patches: int, ndim: int) -> Smoothness:
        """Every patch for itself."""
        alone = np.repeat(np.eye(patches, dtype=np.float32)[None], ndim, axis=0)
        return cls(alone, alone.copy(), np.full((2, ndim, patches), np.inf, np.float32))

    @classmethod
    def learned(
        cls,
        apart: NDArray[np.float64],
        evidence: Evidence,
        grid: PatchGrid,
        least: tuple[float, ...] | None = None,
    ) -> Smoothness:
        """From displacements (n, P, ndim) that patches of some frames show beside their frame's.

        `least` per axis is the standard deviation of fields that may come, even if these frames are still (None: 0).
        """
        least = least or (0.0,) * len(grid.shape)
        centres = np.stack([x.ravel() for x in np.meshgrid(*grid.centres, indexing="ij")], axis=1)
        result = cls.none(grid.n, len(grid.shape))
        for axis, variance in enumerate(evidence.variance):
            known = np.flatnonzero(np.isfinite(variance))
            if not known.size or not len(apart):
                result.within[axis], result.at_centres[axis] = 0, 0
                continue
            root = np.sqrt(variance[known])
            error = evidence.shared[np.ix_(known, known)] * np.multiply.outer(root, root)
            places = np.concatenate([evidence.middle[axis, known], centres])
            spread = np.concatenate([evidence.spread[axis, known], np.zeros_like(centres)])
            shown = apart[:, known, axis]
            reach, gain, scale = _fitted(shown, places[: known.size], spread[: known.size], error, grid)
            quiet = gain * scale < least[axis] ** 2
            if quiet:  # how far it reaches is then not known, either
                reach = tuple(QUIET_REACH * n for n in grid.shape)
            variance_of_field = max(gain * scale, least[axis] ** 2)
            prior = variance_of_field * _covariance(places, spread, places, spread, reach)
            if not quiet and known.size <= LEARNED_PATCHES:
                prior = _updated(prior, scale * error, shown)
            _combine(result, axis, known, prior, scale * error)
        return result


def _combine(
    result: Smoothness,
    axis: int,
    known: NDArray[np.int64],
    covariance: NDArray[np.float64],
    error: NDArray[np.float64],
) -> None:
    """Write the matrices of one axis: covariance is of what `known` patches show, then of all centres."""
    m = known.size
    weights = np.linalg.solve(covariance[:m, :m] + error, covariance[:m]).T
    full = np.zeros((len(covariance), result.limit.shape[-1]))
    full[:, known] = weights
    result.within[axis] = 0
    result.within[axis][known] = full[:m]
    result.at_centres[axis] = full[m:]
    shown = covariance[:m, :m] + error
    left = error @ np.linalg.solve(shown, error)
    for limit, variance in zip(result.limit, (shown, left), strict=True):
        limit[axis][known] = FARTHEST * np.sqrt(np.maximum(np.diag(variance), 0))


def _moments(
    weight: NDArray[np.float64], grid: PatchGrid, inside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of place over each patch, (P, ndim) both; the patch's middle where nothing has weight."""
    ndim = len(grid.shape)
    middle, spread = np.empty((grid.n, ndim)), np.empty((grid.n, ndim))
    for p, patch in enumerate(grid.slices):
        here = weight[patch] * inside
        if not here.sum() > 0:
            here = inside
        for b, pixels in enumerate(patch):
            along = here.sum(axis=tuple(c for c in range(ndim) if c != b))
            place = np.arange(pixels.start, pixels.stop)
            middle[p, b] = along @ place / along.sum()
            spread[p, b] = along @ (place - middle[p, b]) ** 2 / along.sum()
    return middle, spread


def _error_variance(
    image: NDArray[np.float64], kernels: NDArray[np.complex64], grid: PatchGrid, noise: Noise
) -> NDArray[np.float64]:
    """(ndim, P): noise in the slope of the correlation over its curvature squared."""
    width, band = grid.width, kernels.shape[1:]
    last = len(width) - 1
    cycles = [
        fourier.frequencies(w, b, last=a == last) for a, (w, b) in enumerate(zip(width, band, strict=True))
    ]
    rows = np.ix_(*(k % w for k, w in zip(cycles, width, strict=True)))
    omega = np.meshgrid(*(2 * np.pi * k / w for k, w in zip(cycles, width, strict=True)), indexing="ij")
    radius = np.sqrt(sum(w**2 for w in omega)) / (2 * np.pi)
    order = np.argsort(wave_number(image.shape), axis=None)
    spectrum = np.interp(radius, wave_number(image.shape).ravel()[order], noise.spectrum.ravel()[order])
    spectrum *= (
        math.prod(width) / (window(image.shape, (0,) * image.ndim) ** 2).sum()
    )  # from a frame to a patch
    spectrum /= np.where(cycles[-1] == 0, 1, 2)  # a column that stands for two has half its noise in phase
    variance = np.full((len(width), grid.n), np.inf)
    for p, patch in enumerate(grid.slices):
        structure = (scipy.fft.rfftn(image[patch])[rows] * kernels[p]).real
        power = np.abs(kernels[p]).astype(np.float64) ** 2 * spectrum * (noise.deviation[patch] ** 2).mean()
        for a, w in enumerate(omega):
            curvature = (w**2 * structure).sum()
            if curvature > 0 and kernels[p].any():
                variance[a, p] = (w**2 * power).sum() / curvature**2
    return variance


def _shared(grid: PatchGrid, taper_share: float) -> NDArray[np.float64]:
    result = np.ones((grid.n, grid.n))
    for axis, w in enumerate(grid.width):
        along = _taper(w, taper_share)
        overlap = np.append(np.correlate(along, along, "full")[w - 1 :] / (along @ along), 0.0)
        apart = np.abs(np.subtract.outer(grid.corners[:, axis], grid.corners[:, axis]))
        result *= overlap[np.minimum(apart, w)]
    return result


def _covariance(
    x: NDArray[np.float64],
    x_spread: NDArray[np.float64],
    y: NDArray[np.float64],
    y_spread: NDArray[np.float64],
    reach: tuple[float, ...],
) -> NDArray[np.float64]:
    """Of a field of unit variance and Gaussian covariance of width `reach`, averaged over Gaussian windows."""
    result = np.ones((len(x), len(y)))
    for b, length in enumerate(reach):
        width = length**2 + np.add.outer(x_spread[:, b], y_spread[:, b])
        result *= length / np.sqrt(width) * np.exp(-(np.subtract.outer(x[:, b], y[:, b]) ** 2) / (2 * width))
    return result


def _fitted(
    shown: NDArray[np.float64],
    middle: NDArray[np.float64],
    spread: NDArray[np.float64],
    error: NDArray[np.float64],
    grid: PatchGrid,
) -> tuple[tuple[float, ...], float, float]:
    """Reach per axis, gain and scale of the errors under which the displacements are most likely."""
    some = slice(None, None, -(-len(middle) // FITTED_PATCHES))
    middle, spread, shown = middle[some], spread[some], shown[:, some]
    root = np.linalg.cholesky(error[some, some])
    white = np.linalg.solve(root, shown.T)
    lengths = [
        [r * n for r in REACHES if (r * n >= LEAST_REACH * w and count > 1) or r == REACHES[-1]]
        for n, w, count in zip(grid.shape, grid.width, grid.counts, strict=True)
    ]
    best = (np.inf, (0.0,), 0.0, 0.0)
    for reach in itertools.product(*lengths):
        covariance = _covariance(middle, spread, middle, spread, reach)
        values, vectors = np.linalg.eigh(np.linalg.solve(root, np.linalg.solve(root, covariance).T))
        power = ((vectors.T @ white) ** 2).mean(axis=1)
        ratio = 1 + np.multiply.outer(GAINS, np.maximum(values, 0))
        scale = (power / ratio).mean(axis=1)
        wrong = np.log(np.maximum(scale, np.finfo(float).tiny))
        cost = len(shown) / 2 * (np.log(ratio).sum(axis=1) + len(power) * wrong) + wrong**2 / (2 * TRUST**2)
        i = int(np.argmin(cost))
        if cost[i] < best[0]:
            best = (float(cost[i]), reach, float(GAINS[i]), float(scale[i]))
    return best[1:]


def _updated(
    prior: NDArray[np.float64], error: NDArray[np.float64], shown: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The covariance after these frames: expectation maximisation (Dempster et al. 1977), inverse Wishart prior."""
    m, n = len(error), len(shown)
    covariance = prior
    for _ in range(LEARNING_ROUNDS):
        weights = np.linalg.solve(covariance[:m, :m] + error, covariance[:m]).T
        expected = shown @ weights.T
        left = covariance - weights @ covariance[:m]
        covariance = (PRIOR_FRAMES * prior + expected.T @ expected + n * left) / (PRIOR_FRAMES + n)
    return covariance
