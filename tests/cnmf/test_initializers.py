"""Components by factorising the whole movie or boxes of it: sparse, graph and compressed NMF, PCA-ICA, local NMF."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_matrix

from gpucalcium import CNMF, CNMFParams, backend
from gpucalcium.cnmf.initialization import initialize_components
from gpucalcium.cnmf.initialization.graph_nmf import Graph, affinities, graphNMF
from gpucalcium.cnmf.initialization.greedy import greedyROI
from gpucalcium.cnmf.initialization.nmf import sketch, start
from gpucalcium.cnmf.initialization.refine import hals
from gpucalcium.cnmf.initialization.sparse_nmf import sparseNMF
from gpucalcium.cnmf.storage import load_CNMF
from gpucalcium.errors import ArrayShapeError, NotSupportedError, ParameterError
from tests.cnmf.scenes import gaussian_cells, matched

OPTIONS = {
    "greedy_roi": {},
    "local_nmf": {"options_local_NMF": {}},
    "sparse_nmf": {"alpha_snmf": 0.1},
    "graph_nmf": {},
    "compressed_nmf": {},
    "pca_ica": {},
}
FACTORISATIONS = ["sparse_nmf", "graph_nmf", "compressed_nmf", "pca_ica"]


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=150, noise=0.3)


def last(Y):
    return np.moveaxis(Y, 0, -1)


def find(Y, method, K=4, **options):
    return initialize_components(
        last(Y) if isinstance(Y, np.ndarray) else backend.array_module(Y).moveaxis(Y, 0, -1),
        **{"K": K, "gSig": [2] * (Y.ndim - 1), "method_init": method, **OPTIONS[method], **options},
    )


def plain(result):
    return [x.toarray() if hasattr(x, "toarray") else np.asarray(x) for x in result[:4]]


def cosines(A, B):
    """Cosines of the footprints of A with those of B that they match best."""
    A, B = (x / (np.linalg.norm(x, axis=0) + 1e-30) for x in (A, B))
    i, j = linear_sum_assignment(-B.T @ A)
    return (B.T @ A)[i, j]


def relative(mine, theirs):
    return np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)


# ---------------------------------------------------------------------------- against truth


@pytest.mark.parametrize("method", OPTIONS)
def test_finds_the_cells(wing, scene, method):
    """Two components more than cells for what fluctuates of the background."""
    A, C, b, f, center = find(wing.put(scene.Y), method, K=4 if method in ("local_nmf", "greedy_roi") else 6)
    pairs, cosine, r = matched(A, C, scene)
    assert len(pairs) == 4
    assert (cosine > 0.9).all()
    assert (r > 0.9).all()
    for truth, mine in pairs:
        if method in ("greedy_roi", "local_nmf"):  # others have noise far from the cell
            assert np.abs(center[mine] - scene.centers[truth]).max() < 1
        peak = np.unravel_index(A[:, [mine]].toarray().argmax(), scene.dims, order="F")
        assert np.abs(peak - scene.centers[truth]).max() <= 1
    assert isinstance(A, csc_matrix)
    assert A.dtype == C.dtype == b.dtype == f.dtype == np.float32
    assert b.shape == (600, 1)
    assert_allclose(b @ f, scene.b @ scene.f, rtol=0.3)


@pytest.mark.parametrize("method", OPTIONS)
def test_finds_cells_in_smaller_volumes(method):
    scene = gaussian_cells((14, 12, 7), T=120, noise=0.2, centers=[(4, 4, 2), (9, 8, 4)])
    K = {"pca_ica": 2, "sparse_nmf": 3}.get(method, 4)
    A, C, b, f, center = find(scene.Y, method, K=K, ssub=2, tsub=2)
    _, cosine, r = matched(A, C, scene)
    assert (cosine > 0.85).all()
    assert (r > 0.85).all()
    assert (A.shape[0], C.shape[1]) == (b.shape[0], f.shape[1]) == (1176, 120)
    assert center.shape == (A.shape[1], 3)


@pytest.mark.parametrize("method", OPTIONS)
def test_one_cell_without_noise_leaves_nothing(method):
    """A movie of rank one, without background or smoothing, is what is found times what is found."""
    rng = np.random.default_rng(4)
    scene = gaussian_cells((15, 13), T=80, centers=[(7, 6)])
    a = scene.A.toarray()[:, 0]
    c = np.maximum(rng.standard_normal(80), 0) + 0.1
    Y = np.outer(c, a).reshape(80, 15, 13, order="F").astype(np.float32)
    options = {
        "alpha_snmf": 0.0,
        "lambda_gnmf": 0.0,
        "remove_baseline": False,
        "sigma_smooth_snmf": (0.0, 0.0, 0.0),
    }
    if method == "greedy_roi":
        options["gSiz"] = [13, 13]
    A, C, *_ = find(Y, method, K=1, nb=0 if method != "pca_ica" else 1, normalize_init=False, **options)
    left = np.linalg.norm(A @ C - np.outer(a, c)) / np.linalg.norm(np.outer(a, c))
    # an independent image loses what lies within its own noise, here the tails of the cell
    assert left < (1e-5 if method != "pca_ica" else 0.05)


# ---------------------------------------------------------------------------- the reference


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("init")


@pytest.fixture(scope="module")
def movie(reference):
    return reference.inputs("init")[0]["Y"]


@pytest.mark.parametrize(
    "name, options, tolerance, likeness",
    [
        # 500 iterations do not reach the optimum: what differs is the way there, by the start's last digits
        ("sparseNMF", {"alpha": 0.5, "l1_ratio": 0.0}, 0.01, 0.97),
        ("sparseNMF_l1", {"alpha": 0.1, "l1_ratio": 0.5, "remove_baseline": False}, 1e-3, 0.999),
    ],
)
def test_sparse_factors_are_those_of_the_reference(stored, movie, name, options, tolerance, likeness):
    A, C, center, b, f = sparseNMF(last(movie), 8, **options)
    theirs = stored[f"{name}_A"], stored[f"{name}_C"]
    assert relative(A @ C, theirs[0] @ theirs[1]) < tolerance
    assert (cosines(A, theirs[0]) > likeness).all()
    if name == "sparseNMF_l1":
        assert relative(b @ f, stored[f"{name}_b"] @ stored[f"{name}_f"]) < 0.005
        assert np.abs(center - stored[f"{name}_center"]).max() < 1


def test_sparse_background_keeps_the_baseline_of_each_pixel(stored, movie):
    """In the reference pixels get the baseline of others; the mean of the movie shows which is right."""
    A, C, _, b, f = sparseNMF(last(movie), 8, alpha=0.5, l1_ratio=0.0)
    mean = movie.mean(0).ravel(order="F")
    mine, theirs = ((x @ y).mean(1) for x, y in ((b, f), (stored["sparseNMF_b"], stored["sparseNMF_f"])))
    assert relative(mine + (A @ C).mean(1), mean) < 0.1
    assert relative(theirs + (A @ C).mean(1), mean) > 0.3


def test_sparse_start_is_that_of_the_reference(stored, movie):
    A, C, *_ = initialize_components(
        last(movie), K=8, gSig=[4, 4], method_init="sparse_NMF", alpha_snmf=0.5, snmf_l1_ratio=0.0
    )
    name = "initialize_components_sparse_nmf"
    assert relative(A @ C, stored[f"{name}_A"] @ stored[f"{name}_C"]) < 1e-4


def test_graph_factors_are_those_of_the_reference(stored, movie):
    A, C, _, b, f = graphNMF(last(movie[:150, :24, :20]), 4, max_iter_snmf=100)
    assert (cosines(A, stored["graphNMF_A"]) > 0.99).all()
    assert relative(A @ C, stored["graphNMF_A"] @ stored["graphNMF_C"]) < 0.03
    assert relative(b @ f, stored["graphNMF_b"] @ stored["graphNMF_f"]) < 0.005
    assert_allclose(np.linalg.norm(A, axis=0), 1, rtol=1e-5)


def test_affinities_are_those_of_the_reference(wing, stored, movie):
    rows = wing.put(movie[:, :12, :10].reshape(300, -1, order="F").T.copy())
    assert_allclose(backend.to_numpy(affinities(rows, Graph())), stored["graph_laplacian"], atol=1e-5)


def test_start_is_that_of_the_reference(stored, movie):
    """Its traces are empty but for the first, and its images too: only that one can be compared."""
    Yr = movie.reshape(300, -1, order="F").T.copy()
    images, _ = start(*sketch(Yr, 13, 4), 3, "nndsvd")
    assert_allclose(backend.to_numpy(images)[0], stored["nnsvd_init_C"][0], rtol=1e-3)


def test_hals_is_that_of_the_reference(wing, stored, movie):
    given = [stored[f"greedyROI_basic_{x}"] for x in "ACbf"]
    for name, mine in zip("ACbf", hals(wing.put(last(movie)), *given), strict=True):
        assert relative(mine, stored[f"hals_{name}"]) < 1e-4


# ---------------------------------------------------------------------------- edges


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("nb", [-1, 0, 2])
def test_any_rank_of_background(scene, method, nb):
    A, C, b, f, _ = find(scene.Y, method, nb=nb, ssub=2)
    shapes = {-1: ((600, 600), (600, 150)), 0: ((600, 0), (0, 150)), 2: ((600, 2), (2, 150))}
    assert (b.shape, f.shape) == shapes[nb]
    if nb < 0:
        assert_allclose((A @ C + f).mean(), scene.Y.mean(), rtol=0.05)


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("K", [0, 1, 15])
def test_any_number_of_components(scene, method, K):
    A, C, _, f, center = find(scene.Y[:60], method, K=K)
    assert A.shape[1] == len(C) == len(center) <= K
    assert np.isfinite(C).all()
    assert f.shape == (1, 60)


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_movie_has_no_cells(method, value):
    A, C, b, f, _ = find(np.full((30, 9, 8), value, np.float32), method, K=2)
    assert not (A @ C).any()
    assert np.isfinite(b @ f).all()


@pytest.mark.parametrize("method", OPTIONS)
def test_missing_values_count_as_nothing(scene, method):
    Y = scene.Y[:50].copy()
    Y[3, 5, 6] = np.nan
    Y[:, 0, 0] = np.nan
    assert all(np.isfinite(x).all() for x in plain(find(Y, method)))


@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("shape", [(40, 1, 1), (2, 7, 5), (30, 3, 11), (1, 6, 6)])
def test_tiny_movies(method, shape):
    Y = np.random.default_rng(1).random(shape).astype(np.float32)
    A, C, _, f, _ = find(Y, method, K=3, ssub=2)
    assert (A.shape[0], C.shape[1]) == (np.prod(shape[1:]), shape[0])
    assert all(np.isfinite(x).all() for x in (A.toarray(), C, f))


@pytest.mark.parametrize("method", FACTORISATIONS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_any_number_type(scene, method, dtype):
    Y = np.rint(scene.Y * 4)
    one, other = (plain(find(Y.astype(kind), method)) for kind in (dtype, "float32"))
    for x, y in zip(one, other, strict=True):
        assert_array_equal(x, y)


@pytest.mark.parametrize("method", FACTORISATIONS)
def test_the_same_movie_gives_the_same_bits(wing, scene, method):
    first, second = (plain(find(wing.put(scene.Y[:80]), method)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize("method", FACTORISATIONS)
def test_scale_of_the_movie_scales_the_footprints(scene, method):
    weights = {"sparse_nmf": ("alpha_snmf", 5.0, 20.0), "graph_nmf": ("lambda_gnmf", 1.0, 16.0)}
    name, light, heavy = weights.get(method, ("tsub", 1, 1))
    common = {"normalize_init": False, "snmf_l1_ratio": 0.0}
    one = find(scene.Y, method, **common, **{name: light})
    four = find(4 * scene.Y, method, **common, **{name: heavy})
    assert_allclose(four[0] @ four[1], 4 * (one[0] @ one[1]), atol=1e-4 * (four[0] @ four[1]).max())


# ---------------------------------------------------------------------------- hals, seeds, options


def test_hals_without_background_or_cells(scene):
    Y = last(scene.Y)
    none = np.zeros((600, 0)), np.zeros((0, 150))
    cells = Y - (scene.b @ scene.f).reshape(*scene.dims, 150, order="F")
    A, C, b, f = hals(cells, scene.A, scene.C, *none)
    assert (b.shape, f.shape) == ((600, 0), (0, 150))
    assert (matched(A, C, scene)[2] > 0.95).all()
    A, C, b, f = hals(Y, *none, scene.b, scene.f)
    assert A.shape == (600, 0)
    assert relative(b @ f, scene.b @ scene.f) < 0.05
    with pytest.raises(ArrayShapeError, match="A and C have shapes"):
        hals(Y, scene.A, scene.C[:, 1:], scene.b, scene.f)


def test_hals_grows_supports_by_its_box(scene):
    seeds = csc_matrix(scene.A > 2).astype(float)
    kept, grown = (hals(last(scene.Y), seeds, scene.C, scene.b, scene.f, bSiz=n)[0] for n in (None, 5))
    assert ((kept > 0) <= (seeds.toarray() > 0)).all()
    assert (grown > 0).sum() > (kept > 0).sum()


def test_seeds_and_more(scene):
    """The given cells come first, those that are found after them."""
    places = scene.centers[[2]]
    A, C, center, *_ = greedyROI(last(scene.Y), nr=3, gSig=[2, 2], gSiz=[7, 7], seed_method=("semi", places))
    assert len(C) == 4
    assert np.abs(center[0] - scene.centers[2]).max() < 1
    assert (matched(csc_matrix(A), C, scene)[2] > 0.9).all()
    A, C, *_ = find(scene.Y, "greedy_roi", K=3, seed_method={"semi": places}, ssub=2)
    assert (matched(A, C, scene)[1] > 0.85).all()


@pytest.mark.parametrize(
    "asked, error, text",
    [
        ("manual", NotSupportedError, r"{'semi': array}"),
        ("semi", NotSupportedError, "clicking"),
        ("clicks", ParameterError, "auto, semi, manual"),
        ({}, ParameterError, "auto, semi, manual"),
    ],
)
def test_seeds_that_cannot_be_had(scene, asked, error, text):
    with pytest.raises(error, match=text):
        find(scene.Y, "greedy_roi", seed_method=asked)


@pytest.mark.parametrize("seeds", [np.array([[5, 6], [12, 9]]), {"semi": np.array([[5, 6]])}])
def test_seeds_are_kept_in_files(scene, seeds, tmp_path):
    params = CNMFParams(k=1, gSig=[2, 2], params_dict={"seed_method": seeds, "only_init": True})
    first = CNMF(1, params=params).fit(scene.Y[:60])
    assert first.estimates.A.shape[1] == 2
    first.save(str(tmp_path / "cells.hdf5"))
    again = CNMF(1, params=load_CNMF(str(tmp_path / "cells.hdf5")).params).fit(scene.Y[:60])
    assert_array_equal(again.estimates.C, first.estimates.C)


def test_local_options(scene):
    boxed = find(scene.Y, "local_nmf", options_local_NMF={"gSiz": [5, 3], "maxIter": 3})[0]
    for column in boxed.T.toarray():
        rows, columns = np.nonzero(column.reshape(scene.dims, order="F"))
        assert np.ptp(rows) < 5
        assert np.ptp(columns) < 3
    with pytest.raises(ParameterError, match="You need to define arguments for local NMF"):
        find(scene.Y, "local_nmf", options_local_NMF=None)
    for wrong in ({"sides": 3}, 5, {"maxIter": 1.5}, {"gSiz": -1}):
        with pytest.raises(ParameterError, match="options_local_NMF"):
            find(scene.Y, "local_nmf", options_local_NMF=wrong)


@pytest.mark.parametrize(
    "method, options, text",
    [
        ("sparse_nmf", {"alpha_snmf": -1}, "alpha=-"),
        ("sparse_nmf", {"snmf_l1_ratio": 2}, "share from 0 to 1"),
        ("sparse_nmf", {"max_iter_snmf": 0}, "max_iter_snmf=0"),
        ("sparse_nmf", {"sigma_smooth_snmf": (1, -1, 1)}, "none below 0"),
        ("sparse_nmf", {"sigma_smooth_snmf": (1, 1, 1, 1)}, "4 widths"),
        ("sparse_nmf", {"perc_baseline_snmf": 120}, "0 to 100"),
        ("compressed_nmf", {"K": -1}, "K=-1"),
        ("graph_nmf", {"SC_kernel": "warm"}, "heat, cos, binary"),
        ("graph_nmf", {"SC_sigma": 0}, "SC_sigma=0"),
        ("graph_nmf", {"SC_nnn": 0}, "SC_nnn=0"),
        ("graph_nmf", {"lambda_gnmf": -1}, "lambda_gnmf"),
    ],
)
def test_values_that_cannot_work(scene, method, options, text):
    with pytest.raises(ParameterError, match=text):
        find(scene.Y, method, **options)


def test_functions_say_what_they_cannot(scene):
    with pytest.raises(ParameterError, match="nb=-1: expected 0 or more"):
        sparseNMF(last(scene.Y), 2, nb=-1)
    with pytest.raises(ParameterError, match="truncate"):
        graphNMF(last(scene.Y), 2, truncate=0)


# ---------------------------------------------------------------------------- CNMF


def fitted(scene, method):
    options = {"K": 6, "gSig": [2, 2], "method_init": method.upper(), "ssub": 1, "tsub": 1, **OPTIONS[method]}
    params = CNMFParams(only_init_patch=False, p=1, params_dict=options)
    found = CNMF(1, params=params).fit(scene.Y).estimates
    return matched(found.A, found.C, scene)


def test_fits_are_as_good_from_every_start(scene):
    """Refinement and deconvolution mend what a start has of noise and background."""
    best = fitted(scene, "greedy_roi")[2]
    for method in OPTIONS:
        _, cosine, r = fitted(scene, method)
        assert len(cosine) == 4, method
        assert (cosine > 0.9).all(), method
        assert (r > best - 0.05).all(), method
