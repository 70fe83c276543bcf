"""Every parameter of an initialisation changes what is found."""

import inspect

import numpy as np
import pytest

from gpucalcium import CNMF, CNMFParams
from gpucalcium.cnmf.initialization import graphNMF, hals, initialize_components, sparseNMF
from tests.cnmf.scenes import gaussian_cells


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=90, noise=0.3)


def differ(one, other):
    return any(x.shape != y.shape or not np.array_equal(x, y) for x, y in zip(one, other, strict=True))


INIT = {
    "K": ({}, 1),
    "candidates": ({"K": 2}, 1.0),
    "gSig": ({"gSiz": [7, 7]}, [3, 2]),
    "gSiz": ({}, [3, 5]),
    "greedyroi_nmf_init_method": ({}, "random"),
    "greedyroi_nmf_max_iter": ({"nb": 2}, 1),
    "kernel": ({}, np.ones((3, 3))),
    "maxIter": ({}, 1),
    "method_init": ({}, "compressed_nmf"),
    "nIter": ({}, 1),
    "nb": ({}, 2),
    "normalize_init": ({}, False),
    "rolling_length": ({"rolling_sum": True}, 3),
    "rolling_sum": ({"K": 2, "rolling_length": 3}, False),
    "seed_method": ({}, np.array([[9, 9], [2, 20]])),
    "ssub": ({}, 2),
    "tsub": ({}, 2),
    "options_local_NMF": ({"method_init": "local_nmf", "options_local_NMF": {}}, {"gSiz": 3}),
    **{
        key: ({"method_init": "sparse_nmf", "alpha_snmf": 0.1}, value)
        for key, value in {
            "alpha_snmf": 0.05,
            "snmf_l1_ratio": 0.5,
            "max_iter_snmf": 1,
            "sigma_smooth_snmf": (1.0, 1.0, 1.0),
            "perc_baseline_snmf": 50,
        }.items()
    },
    **{
        key: ({"method_init": "graph_nmf", "lambda_gnmf": 100, **extra}, value)
        for key, extra, value in [
            ("lambda_gnmf", {}, 1),
            ("SC_kernel", {}, "cos"),
            ("SC_sigma", {}, 0.1),
            ("SC_thr", {}, 0.5),
            ("SC_normalize", {}, False),
            ("SC_use_NN", {}, True),
            ("SC_nnn", {"SC_use_NN": True}, 2),
        ]
    },
}
"""Key: other settings, and a value that changes what is found."""
ONE_PHOTON = {"center_psf", "init_iter", "min_corr", "min_pnr", "ring_size_factor", "ssub_B"}
"""Keys of corr_pnr alone: test_one_photon.py."""


def start_of(scene, options):
    """The estimates after initialisation alone."""
    flat = {"K": 3, "gSig": [2, 2], "ssub": 1, "tsub": 1, **options}
    params = CNMFParams(params_dict={"init": flat, "patch": {"only_init": True}})
    found = CNMF(1, params=params).fit(scene.Y).estimates
    return [x.toarray() if hasattr(x, "toarray") else x for x in (found.A, found.C, found.b, found.f)]


def test_every_init_parameter_is_tested():
    assert set(CNMFParams().get_group("init")) == set(INIT) | ONE_PHOTON


@pytest.mark.parametrize("key", INIT)
def test_every_init_parameter_changes_the_result(scene, key):
    options, value = INIT[key]
    before, after = start_of(scene, options), start_of(scene, {**options, key: value})
    assert differ(before, after)


# ---------------------------------------------------------------------------- single functions

FACTORISED = {
    "nr": 2,
    "max_iter_snmf": 1,
    "sigma_smooth": (1, 1, 1),
    "remove_baseline": False,
    "perc_baseline": 50,
    "nb": 2,
    "truncate": 4,
}
SPARSE = {**FACTORISED, "alpha": 1.0, "l1_ratio": 0.5}
GRAPH = {
    **FACTORISED,
    "lambda_gnmf": 500,
    "tol": 0.3,
    "SC_kernel": "binary",
    "SC_normalize": False,
    "SC_thr": 0.4,
    "SC_sigma": 0.1,
    "SC_use_NN": True,
    "SC_nnn": 2,
}


@pytest.mark.parametrize(
    "function, usual, changes",
    [(sparseNMF, {"alpha": 0.1}, SPARSE), (graphNMF, {"lambda_gnmf": 10}, GRAPH)],
    ids=["sparseNMF", "graphNMF"],
)
def test_factorisations(scene, function, usual, changes):
    assert set(inspect.signature(function).parameters) == {"Y_ds", *changes}
    Y = np.moveaxis(scene.Y, 0, -1)
    for name, value in changes.items():
        common = {"nr": 3, **usual}
        if name == "SC_nnn":
            common["SC_use_NN"] = True
        assert differ(function(Y, **common), function(Y, **{**common, name: value})), name


@pytest.mark.parametrize("name, value", [("bSiz", 7), ("maxIter", 1)])
def test_hals(scene, name, value):
    given = np.moveaxis(scene.Y, 0, -1), scene.A > 2, scene.C, scene.b, scene.f
    assert differ(hals(*given), hals(*given, **{name: value}))


@pytest.mark.parametrize("method", ["sparse_nmf", "graph_nmf", "compressed_nmf", "pca_ica"])
def test_the_baseline_is_an_option_of_all_factorisations(scene, method):
    common = {"K": 3, "gSig": 2, "method_init": method, "alpha_snmf": 0.1}
    kept, removed = (
        initialize_components(np.moveaxis(scene.Y, 0, -1), remove_baseline=flag, **common)[1]
        for flag in (False, True)
    )
    assert differ([kept], [removed])
