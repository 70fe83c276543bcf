"""The first template of a movie, and how noisy its frames are: both from a sample of frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import MovieValueError
from gpucalcium.registration.apply import displace
from gpucalcium.registration.matching import Matcher, Noise, window

SAMPLE = 100  # frames: more sharpen the template by less than 5 % on simulated movies, and cost time
SAMPLE_MEMORY = 8  # the sample takes at most this part of the memory budget
ROUNDS = 3  # of registering the sample and averaging it; the third changes shifts by less than 0.005 px


def sample_of(source: FrameSource) -> Array:
    """Evenly spaced frames of a movie on the active device, at most `SAMPLE`; in the movie's dtype."""
    frame = math.prod(source.shape[1:]) * max(4, source.dtype.itemsize)
    most = max(1, min(SAMPLE, backend.budget() // (SAMPLE_MEMORY * frame)))
    step = -(-len(source) // most)
    chunks = list(backend.stream(source, frames=slice(None, None, step)))
    return backend.arrays.xp(chunks[0]).concatenate(chunks) if len(chunks) > 1 else chunks[0]


def first_matcher(
    sample: Array,
    bound: tuple[int, ...],
    *,
    template: NDArray[np.float32] | None = None,
    high_pass: NDArray[np.float64] | None = None,
) -> tuple[Matcher, Noise]:
    """Template and noise of a movie by registering a sample of its frames to their own mean, again and again.

    Parameters
    ----------
    sample : (n, d1, d2[, d3]), any real dtype
    bound : tuple of int
        Largest shift per axis.
    template : (d1, d2[, d3]) float32, optional
        Given: it stays, and only the noise is measured.
    high_pass : array, optional
        See `Matcher.make`.

    Raises
    ------
    MovieValueError
        No pixel of the sample is a number.
    """
    given = None if template is None else whole(template)
    image = whole(mean_and_variance(sample)[0]) if given is None else given
    power = mean_power(sample, image)
    noise = Noise.unknown(power, image.shape)
    for _ in range(ROUNDS):
        found = Matcher.make(image, bound, noise, high_pass).locate(sample)
        shifts = found.shifts
        if given is None:  # the template's place is the middle of where the frames were
            shifts = shifts - shifts.mean(axis=0)
        mean, variance = mean_and_variance(displace(sample, shifts))
        mean = whole(mean)
        noise = Noise.measured(
            power, mean.astype(np.float64) - mean.mean(dtype=np.float64), variance, len(sample)
        )
        image = mean if given is None else given
    return Matcher.make(image, bound, noise, high_pass), noise


def mean_power(sample: Array, image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the tapered frames of a sample, on the grid of rfftn; `image` stands for missing pixels."""
    xp, offset = backend.arrays.xp(sample), float(image.mean(dtype=np.float64))
    taper = window(image.shape, (0,) * image.ndim).astype(np.float32)
    total = backend.wing(sample).registration.power(
        sample, xp.asarray(image - np.float32(offset)), offset, xp.asarray(taper)
    )
    return backend.to_numpy(total) / len(sample)


def mean_and_variance(frames: Array) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Over time, of the pixels that are finite numbers; NaN and 0 where there are none."""
    xp, registration = backend.arrays.xp(frames), backend.wing(frames).registration
    shape = frames.shape[1:]
    sums, squares, counts = (
        xp.zeros(shape, np.float64),
        xp.zeros(shape, np.float64),
        xp.zeros(shape, np.int32),
    )
    registration.add_frames(frames, sums, counts)
    mean = average(sums, counts)
    registration.add_squares(frames, xp.asarray(np.nan_to_num(mean)), squares)
    return mean, backend.to_numpy(squares) / np.maximum(backend.to_numpy(counts), 1)


def average(sums: Array, counts: Array) -> NDArray[np.float32]:
    """Image of means from what `add_frames` has summed; NaN where nothing was counted."""
    total, count = backend.to_numpy(sums), backend.to_numpy(counts)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0).astype(np.float32)


def whole(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with the mean of its numbers where it has none."""
    good = np.isfinite(image)
    if not good.any():
        raise MovieValueError(
            "no pixel of the movie (of the frames sampled for a template) is a finite number: check how it was "
            "read or converted"
        )
    return np.where(good, image, np.float32(image[good].mean(dtype=np.float64))).astype(np.float32)
