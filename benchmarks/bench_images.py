"""Summary images and spatial filters: what a movie costs that is read once.

The bound of a correlation image is one reading of the movie in its own dtype; of a filter, reading it and
writing float32.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.backend import stencils
from gpucalcium.images import correlation_pnr, local_correlations, max_correlation_image, mean_image

FRAMES, FIELD = 1000, (256, 256)
CELL = 3.0  # pixels, standard deviation
RADIUS = 6


@pytest.fixture(scope="module", params=["float32", "int16"])
def movie(request):
    """Noise: none of these operations cares what it sees."""
    rng = np.random.default_rng(0)
    return (300 + 40 * rng.standard_normal((FRAMES, *FIELD), np.float32)).astype(request.param)


def _caiman(movie, name, **options):
    return Peer(
        "CaImAn",
        "caiman.summary_images",
        lambda images: getattr(images, name)(movie, swap_dim=False, **options),
    )


@pytest.mark.benchmark(group="local_correlations 1000x256x256")
@pytest.mark.parametrize("eight_neighbours", [True, False], ids=["8", "4"])
def test_local_correlations(benchmark, wing, movie, eight_neighbours):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        local_correlations,
        frames,
        eight_neighbours,
        swap_dim=False,
        bytes_moved=movie.nbytes,
        frames=FRAMES,
        peers=[_caiman(movie, "local_correlations", eight_neighbours=eight_neighbours)],
    )


@pytest.mark.benchmark(group="max_correlation_image, bins of 500, 1000x256x256")
def test_max_correlation_image(benchmark, wing, movie):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        max_correlation_image,
        frames,
        500,
        swap_dim=False,
        bytes_moved=movie.nbytes,
        frames=FRAMES,
        peers=[_caiman(movie, "max_correlation_image", bin_size=500)],
    )


@pytest.mark.benchmark(group="mean_image 1000x256x256")
def test_mean_image(benchmark, wing, movie):
    frames = wing.put(movie)
    numpy = Peer("NumPy", "numpy", lambda np: movie.mean(axis=0, dtype=np.float64))
    timed(benchmark, wing, mean_image, frames, bytes_moved=movie.nbytes, frames=FRAMES, peers=[numpy])


@pytest.mark.benchmark(group="correlation_pnr 1000x256x256")
def test_correlation_pnr(benchmark, wing, movie):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        correlation_pnr,
        frames,
        CELL,
        swap_dim=False,
        bytes_moved=movie.nbytes,
        frames=FRAMES,
        peers=[_caiman(movie, "correlation_pnr", gSig=CELL)],
    )


@pytest.mark.benchmark(group="gaussian 1000x256x256, 13 taps")
def test_gaussian(benchmark, wing, movie):
    frames = wing.put(movie)

    def scipy_gaussian(ndimage):
        ndimage.gaussian_filter(movie, (0, CELL, CELL), radius=(0, RADIUS, RADIUS), output=np.float32)

    timed(
        benchmark,
        wing,
        backend.wing(frames).filters.gaussian,
        frames,
        (CELL, CELL),
        (RADIUS, RADIUS),
        "reflect",
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
        peers=[Peer("SciPy", "scipy.ndimage", scipy_gaussian)],
    )


@pytest.mark.benchmark(group="gaussian minus disc mean 1000x256x256, 113 taps")
def test_difference_filter(benchmark, wing, movie):
    frames = wing.put(movie)
    kernel = stencils.difference_kernel((CELL, CELL), (RADIUS, RADIUS))
    timed(
        benchmark,
        wing,
        backend.wing(frames).filters.correlate,
        frames,
        kernel,
        "replicate",
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
    )
