"""Motion that registration has left, by principal components of the registered movie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.chain import Selection
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.registration.apply import displace
from gpucalcium.registration.matching import Located, Matcher, Noise, window
from gpucalcium.registration.metrics import mean_and_counts
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.template import first_matcher, whole

SPARE = 10  # directions beside those wanted, and
ROUNDS = 4  # of the power method: components that stand out of the noise are then found to 1 %
HELD_SHARE = 4  # of the memory budget: a sample that takes less is read once and kept
PATCHES, SMALLEST_PATCH = 4, 32  # patches per axis; pixels: fewer show too little
AGREEMENT = 0.5  # pixels within which two estimates of one displacement are the same
DEVIATION = 2  # pixels that a patch may lie from where the whole lies
COPIES = 3  # float32 frames beside a chunk


@dataclass(frozen=True, eq=False)
class ResidualMotion:
    """Principal components of a movie, and how far the frames at their two ends lie apart."""

    frames: NDArray[np.int64]
    """(n,) the frames that were looked at."""
    scores: NDArray[np.float32]
    """(n, k) of these frames on each component, in the movie's units."""
    variance: NDArray[np.float64]
    """(k,) each component's part of the variance over time; they fall."""
    components: NDArray[np.float32]
    """(k, d1, d2[, d3]) of norm 1."""
    low: NDArray[np.float32]
    """(k, d1, d2[, d3]) mean of the frames of lowest score."""
    high: NDArray[np.float32]
    """(k, d1, d2[, d3]) mean of those of highest score."""
    offsets: NDArray[np.float32]
    """(k, ndim) displacement that moves the low end as a whole onto the high end, pixels, axis order."""
    field: NDArray[np.float32]
    """``(k, *counts, ndim)`` the same in every patch of `grid`."""
    grid: PatchGrid

    @property
    def rigid(self) -> NDArray[np.float64]:
        """(k,) length of the displacement as a whole, pixels."""
        return np.sqrt((self.offsets.astype(np.float64) ** 2).sum(axis=1))

    @property
    def mean_local(self) -> NDArray[np.float64]:
        """(k,) mean over patches of the length of their displacement, pixels."""
        return self._lengths().mean(axis=1)

    @property
    def max_local(self) -> NDArray[np.float64]:
        """(k,) largest displacement of a patch, pixels."""
        return self._lengths().max(axis=1)

    def _lengths(self) -> NDArray[np.float64]:
        square = (self.field.astype(np.float64) ** 2).sum(axis=-1)
        return np.sqrt(square).reshape(len(square), -1)


def residual_motion(
    movie: MovieLike,
    *,
    components: int = 20,
    frames: int = 2000,
    share: float = 0.1,
    max_shift: int = 6,
    seed: int = 0,
) -> ResidualMotion:
    """Look for motion in a movie that is registered, or is not: along its principal components.

    What is left of motion makes pixels at edges go up and down together, which is a principal component of
    the movie. For each component the frames of lowest and of highest score are averaged, and the two images are
    registered to each other, as a whole and patch by patch. A component of activity gives 0, one of motion
    what the movie moves along it.

    Parameters
    ----------
    movie : (T, d1, d2[, d3]) movie as `open_movie` takes it
        Pixels that are not finite count as their mean. Read in chunks, seven times; once where the frames looked at
        take less than a quarter of the memory budget.
    components : int
        At most so many; a movie of n frames has no more than n - 1.
    frames : int
        Look at no more than so many frames, evenly spaced.
    share : float
        Part of these frames that either end is the mean of, up to one half.
    max_shift : int
        Largest displacement as a whole that is looked for, pixels; patches may lie 2 pixels from there.
    seed : int
        Of the directions that the search for components starts from.

    Returns
    -------
    ResidualMotion
        Components that hardly rise above the noise are found roughly. Chunks and devices change results by rounding.

    Raises
    ------
    MovieShapeError
        Fewer than two frames.
    ParameterError
        A number that is too small, or a share above one half.

    References
    ----------
    Stringer & Pachitariu (2019), Curr. Opin. Neurobiol. 55:22, and Pachitariu et al. (2017), bioRxiv 061507 (metrics
    of registration by principal components); Halko, Martinsson & Tropp (2011), SIAM Rev. 53:217, algorithm 4.4.
    """
    for name, value in (("components", components), ("frames", frames - 1), ("max_shift", max_shift)):
        if value < 1:
            raise ParameterError(
                f"{name} is too small: residual motion needs 1 component, 2 frames, 1 pixel or more"
            )
    if not 0 < share <= 0.5:
        raise ParameterError(f"share={share}: the part of the frames at either end, above 0 and at most 0.5")
    whole_movie = open_movie(movie)
    step = -(-len(whole_movie) // frames)
    looked_at = np.arange(0, len(whole_movie), step)
    if len(looked_at) < 2:
        raise MovieShapeError(f"the movie has {len(whole_movie)} frame(s); motion shows between two or more")
    with stage("residual motion", ROUNDS + 2, "passes") as bar:
        sample = _sample(whole_movie, step)
        mean = whole(mean_and_counts(sample)[0])
        bar.update(1)
        count = min(components, len(looked_at) - 1, mean.size)
        scores, directions, variance = _components(sample, mean, count, seed, bar)
        ends = _ends(sample, mean, scores, max(1, round(share * len(looked_at))))
        bar.update(1)
    shape = (count, *mean.shape)
    low, high = (end.reshape(shape) for end in ends)
    grid = _grid(mean.shape)
    bound = tuple(min(max_shift, (n - 1) // 2) for n in mean.shape)
    offsets = np.stack([_apart(a, b, bound) for a, b in zip(low, high, strict=True)])
    field = np.stack([_apart_in_patches(*end, grid) for end in zip(low, high, offsets, strict=True)])
    return ResidualMotion(
        looked_at, scores, variance, directions.reshape(shape), low, high, offsets, field, grid
    )


# ---------------------------------------------------------------------------- components


def _sample(source: FrameSource, step: int) -> FrameSource:
    """Every so many frames; in memory, on the active device, if that is not much."""
    sample: FrameSource = source if step == 1 else Selection(source, slice(None, None, step))
    size = math.prod(sample.shape) * max(4, sample.dtype.itemsize)
    if size * HELD_SHARE > backend.budget() or getattr(sample, "array", None) is not None:
        return sample
    return open_movie(backend.hold(sample))


def _deviations(source: FrameSource, mean: NDArray[np.float32]) -> Iterator[Array]:
    """Chunks (n, pixels) of the movie minus its mean, 0 where it is not finite."""
    for chunk in backend.stream(source, working=4 * COPIES * mean.size):
        xp = backend.arrays.xp(chunk)
        change = chunk.reshape(len(chunk), -1).astype(np.float32) - xp.asarray(mean.ravel())
        yield xp.where(xp.isfinite(change), change, np.float32(0))


def _components(
    source: FrameSource, mean: NDArray[np.float32], count: int, seed: int, bar: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Scores (n, k), components (k, pixels) and shares of variance, by the power method on a block of directions.

    Only products of the movie with a few images are needed, so memory does not grow with its length.
    """
    wide = min(count + SPARE, len(source), mean.size)
    products = np.random.default_rng(seed).standard_normal((mean.size, wide))
    for _ in range(ROUNDS):
        basis = np.linalg.qr(products)[0].astype(np.float32)
        scores, products, total = _multiplied(source, mean, basis)
        bar.update(1)
    values, turn = np.linalg.eigh(scores.T @ scores)
    top = np.argsort(-values)[:count]
    directions = basis @ turn[:, top]
    return (
        (scores @ turn[:, top]).astype(np.float32),
        np.ascontiguousarray(directions.T, np.float32),
        np.maximum(values[top], 0) / max(total, np.finfo(np.float64).tiny),
    )


def _multiplied(
    source: FrameSource, mean: NDArray[np.float32], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """X B (frames, directions), X'X B (pixels, directions), and the sum of squares of X; X the deviations."""
    directions = backend.put(basis)
    products = backend.zeros(basis.shape, "float64")
    scores, total = [], backend.zeros((1,), "float64")
    for change in _deviations(source, mean):
        part = change @ directions
        products += change.T @ part
        total += (change * change).sum(dtype=np.float64)
        scores.append(backend.to_numpy(part).astype(np.float64))
    return np.concatenate(scores), backend.to_numpy(products), float(backend.to_numpy(total)[0])


def _ends(
    source: FrameSource, mean: NDArray[np.float32], scores: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means (k, pixels) of the `count` frames of lowest, and of highest, score on each component."""
    order, k = np.argsort(scores, axis=0, kind="stable"), scores.shape[1]
    weights = np.zeros((len(scores), 2 * k), np.float32)
    np.put_along_axis(weights[:, :k], order[:count], 1 / count, axis=0)
    np.put_along_axis(weights[:, k:], order[-count:], 1 / count, axis=0)
    sums, done = backend.zeros((2 * k, mean.size), "float64"), 0
    for change in _deviations(source, mean):
        part = backend.arrays.xp(change).asarray(weights[done : done + len(change)])
        sums += part.T @ change
        done += len(change)
    images = backend.to_numpy(sums) + mean.ravel()
    return images[:k].astype(np.float32), images[k:].astype(np.float32)


# ---------------------------------------------------------------------------- the two ends against each other


def _grid(shape: tuple[int, ...]) -> PatchGrid:
    """About four patches along an axis that is long enough, overlapping by half."""
    sides = [min(n, max(SMALLEST_PATCH, 2 * n // (PATCHES + 1))) for n in shape]
    strides = tuple(-(-side // 2) for side in sides)
    return PatchGrid.make(shape, strides, tuple(w - s for w, s in zip(sides, strides, strict=True)))


def _apart(
    low: NDArray[np.float32], high: NDArray[np.float32], bound: tuple[int, ...]
) -> NDArray[np.float32]:
    """What moves `low` onto `high`. Where they differ once aligned, cells are active: such places count little."""
    pair = np.stack([low, high])
    if not np.ptp(pair.reshape(2, -1), axis=1).all():
        return np.zeros(low.ndim, np.float32)
    on_device = backend.put(pair)
    return _agreed(
        pair,
        *(
            first_matcher(on_device, bound, template=pair[k])[0].locate(on_device[1 - k][None])
            for k in (1, 0)
        ),
    )


def _apart_in_patches(
    low: NDArray[np.float32], high: NDArray[np.float32], offset: NDArray[np.float32], grid: PatchGrid
) -> NDArray[np.float32]:
    """The same patch by patch, within `DEVIATION` of the whole."""
    bound = tuple(min(DEVIATION, (w - 1) // 2) for w in grid.width)
    aligned = backend.put(low[None])
    aligned = backend.to_numpy(
        displace(aligned, backend.arrays.xp(aligned).asarray(offset[None]), border="reflect")
    )[0]
    found = [_patch_apart(aligned[patch], high[patch], bound) for patch in grid.slices]
    return (offset + np.stack(found)).reshape(*grid.counts, len(bound))


def _patch_apart(
    low: NDArray[np.float32], high: NDArray[np.float32], bound: tuple[int, ...]
) -> NDArray[np.float32]:
    """As `_apart`, but a patch is too little to learn the noise from: all of its power counts as that."""
    pair = np.stack([low, high])
    axes = tuple(range(1, pair.ndim))
    tapered = (pair - pair.mean(axis=axes, keepdims=True)) * window(low.shape, (0,) * low.ndim)
    power = (np.abs(np.fft.rfftn(tapered, axes=axes)) ** 2).mean(axis=0)
    if not power.any():
        return np.zeros(low.ndim, np.float32)
    noise = Noise.unknown(power, low.shape)
    return _agreed(
        pair, *(Matcher.make(pair[k], bound, noise).locate(backend.put(pair[1 - k][None])) for k in (1, 0))
    )


def _agreed(pair: NDArray[np.float32], onto_high: Located, onto_low: Located) -> NDArray[np.float32]:
    """Displacement from what was found looking for either image in the other, so that neither is preferred.

    The two should be opposite; if they are not, one is a mistake, and it is the larger. Activity may look like
    anything: a displacement that makes the images no more alike is none.
    """
    there, back = (backend.to_numpy(found.shifts)[0] for found in (onto_high, onto_low))
    if np.abs(there + back).max() < AGREEMENT:
        move = (there - back) / np.float32(2)
    else:
        move = min((there, -back), key=lambda one: float((one**2).sum()))
    on_device = backend.put(pair[:1])
    moved = displace(on_device, backend.arrays.xp(on_device).asarray(move[None]), border="nan")
    low, high, moved = pair[0], pair[1], backend.to_numpy(moved)[0]
    both = np.isfinite(moved)
    alike = [_correlation(image[both], high[both]) for image in (low, moved)]
    return move if alike[1] > alike[0] else np.zeros_like(move)


def _correlation(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    x, y = (v - v.mean(dtype=np.float64) for v in (x, y))
    scale = float((x * x).sum() * (y * y).sum())
    return float((x * y).sum()) / math.sqrt(scale) if scale > 0 else 0.0
