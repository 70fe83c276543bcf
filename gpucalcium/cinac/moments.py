"""Mean and standard deviation of a whole movie, in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource, arrays
from gpucalcium.errors import MovieValueError

_NO_OFFSETS = np.empty(0, np.int64)  # sums of pixels alone, of no pairs


def movie_moments(source: FrameSource) -> tuple[float, float, int]:
    """Mean, standard deviation and number of NaN of all values of a movie, which is read once, in chunks.

    Each pixel's sums are float64, above its first value and in order of time; pixels are then pooled as Chan et al.
    do. So neither the size of chunks nor the device changes a bit.

    Parameters
    ----------
    source : FrameSource, (T, d1, d2[, d3]), any real dtype
        Differences from the first frame are rounded to float32.

    Returns
    -------
    mean, std : float
        NaN left out. `std` is that of the population: divided by the number of values.
    missing : int
        Values that are NaN.

    Raises
    ------
    MovieValueError
        There is nothing but NaN, or a value is infinite.

    References
    ----------
    Chan, Golub and LeVeque (1983), Am. Stat. 37:242, eq. 2.1.
    """
    pixels = int(np.prod(source.shape[1:]))
    sums = backend.zeros((2, pixels), "float64")
    missing = backend.zeros(source.shape[1:], "int64")
    pilot: Array | None = None
    can_miss = source.dtype.kind == "f"
    working = pixels * (2 * source.dtype.itemsize * can_miss + np.dtype(np.float64).itemsize)
    for chunk in backend.stream(source, working=working):
        xp = arrays.xp(chunk)
        if pilot is None:
            pilot = chunk[0].copy()
            sums, missing = _beside(chunk, sums), _beside(chunk, missing)
            if can_miss:
                pilot = xp.where(xp.isfinite(pilot), pilot, xp.zeros_like(pilot))
        if can_miss:
            absent = xp.isnan(chunk)
            missing += absent.sum(axis=0)
            chunk = xp.where(absent, pilot, chunk)  # adds nothing to the sums
        backend.wing(chunk).correlation.add_products(chunk, pilot, _beside(chunk, _NO_OFFSETS), sums)
    counts = source.shape[0] - backend.to_numpy(missing).ravel().astype(np.float64)
    total, squares = backend.to_numpy(sums)
    if pilot is None or not counts.any():
        raise MovieValueError(f"{_name(source)} holds nothing but NaN: it cannot be normalised")
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        raise MovieValueError(
            f"{_name(source)} holds infinite values: it cannot be normalised. Replace them, by NaN for instance"
        )
    mean, std = _pooled(backend.to_numpy(pilot).ravel().astype(np.float64), total, squares, counts)
    return mean, std, int(backend.to_numpy(missing).sum())


def _pooled(pilot: NDArray, total: NDArray, squares: NDArray, counts: NDArray) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, from sums of each above its pilot."""
    seen = counts > 0
    pilot, total, squares, counts = pilot[seen], total[seen], squares[seen], counts[seen]
    means = pilot + total / counts
    origin = means[0]  # weights of large offsets would cost digits
    mean = origin + (counts * (means - origin)).sum() / counts.sum()
    within = np.maximum(squares - total**2 / counts, 0).sum()
    between = (counts * (means - mean) ** 2).sum()
    return float(mean), float(np.sqrt((within + between) / counts.sum()))


def _beside(frames: Array, values: Array) -> Array:
    """`values` on the device of the frames: frames in CuPy arrays are worked on where they are."""
    if backend.is_cupy(frames) == backend.is_cupy(values):
        return values
    return backend.like(frames, values)


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
