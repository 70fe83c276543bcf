"""Movies at the edge of what can be fitted: fewer or no components and a logged reason, or an error that says why."""

import logging
import warnings

import numpy as np
import pytest

from gpucalcium import errors
from gpucalcium.cnmf.cnmf import CNMF
from tests.cnmf.scenes import gaussian_cells, matched

WHOLE = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 1, "tsub": 1}
PATCHES = {**WHOLE, "rf": 8, "stride": 4, "k": 2, "only_init_patch": True}
ONE_PHOTON = {**WHOLE, "k": None, "method_init": "corr_pnr", "center_psf": True, "gnb": 0, "gSiz": (9, 9)}
ONE_PHOTON |= {"min_corr": 0.5, "min_pnr": 3}
RUNS = {
    "whole": WHOLE,
    "patches": PATCHES,
    "one_photon": ONE_PHOTON,
    "one_photon_patches": {**ONE_PHOTON, "nb_patch": 0, "rf": 8, "stride": 4, "only_init_patch": True},
    **{
        name: {**WHOLE, "method_init": name, "alpha_snmf": 0.5, "options_local_NMF": {}}
        for name in ("sparse_nmf", "graph_nmf", "compressed_nmf", "pca_ica", "local_nmf")
    },
}


def border():
    movie = gaussian_cells().Y.copy()
    movie[:, :2], movie[:, :, -3:] = np.nan, np.nan
    return movie


def half_silent():
    movie = gaussian_cells((20, 40), centers=[(5, 6), (12, 9)]).Y.copy()
    movie[:, :, 20:] = 7
    return movie


def noise(shape=(80, 20, 24)):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 20


EDGES = {
    "nothing but noise": noise,
    "one cell": lambda: gaussian_cells((20, 24), T=150, centers=[(9, 9)]).Y,
    "constant": lambda: np.full((60, 20, 24), 7, np.float32),
    "constant integers": lambda: np.full((60, 20, 24), 7, np.int16),
    "all zero": lambda: np.zeros((60, 20, 24), np.uint8),
    "border of NaN": border,
    "a part without signal": half_silent,
    "a field smaller than a cell": lambda: gaussian_cells().Y[:, 4:9, 4:10],
    "one row": lambda: gaussian_cells().Y[:, 5:6],
    "one pixel": lambda: gaussian_cells().Y[:, 5:6, 6:7],
    "shorter than the rolling mean": lambda: gaussian_cells(T=60).Y,
    "a dozen frames": lambda: gaussian_cells(T=12).Y,
    "three frames": lambda: gaussian_cells(T=300).Y[:3],
    "uint8": lambda: np.rint(gaussian_cells().Y * 8).clip(0, 255).astype(np.uint8),
    "below zero": lambda: gaussian_cells().Y - 100,
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("run", RUNS)
def test_a_result_or_an_error_that_says_why(run, edge, caplog):
    movie = EDGES[edge]()
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "gpucalcium"):
        warnings.filterwarnings("ignore", message=r"patch\.rf")
        try:
            found = CNMF(1, **RUNS[run]).fit(movie).estimates
        except errors.GpuCalciumError as error:
            assert len(str(error)) > 30
            return
    K, T = found.A.shape[1], len(movie)
    assert found.A.shape[0] == movie[0].size
    assert found.C.shape == found.YrA.shape == (K, T)
    for values in (found.A.data, found.C, found.YrA, found.f):
        assert np.isfinite(values).all()
    if not K:
        assert "no components" in caplog.text or "no cell" in caplog.text
    if "constant" in edge or edge == "all zero":
        assert K == 0


@pytest.mark.parametrize("k", [0, 1, 200])
@pytest.mark.parametrize("run", ["whole", "patches", "sparse_nmf", "local_nmf"])
def test_fewer_or_more_cells_than_there_are(run, k):
    scene = gaussian_cells()
    found = CNMF(1, **{**RUNS[run], "k": k}).fit(scene.Y).estimates
    assert np.isfinite(found.C).all()
    if k == 0:
        assert found.A.shape == (600, 0)
    if k == 200 and run == "whole":
        assert np.sort(matched(found.A, found.C, scene)[1])[0] > 0.9
