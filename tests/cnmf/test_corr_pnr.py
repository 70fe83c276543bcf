"""Search for one-photon cells: against truth, the reference, twin against twin, and edges."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf.initialization.corr_pnr import _neighbour_correlations, init_neurons_corr_pnr
from gpucalcium.cnmf.initialization.seed_shape import connected, falling, one_cell
from gpucalcium.errors import MovieShapeError, NotSupportedError, ParameterError
from gpucalcium.images import local_correlations
from tests.cnmf.one_photon_scenes import one_photon
from tests.cnmf.scenes import f1

SEARCH = {"gSiz": 9, "gSig": 2, "min_corr": 0.7, "min_pnr": 7}


@pytest.fixture(scope="module")
def scene():
    return one_photon()


def found(Y, **changes):
    return init_neurons_corr_pnr(Y, swap_dim=False, **{**SEARCH, **changes})


def test_finds_the_cells(wing, scene):
    A, C, C_raw, S, center = found(wing.put(scene.Y))
    truth = np.array([(10, 12), (12, 31), (29, 9), (27, 33)])
    distance = np.abs(center.T[:, None] - truth).max(2).min(0)
    assert A.shape == (40 * 44, 4)
    assert (distance < 1).all()
    assert (S >= 0).all()
    for traces, least in ((C, 0.95), (C_raw, 0.9)):
        score, r = f1(A, traces, scene.A, scene.C)
        assert score == 1
        assert r > least


def test_is_that_of_the_reference(reference):
    """Same seeds in the same order, same footprints and raw traces; the reference scales each by a constant."""
    stored = reference.load("init")
    made = reference.inputs("init")[2]
    A, C, raw, _, center = init_neurons_corr_pnr(
        np.moveaxis(made["Y"], 0, -1), 8, 13, 3, min_corr=0.7, min_pnr=5
    )
    assert A.shape[1] == 4
    assert_allclose(center[::-1].T, stored["init_neurons_corr_pnr_center"].T, atol=1)
    for k in range(4):
        assert np.corrcoef(A[:, k], stored["init_neurons_corr_pnr_A"][:, k])[0, 1] > 0.9999
        assert np.corrcoef(raw[k], stored["init_neurons_corr_pnr_C_raw"][k])[0, 1] > 0.999
        assert np.corrcoef(C[k], stored["init_neurons_corr_pnr_C"][k])[0, 1] > 0.98  # its constants differ


def test_connected_shapes_are_those_of_the_reference(reference):
    stored = reference.load("spatial_temporal")
    image = stored["A_in"].toarray()[:, 1].reshape(48, 40, order="F").astype(float)
    assert_allclose(connected(image, (0, 0)), stored["connectivity_constraint"].reshape(48, 40), rtol=1e-6)


def test_a_neighbour_and_loose_pieces_are_cut_off():
    grid = np.indices((25, 25))
    cell = np.exp(-((grid[0] - 9) ** 2 + (grid[1] - 9) ** 2) / 8)
    neighbour = 0.3 * np.exp(-((grid[0] - 15) ** 2 + (grid[1] - 9) ** 2) / 4)
    speck = np.zeros_like(cell)
    speck[20:22, 20:22] = 0.2
    image = one_cell(np.where(cell > 0.02, cell, 0) + neighbour + speck, (9, 9))
    assert image[9, 9] == pytest.approx(1, abs=1e-3)
    assert image[16:, :].sum() == 0
    assert_array_equal(falling(np.zeros((5, 5))), 0)


def test_local_images_are_those_of_the_whole_movie(wing, scene):
    Y = scene.Y[:, :12, :13]
    rows = wing.put(np.moveaxis(Y, 0, -1))
    mine = backend.to_numpy(_neighbour_correlations(rows.copy(), backend.arrays.xp(rows)))
    assert_allclose(mine, local_correlations(Y, swap_dim=False), atol=1e-4)


@pytest.mark.parametrize(
    "name, value",
    [
        ("max_number", 2),
        ("gSiz", 5),
        ("gSig", 3),
        ("center_psf", False),
        ("min_corr", 0.999),
        ("min_pnr", 60),
        ("seed_method", np.array([[12, 31]])),
        ("deconvolve_options", {"p": 0}),
        ("min_pixel", 80),
        ("bd", 12),
        ("thresh_init", 9),
    ],
)
def test_every_parameter_changes_the_result(scene, name, value):
    before, after = found(scene.Y), found(scene.Y, **{name: value})
    assert before[0].shape != after[0].shape or not np.array_equal(before[1], after[1])


def test_seeds_that_are_given(scene):
    *_, center = found(scene.Y, seed_method=np.array([[27, 33], [10, 12]]))
    assert_allclose(center.T, [[27, 33], [10, 12]], atol=1)
    *_, center = found(scene.Y, seed_method=("semi", np.array([[27, 33]])), max_number=1)
    assert center.shape == (2, 2)
    assert_allclose(center.T[0], [27, 33], atol=1)


def test_twice_the_same(wing, scene):
    for one, two in zip(found(wing.put(scene.Y)), found(wing.put(scene.Y)), strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize(
    "movie",
    [
        np.full((30, 20, 22), 5, np.uint16),
        np.random.default_rng(0).normal(100, 3, (60, 20, 22)),
        np.full((30, 3, 4), np.nan),
        np.random.default_rng(0).normal(size=(6, 9, 8)),
        np.random.default_rng(0).normal(size=(40, 1, 1)),
    ],
)
def test_nothing_is_found_where_nothing_is(movie):
    A, C, raw, S, center = found(movie, min_corr=0.9, min_pnr=8)
    assert A.shape == (movie[0].size, 0)
    assert C.shape == raw.shape == S.shape == (0, len(movie))
    assert center.shape == (2, 0)


@pytest.mark.parametrize("value", [np.nan, 0])
def test_a_border_without_data_is_no_cell(wing, scene, value):
    Y = scene.Y.copy()
    Y[:, :3] = value
    Y[:, :, -2:] = value
    A, C, *_ = found(wing.put(Y))
    assert f1(A, C, scene.A, scene.C)[0] == 1


def test_integers_and_time_last(scene):
    Y = np.rint(scene.Y * 8).astype(np.uint16)
    one = found(Y)
    two = init_neurons_corr_pnr(np.asfortranarray(np.moveaxis(Y, 0, -1)), **SEARCH)
    assert one[0].shape[1] == 4
    assert_array_equal(one[1], two[1])


def test_says_what_is_wrong(scene):
    with pytest.raises(NotSupportedError, match="planes"):
        init_neurons_corr_pnr(np.zeros((4, 4, 4, 9)))
    with pytest.raises(MovieShapeError, match="two axes"):
        init_neurons_corr_pnr(np.zeros((4, 9)))
    with pytest.raises(NotSupportedError, match="save_video"):
        found(scene.Y, save_video=True)
    with pytest.raises(NotSupportedError, match="clicking"):
        found(scene.Y, seed_method="manual")
    with pytest.raises(NotSupportedError, match="disk"):
        found(scene.Y, background_filter="box")
    with pytest.raises(ParameterError, match="gSig"):
        found(scene.Y, gSig=-1)
    with pytest.raises(ParameterError, match="max_number=-1"):
        found(scene.Y, max_number=-1)
