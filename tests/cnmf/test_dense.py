"""Fields in which cells touch, are dim, or come from real recordings: how many are found and kept."""

import importlib.util

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.initialization import initialize_components
from gpucalcium.cnmf.initialization.refine import without_duplicates
from gpucalcium.cnmf.merging import groups_to_merge
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.simulate import two_photon
from tests.cnmf.scenes import f1, gaussian_cells

JUDGED = {"min_SNR": 2.5, "rval_thr": 0.8, "use_cnn": False}


def accepted(movie, K, gSig, fr):
    """Footprints and traces that a fit finds and keeps."""
    found = CNMF(1, k=K, gSig=[gSig, gSig], gnb=2, fr=fr, decay_time=0.6, p=2).fit(movie)
    found.params.change_params({"quality": JUDGED})
    e = found.estimates.evaluate_components(movie, found.params)
    return e.A[:, e.idx_components], e.C[e.idx_components]


@pytest.mark.parametrize("told", [1.0, 1.5])
def test_cells_that_touch_are_found_whatever_number_is_told(told):
    """40 cells, dimmer than their surroundings."""
    scene = two_photon(600, (64, 64), 40, min_distance=5.0, radius=4.0, amplitude=15.0, rise_s=0.08, seed=4)
    A, C = accepted(scene.movie.astype(np.float32), round(told * 40), 3.5, 20)
    score, r = f1(A, C, scene.A, scene.C)
    assert score > 0.9
    assert r > 0.9


def test_real_cells_under_real_noise(shared):
    """16 real footprints that overlap, real traces whose peaks are twice the noise of a pixel."""
    folder = shared / "data/real"
    spec = importlib.util.spec_from_file_location("semireal", folder / "semireal.py")
    semireal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(semireal)
    A, _, dims, _ = semireal.load_components(str(folder / "components/demo_2p.npz"))
    C, _, _ = semireal.real_traces(str(folder / "spikes"), A.shape[1], 1500, 10.0, peak=1000, seed=11)
    made = semireal.make_movie(A, C, dims, baseline=1400, gain=45, read_noise=23, background=0.5, seed=11)
    found = accepted(made["movie"], 19, 4.5, 10)
    order = np.arange(A.shape[0]).reshape(dims).ravel(order="F")
    score, r = f1(*found, made["A"].tocsr()[order], made["C"])
    assert score >= 0.8
    assert r > 0.85


def test_halves_of_a_dim_cell_are_one_and_two_cells_stay_two():
    """Noise lowers the correlation of the halves' traces far below that of the cell with itself."""
    scene = gaussian_cells((20, 24), T=600, centers=[(6, 6), (9, 9), (14, 18)], noise=0.0, seed=2)
    rng = np.random.default_rng(0)
    A = scene.A.tolil()
    half = A[:, 2].toarray().reshape(scene.dims, order="F")
    left, right = half.copy(), half.copy()
    left[:, 19:], right[:, :18] = 0, 0
    both = [x.reshape(-1, 1, order="F") for x in (left, right)]
    A = csc_matrix(np.hstack([A[:, :2].toarray(), *both]))
    C = scene.C[[0, 1, 2, 2]]
    C = C + 1.0 * C.std(1, keepdims=True) * rng.standard_normal(C.shape)
    assert np.corrcoef(C[2], C[3])[0, 1] < 0.6
    assert groups_to_merge(A, C, 0.8) == []
    assert [group.tolist() for group in groups_to_merge(A, C, 0.8, noisy=True)] == [[2, 3]]
    merged, traces = without_duplicates(A, C.astype(np.float32))
    assert merged.shape[1] == len(traces) == 3
    assert groups_to_merge(A, rng.standard_normal(C.shape), 0.8, noisy=True) == []


def test_weights_within_the_noise_are_left_out_and_those_beyond_it_are_as_they_were(wing):
    scene = gaussian_cells((20, 30), T=200, noise=2.0)
    sn = np.full(scene.A.shape[0], 2.0)
    plain = {
        "dims": scene.dims,
        "sn": sn,
        "medw": (1, 1),
        "thr_method": "max",
        "maxthr": 0.0,
        "extract_cc": False,
    }
    plain |= {
        "se": np.ones((1, 1)),
        "normalize_yyt_one": False,
        "nb": 1,
        "A_in": np.ones(scene.A.shape, bool),
    }
    Y = wing.put(scene.Yr)
    every = update_spatial_components(Y, scene.C, scene.f, **plain)[0].toarray()
    few = update_spatial_components(Y, scene.C, scene.f, noise_thr=3.0, **plain)[0].toarray()
    error = sn[:, None] / np.linalg.norm(scene.C - scene.C.mean(1, keepdims=True), axis=1)
    np.testing.assert_array_equal(few, np.where(every < 3 * error, 0, every))
    outside = scene.A.toarray() == 0
    assert (every[outside] > 0).mean() > 0.25
    assert (few[outside] > 0).mean() < 0.02


def test_candidates_beyond_k_are_looked_at_and_no_more_than_k_are_kept():
    scene = two_photon(500, (48, 48), 12, radius=4.0, seed=7)
    movie = images_movie(scene.movie.astype(np.float32))
    for K in (4, 12, 30):
        options = {"gSig": [4, 4], "nb": 1, "ssub": 2, "tsub": 2, "rolling_sum": True}
        A, C, *_ = initialize_components(movie, K=K, candidates=2.0, **options)
        assert A.shape[1] == len(C) <= K
        assert A.shape[1] >= min(K, 11)
