"""Which components of a one-photon movie are background: what follows its time courses, without transients.

An edge in the background, a vessel for one, is as narrow as a cell, and no ring of pixels around it predicts it. What a
search takes for a cell there has the time course of the background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.initialization.refine import skewness
from gpucalcium.cnmf.ring import RingModel

PARTS = 8  # of the field, on each axis: means over them show the time courses of a background, which is wide
LEAST_SHARE = (
    0.01  # of the variance of these means: below, a principal component is no time course of the background
)
FRAMES_OF_ONE = 20  # at least, for each time course; in fewer frames anything follows them
SAME_COURSE = 0.6  # of the variance of a trace, which time courses of the background explain
FLAT = 0.25  # skewness below which a trace goes both ways, whatever it follows
TRANSIENT = 1.5  # skewness above which a trace is a cell's, whose light may be what the background follows


def is_background(
    ring: RingModel, movie: PixelMovie, A: csc_matrix, C: NDArray, YrA: NDArray
) -> NDArray[np.bool_]:
    """Whether each component is a part of the ring background; one pass over the movie.

    Parameters
    ----------
    ring : RingModel
    movie : PixelMovie
    A : (d, K), C, YrA : (K, T)
        Components, pixels in Fortran order, and their residual traces.

    Returns
    -------
    background : (K,) bool
        The trace is hardly skewed upwards, as transients are, and more than 60 % of its variance lies in the time
        courses of the background; or it goes both ways. In a movie too short to say, none is.
    """
    upwards = skewness(C + YrA)
    hardly = upwards < TRANSIENT
    if not hardly.any():
        return hardly
    courses = time_courses(ring, movie, A, C)
    if FRAMES_OF_ONE * len(courses) > movie.T:
        return np.zeros(len(C), bool)
    X = np.asarray(C, np.float64)
    X = X - X.mean(1, keepdims=True)
    explained, total = ((X @ courses.T) ** 2).sum(1), (X**2).sum(1)
    return (upwards < FLAT) | (hardly & (explained > SAME_COURSE * total))


def time_courses(ring: RingModel, movie: PixelMovie, A: csc_matrix, C: NDArray) -> NDArray[np.float64]:
    """Principal time courses (n, T) of the ring background beside `A` `C`, orthonormal and of mean 0."""
    dims = ring.dims
    part = [np.arange(n) * min(PARTS, n) // n for n in dims]
    label = (part[0][:, None] * PARTS + part[1]).ravel(order="F")
    boxes = csc_matrix((np.ones(movie.d), (np.arange(movie.d), label)), shape=(movie.d, PARTS**2))
    sizes = np.maximum(np.asarray(boxes.sum(0)).ravel(), 1)
    means = ring.background(movie, A, C).project(boxes) / sizes[:, None]
    means -= means.mean(1, keepdims=True)
    _, s, courses = np.linalg.svd(means, full_matrices=False)
    return courses[s**2 > LEAST_SHARE * (s**2).sum()]
