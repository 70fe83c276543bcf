"""Every documented parameter of the single steps changes the result, or is named here with why it does not."""

import inspect

import numpy as np
import pytest
from scipy.sparse import csc_matrix, issparse

from gpucalcium.cnmf.initialization import greedyROI, initialize_components
from gpucalcium.cnmf.merging import merge_components
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.cnmf.temporal import update_temporal_components
from gpucalcium.errors import NotSupportedError
from tests.cnmf.scenes import gaussian_cells

PROCESSES = {
    "dview",
    "n_pixels_per_process",
    "block_size_spat",
    "num_blocks_per_run_spat",
    "block_size_temp",
} | {
    "num_blocks_per_run_temp",
    "merge_parallel",
}
"""Chunks and threads follow from the memory budget and one setting."""
OTHER_METHODS = set(
    "max_iter_snmf alpha_snmf sigma_smooth_snmf perc_baseline_snmf options_local_NMF sn options_total min_corr min_pnr "
    "ring_size_factor center_psf ssub_B init_iter remove_baseline SC_kernel SC_sigma SC_thr SC_normalize SC_use_NN "
    "SC_nnn lambda_gnmf snmf_l1_ratio method_init".split()
)
"""Of initialize_components: test_init_parameters.py, and test_one_photon.py for what corr_pnr alone looks at."""


@pytest.fixture(scope="module")
def scene():
    """Two cells overlap, the third stands alone in front of a dark edge."""
    return gaussian_cells((20, 24), T=120, centers=[(5, 6), (9, 9), (13, 19)], sigma=2.2)


def same(one, other):
    def plain(x):
        return x.toarray() if issparse(x) else np.asarray(x, dtype=float)

    def equal(a, b):
        if isinstance(a, list):
            return len(a) == len(b)
        return plain(a).shape == plain(b).shape and np.array_equal(plain(a), plain(b), equal_nan=True)

    return all(equal(a, b) for a, b in zip(one, other, strict=True))


def untested(function, changes, exempt):
    return set(inspect.signature(function).parameters) - set(changes) - exempt


# ---------------------------------------------------------------------------- initialisation

SEARCH = {
    "gSig": [3, 2],
    "gSiz": [5, 7],
    "nIter": 1,
    "kernel": np.ones((3, 3)),
    "nb": 2,
    "seed_method": np.array([[9, 9], [2, 20]]),
}
INITIAL = {
    **SEARCH,
    "K": 1,
    "rolling_sum": True,
    "ssub": 2,
    "tsub": 2,
    "maxIter": 1,
    "use_hals": False,
    "normalize_init": False,
    "img": np.linspace(1, 9, 480).reshape(20, 24),
    "greedyroi_nmf_init_method": "random",
    "greedyroi_nmf_max_iter": 1,
}


def initialized(scene, **changes):
    return initialize_components(np.moveaxis(scene.Y, 0, -1), **{"K": 3, "gSig": [2, 2], "nb": 1, **changes})


@pytest.mark.parametrize("name", INITIAL)
def test_initialize_components(scene, name):
    extra = {"nb": 2} if name == "greedyroi_nmf_max_iter" else {}  # of rank 1 the start is the solution
    assert not same(initialized(scene, **extra), initialized(scene, **extra, **{name: INITIAL[name]}))


def test_initialize_components_has_no_other_parameter(scene):
    left = untested(initialize_components, INITIAL, OTHER_METHODS)
    assert left == {"Y", "rolling_length", "candidates"}  # the last two: test_rolling_mean, test_dense.py


@pytest.mark.parametrize("name", SEARCH)
def test_greedyROI(scene, name):
    def found(**changes):
        return greedyROI(np.moveaxis(scene.Y, 0, -1), **{"nr": 2, "gSig": [2, 2], "gSiz": [5, 5], **changes})

    assert not same(found(), found(**{name: SEARCH[name]}))


def test_rolling_mean(scene):
    """A burst of three frames has most energy for as long as it lasts, and less than a cell in the whole movie."""
    burst = scene.Y.copy()
    burst[50:53, 12:15, 2:5] += 12

    def first(**changes):
        movie = np.moveaxis(burst, 0, -1)
        center = greedyROI(movie, nr=1, gSig=[2, 2], gSiz=[5, 5], **changes)[2]
        return np.abs(center[0] - [13, 3]).max() < 1.5

    assert not first()
    assert first(rolling_sum=True, rolling_length=3)
    assert not first(rolling_sum=True, rolling_length=120)


# ---------------------------------------------------------------------------- footprints

SPATIAL = {
    "A_in": None,  # set below: the parameters that are data
    "C": None,
    "f": None,
    "sn": None,
    "b_in": None,
    "method_exp": "ellipse",
    "expandCore": np.ones((7, 7)),
    "medw": (1, 1),
    "thr_method": "nrg",
    "maxthr": 0.5,
    "extract_cc": False,
    "se": np.ones((7, 7)),
    "ss": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "method_ls": "nnls_L0",
    "update_background_components": False,
    "normalize_yyt_one": False,
}
OF_THE_ELLIPSE = {"min_size": 6, "max_size": 2, "dist": 1}


def updated(scene, **changes):
    half = scene.b.copy()
    half[:240] = 0
    given = {"C": scene.C, "f": scene.f, "A_in": scene.A, "sn": scene.sn, "dims": scene.dims, "b_in": half}
    return update_spatial_components(scene.Yr, **{**given, "maxthr": 0.02, **changes})


@pytest.mark.parametrize("name", SPATIAL)
def test_update_spatial(scene, name):
    data = {
        "A_in": csc_matrix(scene.A.toarray()[:, [1, 0, 2]]),
        "C": scene.C[[1, 0, 2]],
        "f": np.vstack([np.arange(120.0)]),
        "sn": 40 * scene.sn,
        "b_in": 2 * scene.b,
    }
    extra = {"low_rank_background": False} if name == "b_in" else {}
    if name in ("extract_cc", "ss", "se"):
        extra = {"expandCore": np.ones((13, 13)), "medw": (1, 1), "maxthr": 0.06}
    change = {name: data.get(name, SPATIAL[name])}
    assert not same(updated(scene, **extra), updated(scene, **{**extra, **change}))


@pytest.mark.parametrize("name", OF_THE_ELLIPSE)
def test_update_spatial_in_an_ellipse(scene, name):
    ellipse = {"method_exp": "ellipse", "maxthr": 0.0}
    assert not same(updated(scene, **ellipse), updated(scene, **{**ellipse, name: OF_THE_ELLIPSE[name]}))


def test_update_spatial_has_no_other_parameter(scene):
    left = untested(update_spatial_components, {**SPATIAL, **OF_THE_ELLIPSE}, PROCESSES)
    known = {"Y", "dims", "nb"}  # nb: that of f holds
    assert left == known | {"nrgthr", "low_rank_background", "noise_thr"}
    assert not same(updated(scene), updated(scene, noise_thr=5.0))
    energy = {"thr_method": "nrg"}
    assert not same(updated(scene, **energy), updated(scene, **energy, nrgthr=0.5))
    assert not same(updated(scene), updated(scene, low_rank_background=False))


# ---------------------------------------------------------------------------- traces

TEMPORAL = {
    "ITER": 1,
    "p": 0,
    "bas_nonneg": True,
    "noise_range": [0.1, 0.4],
    "noise_method": "median",
    "lags": 10,
    "fudge_factor": 0.8,
    "s_min": 0,
    "optimize_g": 2,
}


@pytest.mark.parametrize("name", [*TEMPORAL, "Cin", "fin", "A", "b"])
def test_update_temporal(scene, name):
    def traces(**changes):
        given = {"A": scene.A, "b": scene.b, "Cin": scene.C, "fin": scene.f, "p": 1, "ITER": 2}
        given |= {"noise_method": "mean", "bas_nonneg": False, **changes}
        return update_temporal_components(scene.Yr - 12, **given)

    data = {"Cin": 3 * scene.C[::-1], "fin": 2 * scene.f, "A": scene.A[:, :2], "b": scene.b[::-1]}
    change = {name: data.get(name, TEMPORAL.get(name))}
    if name == "A":
        change["Cin"] = scene.C[:2]
    try:
        changed = traces(**change)
    except NotSupportedError:
        return
    assert not same(traces(), changed)


def test_update_temporal_has_no_other_parameter():
    known = {"Y", "A", "b", "Cin", "fin", "ITER", "kwargs"}
    estimated_anew = {"bl", "c1", "g", "sn"}
    left = untested(update_temporal_components, known, PROCESSES | estimated_anew)
    assert left == {"nb", "debug"}  # nb: that of b holds


# ---------------------------------------------------------------------------- merging


@pytest.mark.parametrize(
    "change",
    [
        {"thr": 0.99999},
        {"fast_merge": False},
        {"mx": 0},
        {"max_merge_area": 3},
        {"temporal_params": {"p": 1}},
        {"R": np.random.default_rng(0).standard_normal((3, 120))},
        {"S": np.ones((3, 120))},
        {"bl": np.arange(3.0)},
        {"c1": np.arange(3.0)},
        {"sn": np.arange(3.0)},
        {"g": np.full((3, 1), 0.5)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_merge_components(scene, change):
    C = scene.C[[0, 0, 1]] + 0.02 * np.random.default_rng(1).standard_normal((3, 120))

    def merged(**changes):
        given = {"R": None, "S": np.zeros((3, 120)), "temporal_params": {"p": 0}, **changes}
        return merge_components(
            Y=None, A=scene.A, b=None, C=C, f=None, sn_pix=None, spatial_params={}, **given
        )

    assert not same(merged(), merged(**change))
