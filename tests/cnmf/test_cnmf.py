import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.storage import load_CNMF
from gpucalcium.errors import (
    MemoryBudgetError,
    MovieShapeError,
    MovieValueError,
    NotSupportedError,
    ParameterError,
)
from gpucalcium.movies import open_movie
from tests.cnmf.scenes import f1, gaussian_cells, matched

SETTINGS = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 1, "tsub": 1}


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=300)


@pytest.fixture(scope="module")
def fitted(scene):
    with backend.use("cpu"):
        return CNMF(1, **SETTINGS).fit(scene.Y)


def state(estimates):
    return {
        name: value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        for name, value in vars(estimates).items()
        if name in ("A", "C", "b", "f", "S", "YrA", "bl", "c1", "g", "neurons_sn", "sn", "lam")
        and value is not None
    }


def assert_same(one, other, rtol=0.0):
    one, other = state(one), state(other)
    assert one.keys() == other.keys()
    for name in one:
        assert_allclose(
            one[name], other[name], rtol=rtol, atol=rtol * np.abs(one[name]).max(initial=0), err_msg=name
        )


# ---------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("p", [0, 1, 2])
def test_finds_cells_traces_and_spikes(wing, scene, p):
    e = CNMF(1, **{**SETTINGS, "p": p}).fit(wing.put(scene.Y)).estimates
    pairs, cosine, r = matched(e.A, e.C, scene)
    assert len(pairs) == 4
    assert (cosine > 0.95).all()
    assert (r > 0.95).all() if p else (r > 0.9).all()
    assert_allclose(np.linalg.norm(e.A.toarray(), axis=0), 1, rtol=1e-5)
    assert_allclose(np.linalg.norm(e.b, axis=0), 1, rtol=1e-5)
    assert_allclose(e.b @ e.f, scene.b @ scene.f, rtol=0.1)
    assert_allclose(np.median(e.sn), scene.noise, rtol=0.1)
    assert e.dims == scene.dims
    assert (e.S >= 0).all()


def test_volumes(wing):
    scene = gaussian_cells((12, 14, 8), T=300, centers=[(4, 4, 2), (8, 10, 5)])
    e = CNMF(1, **{**SETTINGS, "k": 2, "gSig": [2, 2, 2]}).fit(wing.put(scene.Y)).estimates
    _, cosine, r = matched(e.A, e.C, scene)
    assert (cosine > 0.95).all()
    assert (r > 0.95).all()


def test_twins_agree(scene, fitted):
    """The same components; values within what rounding in another order does to iterations that stop early."""
    if backend.probe().state is not backend.State.READY:
        pytest.skip("no GPU and no emulator")
    with backend.use("cuda"):
        there = CNMF(1, **SETTINGS).fit(scene.Y)
    assert_same(fitted.estimates, there.estimates, rtol=1e-3)


@pytest.mark.parametrize(
    "seed",
    [
        3,
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(5, marks=pytest.mark.slow),
        pytest.param(7, marks=pytest.mark.slow),
    ],
)
def test_two_photon_scene(reference, seed):
    """128 x 128, 60 cells of which 8 have a neighbour at 5-7 px; the peer reaches F1 0.966 and r 0.982-0.984."""
    truth = reference.simulate.two_photon(T=1000 if seed == 3 else 2000, seed=seed)
    found = CNMF(1, k=65, gSig=[4, 4], gnb=2, p=1, fr=20, decay_time=0.6).fit(truth["Y"])
    found.params.change_params({"quality": {"use_cnn": False}})
    e = found.estimates
    score, r = f1(e.A, e.C, truth["A"], truth["C"])
    assert score >= 0.96
    assert r >= 0.98
    e.evaluate_components(truth["Y"], found.params).select_components(use_object=True)
    assert f1(e.A, e.C, truth["A"], truth["C"])[0] >= 0.96


def test_better_than_the_reference_on_its_own_movie(reference):
    stored, truth = reference.load("cnmf"), reference.inputs("cnmf")[0]
    e = CNMF(1, k=16, gSig=[4, 4], gnb=2, p=1, fr=20, decay_time=0.6).fit(truth["Y"]).estimates
    mine, r = f1(e.A, e.C, truth["A"], truth["C"])
    theirs, their_r = f1(stored["full_p1_A"], stored["full_p1_C"], truth["A"], truth["C"])
    assert mine >= theirs
    assert r >= their_r - 0.005
    assert_allclose(e.sn, stored["full_p1_sn"], rtol=1e-3)


def test_the_volume_of_the_reference(reference):
    truth = reference.inputs("cnmf")[2]
    e = CNMF(1, k=5, gSig=[3, 3, 2], gnb=1, p=1, fr=10, decay_time=0.8).fit(truth["Y"]).estimates
    score, r = f1(e.A, e.C, truth["A"], truth["C"])
    assert score == 1
    assert r > 0.98


# ---------------------------------------------------------------------------- what goes in


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64", "int32"])
def test_any_number_type(scene, dtype):
    Y = np.rint(scene.Y * 8).clip(0, 255)
    e = CNMF(1, **SETTINGS).fit(Y.astype(dtype)).estimates
    same = CNMF(1, **SETTINGS).fit(Y.astype(np.float32)).estimates
    assert_same(e, same, rtol=1e-4)


def test_fortran_order_strided_and_sources_are_all_one(scene, fitted):
    doubled = np.repeat(np.repeat(scene.Y, 2, 0), 2, 2)
    for movie in (np.asfortranarray(scene.Y), doubled[::2, :, ::2], open_movie(scene.Y)):
        assert_same(CNMF(1, **SETTINGS).fit(movie).estimates, fitted.estimates)


@pytest.mark.parametrize("limit", [{"chunk_frames": 7}, {"memory": 500_000}])
def test_memory_changes_no_bit(scene, limit):
    """500 kB do not hold the movie of 720 kB, so that it is streamed."""
    small = {**SETTINGS, "ssub": 2, "tsub": 2}
    whole = CNMF(1, **small).fit(scene.Y).estimates
    with backend.limit(**limit):
        assert_same(CNMF(1, **small).fit(scene.Y).estimates, whole)


def test_a_search_that_does_not_fit_says_what_to_change(scene):
    with backend.limit(memory=500_000), pytest.raises(MemoryBudgetError, match="Raise ssub=1 or tsub=1"):
        CNMF(1, **SETTINGS).fit(scene.Y)


def test_each_round_of_refinement_reads_the_movie_twice(scene, fitted):
    class Counted:
        shape, dtype, frames = scene.Y.shape, scene.Y.dtype, 0

        def __len__(self):
            return len(scene.Y)

        def read(self, frames, out=None):
            part = np.ascontiguousarray(scene.Y[frames])
            self.frames += len(part)
            if out is None:
                return part
            out[:] = part
            return out

    movie = Counted()
    again = copy.deepcopy(fitted)
    with backend.limit(memory=500_000):
        again.update_spatial(movie)
        assert movie.frames == len(scene.Y)
        again.update_temporal(movie)
        assert movie.frames == 2 * len(scene.Y)


def test_missing_values_are_filled(scene):
    Y = scene.Y.copy()
    Y[20:23, 5, 6] = np.nan
    Y[:, 19, 29] = np.nan
    given = Y.copy()
    e = CNMF(1, **SETTINGS).fit(Y).estimates
    assert (matched(e.A, e.C, scene)[2] > 0.95).all()
    assert e.sn.reshape(scene.dims, order="F")[19, 29] == 0
    assert_array_equal(Y, given)


@pytest.mark.parametrize("value, words", [(np.nan, "every value"), (np.inf, "infinite")])
def test_movies_that_nothing_can_be_said_of(scene, value, words):
    Y = scene.Y.copy()
    Y[...] = value
    with pytest.raises(MovieValueError, match=words):
        CNMF(1, **SETTINGS).fit(Y)


@pytest.mark.parametrize("k", [0, 1, 15])
@pytest.mark.parametrize("gnb", [0, 1, 2])
def test_any_number_of_cells_and_backgrounds(scene, k, gnb):
    e = CNMF(1, **{**SETTINGS, "k": k, "gnb": gnb}).fit(scene.Y).estimates
    assert e.A.shape[1] == len(e.C) == len(e.S) == len(e.YrA) <= k
    assert e.b.shape[1] == len(e.f) <= gnb
    assert np.isfinite(e.C).all()


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_movie_has_no_cells(value):
    e = CNMF(1, **SETTINGS).fit(np.full((60, 8, 9), value, np.float32)).estimates
    assert e.A.shape == (72, 0)
    assert e.C.shape == (0, 60)


def test_fields_smaller_than_a_cell_and_short_movies(scene):
    for Y in (scene.Y[:, 3:8, 4:9], scene.Y[:, :1, :1], scene.Y[:40], scene.Y[:12]):
        e = CNMF(1, **SETTINGS).fit(Y).estimates
        assert np.isfinite(e.C).all()
        assert e.A.shape[0] == Y[0].size


@settings(max_examples=5, deadline=None)
@given(st.floats(0.25, 8))
def test_brighter_movies_have_brighter_traces(gain):
    """Footprints are of unit norm, so that all of the gain is in the traces."""
    scene = gaussian_cells((12, 14), T=80, centers=[(5, 6)], seed=2)
    one = CNMF(1, **{**SETTINGS, "k": 1}).fit(scene.Y).estimates
    other = CNMF(1, **{**SETTINGS, "k": 1}).fit(scene.Y * np.float32(gain)).estimates
    assert_allclose(other.A.toarray(), one.A.toarray(), atol=2e-3)
    assert_allclose(other.C, gain * one.C, atol=1e-2 * gain * one.C.max())


def test_a_movie_on_a_gpu_is_worked_on_there(scene, on_gpu):
    """Whatever device is active; estimates are NumPy and SciPy always."""
    movie = on_gpu.put(scene.Y)
    there = CNMF(1, **SETTINGS).fit(movie).estimates
    with backend.use("cpu"):
        here = CNMF(1, **SETTINGS).fit(movie).estimates
        assert backend.active().kind == "cpu"
    assert_same(here, there)
    assert isinstance(here.C, np.ndarray)


# ---------------------------------------------------------------------------- part of the field


def test_part_of_the_field(scene):
    window = (slice(2, 19), slice(0, 17))
    e = CNMF(1, **{**SETTINGS, "k": 2}).fit(scene.Y, window).estimates
    alone = CNMF(1, **{**SETTINGS, "k": 2}).fit(scene.Y[(slice(None), *window)]).estimates
    assert e.dims == scene.dims
    inside = np.zeros(scene.dims, bool)
    inside[window] = True
    inside = inside.ravel(order="F")
    assert_array_equal(e.A.toarray()[inside], alone.A.toarray())
    assert_array_equal(e.b[inside], alone.b)
    assert not e.A.toarray()[~inside].any()
    assert_array_equal(e.C, alone.C)
    assert_allclose(e.center - alone.center, [[2, 0], [2, 0]], atol=1e-4)
    with pytest.raises(MovieShapeError, match="names 3 axes"):
        CNMF(1, **SETTINGS).fit(scene.Y, (slice(None),) * 3)


# ---------------------------------------------------------------------------- parameters


def test_parameters_are_copied_and_never_written_to(scene):
    params = CNMFParams(
        params_dict={"init": {"K": 4, "gSig": [2, 2], "ssub": 1, "tsub": 1}, "preprocess": {"p": 1}}
    )
    params.change_params({"patch": {"only_init": False}, "temporal": {"p": 1}})
    before = json.loads(params.to_json())
    found = CNMF(3, params=params)
    mine = json.loads(found.params.to_json())
    found.fit(scene.Y)
    assert json.loads(params.to_json()) == before
    assert json.loads(found.params.to_json()) == mine
    assert found.params.get("patch", "n_processes") == 3
    assert params.get("patch", "n_processes") == 1


def test_keywords_do_not_count_beside_params():
    assert CNMF(1, k=77, params=CNMFParams()).params.get("init", "K") == 30
    assert CNMF(1, k=77).params.get("init", "K") == 77
    assert CNMF(1, deconv_flag=False, p=2).params.get("temporal", "p") == 0


def test_only_init_stops_after_the_first_estimates(scene):
    e = CNMF(1, **SETTINGS, only_init_patch=True).fit(scene.Y).estimates
    assert e.bl is e.c1 is e.neurons_sn is None
    assert e.S is None
    assert e.YrA.shape == (4, 300)


def test_skip_refinement_and_do_merge_change_the_result(scene, fitted):
    short = CNMF(1, **SETTINGS, skip_refinement=True).fit(scene.Y).estimates
    assert np.abs(short.C - fitted.estimates.C).max() > 0
    doubled = gaussian_cells(T=150, sigma=3.0)
    torn = {**SETTINGS, "k": 8, "gSiz": [5, 5], "merge_thresh": 0.5}
    apart = CNMF(1, **torn, do_merge=False).fit(doubled.Y).estimates
    merged = CNMF(1, **torn, do_merge=True).fit(doubled.Y).estimates
    assert merged.A.shape[1] <= apart.A.shape[1]


def test_says_what_is_not_there_and_changes_nothing(scene):
    found = CNMF(1, **{**SETTINGS, "gnb": -1})
    with pytest.raises(NotSupportedError, match="nothing to refine"):
        found.fit(scene.Y)
    assert found.estimates.A is None
    assert found.dims is None


def test_one_calcium_model_for_all_is_refused(scene):
    found = CNMF(1, **SETTINGS)
    found.params.change_params({"preprocess": {"compute_g": True}})
    with pytest.raises(NotSupportedError, match="every trace gets its own"):
        found.fit(scene.Y)


@pytest.mark.parametrize("movie, words", [(np.ones((5, 6)), "2 axes"), (np.ones((1, 5, 6)), "1 frame")])
def test_movies_of_the_wrong_shape(movie, words):
    with pytest.raises(MovieShapeError, match=words):
        CNMF(1, **SETTINGS).fit(movie)


# ---------------------------------------------------------------------------- from somewhere else


def test_refit_keeps_the_accepted_components(scene, fitted):
    first = copy.deepcopy(fitted)
    first.estimates.idx_components = np.array([0, 2])
    again = first.refit(scene.Y)
    assert again.estimates.A.shape[1] == 2
    assert first.estimates.A.shape[1] == 4
    for k, old in enumerate([0, 2]):
        assert np.corrcoef(again.estimates.C[k], first.estimates.C[old])[0, 1] > 0.97


def test_starts_from_given_components(scene):
    e = CNMF(1, **SETTINGS, Ain=scene.A, Cin=scene.C, b_in=scene.b, f_in=scene.f).fit(scene.Y).estimates
    assert (matched(e.A, e.C, scene)[1] > 0.97).all()


def test_starts_from_masks(scene):
    masks = (csc_matrix(scene.A) > 0).toarray()
    e = CNMF(1, **SETTINGS, Ain=masks).fit(scene.Y).estimates
    _, cosine, r = matched(e.A, e.C, scene)
    assert (cosine > 0.95).all()
    assert (r > 0.95).all()
    first = CNMF(1, **SETTINGS, Ain=masks, only_init_patch=True).fit(scene.Y).estimates
    assert not (first.A.toarray().astype(bool) & ~masks).any()


# ---------------------------------------------------------------------------- steps


def test_steps_one_by_one_are_the_fit(scene, fitted):
    steps = CNMF(1, **SETTINGS)
    movie = steps.preprocess(scene.Y)
    steps.initialize(np.moveaxis(scene.Y, 0, -1))
    steps.update_spatial(movie)
    steps.update_temporal(scene.Yr)
    steps.merge_comps(scene.Yr, mx=50)
    steps.update_spatial(scene.Y)
    steps.update_temporal(movie, p=1)
    steps.estimates.normalize_components()
    assert_same(steps.estimates, fitted.estimates, rtol=1e-5)


def test_residuals_and_deconvolution(scene, fitted):
    again = copy.deepcopy(fitted)
    again.estimates.YrA = None
    again.compute_residuals(scene.Yr)
    assert_allclose(again.estimates.YrA, fitted.estimates.YrA, atol=1e-3 * fitted.estimates.C.max())
    noisy = again.estimates.C + again.estimates.YrA
    again.deconvolve(p=1, s_min=0)
    assert_allclose(again.estimates.C + again.estimates.YrA, noisy, atol=1e-4 * noisy.max())
    assert (again.estimates.S > 0).sum() < (fitted.estimates.S > 0).sum()


@pytest.mark.parametrize("option", [{"lag": 3}, {"bl": 0.5}, {"g": [0.9]}])
def test_deconvolution_knows_its_options(fitted, option):
    with pytest.raises(ParameterError, match=f"{next(iter(option))}: no option here"):
        copy.deepcopy(fitted).deconvolve(p=1, **option)


def test_hals_reduces_what_is_left(scene, fitted):
    def left(e):
        return np.linalg.norm(scene.Yr - e.A @ e.C - e.b @ e.f)

    again = copy.deepcopy(fitted)
    again.estimates.C = np.full_like(again.estimates.C, 0.1)
    losses = [left(again.estimates)]
    again.HALS4traces(scene.Yr, groups=[[0, 2], [1, 3]], use_groups=True)
    losses.append(left(again.estimates))
    again.HALS4footprints(scene.Yr)
    losses.append(left(again.estimates))
    assert losses[0] > losses[1] > losses[2]
    f = again.estimates.f.copy()
    again.HALS4traces(scene.Yr, update_bck=False, order=[3, 2, 1, 0])
    assert_array_equal(again.estimates.f, f)
    b = again.estimates.b.copy()
    again.HALS4footprints(scene.Yr, update_bck=False, num_iter=1)
    assert_array_equal(again.estimates.b, b)


def test_removes_components_everywhere(fitted):
    again = copy.deepcopy(fitted)
    again.remove_components([1, 3])
    assert_array_equal(again.estimates.C, fitted.estimates.C[[0, 2]])
    assert again.estimates.A.shape[1] == len(again.estimates.S) == len(again.estimates.bl) == 2
    assert again.estimates.discarded_components is None


def test_steps_need_components(scene):
    with pytest.raises(ParameterError, match="call initialize or fit first"):
        CNMF(1).update_spatial(scene.Y)


# ---------------------------------------------------------------------------- files


def test_save_and_load(fitted, tmp_path):
    fitted.save(tmp_path / "found.hdf5")
    assert_same(load_CNMF(tmp_path / "found.hdf5").estimates, fitted.estimates)


@pytest.mark.parametrize("motion_correct", [False, True])
def test_fit_file(scene, tmp_path, motion_correct):
    np.save(tmp_path / "movie.npy", scene.Y)
    params = CNMFParams.from_keywords(
        {**SETTINGS, "fnames": str(tmp_path / "movie.npy"), "only_init_patch": False}
    )
    params.change_params({"quality": {"use_cnn": False}, "motion": {"max_shifts": (2, 2)}})
    found = CNMF(1, params=params).fit_file(motion_correct=motion_correct, include_eval=True)
    e = found.estimates
    assert e.Cn.shape == scene.dims
    assert e.F_dff.shape == e.C.shape
    assert len(e.idx_components) + len(e.idx_components_bad) == e.A.shape[1]
    assert np.shape(e.shifts) == ((300, 2) if motion_correct else (0,))
    names = sorted(path.name for path in tmp_path.glob("movie_memmap_*"))
    assert [name.partition("frames_300")[2] for name in names] == [".hdf5", ".mmap", "_init.hdf5"]
    again = CNMF(1, params=CNMFParams.from_keywords({**SETTINGS, "fnames": found.mmap_file})).fit_file()
    assert again.mmap_file == found.mmap_file


def test_fit_file_needs_files():
    with pytest.raises(ParameterError, match="fnames"):
        CNMF(1).fit_file()


def test_as_text_and_by_name(fitted):
    assert "4 components" in repr(fitted)
    assert fitted["estimates"] is fitted.estimates
