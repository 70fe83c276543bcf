"""The greedy search: against the formulas in plain NumPy, on planted cells, twin against twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import correlate

from gpucalcium.backend import to_numpy
from gpucalcium.backend import wing as wing_of
from gpucalcium.backend.stencils import gaussian_weights
from tests.wings import wings_present


def gaussian_kernel(sigma, half):
    kernel = np.ones(())
    for s, h in zip(sigma, half, strict=True):
        kernel = np.multiply.outer(kernel, gaussian_weights(s, h))
    return kernel


def planted(dims=(14, 11, 1), T=61, centres=((4, 3, 0), (8, 8, 0)), seed=0, noise=0.02):
    rng = np.random.default_rng(seed)
    grid = np.indices(dims)
    cells = [
        np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / 4.5) for centre in centres
    ]
    traces = rng.random((len(cells), T)) ** 6 * np.array([[3.0], [2.0]])[: len(cells)]
    movie = sum(
        np.multiply.outer(c, t) for c, t in zip(cells, traces, strict=True)
    ) + noise * rng.standard_normal((*dims, T))
    movie -= np.median(movie, -1, keepdims=True)
    return movie.reshape(-1, T).astype(np.float32), traces


def search(wing, movie, dims, half, kernel, K, window=0, iterations=5, seeds=None):
    T = movie.shape[1]
    filtered = np.stack(
        [correlate(movie[:, t].reshape(dims), kernel, mode="constant").ravel() for t in range(T)], 1
    ).astype(np.float32)
    n = int(np.prod([2 * h + 1 for h in half]))
    seeds = np.full(K, -1) if seeds is None else np.array(seeds)
    out = [wing.put(x) for x in (seeds, np.zeros((K, n), np.float32), np.zeros((K, T), np.float32))]
    rest, filtered, values = (wing.put(x) for x in (movie.copy(), filtered, np.zeros(len(movie), np.float32)))
    greedy = wing_of(rest).greedy
    greedy.energy(filtered, wing.put(np.arange(len(movie))), window, values)
    first = to_numpy(values).copy()
    greedy.search(
        rest, filtered, dims, half, wing.put(kernel.astype(np.float32)), window, iterations, values, *out
    )
    return [to_numpy(x) for x in (*out, rest, filtered, values)] + [first]


@pytest.mark.parametrize("window", [0, 1, 7, 60, 1000])
def test_energy_is_the_largest_rolling_mean(wing, window):
    movie, _ = planted()
    pixels = np.array([0, 5, 77, 153])
    out = wing.put(np.full(len(movie), -1, np.float32))
    given = wing.put(movie)
    wing_of(given).greedy.energy(given, wing.put(pixels), window, out)
    squares = movie.astype(float) ** 2
    if window:
        padded = np.pad(squares, ((0, 0), (window - 1, 0)))
        expected = np.lib.stride_tricks.sliding_window_view(padded, window, 1).mean(-1).max(1)
    else:
        expected = squares.sum(1)
    assert_allclose(to_numpy(out)[pixels], expected[pixels], rtol=1e-6)
    assert (to_numpy(out)[1:5] == -1).all()


@pytest.mark.parametrize(
    "dims, half", [((14, 11, 1), (3, 3, 0)), ((9, 8, 6), (2, 3, 2)), ((5, 4, 1), (4, 4, 0))]
)
def test_leaves_of_movie_and_filtered_movie_what_the_formulas_say(wing, dims, half):
    centres = ((2, 2, dims[2] // 2), (dims[0] - 1, dims[1] - 2, 0))
    movie, _ = planted(dims, centres=centres)
    sigma = (1.5, 1.2, 1.0)
    kernel = gaussian_kernel(sigma, half)
    seeds, shapes, traces, rest, filtered, values, first = search(
        wing, movie, dims, half, kernel, 2, window=9
    )
    assert seeds[0] == first.argmax()
    expected = movie.astype(float).copy()
    offsets = np.indices([2 * h + 1 for h in half]).reshape(3, -1).T - half
    for seed, shape, trace in zip(seeds, shapes, traces, strict=True):
        at = np.array(np.unravel_index(seed, dims)) + offsets
        inside = ((at >= 0) & (at < dims)).all(1)
        assert (shape[~inside] == 0).all()
        assert_allclose((shape.astype(float) ** 2).sum(), 1, rtol=1e-5)
        pixels = np.ravel_multi_index(tuple(at[inside].T), dims)
        assert_allclose(trace, shape[inside] @ expected[pixels], atol=2e-5)
        expected[pixels] -= np.outer(shape[inside], trace)
    assert_allclose(rest, expected, atol=2e-5)
    again = np.stack([correlate(e.reshape(dims), kernel, mode="constant").ravel() for e in expected.T], 1)
    assert_allclose(filtered, again, atol=2e-5)
    padded = np.pad(again**2, ((0, 0), (8, 0)))
    assert_allclose(values, np.lib.stride_tricks.sliding_window_view(padded, 9, 1).mean(-1).max(1), atol=1e-4)


def test_finds_planted_cells(wing):
    dims, half = (14, 11, 1), (4, 4, 0)
    movie, truth = planted()
    seeds, _, traces, *_ = search(wing, movie, dims, half, gaussian_kernel((1.5, 1.5, 1), half), 2)
    found = np.array(np.unravel_index(seeds, dims)).T
    for centre, trace in zip([(4, 3, 0), (8, 8, 0)], truth, strict=True):
        k = np.abs(found - centre).max(1).argmin()
        assert np.abs(found[k] - centre).max() <= 1
        assert np.corrcoef(traces[k], trace)[0, 1] > 0.95


def test_takes_seeds_that_are_given(wing):
    movie, _ = planted()
    half = (3, 3, 0)
    seeds, *_ = search(
        wing, movie, (14, 11, 1), half, gaussian_kernel((1.5, 1.5, 1), half), 2, seeds=[-1, 40]
    )
    assert seeds[0] >= 0
    assert seeds[1] == 40


def test_an_empty_movie_gives_empty_cells(wing):
    half = (2, 2, 0)
    movie = np.zeros((20, 9), np.float32)
    seeds, shapes, traces, *_ = search(wing, movie, (5, 4, 1), half, gaussian_kernel((1, 1, 1), half), 3)
    assert (seeds >= 0).all()
    assert_array_equal(shapes, 0)
    assert_array_equal(traces, 0)


def test_twins_agree():
    movie, _ = planted()
    half = (3, 3, 0)
    kernel = gaussian_kernel((1.5, 1.5, 1), half)
    results = [search(w, movie, (14, 11, 1), half, kernel, 3, window=10) for w in wings_present()]
    for other in results[1:]:
        assert_array_equal(other[0], results[0][0])
        for mine, theirs in zip(other[1:], results[0][1:], strict=True):
            assert_allclose(mine, theirs, atol=1e-4)
