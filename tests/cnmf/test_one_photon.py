"""CNMF of one-photon movies: against truth and the reference, every background, files, refits, and edges."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.initialization import greedyROI_corr, initialize_components
from gpucalcium.cnmf.initialization import one_photon as one_photon_start
from gpucalcium.cnmf.initialization.corr_pnr import find_seeded
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.ring import RingModel
from gpucalcium.cnmf.storage import load_CNMF
from gpucalcium.errors import MemoryBudgetError, MovieShapeError, NotSupportedError, ParameterError
from tests.cnmf.one_photon_scenes import one_photon
from tests.cnmf.reads import Counted
from tests.cnmf.scenes import f1

SETTINGS = {
    "method_init": "corr_pnr",
    "center_psf": True,
    "k": None,
    "gSig": (2, 2),
    "gSiz": (9, 9),
    "gnb": 0,
    "p": 1,
    "min_corr": 0.7,
    "min_pnr": 7,
    "ssub": 1,
    "tsub": 1,
    "ring_size_factor": 1.2,
    "only_init_patch": False,
}
SEARCH = {"gSiz": 9, "gSig": 2, "min_corr": 0.7, "min_pnr": 7, "ring_size_factor": 1.2, "nb": 0}


@pytest.fixture(scope="module")
def scene():
    return one_photon()


def fit(Y, **changes):
    return CNMF(1, params=CNMFParams(**{**SETTINGS, **changes})).fit(Y)


@pytest.fixture(scope="module")
def fitted(scene):
    with backend.use("cpu"):
        return fit(scene.Y)


def search(scene, **changes):
    Y = np.moveaxis(scene.Y, 0, -1)
    return greedyROI_corr(Y, changes.pop("Y_ds", Y), **{**SEARCH, **changes})


def test_finds_cells_and_background(scene, fitted):
    found = fitted.estimates
    score, r = f1(found.A, found.C, scene.A, scene.C)
    assert score == 1
    assert r > 0.97
    assert found.W.shape == (20 * 22, 20 * 22)
    assert found.b0.shape == (40 * 44,)
    assert found.f.shape == (0, 300)
    B = found.compute_background(scene.Y)
    truth = scene.B.reshape(300, -1, order="F").T
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(B[::7], truth[::7], strict=True)]) > 0.98


def test_wings_find_the_same(wing, scene, fitted):
    with wing.chosen():
        found = fit(scene.Y).estimates
    assert found.A.shape == fitted.estimates.A.shape
    assert_allclose(found.A.toarray(), fitted.estimates.A.toarray(), atol=2e-3)
    assert_allclose(found.C, fitted.estimates.C, atol=2e-3 * fitted.estimates.C.max())


def test_is_at_least_the_reference(reference):
    """The stored scene: as many cells as the reference, and traces closer to the truth."""
    stored, made = reference.load("cnmf"), reference.inputs("cnmf")[1]
    settings = {
        "gSig": (3, 3),
        "gSiz": (13, 13),
        "k": 16,
        "fr": 20,
        "decay_time": 0.6,
        "merge_thresh": 0.7,
        "min_pnr": 5,
        "ring_size_factor": 1.4,
    }
    found = fit(made["Y"], **settings, ssub=2, tsub=2).estimates
    theirs = f1(stored["onep_full_A"], stored["onep_full_C"], made["A"], made["C"])
    mine = f1(found.A, found.C, made["A"], made["C"])
    assert mine[0] >= theirs[0] - 0.06  # a cell of ten
    assert mine[1] >= theirs[1]


@pytest.mark.slow
@pytest.mark.parametrize("sub", [1, 2])
@pytest.mark.parametrize("seed", [4, 1])
def test_reaches_the_figures_of_the_field(reference, seed, sub):
    made = reference.simulate.one_photon(T=1000, seed=seed)
    settings = {
        "gSig": (3, 3),
        "gSiz": (13, 13),
        "min_corr": 0.8,
        "min_pnr": 8,
        "fr": 10,
        "decay_time": 0.8,
        "ring_size_factor": 1.4,
    }
    found = fit(made["Y"], **settings, merge_thresh=0.7, ssub=sub, tsub=sub).estimates
    score, r = f1(found.A, found.C, made["A"], made["C"])
    assert score >= {1: 0.947 - 5e-4, 2: 0.974}[sub]
    assert r >= 0.977


def test_a_run_that_only_initialises_has_all_results(scene):
    found = fit(scene.Y, only_init_patch=True).estimates
    K = found.A.shape[1]
    assert K == 4
    for field in (found.S, found.YrA, found.bl, found.c1, found.neurons_sn, found.g, found.lam):
        assert len(field) == K
    assert found.W is not None


def test_a_file_keeps_the_ring(tmp_path, scene, fitted):
    path = tmp_path / "one_photon.hdf5"
    fitted.save(path)
    again = load_CNMF(path)
    assert_array_equal(again.estimates.W.toarray(), fitted.estimates.W.toarray())
    assert again.estimates.W.format == "csr"
    assert_array_equal(again.estimates.b0, fitted.estimates.b0)
    assert_array_equal(
        again.estimates.compute_background(scene.Y), fitted.estimates.compute_background(scene.Y)
    )


def test_refit_starts_from_cells_and_ring(scene, fitted):
    again = fitted.refit(scene.Y).estimates
    assert f1(again.A, again.C, scene.A, scene.C)[0] == 1
    assert_array_equal(again.W.toarray(), fitted.estimates.W.toarray())


@pytest.mark.parametrize("nb", [1, 4])
def test_a_background_of_low_rank_is_made_of_the_ring(scene, fitted, nb):
    """The cells are those beside the ring model, whatever the rank that it is handed back with."""
    found = fit(scene.Y, gnb=nb).estimates
    assert_array_equal(found.C, fitted.estimates.C)
    assert_allclose(found.A.toarray(), fitted.estimates.A.toarray(), atol=1e-6)
    assert found.b.shape == (1760, nb)
    assert found.f.shape == (nb, 300)
    truth = scene.B.reshape(300, -1, order="F").T
    spread = np.linalg.norm(truth - truth.mean(1, keepdims=True))
    U, s, V = np.linalg.svd(truth, full_matrices=False)
    best = np.linalg.norm(truth - (U[:, :nb] * s[:nb]) @ V[:nb])
    assert np.linalg.norm(found.b @ found.f - truth) < 1.05 * best + 0.1 * spread
    assert_allclose(
        found.compute_background(scene.Y), fitted.estimates.compute_background(scene.Y), atol=1e-2
    )


def test_a_low_rank_background_has_a_place_in_the_whole_field(scene):
    found = CNMF(1, params=CNMFParams(**{**SETTINGS, "gnb": 1})).fit(scene.Y, (slice(0, 36), slice(None)))
    assert found.estimates.W is None
    assert found.estimates.b.shape == (1760, 1)
    assert f1(found.estimates.A, found.estimates.C, scene.A, scene.C)[0] == 1


def test_masks_get_traces_without_the_background(scene):
    start = CNMF(1, params=CNMFParams(**SETTINGS), Ain=scene.A > 0.3).fit(scene.Y)
    score, r = f1(start.estimates.A, start.estimates.C, scene.A, scene.C)
    assert score == 1
    assert r > 0.97


def test_a_background_of_every_frame_asks_for_room(scene):
    movie = images_movie(scene.Y)
    with backend.limit(memory=4 * 1760 * 300 - 1), pytest.raises(MemoryBudgetError, match="nb=-1"):
        one_photon_start._room_for_all(movie)


def test_given_footprints_get_a_ring(scene):
    start = CNMF(1, params=CNMFParams(**SETTINGS), Ain=scene.A, Cin=scene.C.astype(np.float32)).fit(scene.Y)
    assert f1(start.estimates.A, start.estimates.C, scene.A, scene.C)[0] == 1
    assert start.estimates.W.nnz > 0


def test_residual_traces_are_those_of_the_definition(scene, fitted):
    found = fitted.estimates
    A = found.A.toarray().astype(float)
    rest = scene.Y.reshape(300, -1, order="F").T - found.A @ found.C - found.compute_background(scene.Y)
    expected = A.T @ rest / (A**2).sum(0)[:, None]
    model = RingModel.of(found.W, found.b0, scene.dims).without_background(
        images_movie(scene.Y), found.A, found.C
    )
    mine = (model.project(found.A) - (found.A.T @ found.A) @ found.C) / (A**2).sum(0)[:, None]
    assert_allclose(mine, expected, atol=1e-2)


# ---------------------------------------------------------------------------- greedyROI_corr


def test_ring_of_the_search_gives_the_background(scene):
    A, C, center, b, f, extra = search(scene)
    *_, W, b0 = extra
    assert b.shape == (1760, 0)
    assert f.shape == (0, 300)
    assert center.shape == (2, 4)
    rest = RingModel.of(W, b0, scene.dims).without_background(images_movie(scene.Y), A, C)
    B = np.concatenate([chunk for _, chunk in rest.backgrounds()])
    truth = scene.B.reshape(300, -1)
    assert np.median([np.corrcoef(B[:, i], truth[:, i])[0, 1] for i in range(0, 1760, 7)]) > 0.98


def test_backgrounds_of_every_kind(scene):
    truth = scene.B.reshape(300, -1, order="F").T
    _, _, _, b, f, extra = search(scene, nb=-1)
    assert len(extra) == 7
    assert_array_equal(b.diagonal(), 1)
    assert np.corrcoef(np.asarray(f)[5], truth[5])[0, 1] > 0.97
    _, _, _, b, f, _ = search(scene, nb=3)
    assert b.shape == (1760, 3)
    assert np.corrcoef((b @ f).ravel(), truth.ravel())[0, 1] > 0.99
    _, _, _, b, f, extra = search(scene, nb=-2)
    assert b.shape[1] == len(f) == 0
    assert len(extra) == 7
    _, _, _, b, f, _ = search(scene, nb=4, ring_size_factor=None)
    assert np.corrcoef((b @ f).ravel(), truth.ravel())[0, 1] > 0.99
    _, _, _, b, f, _ = search(scene, nb=-1, ring_size_factor=None)
    assert np.corrcoef(np.asarray(f)[5], truth[5])[0, 1] > 0.97


@pytest.mark.parametrize("case", ["ring", "ring_ssubB2", "ring_iter1", "lowrank"])
def test_cells_are_those_of_the_reference(reference, case):
    """Same cells, footprints at least as close to the truth; traces as close on average.

    Where theirs take in background (cosine with the truth 0.90, mine 0.967) the two cannot be closer than 0.95.
    """
    stored, made = reference.load("init"), reference.inputs("init")[2]
    options = {
        "ring": {"nb": 0, "ssub_B": 1},
        "ring_ssubB2": {"nb": 0, "ssub_B": 2},
        "ring_iter1": {"nb": 0, "ssub_B": 1, "init_iter": 1},
        "lowrank": {"nb": 1},
    }[case]
    factor = None if case == "lowrank" else 1.4
    Y = np.moveaxis(made["Y"], 0, -1)
    A, C, *_ = greedyROI_corr(Y, Y, 8, 13, 3, min_corr=0.7, min_pnr=5, ring_size_factor=factor, **options)
    theirs = stored[f"greedyROI_corr_{case}_A"]
    cosine = A.T @ theirs / np.outer(np.linalg.norm(A, axis=0), np.linalg.norm(theirs, axis=0))
    assert A.shape == theirs.shape
    assert (cosine.max(1) > 0.95).all()
    truth = made["A"].toarray()
    truth = truth / np.linalg.norm(truth, axis=0)
    cell = (truth.T @ A).argmax(0)
    match = cosine.argmax(1)
    mine, reached = ((truth.T @ (x / np.linalg.norm(x, axis=0))).max(0) for x in (A, theirs))
    assert mine.mean() >= reached[match].mean()
    assert (mine >= reached[match] - 0.01).all()
    mine = np.mean([np.corrcoef(C[k], made["C"][cell[k]])[0, 1] for k in range(4)])
    reached = stored[f"greedyROI_corr_{case}_C"][match]
    assert mine >= np.mean([np.corrcoef(reached[k], made["C"][cell[k]])[0, 1] for k in range(4)]) - 0.015


@pytest.mark.parametrize(("ssub", "tsub"), [(1, 2), (2, 1)])
def test_search_in_a_smaller_movie(scene, ssub, tsub):
    A, C, *_ = initialize_components(
        np.moveaxis(scene.Y[:, :39, :43], 0, -1), K=None, method_init="corr_pnr", center_psf=True, gSig=(2, 2),
        gSiz=(9, 9), nb=0, min_corr=0.7, min_pnr=6, ssub=ssub, tsub=tsub, ring_size_factor=1.2,
    )  # fmt: skip
    rows = (np.arange(40 * 44).reshape(scene.dims, order="F")[:39, :43]).ravel(order="F")
    assert f1(A, C, scene.A.tocsr()[rows], scene.C)[0] >= 0.85


@pytest.mark.parametrize("change", [{"ring_size_factor": 2.0}, {"ssub_B": 1}, {"sn": np.full(1760, 30.0)}])
def test_every_parameter_of_the_ring_changes_the_result(scene, change):
    before, after = search(scene), search(scene, **change)
    assert before[1].shape != after[1].shape or not np.array_equal(before[1], after[1])


@pytest.mark.parametrize("init_iter", [1, 2, 3])
def test_searches_until_nothing_is_new(scene, monkeypatch, init_iter):
    """Four cells are there: the first search finds all, so the second is the last."""
    searched = []

    def counted(*given):
        searched.append(1)
        return find_seeded(*given)

    monkeypatch.setattr(one_photon_start, "find_seeded", counted)
    assert search(scene, init_iter=init_iter)[0].shape[1] == 4
    assert len(searched) == min(init_iter, 2)


def test_options_change_the_result(scene):
    groups = CNMFParams().to_dict()
    groups["temporal"]["p"] = 0
    assert not np.array_equal(search(scene)[1], search(scene, options=groups)[1])
    groups["spatial"]["maxthr"] = 0.6
    with pytest.raises(ParameterError, match="merging"):
        search(scene, options={"spatial": {}, "temporal": {}})


# ---------------------------------------------------------------------------- edges


@pytest.mark.parametrize(
    "movie",
    [
        np.full((40, 20, 22), 5, np.uint16),
        np.random.default_rng(0).normal(100, 3, (60, 20, 22)).astype(np.float32),
        np.random.default_rng(0).normal(100, 3, (30, 5, 4)).astype(np.float32),
    ],
)
def test_no_cells_is_an_empty_result(movie):
    found = fit(movie, min_corr=0.95, min_pnr=9).estimates
    assert found.A.shape == (movie[0].size, 0)
    assert found.C.shape == (0, len(movie))
    assert found.b0.shape == (movie[0].size,)


def test_one_cell_and_a_field_smaller_than_its_box():
    one = one_photon((24, 26), 200, ((11, 12),), seed=3)
    found = fit(one.Y).estimates
    assert found.A.shape == (24 * 26, 1)
    assert np.corrcoef(found.C[0], one.C[0])[0, 1] > 0.95
    small = one_photon((8, 7), 200, ((4, 3),), seed=3)  # its box would be 19 x 19
    assert fit(small.Y, min_corr=0.5, min_pnr=4).estimates.A.shape[1] <= 1


def test_a_patch_where_nothing_happens(scene):
    Y = scene.Y.copy()
    Y[:, :, :20] = 100
    found = fit(Y, rf=10, stride=6, only_init_patch=True, p_ssub=1, p_tsub=1).estimates
    image = np.asarray(found.A.sum(1)).reshape(scene.dims, order="F")
    assert not image[:, :18].any()
    assert 1 <= found.A.shape[1] <= 3


def test_fewer_cells_than_asked_and_as_many_as_asked(scene):
    assert fit(scene.Y, k=50, only_init_patch=True).estimates.A.shape[1] == 4
    assert fit(scene.Y, k=1, only_init_patch=True).estimates.A.shape[1] == 1


def test_missing_border_and_integers(scene):
    Y = scene.Y.copy()
    Y[:, :3] = np.nan
    found = fit(Y).estimates
    assert f1(found.A, found.C, scene.A, scene.C)[0] == 1
    whole = fit(np.rint(scene.Y * 8).astype(np.uint16)).estimates
    assert f1(whole.A, whole.C, scene.A, scene.C)[0] == 1


def test_chunks_change_no_bit(scene):
    short = scene.Y[:120]
    one = fit(short).estimates
    with backend.limit(chunk_frames=17):
        two = fit(short).estimates
    assert_array_equal(one.C, two.C)
    assert_array_equal(one.A.toarray(), two.A.toarray())


def test_says_what_is_not_there(scene):
    with pytest.raises(ParameterError, match="one-photon"):
        fit(scene.Y, method_init="greedy_roi")
    with pytest.raises(NotSupportedError, match="part of the field"):
        CNMF(1, params=CNMFParams(**SETTINGS)).fit(scene.Y, (slice(0, 30), slice(None)))
    with pytest.raises(NotSupportedError, match="planes"):
        initialize_components(np.zeros((5, 6, 7, 20)), method_init="corr_pnr", gSig=[2, 2])
    with pytest.raises(MovieShapeError, match="Y_ds"):
        search(scene, Y_ds=np.zeros((9, 9, 300)))
    with pytest.raises(NotSupportedError, match="save_video"):
        search(scene, save_video=True)
    with pytest.raises(ParameterError, match="gSiz=None"):
        search(scene, gSiz=None)


# ---------------------------------------------------------------------------- how often a movie is read


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_round_of_refinement_reads_a_streamed_movie_twice(scene, fitted, dtype):
    movie = np.rint(scene.Y).astype(dtype)
    source = Counted(movie)
    work = fit(movie, only_init_patch=True)
    room = movie.nbytes // 2
    with backend.limit(memory=room):
        for _ in range(2):
            work.update_spatial(source)
            assert source.times() <= 1
            work.update_temporal(source)
            assert source.times() <= 1
    assert f1(work.estimates.A, work.estimates.C, scene.A, scene.C)[0] == 1


def test_a_fit_holds_a_movie_that_fits_and_streams_one_that_does_not(scene):
    """Streamed: once for NaN, the small movie and the background's course each, twice for the ring, 4 rounds of 2."""
    noise = {"preprocess": {"sn": np.ones(scene.dims)}}  # whose own passes depend on the room
    settings = {"ssub": 2, "tsub": 2, "min_pnr": 6, "ssub_B": 4, "params_dict": noise}
    Y = np.concatenate([scene.Y, scene.Y[::-1], scene.Y])
    held = Counted(Y)
    one = fit(held, **settings)
    assert held.times() == 1
    streamed = Counted(Y)
    tracemalloc.start()
    with backend.limit(memory=int(0.6 * Y.nbytes)):
        two = fit(streamed, **settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert streamed.times() <= 13
    assert peak < Y.nbytes  # neither the movie nor what the model leaves of it was ever there
    assert_array_equal(one.estimates.C, two.estimates.C)
    assert_array_equal(one.estimates.A.toarray(), two.estimates.A.toarray())
