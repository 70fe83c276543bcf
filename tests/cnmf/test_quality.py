"""Spatial correlation, shape and decisions: a plain second implementation, the reference, edges."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from gpucalcium.cnmf import quality
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.errors import ArrayShapeError, MissingWeightsError, ParameterError

NO_CNN = {**CNMFParams().quality, "use_cnn": False}


@pytest.fixture(scope="module")
def fitted(reference):
    """Stored components of the reference, and the movie they were found in."""
    stored = reference.load("cnmf")
    names = ("A", "C", "YrA", "b", "f")
    return stored, {name: stored[f"refit_p1_{name}"] for name in names}, reference.inputs("cnmf")[0]["Y"]


# --- spatial correlation


def as_matrix(Y):
    return Y.reshape(len(Y), -1, order="F").T


def test_spatial_correlation_is_that_of_the_reference(fitted):
    stored, found, Y = fitted
    r, frames = quality.classify_components_ep(
        as_matrix(Y),
        found["A"],
        found["C"],
        found["b"],
        found["f"],
        Athresh=0.1,
        Npeaks=10,
        tB=-1,
        tA=6,
        thres=0.3,
    )
    assert_allclose(r, stored["classify_components_ep_rval"], atol=1e-6)
    assert len(frames) == len(r)


@pytest.mark.parametrize("kind", ["memory", "npy", "float64 F order"])
def test_evaluation_is_that_of_the_reference(fitted, kind, tmp_path):
    stored, found, Y = fitted
    if kind == "npy":
        np.save(tmp_path / "movie.npy", Y)
    images = {"memory": Y, "npy": tmp_path / "movie.npy"}.get(kind, np.asfortranarray(Y, dtype=float))
    result = quality.evaluate(
        images, found["A"], found["C"], found["YrA"], (64, 60), 20, 0.6, {**NO_CNN, "use_ecc": True}
    )
    assert_allclose(result.r, stored["evaluate_r_values"], atol=1e-6)
    assert_allclose(result.ecc, stored["eccentricity"], atol=1e-6)
    assert_array_equal(result.accepted, stored["evaluate_idx_components"])
    assert len(result.rejected) == 0


def small_scene(rng, dims=(7, 5), frames=120):
    """Three cells, the first two overlapping; noise; active in turn."""
    A = np.zeros((np.prod(dims), 3))
    image = np.zeros((3, *dims))
    image[0, 1:4, 0:3] = [[1, 2, 1], [2, 5, 2], [1, 2, 1]]
    image[1, 2:5, 1:4] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    image[2, 5:7, 3:5] = [[3, 1], [1, 2]]
    A = image.reshape(3, -1, order="F").T.copy()
    C = np.zeros((3, frames))
    for k in range(3):
        for start in range(10 + 12 * k, frames, 40):
            C[k, start : start + 8] = np.exp(-np.arange(8) / 3)[: frames - start]
    movie = (A @ C).T.reshape(frames, *dims, order="F") + rng.normal(0, 0.05, (frames, *dims))
    return movie.astype(np.float32), sparse.csc_matrix(A), C


def test_spatial_correlation_equals_a_plain_loop(wing):
    movie, A, C = small_scene(np.random.default_rng(3))
    dense, Yr = A.toarray(), as_matrix(movie)
    active = np.zeros(C.shape, bool)
    for k, c in enumerate(C):
        peaks = [t for t in range(1, len(c) - 1) if c[t - 1] < c[t] > c[t + 1] and c[t] >= 0.3 * c.max()]
        for t in peaks:
            active[k, max(t - 2, 0) : t + 5] = True
    expected = []
    for k in range(3):
        unit = dense / np.linalg.norm(dense, axis=0)
        others = [j for j in range(3) if j != k and unit[:, j] @ unit[:, k] > 0.1]
        frames = active[k] & ~active[others].any(axis=0)
        pixels = dense[:, k] > 0
        expected.append(np.corrcoef(Yr[pixels][:, frames].mean(1), dense[pixels, k])[0, 1])
    r, frames = quality.classify_components_ep(Yr, A, C, tB=-2, tA=5)
    assert_allclose(r, expected, rtol=1e-5)
    assert (r > 0.9).all()
    volume = quality.evaluate(movie[..., None], A, C, 0 * C, (7, 5, 1), 12, 0.3, NO_CNN)
    plane = quality.evaluate(movie, A, C, 0 * C, (7, 5), 12, 0.3, NO_CNN)
    assert_allclose(volume.r, plane.r, rtol=1e-6)


def test_contrast_equals_a_plain_loop_and_is_corrected_for_noise(wing):
    movie, A, C = small_scene(np.random.default_rng(3))
    dense, Yr, sn = A.toarray(), as_matrix(movie).astype(float), np.full(35, 0.15)
    _, frames = quality.classify_components_ep(as_matrix(movie), A, C, Npeaks=10, tB=-2, tA=5)
    plain, corrected = [], []
    for k, chosen in enumerate(frames):
        pixels = dense[:, k] > 0
        added = Yr[pixels][:, chosen].mean(1) - Yr[pixels].mean(1)
        noise = (sn[pixels] ** 2).mean() * (1 / len(chosen) - 1 / Yr.shape[1])
        plain.append(np.corrcoef(added, dense[pixels, k])[0, 1])
        corrected.append(min(plain[-1] / np.sqrt(1 - noise / added.var()), 1))
    without = quality.evaluate(movie, A, C, 0 * C, (7, 5), 5, 0.3, NO_CNN)
    assert_allclose(without.contrast, plain, rtol=1e-5)
    result = quality.evaluate(movie, A, C, 0 * C, (7, 5), 5, 0.3, NO_CNN, sn)
    assert_allclose(result.contrast, corrected, rtol=1e-5)
    assert (result.contrast > without.contrast).all()


def test_contrast_sees_the_cell_where_the_resting_image_hides_it():
    """Texture at rest, brighter than transients, that has nothing to do with the footprints."""
    rng = np.random.default_rng(5)
    movie, A, C = small_scene(rng)
    textured = movie + 10 * rng.random((7, 5)).astype(np.float32)
    strict = {**NO_CNN, "min_SNR": 1e6, "SNR_lowest": -1}
    seen = quality.evaluate(textured, A, C, 0 * C, (7, 5), 12, 0.3, strict)
    assert (seen.r < 0.8).any()
    assert (seen.contrast > 0.8).all()
    assert len(seen.accepted) == 3
    plain = quality.evaluate(textured, A, C, 0 * C, (7, 5), 12, 0.3, {**strict, "rval_contrast": False})
    assert plain.contrast is None
    assert_allclose(plain.r, seen.r)
    assert len(plain.accepted) < 3


def test_silent_tiny_and_constant_components_correlate_with_nothing():
    movie, A, C = small_scene(np.random.default_rng(3))
    C[0] = 1
    A = A.tolil()
    A[:, 1] = 0
    A[3:5, 1] = 1  # two pixels
    A[:, 2] = (A[:, 2].toarray() > 0).astype(float)  # equal weights: no shape to correlate with
    r, frames = quality.classify_components_ep(as_matrix(movie), A.tocsc(), C)
    assert_array_equal(r, 0)
    assert len(frames[0]) == 0


def test_neighbours_that_are_always_active_together_are_kept(caplog):
    movie, A, C = small_scene(np.random.default_rng(3))
    C[1] = C[0]
    r, frames = quality.classify_components_ep(as_matrix(movie), A, C)
    assert "never active without a neighbour" in caplog.text
    assert len(frames[0]) > 0
    assert r[0] > 0.9


def test_nan_in_trace_or_movie_stays_with_its_component():
    movie, A, C = small_scene(np.random.default_rng(3))
    clean = quality.evaluate(movie, A, C, 0 * C, (7, 5), 12, 0.3, NO_CNN)
    C[2, 5] = np.nan
    result = quality.evaluate(movie, A, C, 0 * C, (7, 5), 12, 0.3, NO_CNN)
    assert (result.snr[2], result.r[2]) == (0, 0)
    assert_allclose(result.r[:2], clean.r[:2])
    assert 2 in result.rejected


def test_movie_of_another_size_is_refused():
    movie, A, C = small_scene(np.random.default_rng(3))
    with pytest.raises(ArrayShapeError, match=r"need \(120, 7, 5\)"):
        quality.evaluate(movie.transpose(0, 2, 1), A, C, 0 * C, (7, 5), 12, 0.3, NO_CNN)
    with pytest.raises(ArrayShapeError, match=r"\(119, 7, 5\)"):
        quality.evaluate(movie[1:], A, C, 0 * C, (7, 5), 12, 0.3, NO_CNN)


# --- shape, decision


def test_eccentricity_of_known_shapes():
    rows, columns = np.indices((41, 31))
    ellipse = np.exp(-(((rows - 20) / 6) ** 2 + ((columns - 15) / 3) ** 2) / 2)
    turned = np.exp(-(((rows + columns - 35) / 6) ** 2 + ((rows - columns - 5) / 3) ** 2) / 2)
    line = np.where(columns == 15, 1.0, 0.0)
    A = np.stack([image.ravel(order="F") for image in (ellipse, turned, line, 0 * line)], axis=1)
    ecc = quality.eccentricity(sparse.csc_matrix(A), (41, 31))
    assert_allclose(ecc[:2], 2, rtol=0.01)  # cut off at the border
    assert ecc[2] > 1e6
    assert np.isnan(ecc[3])
    with pytest.raises(ParameterError, match="two image axes"):
        quality.eccentricity(A, (41, 31, 1))


def test_every_decision():
    """Values below, between and above the thresholds of each measure, at the thresholds too."""
    thresholds = {**NO_CNN, "use_ecc": True, "max_ecc": 3}
    levels = {
        "r": (-1.0, -0.5, 0.8, 0.9),
        "snr": (0.5, 1.0, 2.5, 2.6),
        "cnn": (0.1, 0.5, 0.9, 1.0),
        "ecc": (2.9, 3.0, np.inf, np.nan),
    }
    combos = np.array(list(itertools.product(*levels.values())))
    r, snr, cnn, ecc = combos.T
    accepted, rejected = quality.decide(snr, r, cnn, thresholds, ecc)
    for k, (rk, sk, ck, ek) in enumerate(combos):
        good = rk >= 0.8 or sk > 2.5 or ck >= 0.9
        bad = rk <= -1 or sk <= 0.5 or ck <= 0.1 or not ek < 3
        assert (k in accepted) == (good and not bad)
    assert_array_equal(np.sort(np.concatenate([accepted, rejected])), np.arange(len(combos)))
    without, _ = quality.decide(snr, r, np.zeros(0), {**thresholds, "use_ecc": False}, ecc)
    for k, (rk, sk, _, _) in enumerate(combos):
        assert (k in without) == ((rk >= 0.8 or sk > 2.5) and not (rk <= -1 or sk <= 0.5))


def test_no_components_is_a_warning_and_empty_arrays(caplog):
    A, none = sparse.csc_matrix((35, 0)), np.zeros((0, 10))
    result = quality.evaluate(np.zeros((10, 7, 5)), A, none, none, (7, 5), 30, 0.4, NO_CNN)
    assert [len(values) for values in result[:5]] == [0] * 5
    assert "no components" in caplog.text


def test_classifier_without_weights_says_what_to_do():
    with pytest.raises(FileNotFoundError, match="use_cnn=False") as error:
        quality.evaluate(
            np.zeros((1, 2, 2)), sparse.csc_matrix((4, 0)), np.zeros((0, 1)), np.zeros((0, 1)), (2, 2), 30, 0.4,
            CNMFParams().quality,
        )  # fmt: skip
    assert isinstance(error.value, MissingWeightsError)
