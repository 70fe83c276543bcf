"""Summary images of movies."""

from gpucalcium.images.correlations import (
    local_correlations,
    local_correlations_fft,
    max_correlation_image,
    mean_image,
)
from gpucalcium.images.pnr import correlation_pnr

__all__ = [
    "correlation_pnr",
    "local_correlations",
    "local_correlations_fft",
    "max_correlation_image",
    "mean_image",
]
