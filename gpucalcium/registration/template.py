"""The first template of a movie, and how noisy its frames are: both from a sample of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import MovieValueError
from gpucalcium.registration import activity
from gpucalcium.registration.activity import Activity
from gpucalcium.registration.apply import displace
from gpucalcium.registration.matching import Located, Matcher, Noise, wave_number, window

SAMPLE = 100  # frames: more sharpen the template by less than 5 % on simulated movies, and cost time
SAMPLE_MEMORY = 8  # the sample takes at most this part of the memory budget
ROUNDS = 3  # of registering the sample and averaging it; the third changes shifts by less than 0.005 px
ACTIVITY_ROUNDS = 1  # more, where activity is measured; before the last of `ROUNDS` it is too blurred
PARTS, PARTED = 4, 25  # samples of fewer frames than the second are registered in so many parts, see `_found`
CONTRAST = 3.0  # frames more than this times weaker or stronger than usual ones do not count in the template
USUAL = 0.75  # quantile of peaks: of one frame in four or more it may be said that it is as frames should be
FEWEST_GOOD = 0.2  # of the sample
LOOKED_AT = 64  # pixels along each axis, about, tell the contrast of a frame
EDGE_SHARE = 0.1  # of the side of the frame: the most that the filter leaves out at either end


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
        See `Matcher.make`. The activity of cells is then left to it.

    Raises
    ------
    MovieValueError
        No pixel of the sample is a number.
    """
    given = None if template is None else whole(template)
    ordinary = _usual(_contrast(sample))
    used = _enough(ordinary)
    image = whole(mean_and_variance(_chosen(sample, used))[0])
    power, registered = mean_power(_chosen(sample, used), image), sample
    image = image if given is None else given
    noise = Noise.unknown(power, image.shape)
    small = image.size <= activity.LARGEST and high_pass is None
    shifts = backend.arrays.xp(sample).zeros((len(sample), image.ndim), np.float32)
    for number in range(1, ROUNDS + ACTIVITY_ROUNDS * small + 1):
        maker = _Maker(bound, noise, high_pass)
        if given is None:
            found = _found(sample, registered, shifts, used, image, maker)
        else:
            found = maker.locate(sample, given)
        before, used = used, _enough(ordinary & _shown(found))
        shifts = found.shifts
        if given is None:  # the template's place is the middle of where the frames were
            shifts = shifts - _chosen(shifts, used).mean(axis=0)
        registered = displace(sample, shifts)
        mean, variance = mean_and_variance(_chosen(registered, used))
        mean = whole(mean)
        if not np.array_equal(before, used):
            power = mean_power(_chosen(sample, used), mean)
        noise = Noise.measured(
            power, mean.astype(np.float64) - mean.mean(dtype=np.float64), variance, len(used)
        )
        if small and number >= ROUNDS:
            noise = replace(
                noise,
                activity=_activity(_chosen(registered, used), _chosen(shifts, used), mean, noise, bound),
            )
        image = mean if given is None else given
    return Matcher.make(image, bound, noise, high_pass), noise


@dataclass(frozen=True)
class _Maker:
    """Registers frames to templates of one recording."""

    bound: tuple[int, ...]
    noise: Noise
    high_pass: NDArray[np.float64] | None

    def locate(self, frames: Array, image: NDArray[np.float32]) -> Located:
        return Matcher.make(image, self.bound, self.noise, self.high_pass).locate(frames)


def _found(
    sample: Array,
    registered: Array,
    shifts: Array,
    used: NDArray[np.int64],
    image: NDArray[np.float32],
    maker: _Maker,
) -> Located:
    """Where the frames of a sample lie with respect to `image`, the mean of those that are `used`.

    They are `registered` by `shifts` so far. A frame is found too near to there, by its own share of the template: its
    noise matches. In a small sample this counts, and two frames would not move at all; so each part is found in the
    mean of the rest. That mean shares in no movement of the part, so the part makes only the rest's share of it.
    """
    n = len(sample)
    if len(used) < 2 or n >= PARTED:
        return maker.locate(sample, image)
    pieces = []
    parts = min(PARTS, n)
    for part in range(parts):
        rest = used[used % parts != part]
        base = whole(mean_and_variance(_chosen(registered, rest))[0]) if len(rest) else image
        pieces.append(maker.locate(sample[part::parts], base))
    xp = backend.arrays.xp(sample)
    back = xp.asarray(np.argsort(np.concatenate([np.arange(part, n, parts) for part in range(parts)])))
    found = Located(
        *(
            xp.take(xp.concatenate([getattr(piece, name) for piece in pieces]), back, axis=0)
            for name in Located.__dataclass_fields__
        )
    )
    return replace(found, shifts=shifts + (found.shifts - shifts) * np.float32(1 - 1 / parts))


def _contrast(sample: Array) -> NDArray[np.float64]:
    """Standard deviation of each frame, from some of its pixels; 0 where there is no number."""
    xp = backend.arrays.xp(sample)
    some = sample[(slice(None), *(slice(None, None, max(1, n // LOOKED_AT)) for n in sample.shape[1:]))]
    values = some.astype(np.float64).reshape(len(sample), -1)
    good = xp.isfinite(values)
    count = xp.maximum(good.sum(axis=1), 1)
    mean = xp.where(good, values, 0.0).sum(axis=1) / count
    square = xp.square(xp.where(good, values - mean[:, None], 0.0)).sum(axis=1) / count
    return backend.to_numpy(xp.sqrt(square))


def _shown(found: Located) -> NDArray[np.bool_]:
    """Frames that show the template about as strongly as others do, within the bound."""
    usual = _usual(backend.to_numpy(found.peaks))
    return usual & ~backend.to_numpy(found.empty) & ~backend.to_numpy(found.clamped)


def _usual(strength: NDArray) -> NDArray[np.bool_]:
    """Which frames are neither much weaker nor much stronger than most.

    Black frames, flashes, and frames from elsewhere would spoil a template.
    """
    usual = float(np.quantile(strength, USUAL))
    return (strength * CONTRAST >= usual) & (strength <= CONTRAST * usual)


def _enough(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of the good frames, or of all if hardly any are good."""
    return np.flatnonzero(good) if good.sum() > len(good) * FEWEST_GOOD else np.arange(len(good))


def _activity(
    registered: Array, shifts: Array, mean: NDArray[np.float32], noise: Noise, bound: tuple[int, ...]
) -> Activity | None:
    """Where registered frames vary, if that is more than distortion leaves; the filter leaves out what frames have not
    shown at the edge."""
    residuals = np.nan_to_num(backend.to_numpy(registered) - mean, nan=0.0, posinf=0.0, neginf=0.0)
    reach = np.rint(np.abs(backend.to_numpy(shifts)).max(axis=0))
    margins = tuple(
        min(int(r), m, max(1, round(EDGE_SHARE * n)))
        for r, m, n in zip(reach, bound, mean.shape, strict=True)
    )
    tapered = float((window(mean.shape, (0,) * mean.ndim) ** 2).sum())
    level = activity.white_level(noise.spectrum / tapered, wave_number(mean.shape))
    if level < activity.IMAGE_SHARE * float(mean.var(dtype=np.float64)):
        return None
    return Activity.measured(residuals, level, margins)


def _chosen(frames: Array, which: NDArray[np.int64]) -> Array:
    """These of the frames; without a copy if they are all."""
    if len(which) == len(frames):
        return frames
    xp = backend.arrays.xp(frames)
    return xp.take(frames, xp.asarray(which), axis=0)


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
