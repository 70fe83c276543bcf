"""Parameters guessed from the movie itself, for a user who gives none."""

from __future__ import annotations

from numpy.typing import NDArray

from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.images.blobs import find_blobs
from gpucalcium.pipeline.settings import ASSUMED_FRAME_RATE, RunSettings

GSIG_SHARE = 0.85  # of the radius: the Gaussian that resembles a disc most
FOOTPRINT_EDGE = 0.1  # of the maximum: fainter pixels are neuropil that happens to be active with the cell
SPARE = 1.6  # components are merged and rejected afterwards, but none is ever added


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
