"""Summary images and spatial filters: what a movie costs that is read once.

The bound of a correlation image is one reading of the movie in its own dtype; of a filter, reading it and
writing float32; of a movie of correlation images, reading and writing. Beside what was measured, each row has what
a frame costs in bytes and operations, and what an H200 would do with that if nothing else held it up.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.backend import stencils
from gpucalcium.images import (
    correlation_image_ecobost,
    correlation_pnr,
    local_correlations,
    local_correlations_fft,
    local_correlations_movie,
    local_correlations_movie_offline,
    local_correlations_multicolor,
    max_correlation_image,
    mean_image,
)

FRAMES, FIELD = 1000, (256, 256)
PIXELS = FIELD[0] * FIELD[1]
CELL = 3.0  # pixels, standard deviation
RADIUS = 6


@pytest.fixture(scope="module", params=["float32", "int16"])
def movie(request):
    """Noise: none of these operations cares what it sees."""
    rng = np.random.default_rng(0)
    return (300 + 40 * rng.standard_normal((FRAMES, *FIELD), np.float32)).astype(request.param)


H200_BYTES = 4.3e12  # per second, read plus written
H200_DOUBLES = 3.4e13  # operations per second on float64; a multiply-add is two
H200_FLOATS = 6.7e13
H200_WIDE = (
    132 * 1.98e9 * 16
)  # per second: what takes 64-bit results, conversions to double and wide multiply-adds
# (at 16 per clock on each of 132 multiprocessors)

# Frames/s of CaImAn 1.12.1 on 2 cores, 1000 x 256 x 256 float32
ON_RECORD = {
    "local_correlations": 3020,
    "local_correlations_fft": 3190,
    "max_correlation_image": 3390,
    "correlation_pnr": 206,
}


def _caiman(movie, name, **options):
    return Peer(
        "CaImAn",
        "caiman.summary_images",
        lambda images: getattr(images, name)(movie, swap_dim=False, **options),
        ON_RECORD.get(name),
    )


def _counts(benchmark, traffic, *, doubles=0.0, floats=0.0, wide=0.0):
    """Say what a frame costs, and what an H200 would do with it; `doubles` ... are operations per pixel."""
    seconds = {
        "bytes": traffic / H200_BYTES,
        "doubles": doubles * PIXELS / H200_DOUBLES,
        "floats": floats * PIXELS / H200_FLOATS,
        "wide operations": wide * PIXELS / H200_WIDE,
    }
    slowest = max(seconds, key=lambda name: seconds[name])
    rate = benchmark.extra_info["frames_per_s"]
    benchmark.extra_info.update(
        bytes_per_frame=traffic,
        operations_per_frame=(doubles + floats + wide) * PIXELS,
        h200_frames_per_s=1 / seconds[slowest],
        h200_held_up_by=slowest,
        h200_share_of_bandwidth=seconds["bytes"] / seconds[slowest],
    )
    on_record = benchmark.extra_info["on_record"]
    ratio = "".join(f", {rate / best:.1f} x {name} on record" for name, best in on_record.items())
    print(
        f"\n  {rate:,.0f} frames/s, {1 / benchmark.extra_info['times_bound']:.0%} of the bandwidth here{ratio}; "
        f"{traffic / 1e6:.2f} MB and {(doubles + floats + wide) * PIXELS / 1e6:.1f} million operations a frame: "
        f"H200 {1 / seconds[slowest]:,.0f} frames/s, held up by {slowest}"
    )


def _sums(pairs, movie):
    """Operations per pixel of the sums of a correlation image with so many forward neighbours, see add_products."""
    if movie.dtype.kind == "f":
        return {"doubles": 3 + 2 * pairs, "wide": 1 + pairs}
    return {"wide": (1 + pairs) / 2}  # multiply-adds of integers: twice as fast as conversions


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
    _counts(benchmark, movie[0].nbytes, **_sums(4 if eight_neighbours else 2, movie))


@pytest.mark.benchmark(group="local_correlations_fft 1000x256x256")
def test_local_correlations_fft(benchmark, wing, movie):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        local_correlations_fft,
        frames,
        swap_dim=False,
        bytes_moved=movie.nbytes,
        frames=FRAMES,
        peers=[_caiman(movie, "local_correlations_fft")],
    )
    _counts(benchmark, movie[0].nbytes, **_sums(4, movie))


@pytest.mark.benchmark(group="local_correlations_multicolor, correlation_image_ecobost 1000x256x256")
@pytest.mark.parametrize("function", [local_correlations_multicolor, correlation_image_ecobost])
def test_variants(benchmark, wing, movie, function):
    frames = wing.put(movie)
    options = {"swap_dim": False} if function is local_correlations_multicolor else {}
    timed(benchmark, wing, function, frames, bytes_moved=movie.nbytes, frames=FRAMES, **options)
    _counts(benchmark, movie[0].nbytes, **_sums(3 + (not options), movie))


SUMS = 8 * (2 + 4)  # bytes a pixel of the sums for 8 neighbours
IMAGE = SUMS + 2 * 16 + 4  # read them, write and read means and deviations, write the image
IMAGE_DOUBLES = 2 * (
    3 + 2 * (1 + 8 * 4)
)  # rounded one by one, by both pixels of a pair; a root and a reciprocal


def _movie_counts(movie, mode, stride):
    """Bytes a frame, and operations per pixel and frame, of a movie of correlation images, see sliding.cu."""
    passing = {"simple": SUMS, "exponential": 2 * SUMS, "cumulative": 2 * SUMS}[
        mode
    ]  # sums to and from the kernel
    traffic = movie[0].nbytes + (IMAGE + passing) * PIXELS / stride
    image = {"doubles": IMAGE_DOUBLES / stride}
    if mode == "cumulative":
        sums = _sums(4, movie)
        return traffic, sums | {"doubles": sums.get("doubles", 0) + image["doubles"]}
    if mode == "exponential":  # departures are written and read; four operations for each of five covariances
        return traffic + 16 * PIXELS, {"doubles": 3 + 4 * 5 + image["doubles"], "wide": 1}
    return traffic, {
        "doubles": 2 * (3 + 2 * 4) + image["doubles"],
        "wide": 2 * 5,
    }  # what enters, and what leaves


@pytest.mark.benchmark(group="local_correlations_movie, window of 50, 250 x 256x256")
@pytest.mark.parametrize("stride", [1, 10])
@pytest.mark.parametrize("mode", ["simple", "exponential", "cumulative"])
def test_local_correlations_movie(benchmark, wing, movie, mode, stride):
    movie = movie[:250]
    frames = wing.put(movie)
    number = (len(movie) - 50) // stride + 1
    written = number * PIXELS * 4
    timed(
        benchmark,
        wing,
        local_correlations_movie,
        frames,
        window=50,
        stride=stride,
        swap_dim=False,
        mode=mode,
        bytes_moved=movie.nbytes + written,
        frames=len(movie),
    )
    traffic, operations = _movie_counts(movie, mode, stride)
    _counts(benchmark, traffic, **operations)


@pytest.mark.benchmark(group="local_correlations_movie_offline, windows of 100, 1000x256x256")
@pytest.mark.parametrize("stride", [100, 25])
def test_local_correlations_movie_offline(benchmark, wing, movie, stride):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        local_correlations_movie_offline,
        frames,
        stride=stride,
        swap_dim=False,
        bytes_moved=movie.nbytes,
        frames=FRAMES,
    )
    traffic, operations = _movie_counts(movie, "cumulative" if stride == 100 else "simple", stride)
    _counts(benchmark, traffic, **operations)


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
    _counts(benchmark, movie[0].nbytes, **_sums(4, movie))


@pytest.mark.benchmark(group="mean_image 1000x256x256")
def test_mean_image(benchmark, wing, movie):
    frames = wing.put(movie)
    numpy = Peer("NumPy", "numpy", lambda np: movie.mean(axis=0, dtype=np.float64))
    timed(benchmark, wing, mean_image, frames, bytes_moved=movie.nbytes, frames=FRAMES, peers=[numpy])
    _counts(benchmark, movie[0].nbytes, **_sums(0, movie))


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
    # Filtered and kept (4 bytes written), read for its mean (4), turned (8) and transformed (12), read and summed (12).
    taps = np.count_nonzero(stencils.difference_kernel((CELL, CELL), (RADIUS, RADIUS)))
    transform = 2.5 * np.log2(FRAMES)
    _counts(
        benchmark,
        movie[0].nbytes + (4 + 4 + 8 + 12 + 12) * PIXELS,
        floats=2 * taps + transform,
        doubles=14,
        wide=6,
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
