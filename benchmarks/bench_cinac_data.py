"""What a recording costs before a network looks at it: normalisation, shapes and neighbours of cells, raw traces.

Each reads the movie once: the bound is its bytes. Shapes have none worth naming and stand beside the way of all pairs.
A value costs 2 double additions and a multiplication (mean and deviation), a pixel of a cell one addition.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium.cinac.cell_map import from_contours
from gpucalcium.cinac.moments import movie_moments
from gpucalcium.cinac.traces import mean_traces
from gpucalcium.movies import open_movie

FRAMES, SIDE, CELLS = 1500, 256, 500


@pytest.fixture(params=["int16", "float32"], scope="module")
def movie(request):
    rng = np.random.default_rng(0)
    return rng.normal(1000, 40, (FRAMES, SIDE, SIDE)).astype(request.param)


def contours(cells=CELLS):
    """Discs of 6 pixels' radius, some of which overlap."""
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = 6 * np.array([np.cos(angle), np.sin(angle)])
    return [circle + at[:, None] for at in np.random.default_rng(1).uniform(8, SIDE - 8, (cells, 2))]


@pytest.mark.benchmark(group=f"mean and deviation of a movie {FRAMES}x{SIDE}x{SIDE}")
def test_movie_moments(benchmark, wing, movie):
    peer = Peer(
        "NumPy, two passes",
        "numpy",
        lambda numpy: (numpy.mean(movie, dtype="f8"), numpy.std(movie, dtype="f8")),
    )
    frames = wing.put(movie)
    timed(benchmark, wing, movie_moments, frames, bytes_moved=movie.nbytes, frames=FRAMES, peers=[peer])


@pytest.mark.benchmark(group=f"raw traces of {CELLS} cells {FRAMES}x{SIDE}x{SIDE}")
def test_mean_traces(benchmark, wing, movie):
    cells = from_contours(contours())
    pixels = [cells.pixels(cell, (SIDE, SIDE)) for cell in range(CELLS)]

    def cell_by_cell(numpy):
        flat = movie.reshape(FRAMES, -1)
        return [flat[:, mine].mean(axis=1, dtype="f8") for mine in pixels]

    frames = open_movie(wing.put(movie))
    peer = Peer("NumPy, cell by cell", "numpy", cell_by_cell)
    timed(benchmark, wing, mean_traces, frames, pixels, bytes_moved=movie.nbytes, frames=FRAMES, peers=[peer])


@pytest.mark.benchmark(group=f"shapes and neighbours of {CELLS} cells")
def test_cell_map(benchmark, wing):
    if wing.name != "cpu":
        pytest.skip("shapes are of the host")
    given = contours()

    def whole():
        cells = from_contours(given)
        return cells.neighbours, cells.centroids, cells.bounds

    def all_pairs(shapely):
        polygons = [shapely.Polygon(points.T) for points in given]
        return [
            [k for k, other in enumerate(polygons) if other is not one and one.intersects(other)]
            for one in polygons
        ]

    timed(
        benchmark,
        wing,
        whole,
        bytes_moved=sum(points.nbytes for points in given),
        peers=[Peer("all pairs", "shapely", all_pairs)],
    )


@pytest.mark.benchmark(group=f"pixels of {CELLS} cells")
def test_pixels(benchmark, wing):
    if wing.name != "cpu":
        pytest.skip("masks are drawn on the host")
    cells = from_contours(contours())

    def drawn():
        return [cells.pixels(cell, (SIDE, SIDE)) for cell in range(CELLS)]

    timed(benchmark, wing, drawn, bytes_moved=sum(mine.nbytes for mine in drawn()))
