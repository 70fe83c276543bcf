"""Parameters guessed from the movie itself, for a user who gives none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.pipeline.settings import ASSUMED_FRAME_RATE, RunSettings

RADII = tuple(2.0 * 1.15**k for k in range(14))  # px: 2 to 12, in steps that a cell's size varies by anyway
STRONG = 0.2  # blobs weaker than this fraction of a typical strong one are texture
GSIG_SHARE = 0.85  # of the radius: the Gaussian that resembles a disc most
FOOTPRINT_EDGE = 0.1  # of the maximum: fainter pixels are neuropil that happens to be active with the cell
SPARE = 1.6  # components are merged and rejected afterwards, but none is ever added
FEWEST_BLOBS, FIELD_PER_BLOB = 5, 2500  # the strongest blobs tell the size: five, or one for so many pixels


@dataclass(frozen=True)
class Blobs:
    """Bright round structures of one image, on the scale at which they stand out most."""

    radius: float
    """Typical radius, px."""
    count: int
    """How many are as strong as cells are."""


def find_blobs(image: NDArray, radii: tuple[float, ...] = RADII) -> Blobs:
    """Typical radius and number of bright discs in an image, by the Laplacian of Gaussian.

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
    responses = [
        -(r**2) / 2 * ndimage.gaussian_laplace(picture, r / np.sqrt(2), mode="nearest") for r in candidates
    ]
    strengths = [
        np.sort(_peaks(response, r))[::-1] for response, r in zip(responses, candidates, strict=True)
    ]
    few = max(FEWEST_BLOBS, picture.size // FIELD_PER_BLOB)
    standing_out = [float(found[:few].sum() / few) for found in strengths]
    best = int(np.argmax(standing_out))
    return Blobs(candidates[best], int(np.count_nonzero(strengths[best] > STRONG * standing_out[best])))


def _peaks(response: NDArray, radius: float) -> NDArray:
    """Heights of the positive local maxima that are at least one radius apart."""
    size = 2 * int(np.ceil(radius / 2)) + 1
    top = ndimage.maximum_filter(response, size, mode="nearest")
    return response[(response == top) & (response > 0)]


def guess_parameters(correlation: NDArray, asked: RunSettings) -> tuple[CNMFParams, tuple[str, ...]]:
    """Parameters of the fit: what was asked for, and the rest from the picture of the movie.

    Parameters
    ----------
    correlation : (d1, d2)
        Correlation image of the registered movie.
    asked : RunSettings

    Returns
    -------
    params : CNMFParams
    notes : tuple of str
        What was assumed, for the reader of the report.
    """
    notes = []
    if asked.frame_rate is None:
        notes.append(
            f"The frame rate was not given; {ASSUMED_FRAME_RATE:g} Hz is assumed. Times, the length of transients and "
            "SNR depend on it (--frame-rate)."
        )
    if asked.cell_radius is None:
        blobs = find_blobs(correlation)
        radius = blobs.radius
        notes.append(
            f"Cells have a radius of about {radius:.1f} px, as guessed from the correlation image (--cell-radius)."
        )
    else:
        radius = asked.cell_radius
        blobs = find_blobs(correlation, (radius,))
    area = (
        2.6 * radius**2
    )  # hexagonal packing leaves a cell no less than 2 sqrt(3) r^2 = 3.5 r^2; overlaps need more
    most = max(4, int(correlation.size / area))
    count = asked.n_components or min(most, int(SPARE * blobs.count) + 5)
    params = CNMFParams(
        params_dict={
            "data": {"fr": asked.frame_rate or ASSUMED_FRAME_RATE, "decay_time": asked.decay_s},
            "init": {
                "K": count,
                "gSig": (GSIG_SHARE * radius,) * 2,
                "gSiz": (2 * round(radius) + 1,) * 2,
                "nb": 2,
                "ssub": 1,
                "tsub": 2,
            },
            "patch": {"only_init": False},
            "preprocess": {"p": 1},
            "spatial": {"thr_method": "max", "maxthr": FOOTPRINT_EDGE},
            "temporal": {"p": 1},
            "quality": {"use_cnn": False},
        }
    )
    params.change_params(asked.params)
    return params, tuple(notes)
