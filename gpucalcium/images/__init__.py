"""Summary images of movies."""

from gpucalcium.images.correlations import (
    local_correlations,
    local_correlations_fft,
    max_correlation_image,
    mean_image,
)

__all__ = ["local_correlations", "local_correlations_fft", "max_correlation_image", "mean_image"]
