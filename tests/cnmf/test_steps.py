"""Single steps of CNMF: what they demand is named, and a step that fails has changed nothing."""

import copy
import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from tests.cnmf.scenes import gaussian_cells, matched

SETTINGS = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 1, "tsub": 1}
ON_MOVIES = ["update_spatial", "update_temporal", "compute_residuals", "HALS4traces", "HALS4footprints"]


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells()


@pytest.fixture(scope="module")
def fitted(scene):
    with backend.use("cpu"):
        return CNMF(1, **SETTINGS).fit(scene.Y)


@pytest.mark.parametrize("step", ON_MOVIES)
def test_a_movie_that_is_not_the_components_own(scene, fitted, step):
    for movie in (scene.Y[:50], scene.Y[:, :9], scene.Yr[:, :50], scene.Yr[:9]):
        with pytest.raises(ArrayShapeError, match="600 pixels and 300 frames, but the movie has"):
            getattr(copy.deepcopy(fitted), step)(movie)


@pytest.mark.parametrize("step", ON_MOVIES)
def test_missing_values_are_named_unless_they_were_filled(wing, scene, fitted, step):
    Y = scene.Y.copy()
    Y[:, :2], Y[5] = np.nan, np.nan
    work = copy.deepcopy(fitted)
    with pytest.raises(MovieValueError, match="what preprocess"):
        getattr(work, step)(wing.put(Y))
    assert_array_equal(work.estimates.C, fitted.estimates.C)
    getattr(work, step)(work.preprocess(wing.put(Y)))
    assert np.isfinite(work.estimates.C).all()
    assert (matched(work.estimates.A, work.estimates.C, scene)[2] > 0.95).all()


def test_steps_that_need_components(fitted, scene):
    nothing = CNMF(1, **SETTINGS)
    for call in (lambda: nothing.merge_comps(scene.Y), nothing.deconvolve):
        with pytest.raises(ParameterError, match="no components yet"):
            call()
    begun = copy.deepcopy(fitted)
    begun.estimates.YrA = None
    for call in (lambda: begun.merge_comps(scene.Y), begun.deconvolve):
        with pytest.raises(ParameterError, match="compute_residuals first"):
            call()
    begun.compute_residuals(scene.Y).deconvolve()


@pytest.mark.parametrize("numbers", [[9], [-5], [0.5], [[0, 1]], ["one"], np.ones(3, bool)])
def test_components_that_there_are_not(fitted, numbers):
    with pytest.raises(ParameterError, match="from 0 to 3"):
        copy.deepcopy(fitted).remove_components(numbers)


@pytest.mark.parametrize(
    "numbers", [[1], 1, (-3,), np.array([False, True, False, False]), np.array([1], np.uint8)]
)
def test_a_component_by_number_or_mask(fitted, numbers):
    left = copy.deepcopy(fitted).remove_components(numbers).estimates
    assert_array_equal(left.C, fitted.estimates.C[[0, 2, 3]])


@pytest.mark.parametrize(
    "options", [{"order": [0, 99]}, {"use_groups": True}, {"use_groups": True, "groups": [[0, 7]]}]
)
def test_orders_that_cannot_be(scene, fitted, options):
    with pytest.raises(ParameterError, match=r"order|groups"):
        copy.deepcopy(fitted).HALS4traces(scene.Y, **options)


def test_a_step_that_fails_changes_nothing(scene, fitted):
    work = copy.deepcopy(fitted)
    before = json.loads(work.params.to_json())
    with pytest.raises(ArrayShapeError):
        work.update_spatial(scene.Y[:50], method_ls="nnls_L0")
    with pytest.raises(ParameterError):
        work.update_temporal(scene.Y, noise_range=[0.4, 0.1])
    with pytest.raises(ParameterError):
        work.initialize(np.moveaxis(scene.Y, 0, -1), ssub=1.5)
    assert json.loads(work.params.to_json()) == before
    assert_array_equal(work.estimates.A.toarray(), fitted.estimates.A.toarray())
    assert_array_equal(work.estimates.C, fitted.estimates.C)


def test_parts_of_the_field_are_slices(scene):
    with pytest.raises(ParameterError, match="a slice for each axis"):
        CNMF(1, **SETTINGS).fit(scene.Y, (3, 4))


def test_a_start_says_what_it_starts_from(scene):
    with pytest.raises(ParameterError, match="give Ain as well"):
        CNMF(1, Cin=scene.C)
    with pytest.raises(ParameterError, match="both, or neither"):
        CNMF(1, Ain=scene.A, Cin=scene.C, b_in=scene.b)


@pytest.mark.parametrize("only_init", [False, True])
@pytest.mark.parametrize("gnb", [1, 2])
def test_a_start_without_background_gets_one(wing, scene, only_init, gnb):
    start = {"Ain": scene.A, "Cin": scene.C, "only_init_patch": only_init, "gnb": gnb}
    found = CNMF(1, **{**SETTINGS, **start}).fit(wing.put(scene.Y)).estimates
    assert found.b.shape[1] == len(found.f) == gnb
    assert np.abs(found.b @ found.f / (scene.b @ scene.f) - 1).mean() < 0.05
    cut = {**SETTINGS, "Ain": scene.A, "Cin": scene.C[:, :9]}
    with pytest.raises(ArrayShapeError, match="Cin"):
        CNMF(1, **cut).fit(scene.Y)


def test_spikes_are_at_least_as_large_as_asked_in_the_units_of_the_traces(scene):
    """Footprints of norm 1: a spike of 1 raises a trace by 10."""
    plain = CNMF(1, **SETTINGS).fit(scene.Y).estimates
    found = CNMF(1, **SETTINGS, s_min=4.0).fit(scene.Y).estimates
    assert (matched(found.A, found.C, scene)[2] > 0.95).all()
    assert found.S[found.S > 0].min() > 4 * 0.95  # the footprint's norm changes in its last update
    assert plain.S[plain.S > 0].min() < 2


def test_how_many_cells_is_not_known_of_a_whole_field(scene):
    with pytest.raises(ParameterError, match="K=None"):
        CNMF(1, **{**SETTINGS, "k": None}).fit(scene.Y)
    patches = {**SETTINGS, "k": None, "rf": 12, "only_init_patch": True}
    assert CNMF(1, **patches).fit(scene.Y).estimates.A.shape[1] >= 4


@pytest.mark.parametrize("movie, why", [(np.full((60, 9, 9), 7.0), "does not change"), (None, "stands out")])
def test_an_empty_result_says_why(scene, movie, why, caplog):
    settings = SETTINGS if movie is not None else {**SETTINGS, "k": 0}
    found = CNMF(1, **settings).fit(scene.Y if movie is None else movie).estimates
    assert found.A.shape[1] == 0
    assert f"no components: {'the movie' if movie is not None else 'nothing'} {why}" in caplog.text
