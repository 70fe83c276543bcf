"""PCA, ICA, NMF and k-means of movies: against NumPy's SVD, simulated truth and stored results."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    ArrayShapeError,
    MemoryBudgetError,
    MovieValueError,
    NotSupportedError,
    ParameterError,
)
from gpucalcium.movies import decomposing, decomposition, movie


def sources(T=150, dims=(13, 17), seed=0, noise=0.05):
    """Three cells that fire at random: a non-negative movie, their images (3, d1, d2) and traces (T, 3)."""
    rng = np.random.default_rng(seed)
    i, j = np.ogrid[: dims[0], : dims[1]]
    centres = ((3, 4), (8, 12), (10, 3))
    images = np.stack([np.exp(-((i - a) ** 2 + (j - b) ** 2) / 6) for a, b in centres])
    traces = rng.gamma(0.3, 3, (T, 3))
    frames = np.tensordot(traces, images, 1) + noise * rng.random((T, *dims))
    return movie(frames.astype(np.float32), fr=10), images, traces


def matched(found, truth):
    """For each true vector the largest |correlation| with one of those found."""
    found, truth = found.reshape(len(found), -1), truth.reshape(len(truth), -1)
    return np.abs(np.corrcoef(found, truth)[: len(found), len(found) :]).max(axis=0)


# ---------------------------------------------------------------------------- PCA


@pytest.mark.parametrize("batch", [1, 60, 1000])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_pca_is_the_svd_without_the_frames_means(wing, batch, dtype):
    frames = np.random.default_rng(1).integers(0, 200, (19, 5, 7)).astype(dtype)
    series, images, rebuilt = movie(frames).IPCA(4, batch)
    X = frames.reshape(19, -1).T.astype(np.float64)
    mean = X.mean(axis=0)
    U, s, V = np.linalg.svd(X - mean, full_matrices=False)
    assert_allclose(np.abs(series.T @ V[:4].T), np.eye(4), atol=1e-8)
    expected = (U[:, :4] * s[:4]) @ V[:4] + mean
    assert_allclose(rebuilt, expected, rtol=1e-5, atol=1e-4)
    assert_allclose(images, expected @ series, rtol=1e-8, atol=1e-8)
    assert rebuilt.dtype == np.float32


def test_denoised_movie_agrees_with_the_reference(stored, recording):
    """The reference adds pixels in batches and drops what is beyond K components after each: it explains less."""
    ours = movie(recording, fr=20).IPCA_denoise(5, 60)
    some = np.asarray(ours[::30])
    assert np.corrcoef(some.ravel(), stored["IPCA_denoise"].ravel())[0, 1] > 0.99
    assert np.linalg.norm(some - recording[::30]) < 1.01 * np.linalg.norm(
        stored["IPCA_denoise"] - recording[::30]
    )
    assert ours.fr == 20 and ours.dtype == np.float32


def test_all_components_rebuild_the_movie():
    frames = np.random.default_rng(2).normal(size=(6, 4, 5, 3)).astype(np.float32)
    assert_allclose(movie(frames).IPCA_denoise(6), frames, atol=1e-5)


@pytest.mark.parametrize("limit", [10, 4096])
def test_layout_in_memory_changes_nothing(limit, monkeypatch):
    """As in a memory map of traces, where time runs fastest."""
    monkeypatch.setattr(decomposition, "GRAM_LIMIT", limit)
    recording, _, _ = sources()
    turned = movie(np.moveaxis(np.ascontiguousarray(np.moveaxis(np.asarray(recording), 0, 2)), 2, 0), fr=10)
    assert not turned.flags.c_contiguous
    for one, other in zip(recording.IPCA(3, 50), turned.IPCA(3, 50), strict=True):
        assert_allclose(one, other, atol=1e-5)
    assert_array_equal(recording.online_NMF(3, "nmf")[1], turned.online_NMF(3, "nmf")[1])


def test_many_frames_are_decomposed_on_a_random_subspace(monkeypatch):
    recording, _, _ = sources()
    exact = recording.IPCA_denoise(3)
    monkeypatch.setattr(decomposition, "GRAM_LIMIT", 10)
    assert_allclose(recording.IPCA_denoise(3), exact, atol=1e-4)


def test_one_frame_and_constant_movies():
    one = movie(np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
    assert_allclose(one.IPCA_denoise(1), one, atol=1e-6)
    assert_allclose(movie(np.full((5, 3, 4), 7)).IPCA_denoise(2), 7, atol=1e-6)


def test_pca_says_what_is_wrong():
    frames = np.ones((5, 3, 4))
    with pytest.raises(ParameterError, match="1 to 5 components"):
        movie(frames).IPCA()
    with pytest.raises(ParameterError, match="batch=0"):
        movie(frames).IPCA_denoise(2, 0)
    frames[3, 1, 2] = np.nan
    with pytest.raises(MovieValueError, match="frame 3 holds NaN"):
        movie(frames).IPCA(2)


# ---------------------------------------------------------------------------- ICA


@pytest.mark.parametrize("fun", ["logcosh", "exp", "cube"])
@pytest.mark.parametrize("mu", [1, 0.5])
def test_spatio_temporal_ica_finds_the_cells(fun, mu):
    recording, images, _ = sources()
    found = recording.IPCA_stICA(3, 3, mu=mu, ICAfun=fun)
    assert found.shape == (3, 13, 17)
    assert (matched(found, images) > 0.9).all()


@pytest.mark.parametrize("fun", ["logcosh", "exp", "cube"])
def test_ica_of_the_whitened_movie_finds_the_cells(fun):
    recording, images, _ = sources()
    found = recording.IPCA_io(3, fun)
    assert found.shape == (3, 13, 17)
    assert (matched(found, images) > 0.9).all()
    assert_allclose(np.sqrt((found**2).mean(axis=(1, 2))), 1, rtol=0.02)


def test_ica_says_what_is_wrong():
    recording = sources()[0]
    with pytest.raises(ParameterError, match="mu=2"):
        recording.IPCA_stICA(3, 3, mu=2)
    with pytest.raises(ParameterError, match="componentsICA=4"):
        recording.IPCA_stICA(3, 4)
    with pytest.raises(ParameterError, match="no function of FastICA"):
        recording.IPCA_io(3, "tanh")
    with pytest.raises(MovieValueError, match="fewer than n_components=2"):
        movie(np.full((5, 3, 4), 7)).IPCA_io(2)


# ---------------------------------------------------------------------------- NMF


@pytest.mark.parametrize("init", ["nndsvd", "random"])
def test_nmf_finds_the_cells(init):
    recording, images, traces = sources()
    space, time = recording.NonnegativeMatrixFactorization(3, init, max_iter=500)
    assert space.shape == (3, 13, 17) and time.shape == (150, 3)
    assert (matched(space, images) > 0.98).all() and (matched(time.T, traces.T) > 0.98).all()
    assert space.min() >= 0 and time.min() >= 0


@pytest.mark.parametrize(("method", "penalty"), [("nmf", 100), ("nnsc", 0.05)])
@pytest.mark.parametrize("iterations", [-30, 60])
def test_online_nmf_finds_the_cells(method, penalty, iterations):
    recording, images, _ = sources()
    time, space = recording.online_NMF(3, method, penalty, iterations)
    assert space.shape == (3, 13, 17) and time.shape == (150, 3)
    assert space.min() >= 0 and time.min() >= 0
    rebuilt = np.tensordot(time, space, 1)
    assert np.linalg.norm(rebuilt - recording) < 0.3 * np.linalg.norm(recording)
    assert (matched(space, images) > 0.8).all()


def test_larger_penalty_gives_sparser_traces():
    recording = sources()[0]
    weak, strong = (recording.online_NMF(3, "nnsc", penalty)[0] for penalty in (0.01, 5))
    assert (strong == 0).mean() > (weak == 0).mean()


@pytest.mark.parametrize("method", ["nmf", "nnsc"])
def test_online_nmf_goes_on_from_given_images(method):
    recording, images, _ = sources()
    _, space = recording.online_NMF(3, method, 0.05, 1, model=images)
    assert (np.diag(np.corrcoef(space.reshape(3, -1), images.reshape(3, -1))[:3, 3:]) > 0.95).all()


def test_factors_of_one_frame():
    one = movie(np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
    for time, space in (one.online_NMF(1, "nmf"), one.online_NMF(1, "nnsc", 0.01)):
        assert time.shape == (1, 1) and space.shape == (1, 3, 4)
    space, time = one.NonnegativeMatrixFactorization(1, "random")
    assert_allclose(time[0, 0] * space[0], one[0], atol=0.2)  # without the first percentile
    labels, correlations, _ = one.partition_FOV_KMeans(fx=1, fy=1, n_clusters=2)
    assert labels.shape == (3, 4) and not correlations.any()


def test_nmf_says_what_is_wrong():
    recording = sources()[0]
    with pytest.raises(MovieValueError, match="All values must be positive"):
        (recording - 1).NonnegativeMatrixFactorization(3)
    with pytest.raises(MovieValueError, match="All values must be positive"):
        (recording - 1).online_NMF(3)
    for extra in ({"beta": 2}, {"sparseness": "data"}):
        with pytest.raises(ParameterError, match="not supported"):
            recording.NonnegativeMatrixFactorization(3, **extra)
    with pytest.raises(ParameterError, match="Method unknown"):
        recording.online_NMF(3, "pca")
    with pytest.raises(ParameterError, match="iterations=0"):
        recording.online_NMF(3, iterations=0)
    with pytest.raises(ArrayShapeError, match="model has shape"):
        recording.online_NMF(3, model=np.ones((2, 13, 17)))


# ---------------------------------------------------------------------------- parts of the field of view


def halves():
    """Left and right half brighten on their own."""
    rng = np.random.default_rng(0)
    frames = np.empty((90, 12, 21), np.float32)
    frames[:, :, :9], frames[:, :, 9:] = rng.normal(size=(2, 90, 1, 1))
    return frames + 0.1 * rng.normal(size=frames.shape)


def test_partition_finds_what_is_correlated():
    labels, correlations, distances = movie(halves()).partition_FOV_KMeans(0.8, 1 / 3, 1 / 3, 2)
    assert labels.shape == (12, 21) and labels.dtype == np.uint8
    assert (labels[:, :9] == labels[0, 0]).all() and (labels[:, 9:] == labels[0, -1]).all()
    assert labels[0, 0] != labels[0, -1]
    assert correlations.shape == distances.shape == (28, 28)
    assert distances.max() == 1 and (np.diag(distances) == 0).all()
    assert_allclose(np.diag(correlations), 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_correlations_are_numpys_whatever_the_chunk(wing, dtype, monkeypatch):
    frames = (30 * halves() + 120).astype(dtype)
    expected = np.corrcoef(frames.reshape(90, -1).astype(np.float64).T)
    for at_once in (1, 7, 256):
        monkeypatch.setattr(decomposing, "_AT_ONCE", at_once)
        found = movie(frames).partition_FOV_KMeans(1, 1, 1, 2, 5)[1]
        assert_allclose(found, expected, atol=1e-9)


def test_partition_by_distance_alone_ignores_the_values():
    a = movie(halves()).partition_FOV_KMeans(0, 0.5, 0.5, 3)[0]
    b = movie(np.ones((4, 12, 21))).partition_FOV_KMeans(0, 0.5, 0.5, 3)[0]
    assert_array_equal(a, b)
    assert set(np.unique(a)) == {0, 1, 2}


def test_partition_says_what_is_wrong():
    recording = movie(halves())
    with pytest.raises(ParameterError, match="n_clusters=9: from 1 to 6"):
        recording.partition_FOV_KMeans(n_clusters=9, fx=0.2, fy=0.15)
    with pytest.raises(ParameterError, match="tradeoff_weight=2"):
        recording.partition_FOV_KMeans(2)
    with pytest.raises(NotSupportedError, match="of one plane"):
        movie(np.ones((2, 3, 4, 5))).partition_FOV_KMeans()
    holey = movie(halves())
    holey[3, 2, 1] = np.nan
    with pytest.raises(MovieValueError, match="the movie holds NaN"):
        holey.partition_FOV_KMeans(fx=0.5, fy=0.5)
    with backend.limit(memory="1MiB"), pytest.raises(MemoryBudgetError, match="use online_NMF"):
        movie(np.ones((700, 20, 20), np.float32)).NonnegativeMatrixFactorization(2)
    with backend.limit(memory="1MiB"), pytest.raises(MemoryBudgetError, match="smaller fx and fy"):
        recording.partition_FOV_KMeans(fx=1, fy=1)
