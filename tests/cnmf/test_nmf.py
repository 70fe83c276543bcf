"""Factorisations of matrices, and what is done to a movie before them; the graph between pixels."""

import logging

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from sklearn.decomposition import NMF

from gpucalcium import backend
from gpucalcium.cnmf.initialization.compressed import find_compressed
from gpucalcium.cnmf.initialization.graph_nmf import Graph, affinities, graphNMF
from gpucalcium.cnmf.initialization.nmf import LowRank, Penalty, Whole, factorise, sketch, start
from gpucalcium.cnmf.initialization.pca_ica import find_independent
from gpucalcium.cnmf.initialization.smoothing import Smoothing, prepared
from gpucalcium.cnmf.initialization.sparse_nmf import sparseNMF
from gpucalcium.errors import MemoryBudgetError
from tests.cnmf.scenes import gaussian_cells, matched


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=150, noise=0.3)


def last(Y):
    return np.moveaxis(Y, 0, -1)


def relative(mine, theirs):
    return np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)


# ---------------------------------------------------------------------------- the factorisation


@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.02, "l1_ratio": 0.7}])
def test_factors_are_those_of_an_independent_solver(wing, penalty):
    rng = np.random.default_rng(5)
    X = (rng.random((31, 3)) @ rng.random((3, 47)) + 0.1 * rng.random((31, 47))).astype(np.float32)
    begin = np.abs(rng.standard_normal((3, 31))), np.abs(rng.standard_normal((3, 47)))
    d, T = X.shape
    weight, share = penalty.get("alpha_W", 0), penalty.get("l1_ratio", 0)
    l1, l2 = weight * share, weight * (1 - share)
    images, traces = factorise(
        Whole(wing.put(X)),
        *map(wing.put, begin),
        penalty=Penalty(images_l1=l1 * T, images_l2=l2 * T, traces_l1=l1 * d, traces_l2=l2 * d),
        max_iter=40,
        tol=0,
    )
    model = NMF(3, init="custom", tol=0, max_iter=40, **penalty)
    C = model.fit_transform(X.T.astype(float), W=begin[1].T.copy(), H=begin[0].copy())
    assert_allclose(backend.to_numpy(traces), C.T, atol=1e-4)
    assert_allclose(backend.to_numpy(images), model.components_, atol=1e-4)


def test_a_sketch_takes_the_place_of_a_matrix_of_low_rank(wing):
    rng = np.random.default_rng(6)
    X = (rng.random((29, 3)) @ rng.random((3, 41))).astype(np.float32)
    parts = sketch(wing.put(X), 10)
    begin = start(*parts, 3, "nndsvda")
    whole, low = (
        factorise(matrix, *begin, max_iter=60, tol=1e-6) for matrix in (Whole(wing.put(X)), LowRank(*parts))
    )
    for one, other in zip(whole, low, strict=True):
        assert_allclose(backend.to_numpy(one), backend.to_numpy(other), atol=2e-3)
    assert relative(backend.to_numpy(low[0]).T @ backend.to_numpy(low[1]), X) < 0.02


def test_a_penalty_that_wins_leaves_nothing(scene, caplog):
    with caplog.at_level(logging.WARNING):
        A, C, _, b, f = sparseNMF(last(scene.Y), 4, alpha=1e6)
    assert (A.shape, C.shape) == ((600, 0), (0, 150))
    assert "too much for this movie" in caplog.text
    assert_allclose((b @ f).mean(), scene.Y.mean(), rtol=0.05)


def test_more_penalty_is_sparser(scene):
    filled = [(sparseNMF(last(scene.Y), 5, alpha=alpha)[0] > 0).mean() for alpha in (0, 5, 10)]
    assert filled[0] > filled[1] > filled[2]


# ---------------------------------------------------------------------------- before and after


@pytest.mark.parametrize("dims", [(7, 9), (5, 6, 4)])
def test_smoothing_and_baseline(wing, dims):
    Y = np.random.default_rng(7).random((23, *dims)).astype(np.float32)
    sigma = (0.8, 0.5, 1.1)
    movie = prepared(wing.put(Y), Smoothing(sigma=sigma, truncate=3, percentile=30))
    smooth = gaussian_filter(Y, [*sigma, *sigma[-1:] * (len(dims) - 2)], mode="nearest", truncate=3)
    baseline = np.percentile(smooth, 30, axis=0)
    assert_allclose(backend.to_numpy(movie.baseline)[:, 0], baseline.ravel(), atol=1e-5)
    expected = np.maximum(smooth - baseline, 0).reshape(23, -1).T
    assert_allclose(backend.to_numpy(movie.values), expected, atol=1e-5)
    kept = prepared(wing.put(Y), Smoothing(sigma=(0,), remove_baseline=False))
    assert_array_equal(backend.to_numpy(kept.values), Y.reshape(23, -1).T)


@pytest.mark.parametrize("find_in", [find_compressed, find_independent])
def test_components_and_rest_are_the_movie(find_in):
    """What is left is the movie without components where that is not negative."""
    scene = gaussian_cells(T=60)
    found = find_in(scene.Y, 4, Smoothing(sigma=(0, 0, 0), remove_baseline=False), 50)
    model = (found.A @ found.C).reshape(*scene.dims, 60, order="F").reshape(600, 60)
    expected = np.maximum(scene.Y.reshape(60, -1).T - model, 0)
    assert_allclose(found.rest, expected, atol=1e-3)


# ---------------------------------------------------------------------------- the graph


@pytest.mark.parametrize("kernel", ["heat", "cos", "binary"])
@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"threshold": 0.3}])
def test_affinities_by_their_formulas(wing, kernel, options):
    X = np.random.default_rng(8).standard_normal((37, 11)).astype(np.float32)
    W = backend.to_numpy(affinities(wing.put(X), Graph(kernel=kernel, sigma=2.0, **options)))
    Z = X.astype(float)
    if options.get("normalize", True):
        Z -= Z.mean(1, keepdims=True)
        Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    threshold = options.get("threshold", 0)
    expected = np.exp(-cdist(Z, Z, "sqeuclidean") / 2.0) if kernel == "heat" else 1 - cdist(Z, Z, "cosine")
    if kernel == "binary":
        expected = (expected > threshold).astype(float)
    else:
        expected = np.where(expected < threshold, 0, np.maximum(expected, 0))
    assert_allclose(W, expected, atol=2e-6)


def test_nearest_neighbours(wing):
    X = np.random.default_rng(9).standard_normal((37, 11)).astype(np.float32)
    everyone = backend.to_numpy(affinities(wing.put(X), Graph()))
    np.fill_diagonal(everyone, 0)
    W = affinities(wing.put(X), Graph(use_nn=True, nnn=3))
    W = W.toarray() if wing.name == "cpu" else backend.to_numpy(W.toarray())
    expected = np.zeros_like(everyone)
    for i, near in enumerate(np.argsort(-everyone, axis=1)[:, :3]):
        expected[i, near] = everyone[i, near]
    assert_allclose(W, np.maximum(expected, expected.T), atol=1e-6)


def test_the_graph_makes_like_pixels_alike(scene):
    """With a strong graph, pixels with the same time course weigh the same."""
    options = {"max_iter_snmf": 100, "SC_kernel": "cos", "SC_thr": 0.5}
    rough, smooth = (graphNMF(last(scene.Y), 5, lambda_gnmf=w, **options)[0] for w in (0, 3000))
    cell = scene.A.toarray() > 2
    spread = [
        np.mean([np.std(A[inside, best]) / np.mean(A[inside, best]) for inside, best in zip(
            cell.T, (cell.T.astype(float) @ A).argmax(1), strict=True)])
        for A in (rough, smooth)
    ]  # fmt: skip
    assert spread[1] < 0.8 * spread[0]


def test_the_graph_of_neighbours_finds_the_cells(wing, scene):
    """Heat between unit time courses is 0.13 between any two pixels; neighbours alone leave the others in peace."""
    A, C, *_ = graphNMF(wing.put(last(scene.Y)), 6, SC_use_NN=True, SC_nnn=5)
    _, cosine, r = matched(A, C, scene)
    assert (cosine > 0.9).all()
    assert (r > 0.9).all()


def test_too_many_pixels_for_a_graph():
    with backend.limit(memory="1MiB"), pytest.raises(MemoryBudgetError, match="SC_use_NN=True"):
        affinities(np.zeros((600, 3), np.float32), Graph())
