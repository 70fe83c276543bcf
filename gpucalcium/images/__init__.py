"""Summary images of movies."""

from gpucalcium.images.correlation_movies import local_correlations_movie, local_correlations_movie_offline
from gpucalcium.images.correlations import (
    local_correlations,
    local_correlations_fft,
    max_correlation_image,
    mean_image,
)
from gpucalcium.images.pnr import correlation_pnr
from gpucalcium.images.variants import correlation_image_ecobost, local_correlations_multicolor

__all__ = [
    "correlation_image_ecobost",
    "correlation_pnr",
    "local_correlations",
    "local_correlations_fft",
    "local_correlations_movie",
    "local_correlations_movie_offline",
    "local_correlations_multicolor",
    "max_correlation_image",
    "mean_image",
]
