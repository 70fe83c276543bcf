"""What factorisations do to a movie before it is factorised, and to what they find."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf.initialization.greedy import Found
from gpucalcium.errors import ParameterError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Smoothing:
    """How a movie is smoothed and freed of its baseline."""

    sigma: Sequence[float] = (0.5, 0.5, 0.5)
    """Standard deviation along time and the axes of a frame, in frames and pixels; the last holds for further
    axes. 0: not at all."""
    remove_baseline: bool = True
    """Whether each pixel loses its baseline, and what is then below 0."""
    percentile: float = 20
    """Of a pixel over time that is its baseline, 0 to 100."""
    truncate: float = 2
    """Reach of the filter in standard deviations."""

    def __post_init__(self) -> None:
        if not len(self.sigma) or min(self.sigma) < 0:
            raise ParameterError(f"sigma_smooth={self.sigma}: expected one width or more, none below 0")
        if self.truncate <= 0:
            raise ParameterError(f"truncate={self.truncate}: a filter has to reach beyond its middle")
        if not 0 <= self.percentile <= 100:
            raise ParameterError(f"perc_baseline={self.percentile}: expected a percentile, 0 to 100")


class Prepared(NamedTuple):
    """A movie that can be factorised, pixels in the order of a frame, on the device."""

    values: Array
    """(d, T) float32, not negative."""
    baseline: Array
    """(d, 1) float32, what each pixel lost."""


def prepared(frames: Array, how: Smoothing) -> Prepared:
    """Frames (T, d1, d2[, d3]) smoothed, without baseline, and clipped at 0. What is not finite counts as 0."""
    xp, ndimage = backend.arrays.xp(frames), backend.arrays.ndimage(frames)
    if len(how.sigma) > frames.ndim:
        raise ParameterError(
            f"sigma_smooth={tuple(how.sigma)} has {len(how.sigma)} widths: expected one for time and one for each "
            f"of the {frames.ndim - 1} axes of a frame"
        )
    sigma = [*how.sigma, *[how.sigma[-1]] * (frames.ndim - len(how.sigma))]
    smooth = xp.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)
    smooth = ndimage.gaussian_filter(smooth, sigma, mode="nearest", truncate=how.truncate)
    values = xp.ascontiguousarray(smooth.reshape(len(frames), -1).T)
    del smooth
    baseline = xp.zeros((len(values), 1), "float32")
    if how.remove_baseline:
        which = backend.put(np.full(len(values), float(how.percentile)))
        baseline = backend.wing(values).quantile.percentile(values, which)[:, None]
        values -= baseline
    return Prepared(xp.maximum(values, 0), baseline)


def found(movie: Prepared, dims: tuple[int, ...], images: Array, traces: Array) -> Found:
    """Factors as components: empty ones are dropped, the rest of the movie has its baseline back.

    Parameters
    ----------
    movie : Prepared
        Its values are used up.
    dims : tuple of int
    images : (K, d), traces : (K, T)
        On the device, pixels in the order of a frame.
    """
    xp = backend.arrays.xp(movie.values)
    A, C = backend.to_numpy(images), backend.to_numpy(traces)
    real = (A > 0).any(1) & (C > 0).any(1)
    if not real.all():
        log.info("%d of %d components are empty and left out", len(A) - real.sum(), len(A))
    A, C = A[real].astype(np.float32), C[real].astype(np.float32)
    rest = movie.values
    rest -= xp.matmul(backend.put(np.ascontiguousarray(A.T)), backend.put(C))
    rest += movie.baseline
    in_fortran_order = np.arange(A.shape[1]).reshape(dims).ravel(order="F")
    return Found(csc_matrix(A.T[in_fortran_order]), C, xp.maximum(rest, 0))


def checked_rank(nr: int, max_iter: int, dims: Sequence[int]) -> int:
    """`nr`, at most the number of pixels."""
    if nr < 0 or max_iter < 1:
        raise ParameterError(
            f"K={nr}, max_iter_snmf={max_iter}: the first cannot be negative, nor the second 0"
        )
    return min(int(nr), int(np.prod(dims)))
