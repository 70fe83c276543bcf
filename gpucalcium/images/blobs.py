"""Bright discs in an image: how large, how many, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RADII = tuple(2.0 * 1.15**k for k in range(14))  # px: 2 to 12, in steps that a cell's size varies by anyway
STRONG = 0.2  # blobs weaker than this fraction of a typical strong one are texture
FEWEST_BLOBS, FIELD_PER_BLOB = 5, 2500  # the strongest blobs tell the size: five, or one for so many pixels


@dataclass(frozen=True, eq=False)
class Blobs:
    """Bright round structures of one image, on the scale at which they stand out most."""

    radius: float
    """Typical radius, px."""
    count: int
    """How many are as strong as cells are."""
    centers: NDArray[np.int64] = field(repr=False)
    """(count, 2) row and column of these, the strongest first."""


def find_blobs(image: NDArray, radii: tuple[float, ...] = RADII) -> Blobs:
    """Typical radius, number and places of bright discs in an image, by the Laplacian of Gaussian.

    Parameters
    ----------
    image : (d1, d2)
        Correlation or mean image; NaN pixels count as the median.
    radii : tuple of float
        Candidates, px; those larger than a fifth of the field are left out.

    References
    ----------
    Lindeberg (1998), Int. J. Comput. Vis. 30:79: the scale-normalised Laplacian of a disc of radius r is
    largest at sigma = r / sqrt(2).
    """
    level = np.median(image[np.isfinite(image)]) if np.isfinite(image).any() else 0.0
    picture = np.where(np.isfinite(image), image, level).astype(np.float64) - level
    candidates = [r for r in radii if r <= min(image.shape) / 5] or [radii[0]]
    found = [
        _peaks(-(r**2) / 2 * ndimage.gaussian_laplace(picture, r / np.sqrt(2), mode="nearest"), r)
        for r in candidates
    ]
    few = max(FEWEST_BLOBS, picture.size // FIELD_PER_BLOB)
    standing_out = [float(heights[:few].sum() / few) for heights, _ in found]
    best = int(np.argmax(standing_out))
    heights, centers = found[best]
    count = int(np.count_nonzero(heights > STRONG * standing_out[best]))
    return Blobs(candidates[best], count, centers[:count])


def _peaks(response: NDArray, radius: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Heights and places of the positive local maxima that are at least one radius apart, the highest first."""
    size = 2 * int(np.ceil(radius / 2)) + 1
    top = ndimage.maximum_filter(response, size, mode="nearest")
    centers = np.argwhere((response == top) & (response > 0))
    heights = response[tuple(centers.T)]
    order = np.argsort(-heights, kind="stable")
    return heights[order], centers[order]
