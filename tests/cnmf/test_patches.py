"""CNMF by patches: where they lie, what they give, and that neither order, workers nor chunks matter."""

from __future__ import annotations

import logging
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix, issparse

from gpucalcium import backend
from gpucalcium.cnmf.apply_patches import apply_to_patch
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.patch_assembly import Found, without_cut_off
from gpucalcium.cnmf.patch_grid import extract_patch_coordinates, patch_windows, read_window, read_windows
from gpucalcium.errors import MemoryBudgetError, NotSupportedError, ParameterError
from gpucalcium.movies import load_memmap, open_movie, save_memmap
from tests.cnmf.scenes import f1, gaussian_cells, matched

SETTINGS = {"k": 2, "gSig": [2, 2], "gnb": 1, "p": 1, "p_ssub": 1, "p_tsub": 1, "only_init_patch": True}
GRID = {"rf": 9, "stride": 8}
FIELDS = "A C S YrA b f sn bl c1 g neurons_sn".split()


@pytest.fixture(scope="module")
def scene():
    """Four cells of 20 x 30 pixels, all of them in several patches."""
    return gaussian_cells()


@pytest.fixture(scope="module")
def found(scene):
    with backend.use("cpu"):
        return CNMF(1, **SETTINGS, **GRID).fit(scene.Y).estimates


def plain(x):
    return x.toarray() if issparse(x) else np.asarray(x)


def assert_same(one, other, **tolerance):
    for name in FIELDS:
        mine, theirs = plain(getattr(one, name)), plain(getattr(other, name))
        assert mine.shape == theirs.shape, name
        if tolerance:
            scale = np.abs(theirs).max(initial=0)
            assert_allclose(mine, theirs, atol=tolerance["rtol"] * scale, err_msg=name)
        else:
            assert_array_equal(mine, theirs, err_msg=name)


# ---------------------------------------------------------------------------- where patches lie


def test_coordinates_of_a_known_grid():
    pixels, shapes = extract_patch_coordinates((30, 40), 8, 4)
    assert len(pixels) == 9
    assert shapes[0] == (17, 17) and shapes[-1] == (16, 16)
    assert [int(p[0]) for p in pixels[:4]] == [0, 360, 720, 12]
    assert all((np.diff(p) > 0).all() for p in pixels)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(1, 16), st.integers(0, 31))
def test_patches_cover_every_pixel(dims, rf, stride):
    if stride >= 2 * rf:
        with pytest.raises(ParameterError, match="stride"):
            patch_windows(dims, rf, stride)
        return
    times = np.zeros(dims, int)
    for window in patch_windows(dims, rf, stride):
        times[window] += 1
    assert times.min() >= 1
    assert len(patch_windows(dims, 30, 1)) == 1  # a field that is smaller than a patch


def test_border_and_part_of_the_field():
    pixels, _ = extract_patch_coordinates((30, 40), 8, 4, border_pix=3, indices=[slice(10, 30)])
    inside = np.zeros((30, 40), bool)
    inside[10:27, 3:37] = True
    assert_array_equal(np.unique(np.concatenate(pixels)), np.flatnonzero(inside.ravel(order="F")))


def test_grids_that_cannot_be():
    with pytest.raises(ParameterError, match="one for each axis"):
        patch_windows((30, 40), [8, 8, 8], 4)
    with pytest.raises(ParameterError, match="leaves nothing"):
        extract_patch_coordinates((30, 40), 8, 4, border_pix=15)
    with pytest.raises(ParameterError, match="volume"):
        extract_patch_coordinates((30, 40, 5), 8, 4, border_pix=1)


@pytest.mark.parametrize("dims", [(7, 11), (5, 4, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pixels_come_from_the_file(tmp_path, dims, order):
    movie = np.random.default_rng(0).random((13, *dims), np.float32)
    source = open_movie(save_memmap([movie], base_name=str(tmp_path / "m"), order=order))
    windows = patch_windows(dims, 2, 1)
    for window, frames in zip(windows, read_windows(source, windows), strict=True):
        assert_array_equal(frames, movie[(slice(None), *window)])
        if order == "C":
            assert_array_equal(read_window(source, window), movie[(slice(None), *window)])


# ---------------------------------------------------------------------------- what they give


@pytest.mark.parametrize(
    "options", [GRID, {"rf": 40, "k": 4}, {**GRID, "low_rank_background": False}], ids=str
)
def test_finds_the_cells(scene, options):
    e = CNMF(1, **{**SETTINGS, **options}).fit(scene.Y).estimates
    pairs, cosine, r = matched(e.A, e.C, scene)
    assert len(pairs) == e.A.shape[1] == 4
    assert cosine.min() > 0.95 and r.min() > 0.95
    assert e.dims == scene.dims and e.C.shape == e.S.shape == e.YrA.shape == (4, 300)


def test_finds_the_cells_of_a_volume():
    scene = gaussian_cells((12, 14, 16), centers=[(4, 4, 4), (8, 9, 4), (4, 9, 11), (8, 4, 11)])
    e = CNMF(1, **{**SETTINGS, "k": 4, "gSig": [2, 2, 2]}, rf=[5, 6, 6], stride=6).fit(scene.Y).estimates
    pairs, cosine, r = matched(e.A, e.C, scene)
    assert len(pairs) == 4  # K=4 are sought in each patch, so noise may be among what is found
    assert cosine.min() > 0.95 and r.min() > 0.95


def test_background_is_that_of_the_scene(scene, found):
    """Mean brightness within 3 % everywhere, which patches counted twice would miss by far."""
    expected = scene.b @ scene.f + scene.A @ scene.C
    model = found.b @ found.f + found.A @ found.C
    assert_allclose(model.mean(1), expected.mean(1), rtol=0.03)


@pytest.mark.parametrize("low_rank, kind", [(True, False), (False, True), (None, True)])
def test_backgrounds(scene, low_rank, kind):
    e = (
        CNMF(1, **{**SETTINGS, "gnb": 2}, **GRID, nb_patch=2, low_rank_background=low_rank)
        .fit(scene.Y)
        .estimates
    )
    assert issparse(e.b) is kind
    windows = patch_windows(scene.dims, **GRID)
    assert e.b.shape[1] == len(e.f) == (2 * len(windows) if kind else 2)
    if low_rank is False:
        assert np.diff(csc_matrix(e.b).tocsr().indptr).max() == 2  # those of one patch


def test_refit_takes_the_whole_field(scene):
    first = CNMF(1, **SETTINGS, **GRID).fit(scene.Y)
    again = first.refit(scene.Y)
    assert again.params.get("patch", "rf") is None and first.params.get("patch", "rf") == 9
    _, cosine, r = matched(again.estimates.A, again.estimates.C, scene)
    assert cosine.min() > 0.99 and r.min() > 0.95


@pytest.mark.parametrize("sub", [1, 2])
def test_as_good_as_the_stored_results(reference, sub):
    """Same F1 or one cell more or less; the stored components are the same ones but for weak cells."""
    scene, expected = reference.inputs("cnmf")[0], reference.load("cnmf")
    options = {"k": 3, "gSig": [4, 4], "gnb": 2, "p": 1, "rf": 16, "stride": 8, "fr": 20, "decay_time": 0.6}
    e = CNMF(1, only_init_patch=True, p_ssub=sub, p_tsub=sub, **options).fit(scene["Y"]).estimates
    for name in ("b", "f", "sn"):
        assert getattr(e, name).shape == expected[f"patch_p1_{name}"].shape
    theirs = f1(expected["patch_p1_A"], expected["patch_p1_C"], scene["A"], scene["C"])
    mine = f1(e.A, e.C, scene["A"], scene["C"])
    assert mine[0] >= theirs[0] - 0.05 and mine[1] >= theirs[1] - 0.005
    agreement = f1(e.A, e.C, expected["patch_p1_A"], expected["patch_p1_C"])
    assert agreement[0] >= 0.95 and agreement[1] >= 0.995
    assert_allclose(e.sn, expected["patch_p1_sn"], rtol=1e-3)
    mine, theirs = (b @ f for b, f in ((e.b, e.f), (expected["patch_p1_b"], expected["patch_p1_f"])))
    assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.99


# ---------------------------------------------------------------------------- who works on them


def test_wings_agree(wing, scene, found):
    """On a GPU sums of single precision are ordered otherwise."""
    movie = wing.put(scene.Y)
    assert_same(CNMF(1, **SETTINGS, **GRID).fit(movie).estimates, found, rtol=1e-3)


@pytest.mark.parametrize("lanes", [1, 3])
def test_number_of_workers_changes_nothing(scene, found, monkeypatch, lanes):
    monkeypatch.setenv("GPUCALCIUM_THREADS", str(lanes))
    assert_same(CNMF(1, **SETTINGS, **GRID).fit(scene.Y).estimates, found)


def test_memory_and_chunks_change_nothing(scene, found):
    with backend.limit(memory="5MiB", chunk_frames=37):
        assert_same(CNMF(1, **SETTINGS, **GRID).fit(scene.Y).estimates, found)


class Backwards:
    """A view of a cluster whose last engine is the first to finish."""

    def map_sync(self, work, jobs):
        return [work(job) for job in jobs[::-1]][::-1]


class Pool:
    """What has only `map`."""

    def map(self, work, jobs):
        return map(work, jobs)


@pytest.mark.parametrize(
    "dview", [Backwards(), Pool(), ThreadPoolExecutor(2)], ids=["view", "pool", "threads"]
)
def test_executors_change_nothing(scene, found, dview):
    assert_same(CNMF(1, **SETTINGS, **GRID, dview=dview).fit(scene.Y).estimates, found)


def test_processes_read_the_file_themselves(scene, tmp_path, found):
    """BLAS may have other threads there, so the last bits may differ."""
    path = save_memmap([scene.Y], base_name=str(tmp_path / "m"), order="C")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        e = CNMF(1, **SETTINGS, **GRID, dview=pool).fit(path).estimates
    assert_same(e, found, rtol=1e-5)


def test_dview_that_cannot_work_is_named(scene):
    with pytest.raises(ParameterError, match="map_sync, submit and map"):
        CNMF(1, **SETTINGS, **GRID, dview=3).fit(scene.Y)
    m = CNMF(1, **SETTINGS, **GRID, dview=Pool())
    m.params.change_params({"patch": {"in_memory": False}})
    with pytest.raises(NotSupportedError, match="in_memory"):
        m.fit(scene.Y)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_files_give_what_arrays_give(scene, tmp_path, order, in_memory):
    path = save_memmap([scene.Y], base_name=str(tmp_path / "m"), order=order)
    m = CNMF(1, **SETTINGS, rf=5, stride=4)
    m.params.change_params({"patch": {"in_memory": in_memory}})
    found = CNMF(1, **SETTINGS, rf=5, stride=4).fit(scene.Y).estimates
    with backend.limit(memory="1390KiB"):  # less than twice the movie, which is read piece by piece then
        assert_same(m.fit(path).estimates, found)


@pytest.mark.parametrize("border_pix", [0, 2])
def test_patches_behind_dview_stay_in_the_file(scene, tmp_path, border_pix, monkeypatch):
    """Never a whole patch in memory: the functions that cut one out are not called."""
    path = save_memmap([scene.Y], base_name=str(tmp_path / "m"), order="C")
    options = {**SETTINGS, **GRID, "border_pix": border_pix}
    expected = CNMF(1, **options).fit(path).estimates
    streamed = CNMF(1, **options, dview=Pool())
    streamed.params.change_params({"patch": {"in_memory": False}})
    for name in ("read_window", "read_windows"):
        monkeypatch.setattr(f"gpucalcium.cnmf.patches.{name}", None)
    assert_same(streamed.fit(path).estimates, expected)


def test_memory_stays_within_the_budget(tmp_path):
    """Of a movie of four budgets, with all that is found."""
    movie = np.random.default_rng(0).normal(90, 9, (600, 160, 150)).astype(np.float32)
    path = save_memmap([movie], base_name=str(tmp_path / "m"), order="C")
    budget = movie.nbytes // 4
    del movie
    options = {**SETTINGS, "k": 1, "p": 0, "rf": 10, "stride": 2}
    CNMF(1, **options).fit(gaussian_cells(T=60).Y)  # compiles
    tracemalloc.start()
    with backend.limit(memory=budget):
        CNMF(1, **options).fit(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget


def test_a_patch_beyond_the_budget_is_named(scene, tmp_path):
    path = save_memmap([scene.Y], base_name=str(tmp_path / "m"), order="C")
    with backend.limit(memory="300KiB"), pytest.raises(MemoryBudgetError, match="smaller rf"):
        CNMF(1, **SETTINGS, **GRID).fit(path)


# ---------------------------------------------------------------------------- parameters


CHANGES = {
    "rf": {"rf": 7},
    "stride": {"stride": 4},
    "border_pix": {"border_pix": 3},
    "nb_patch": {"nb_patch": 2},
    "low_rank_background": {"low_rank_background": False},
    "del_duplicates": {"del_duplicates": True},
    "only_init": {"only_init": False},
    "p_ssub": {"p_ssub": 2},
    "p_tsub": {"p_tsub": 2},
    "p_patch": {"only_init": False, "p_patch": 1},
    "skip_refinement": {"only_init": False, "skip_refinement": True},
}


def fitted(scene, patch, **others):
    params = CNMFParams.from_keywords(SETTINGS)
    params.change_params({"patch": {**GRID, **patch}, "init": {"K": 2, "nb": 2, **others}})
    return CNMF(1, params=params).fit(scene.Y).estimates


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_changes_the_result(scene, name):
    without = {"only_init": False} if name in ("p_patch", "skip_refinement") else {}
    one, other = fitted(scene, without), fitted(scene, CHANGES[name])
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_border_is_left_out(scene):
    e = fitted(scene, {"border_pix": 4})
    inside = np.zeros(scene.dims, bool)
    inside[4:-4, 4:-4] = True
    outside = ~inside.ravel(order="F")
    assert np.abs(plain(e.A)[outside]).max() == 0 and np.abs(plain(e.b)[outside]).max() == 0
    assert not e.sn[outside].any() and (e.sn[~outside] > 0).all()


def test_del_duplicates_keeps_one_of_each(scene):
    e = CNMF(1, **SETTINGS, **GRID, del_duplicates=True, do_merge=False).fit(scene.Y).estimates
    both = CNMF(1, **SETTINGS, **GRID, do_merge=False).fit(scene.Y).estimates
    assert e.A.shape[1] < both.A.shape[1]
    assert matched(e.A, e.C, scene)[2].min() > 0.95


def test_number_of_cells_from_the_size_of_a_patch(scene):
    e = fitted(scene, {}, K=None)
    assert matched(e.A, e.C, scene)[2].min() > 0.95


def test_given_seeds_go_to_their_patches(scene):
    e = fitted(scene, {}, seed_method=np.array([[5, 6], [14, 22]]))
    assert e.A.shape[1] == 2
    centers = e.center[np.argsort(e.center[:, 0])]
    assert_allclose(centers, [[5, 6], [14, 22]], atol=1)


def test_very_bad_components_go(scene):
    noise = np.random.default_rng(1).normal(10, 1, scene.Y.shape).astype(np.float32)
    params = {**SETTINGS, "k": 2, **GRID}
    assert CNMF(1, **params).fit(noise).estimates.A.shape[1] > 0
    strict = CNMF(1, **params, remove_very_bad_comps=True)
    strict.params.change_params({"quality": {"SNR_lowest": 5.0}})
    assert strict.fit(noise).estimates.A.shape[1] == 0


def test_noise_levels_may_be_given(scene):
    m = CNMF(1, **SETTINGS, **GRID)
    m.params.change_params({"preprocess": {"sn": scene.sn}})
    assert_allclose(m.fit(scene.Y).estimates.sn, scene.sn, rtol=1e-6)
    m = CNMF(1, **SETTINGS, **GRID)
    m.params.change_params({"preprocess": {"sn": scene.sn[:-1]}})
    with pytest.raises(ParameterError, match="599 values"):
        m.fit(scene.Y)


def test_part_of_the_field(scene):
    e = CNMF(1, **SETTINGS, **GRID).fit(scene.Y, (slice(None), slice(14, None))).estimates
    assert e.A.shape[0] == 600 and e.dims == scene.dims
    rows = plain(e.A).reshape(*scene.dims, -1, order="F")
    assert not rows[:, :14].any() and e.A.shape[1] == 2


@pytest.mark.parametrize(
    "options, words",
    [
        ({"gnb": -1}, "nb_patch"),
        ({"Ain": csc_matrix(np.ones((600, 1)))}, "start from"),
        ({"method_init": "corr_pnr", "center_psf": True, "gnb": 0, "border_pix": 2}, "crop the movie"),
    ],
)
def test_says_what_patches_do_not_do(scene, options, words):
    with pytest.raises(NotSupportedError, match=words):
        CNMF(1, **{**SETTINGS, **GRID, **options}).fit(scene.Y)


def test_parameters_of_the_user_do_not_change(scene):
    m = CNMF(1, **SETTINGS, **GRID)
    before = {name: dict(m.params.get_group(name)) for name in ("patch", "init", "preprocess")}
    m.fit(scene.Y)
    assert before == {name: dict(m.params.get_group(name)) for name in before}


def test_fitting_again_starts_anew(scene, found):
    m = CNMF(1, **SETTINGS, **GRID).fit(scene.Y)
    m.estimates.accepted_list = np.array([0])
    assert_same(m.fit(scene.Y).estimates, found)
    assert m.estimates.accepted_list is None


# ---------------------------------------------------------------------------- movies that have little in them


def test_constant_movie_gives_nothing(caplog):
    with caplog.at_level(logging.INFO, "gpucalcium"):
        e = CNMF(1, **SETTINGS, **GRID).fit(np.full((50, 20, 30), 7, np.uint16)).estimates
    assert e.A.shape == (600, 0) and e.C.shape == (0, 50) and e.b.shape == (600, 0)
    assert "no patch of the movie changes" in caplog.text


def test_patch_without_signal_gives_nothing(scene, caplog):
    movie = scene.Y.copy()
    movie[:, :, 16:] = 10
    with caplog.at_level(logging.INFO, "gpucalcium"):
        e = CNMF(1, **SETTINGS, rf=7, stride=2).fit(movie).estimates
    assert "it does not change" in caplog.text
    assert not np.abs(plain(e.A).reshape(20, 30, -1, order="F")[:, 18:]).any()
    assert matched(e.A, e.C, scene)[2][:2].min() > 0.95


def test_missing_values(scene, found):
    """A border that was shifted in, and a frame that was lost."""
    movie = scene.Y.copy()
    movie[:, :2] = np.nan
    movie[40] = np.nan
    movie[100, :, :3] = np.nan
    e = CNMF(1, **SETTINGS, **GRID).fit(movie).estimates
    assert e.A.shape[1] == 4 and np.isfinite(e.C).all() and np.isfinite(plain(e.b)).all()
    assert matched(e.A, e.C, scene)[2].min() > 0.95
    with pytest.raises(ValueError, match="infinite"):
        CNMF(1, **SETTINGS, **GRID).fit(np.where(np.isnan(movie), np.inf, movie))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_other_dtypes(scene, dtype):
    movie = (5 * scene.Y).astype(dtype)
    e = CNMF(1, **SETTINGS, **GRID).fit(np.asfortranarray(movie)).estimates
    assert matched(e.A, e.C, scene)[2].min() > 0.95


@pytest.mark.parametrize("shape", [(9, 9, 9), (30, 1, 1), (40, 3, 50)])
def test_small_movies(shape):
    movie = np.random.default_rng(0).normal(20, 1, shape).astype(np.float32)
    e = CNMF(1, **{**SETTINGS, "p": 0, "k": 1}, **GRID).fit(movie).estimates
    assert e.C.shape == (e.A.shape[1], shape[0])


def test_no_cells_are_wanted(scene):
    e = CNMF(1, **{**SETTINGS, "k": 0}, **GRID).fit(scene.Y).estimates
    assert e.A.shape[1] == 0 and e.f.shape == (1, 300)


# ---------------------------------------------------------------------------- one-photon movies

RING = {
    "method_init": "corr_pnr",
    "center_psf": True,
    "gSig": (3, 3),
    "gSiz": (13, 13),
    "ring_size_factor": 1.4,
}
RING |= {
    "k": None,
    "gnb": 0,
    "min_corr": 0.7,
    "min_pnr": 5,
    "merge_thresh": 0.7,
    "p": 1,
    "fr": 20,
    "ssub_B": 2,
}


def test_one_photon_movie(reference):
    """All cells of the stored results and, with as good traces, no fewer of the truth."""
    scene, expected = reference.inputs("cnmf")[1], reference.load("cnmf")
    e = CNMF(1, **RING, only_init_patch=True, rf=24, stride=12).fit(scene["Y"]).estimates
    theirs = f1(expected["onep_patch_A"], expected["onep_patch_C"], scene["A"], scene["C"])
    mine = f1(e.A, e.C, scene["A"], scene["C"])
    assert mine[0] >= theirs[0] and mine[1] >= theirs[1] - 0.005
    agreement = f1(e.A, e.C, expected["onep_patch_A"], expected["onep_patch_C"])
    assert agreement[0] >= 0.9 and agreement[1] >= 0.98
    assert e.W.shape == expected["onep_patch_W"].shape and e.b.shape == (e.A.shape[0], 0)


def test_one_photon_movie_with_a_background_of_low_rank(reference):
    scene = reference.inputs("cnmf")[1]
    m = CNMF(1, **{**RING, "gnb": 1}, nb_patch=1, only_init_patch=True, rf=24, stride=12)
    e = m.fit(scene["Y"]).estimates
    assert e.b.shape[1] == len(e.f) == 1
    assert m.params.get("spatial", "se") is None
    beside_ring = CNMF(1, **RING, only_init_patch=True, rf=24, stride=12).fit(scene["Y"]).estimates
    mine, theirs = (f1(x.A, x.C, scene["A"], scene["C"]) for x in (e, beside_ring))
    assert mine[0] >= theirs[0] and mine[1] >= theirs[1] - 0.005
    sparse = CNMF(1, **{**RING, "gnb": 1}, nb_patch=1, only_init_patch=True, rf=24, stride=12)
    sparse.params.change_params({"patch": {"low_rank_background": None}})
    e = sparse.fit(scene["Y"]).estimates
    assert issparse(e.b) and e.b.shape[1] > 1


def test_one_photon_cells_of_patches_are_those_of_the_field(reference):
    """On the scene of the figures: F1 and traces of a fit of the whole field, 0.974 and 0.977."""
    truth = reference.simulate.one_photon(T=600, seed=4)
    settings = {
        **RING,
        "fr": 10,
        "min_corr": 0.8,
        "min_pnr": 7,
        "p_ssub": 2,
        "p_tsub": 2,
        "rf": 40,
        "stride": 20,
    }
    e = CNMF(1, **settings, only_init_patch=True).fit(truth["Y"]).estimates
    score, r = f1(e.A, e.C, truth["A"], truth["C"])
    assert score >= 0.947 and r >= 0.977


# ---------------------------------------------------------------------------- whole runs


@pytest.mark.slow
def test_simulated_scene_with_refit_and_judgement(reference):
    """60 cells, 8 of them close to another; F1 and traces at least those known of other implementations."""
    truth = reference.simulate.two_photon(T=2000, seed=3)
    options = {"k": 9, "gSig": [4, 4], "gnb": 2, "p": 2, "rf": 20, "stride": 10, "fr": 20, "decay_time": 0.6}
    first = CNMF(1, **options, p_ssub=2, p_tsub=2, only_init_patch=True, min_SNR=2.5, rval_thr=0.8)
    e = first.fit(truth["Y"]).estimates
    score, r = f1(e.A, e.C, truth["A"], truth["C"])
    assert score >= 0.872 and r >= 0.983
    again = first.refit(truth["Y"])
    again.params.change_params({"quality": {"use_cnn": False}})
    e = again.estimates.evaluate_components(truth["Y"], again.params)
    score, r = f1(e.A[:, e.idx_components], e.C[e.idx_components], truth["A"], truth["C"])
    assert score >= 0.983 and r >= 0.984


def test_files_through_registration_and_patches_within_a_budget(scene, tmp_path):
    """The movie is twice as large as the budget; most of its 64 cells are found after it was put right."""
    moved = np.tile(scene.Y, (1, 4, 4))
    moved[100:200] = np.roll(moved[100:200], 1, axis=1)
    np.save(tmp_path / "movie.npy", moved)
    params = CNMFParams.from_keywords(
        {**SETTINGS, "rf": 9, "stride": 6, "fnames": str(tmp_path / "movie.npy")}
    )
    params.change_params({"motion": {"max_shifts": (3, 3)}})
    with backend.limit(memory="5500KiB"):
        m = CNMF(1, params=params).fit_file(motion_correct=True)
    assert m.mmap_file.endswith(".mmap") and m.dims == (80, 120)
    assert m.estimates.A.shape[1] >= 56


# ---------------------------------------------------------------------------- parts of a cell


def test_a_part_goes_if_the_whole_was_seen_elsewhere():
    """Two patches of a line of 20 pixels, 0-11 and 8-19; a cell around 9 has its right side cut off in the first."""
    shape = np.exp(-((np.arange(20) - 11.0) ** 2) / 8)
    A = np.stack(
        [np.where(np.arange(20) < 12, shape, 0), np.where(np.arange(20) >= 8, shape, 0), shape[::-1]], 1
    )
    rng = np.random.default_rng(0)
    traces = rng.random((3, 200)).astype(np.float32)
    traces[1] += traces[0]
    patches = np.array([[True, False], [False, True], [True, False]])
    both = Found(csc_matrix(A), traces, traces, patches)
    centres = np.array([[5.5, 0.0], [13.5, 0.0]])
    kept = without_cut_off(both, centres, (20, 1))
    assert_array_equal(kept.C, traces[1:])
    unrelated = both._replace(C=rng.random((3, 200)).astype(np.float32))
    assert len(without_cut_off(unrelated, centres, (20, 1)).C) == 3


# ---------------------------------------------------------------------------- any function on patches


def _brightest(frames, scale):
    return scale * frames.max(0)


@pytest.mark.parametrize("given", ["map", "matrix", "path", "frames"])
@pytest.mark.parametrize("dview", [None, Pool(), ThreadPoolExecutor(2)], ids=["here", "pool", "threads"])
def test_apply_to_patch(tmp_path, given, dview):
    movie = np.random.default_rng(0).random((9, 30, 40), np.float32)
    path = save_memmap([movie], base_name=str(tmp_path / "m"), order="C")
    matrix = load_memmap(path)[0]
    what = {"map": matrix, "matrix": np.array(matrix), "path": path, "frames": movie}[given]
    results, pixels, grid = apply_to_patch(what, movie.shape, dview, 8, 4, _brightest, scale=2)
    assert grid == (3, 3) and len(results) == len(pixels) == 9
    expected = 2 * movie.max(0).ravel(order="F")
    for result, where in zip(results, pixels, strict=True):
        assert_array_equal(result, expected[where])


def test_apply_to_patch_names_a_wrong_shape():
    with pytest.raises(ValueError, match="was given"):
        apply_to_patch(np.zeros((9, 30, 40)), (9, 40, 30), None, 8, 4, np.mean)
