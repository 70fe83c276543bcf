"""Shifts of frames by sliding a template over them, and frames moved by known shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.backend.stencils import border_index
from gpucalcium.movies import resizing
from gpucalcium.movies.sources import open_movie

MATCHES = ("opencv", "skimage")
"""Correlation as it is, or of deviations from the mean; both divided by the norms."""
TAPS = {
    "nearest": resizing.NEAREST,
    "linear": resizing.LINEAR,
    "cubic": resizing.CUBIC,
    "area": resizing.LINEAR,  # a shift neither shrinks nor enlarges: areas are what linear weights say
    "lanczos4": resizing.LANCZOS,
}
"""Weights by name of the interpolation."""
ORDERS = {"nearest": 0, "linear": 1, "cubic": 3}
"""Orders of scikit-image's interpolations."""
SUBTRACTED_BELOW = (
    -0.1
)  # a movie whose first percentile is less is raised by it: the match needs light, not signs
_SCRATCH = 100  # bytes per pixel that matching needs beside the frames: float64 and complex128 copies


@dataclass(frozen=True)
class Template:
    """An image that is slid over frames: cropped by the largest shift on each side."""

    image: NDArray[np.float64]
    """(d1, d2), without NaN."""
    bound: tuple[int, int]
    """Largest shift of rows and columns, pixels."""
    centred: bool
    """Whether means are taken off before correlating."""

    def find(self, frames: Array) -> tuple[Array, Array]:
        """Shifts (n, 2) float64 that move `frames` onto the template, and the mean correlation (n,).

        ``R = sum T I / sqrt(sum T^2 sum I^2)`` at every displacement within the bound; the largest, refined by a
        parabola through the logarithms of its neighbours where it has neighbours on both axes.
        """
        match = self.correlations(frames)
        return self.shifts(match), match.reshape(len(match), -1).mean(axis=1)

    def shifts(self, match: Array) -> Array:
        """Shifts (n, 2) float64 of frames from their `correlations`; see `find`."""
        xp = backend.arrays.xp(match)
        n, height, width = match.shape
        best = xp.argmax(match.reshape(n, -1), axis=1)
        row, column = best // width, best % width
        inside = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
        logs = xp.log(xp.maximum(match, 1e-12))
        each = xp.arange(n)
        r, c = xp.clip(row, 1, max(height - 2, 1)), xp.clip(column, 1, max(width - 2, 1))
        shifts = xp.empty((n, 2), np.float64)
        shifts[:, 0] = self.bound[0] - row
        shifts[:, 1] = self.bound[1] - column
        if min(height, width) >= 3:
            centre = logs[each, r, c]
            for axis, (before, after) in enumerate(
                [(logs[each, r - 1, c], logs[each, r + 1, c]), (logs[each, r, c - 1], logs[each, r, c + 1])]
            ):
                curvature = 2 * before + 2 * after - 4 * centre
                usable = inside & (curvature < 0)
                offset = (before - after) / xp.where(usable, curvature, 1.0)
                shifts[:, axis] -= xp.where(usable, offset, 0.0)
        return shifts

    def correlations(self, frames: Array) -> Array:
        """R of every displacement, (n, 2 m + 1, 2 m' + 1); 0 where a frame is dark."""
        xp, fft = backend.arrays.xp(frames), backend.arrays.fft(frames)
        shape = self.image.shape
        lags = tuple(2 * m + 1 for m in self.bound)
        inner = tuple(n - 2 * m for n, m in zip(shape, self.bound, strict=True))
        patch = self.image[tuple(slice(m, m + n) for m, n in zip(self.bound, inner, strict=True))]
        patch = patch - patch.mean() if self.centred else patch
        padded = np.zeros(shape)
        padded[: inner[0], : inner[1]] = patch
        spectrum = xp.asarray(np.conj(np.fft.rfft2(padded)))
        values = xp.where(xp.isfinite(frames), frames, xp.asarray(self.image)).astype(np.float64)
        if self.centred:  # the correlation does not depend on it, its rounding does
            values = values - values.mean(axis=(1, 2), keepdims=True)
        products = fft.irfftn(fft.rfftn(values, axes=(1, 2)) * spectrum, s=shape, axes=(1, 2))
        products = products[:, : lags[0], : lags[1]]
        power = _window_sums(values * values, inner)
        if self.centred:
            power = power - _window_sums(values, inner) ** 2 / (inner[0] * inner[1])
        norm = xp.sqrt(xp.maximum(power, 0.0) * float((patch**2).sum()))
        largest = norm.reshape(len(frames), -1).max(axis=1)[:, None, None]
        lit = norm > 1e-7 * largest
        return xp.where(lit, products / xp.where(lit, norm, 1.0), 0.0)


def _window_sums(values: Array, size: tuple[int, int]) -> Array:
    """Sums over every window of `size` that fits into the images (n, d1, d2)."""
    xp = backend.arrays.xp(values)
    sums = xp.zeros((len(values), values.shape[1] + 1, values.shape[2] + 1), np.float64)
    sums[:, 1:, 1:] = xp.cumsum(xp.cumsum(values, axis=1), axis=2)
    a, b = size
    return sums[:, a:, b:] - sums[:, :-a, b:] - sums[:, a:, :-b] + sums[:, :-a, :-b]


def find_shifts(
    movie: NDArray, template: Template, offset: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Shift (T, 2) of every frame and mean correlation (T,), in one pass.

    Parameters
    ----------
    movie : (T, d1, d2) array
    template : Template
    offset : float
        Subtracted from the frames first; the template has lost it already.
    """
    shifts = np.empty((len(movie), 2), np.float32)
    means = np.empty(len(movie), np.float32)
    source, at = open_movie(movie), 0
    for frames in backend.stream(source, working=_SCRATCH * template.image.size):
        found, mean = template.find(frames - offset if offset else frames)
        shifts[at : at + len(frames)] = backend.to_numpy(found)
        means[at : at + len(frames)] = backend.to_numpy(mean)
        at += len(frames)
    return shifts, means


def move(movie: NDArray, shifts: NDArray[np.float32], interpolation: str) -> NDArray[np.float32]:
    """Frames displaced by `shifts`, reflected at the border, within each frame's own range.

    Parameters
    ----------
    movie : (T, d1, d2[, d3]) array
        Volumes move by Fourier transform whatever the interpolation.
    shifts : (T, 2 or 3) float32
    interpolation : str
        One of `TAPS`.

    Returns
    -------
    moved : (T, d1, d2[, d3]) float32
    """
    out = np.empty(movie.shape, np.float32)
    at = 0
    for frames in backend.stream(open_movie(movie), working=16 * int(np.prod(movie.shape[1:]))):
        part = shifts[at : at + len(frames)]
        if interpolation == "cubic" or frames.ndim == 4:
            # the algorithms stand on the movies, so a method imports them where it calls them
            from gpucalcium.registration.apply import displace

            moved = displace(frames, backend.put(np.ascontiguousarray(part)), border="reflect")
        else:
            moved = _gathered(frames, part, TAPS[interpolation])
        out[at : at + len(frames)] = backend.to_numpy(moved)
        at += len(frames)
    return out


def move_by_spline(movie: NDArray, shifts: NDArray[np.float32], order: int) -> NDArray[np.float32]:
    """`move` of images by scikit-image, with interpolation of `order`."""
    from skimage.transform import AffineTransform, warp

    out = np.empty(movie.shape, np.float32)
    for frame, (rows, columns), moved in zip(movie, shifts, out, strict=True):
        back = AffineTransform(translation=(-columns, -rows))
        moved[:] = warp(frame.astype(np.float64), back, order=order, mode="symmetric")
    return out


def _gathered(frames: Array, shifts: NDArray[np.float32], interpolation: int) -> Array:
    """Rows, then columns, as weighted sums of reflected lines."""
    xp = backend.arrays.xp(frames)
    values = frames.astype(np.float32)
    missing = xp.isnan(values)
    low = xp.where(missing, np.float32(np.inf), values).min(axis=(1, 2), keepdims=True)
    high = xp.where(missing, np.float32(-np.inf), values).max(axis=(1, 2), keepdims=True)
    each = xp.arange(len(frames))[:, None]
    for axis in (0, 1):
        length = frames.shape[1 + axis]
        entries, weights = resizing.taps(-shifts[:, axis].astype(np.float64), interpolation)
        first, last = int(entries.min()), int(entries.max())
        mirror = border_index(length, max(0, -first), max(0, last), "reflect")
        turned = xp.moveaxis(values, 2, 1) if axis else values
        moved = xp.zeros(turned.shape, np.float32)
        for k in range(weights.shape[1]):
            lines = mirror[max(0, -first) + entries[:, k, None] + np.arange(length)]
            weight = xp.asarray(weights[:, k].astype(np.float32))[:, None, None]
            moved += weight * turned[each, xp.asarray(lines)]
        values = xp.moveaxis(moved, 1, 2) if axis else moved
    return xp.clip(values, low, high)
