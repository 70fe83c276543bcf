"""Finding frames that were damaged on their way to the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies.sources import MovieLike, open_movie

MAD_TO_SIGMA = 1.4826  # 1 / Phi^-1(3/4), normal noise
_LEAST_SIGMA = 0.01  # of a row's usual jump: a movie without noise would make any difference a fault


def damaged_frames(movie: MovieLike, *, threshold: float = 10) -> NDArray[np.int64]:
    """Frames with rows that belong elsewhere, as errors of transmission leave them.

    Where a block of rows is lost, replaced or displaced, the picture jumps between two rows that are alike in all other
    frames. Activity, bleaching and motion change a picture everywhere by little, not between two rows by much.

    Parameters
    ----------
    movie : array-like or path, (T, d1, d2[, d3]), any real dtype
        Read in chunks, never held whole.
    threshold : float
        How far a frame's largest jump must lie above that of the others, in robust standard deviations.

    Returns
    -------
    frames : (n,) int64
        Numbers of the damaged frames, rising; frames with NaN or infinite values are among them. Frames that are
        wholly wrong but smooth (all black, repeated) are not found.

    Raises
    ------
    MovieShapeError
        Fewer than two rows.
    ParameterError
        `threshold` is not positive.
    """
    source = open_movie(movie)
    if source.shape[1] < 2:
        raise MovieShapeError(f"frames of {source.shape[1:]}: two rows at least can differ")
    if not threshold > 0:
        raise ParameterError(f"threshold={threshold}: a positive number of standard deviations")
    jumps = np.concatenate([_row_jumps(f) for f in backend.stream(source, working=_working(source.shape))])
    is_whole = np.isfinite(jumps).all(axis=1)
    if not is_whole.any():
        return np.arange(len(jumps))
    usual = np.median(jumps[is_whole], axis=0)
    largest = np.where(is_whole, (jumps - usual).max(axis=1), np.inf)
    centre = np.median(largest[is_whole])
    spread = MAD_TO_SIGMA * np.median(np.abs(largest[is_whole] - centre))
    spread = max(float(spread), _LEAST_SIGMA * float(usual.mean()))
    return np.flatnonzero(~is_whole | (largest > centre + threshold * spread))


def _row_jumps(frames: backend.Array) -> NDArray[np.float32]:
    """Mean absolute difference between each row and the next, (n, d1 - 1)."""
    xp = backend.arrays.xp(frames)
    values = frames.astype(np.float32)
    with np.errstate(invalid="ignore"):  # infinity less infinity: found by the result
        steps = xp.abs(values[:, 1:] - values[:, :-1])
    return backend.to_numpy(steps.mean(axis=tuple(range(2, steps.ndim))))


def _working(shape: tuple[int, ...]) -> int:
    """Bytes beside a frame: itself, the difference and its absolute value as float32."""
    return 3 * 4 * int(np.prod(shape[1:]))
