"""Estimates: scaling, selecting, revising, judging, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, sparse

from gpucalcium.cnmf import selection
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.errors import ArrayShapeError, MissingWeightsError, NotSupportedError, ParameterError

DIMS = (64, 60)
FIELDS = ("A", "b", "C", "f", "S", "YrA", "bl", "c1", "g", "neurons_sn", "lam", "W", "b0")


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("cnmf")


@pytest.fixture(scope="module")
def movies(reference):
    return [scene["Y"] for scene in reference.inputs("cnmf")]


@pytest.fixture
def params():
    values = {"fr": 20, "decay_time": 0.6, "K": 16, "gSig": [4, 4], "nb": 2, "p": 1, "use_cnn": False}
    return CNMFParams.preset("caiman-1.12", values)


def load(stored, tag="refit_p1", dims=DIMS):
    """The stored estimates of one run of the reference."""
    est = Estimates(dims=dims)
    for name in FIELDS:
        if f"{tag}_{name}" in stored:
            value = stored[f"{tag}_{name}"]
            setattr(est, name, value.ravel() if name in ("bl", "c1", "neurons_sn", "lam") else value)
    return est


def scene(K=5, T=40, dims=(6, 7), seed=0):
    """Random estimates with every per-component attribute set."""
    rng = np.random.default_rng(seed)
    d = int(np.prod(dims))
    est = Estimates(
        A=sparse.random(d, K, 0.3, format="csc", dtype=np.float32, rng=rng),
        C=rng.random((K, T), dtype=np.float32),
        b=rng.random((d, 2), dtype=np.float32),
        f=rng.random((2, T), dtype=np.float32),
        R=rng.random((K, T), dtype=np.float32),
        dims=dims,
    )
    est.A_thr = est.A.copy()
    for name in ("S", "YrA", "F_dff", "F_dff_dec", "S_dff", "noisyC"):
        setattr(est, name, rng.random((K, T), dtype=np.float32))
    for name in ("bl", "c1", "neurons_sn", "lam", "SNR_comp", "r_values", "r_contrast", "ecc"):
        setattr(est, name, rng.random(K))
    est.g, est.center, est.cnn_preds = rng.random((K, 2)), rng.random((K, 2)), np.zeros(0)
    est.coordinates = [{"neuron_id": k + 1} for k in range(K)]
    est.accepted_list, est.rejected_list = np.array([0, K - 1]), np.array([1])
    est.idx_components = np.array([1, 2])
    est.idx_components_bad = np.setdiff1d(np.arange(K), [1, 2])
    return est


def rows(est, name):
    value = getattr(est, name)
    return value.toarray().T if sparse.issparse(value) else value


# --- scaling and selecting


@pytest.mark.parametrize("sparse_b", [False, True])
def test_normalising_keeps_the_model_and_gives_unit_columns(sparse_b):
    est = scene()
    est.A = sparse.csc_matrix(est.A @ sparse.diags([1.0, 1, 0, 1, 1]), dtype=np.float32)
    if sparse_b:
        est.b = sparse.csc_matrix(est.b)
    before = [
        est.A @ est.C,
        est.A @ est.S,
        est.A @ est.YrA,
        est.b @ est.f,
        est.A @ est.bl,
        est.A @ est.neurons_sn,
    ]
    g = est.g.copy()
    assert est.normalize_components() is est
    after = [
        est.A @ est.C,
        est.A @ est.S,
        est.A @ est.YrA,
        est.b @ est.f,
        est.A @ est.bl,
        est.A @ est.neurons_sn,
    ]
    for one, two in zip(before, after, strict=True):
        assert_allclose(two, one, rtol=1e-5, atol=1e-6)
    assert_allclose(np.delete(selection.column_norms(est.A), 2), 1, rtol=1e-6)
    assert_allclose(selection.column_norms(est.b), 1, rtol=1e-6)
    assert_array_equal(est.g, g)
    assert est.A.dtype == est.C.dtype == np.float32


@given(st.permutations(range(5)), st.integers(0, 5))
def test_selecting_and_restoring_is_the_identity_up_to_order(order, count):
    est, whole = scene(), scene()
    chosen = list(order)[:count]
    est.select_components(chosen)
    assert est.nr == est.A.shape[1] == count
    assert est.idx_components is est.idx_components_bad is None
    for name in (*selection.ROW_FIELDS, *selection.COLUMN_FIELDS):
        if name != "cnn_preds":
            assert_array_equal(rows(est, name), rows(whole, name)[chosen])
    if count < 5:
        assert est.discarded_components.A.shape[1] == 5 - count
    est.restore_discarded_components()
    now = [*chosen, *sorted(set(range(5)) - set(chosen))]
    for name in (*selection.ROW_FIELDS, *selection.COLUMN_FIELDS):
        if name != "cnn_preds":
            assert_array_equal(rows(est, name), rows(whole, name)[now])
    assert est.discarded_components is None
    assert sorted(now[k] for k in est.accepted_list) == [0, 4]
    assert [now[k] for k in est.rejected_list] == [1]
    if count:
        assert [c["neuron_id"] - 1 for c in est.coordinates] == now


def test_selections_add_up():
    est = scene()
    est.select_components([0, 1, 2, 3]).select_components([1, 3])
    assert est.discarded_components.A.shape[1] == 3
    est.restore_discarded_components()
    assert_array_equal(est.C, scene().C[[1, 3, 4, 0, 2]])
    assert est.restore_discarded_components().A.shape[1] == 5  # nothing is set aside any more


def test_selecting_by_object_by_mask_and_not_at_all():
    est = scene()
    assert_array_equal(est.select_components(use_object=True).C, scene().C[[1, 2]])
    mask = np.array([True, False, False, True, False])
    assert_array_equal(scene().select_components(mask).C, scene().C[[0, 3]])
    assert scene().select_components().A.shape[1] == 5
    assert scene().select_components([0], save_discarded_components=False).discarded_components is None


@pytest.mark.parametrize(
    ("chosen", "text"),
    [([5], "component 5 does not exist: there are 5"), ([1, 1], "twice"), (np.ones(4, bool), "mask")],
)
def test_impossible_selections_change_nothing(chosen, text):
    est = scene()
    with pytest.raises(ParameterError, match=text):
        est.select_components(chosen)
    assert_array_equal(est.C, scene().C)
    assert est.idx_components is not None


def test_values_computed_after_selecting_are_unknown_for_restored_components():
    est = scene()
    est.ecc = None
    est.select_components([0, 1])
    est.ecc = np.array([1.0, 2.0])
    est.restore_discarded_components()
    assert_array_equal(est.ecc, [1, 2, np.nan, np.nan, np.nan])


# --- background and residuals


def test_residuals_are_those_of_the_reference(reference, shared, movies):
    from gpucalcium.cnmf.storage import read

    est = read(shared / "data/caiman_reference/cnmf_saved.hdf5")[2]
    expected = reference.load("cnmf")["residual_R"]
    est.compute_residuals(movies[0])
    assert_allclose(est.R, expected, atol=1e-4 * np.abs(expected).max())


def test_residuals_equal_the_formula_for_every_way_to_give_a_movie(wing):
    est = scene()
    rng = np.random.default_rng(1)
    Y = rng.random((40, 6, 7), dtype=np.float32)
    Yr = Y.reshape(40, -1, order="F").T
    A = est.A.toarray().astype(float)
    expected = A.T @ (Yr - A @ est.C - est.b @ est.f) / (A**2).sum(0)[:, None]
    assert_allclose(est.compute_residuals(Yr).R, expected, rtol=1e-4, atol=1e-5)
    assert_allclose(est.compute_residuals(Y).R, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArrayShapeError):
        est.compute_residuals(Y.transpose(0, 2, 1))
    with pytest.raises(ArrayShapeError):
        est.compute_residuals(Yr[1:])


def test_ring_background_is_that_of_the_reference(stored, movies):
    est = load(stored, "onep_patch")
    frames = movies[1]
    background = est.compute_background(frames)
    expected = stored["onep_patch_background_frames"]
    assert_allclose(background[:, [0, 200]], expected, atol=1e-3)
    A, Yr = est.A.toarray(), frames.reshape(len(frames), -1, order="F").T
    residual = A.T @ (Yr - A @ est.C - background) / (A**2).sum(0)[:, None]
    assert_allclose(est.compute_residuals(frames).R, residual, atol=1e-2)  # of values up to 340


def test_low_rank_background_is_that_of_the_reference(stored):
    background = load(stored).compute_background(None)
    assert_allclose(background.mean(1), stored["background_mean"], rtol=1e-5)
    with pytest.raises(ParameterError, match="no background"):
        Estimates(A=sparse.eye(4)).compute_background(np.zeros((4, 3)))


# --- quality


def test_evaluation_and_filtering_are_those_of_the_reference(stored, movies, params):
    est = load(stored).evaluate_components(movies[0], params)
    assert_allclose(est.r_values, stored["evaluate_r_values"], atol=1e-6)
    assert_array_equal(est.idx_components, stored["evaluate_idx_components"])
    assert len(est.cnn_preds) == 0
    est.filter_components(None, params, {"min_SNR": 3, "rval_thr": 0.9})  # the movie is not needed again
    assert_array_equal(est.idx_components, stored["filter_components_idx"])
    assert params.quality["min_SNR"] == 3
    strict = {"min_SNR": 20, "rval_thr": 1.1}
    est.filter_components(None, params, strict)
    assert_array_equal(est.idx_components, np.flatnonzero(est.SNR_comp > 20))
    assert_array_equal(np.union1d(est.idx_components, est.idx_components_bad), np.arange(13))


def test_filtering_measures_first_if_nothing_was_measured(stored, movies, params):
    est = load(stored).filter_components(movies[0], params, {"use_ecc": True, "max_ecc": 1.3})
    assert_array_equal(est.idx_components, np.flatnonzero(stored["eccentricity"] < 1.3))


def test_filtering_among_lists(params):
    def filtered(mode):
        est = scene()
        est.SNR_comp, est.r_values = np.array([9.0, 9, 9, 0, 9]), np.ones(5)
        return est.filter_components(None, params, select_mode=mode).idx_components.tolist()

    assert filtered("All") == [0, 1, 2, 4]
    assert filtered("Accepted") == [0, 4]
    assert filtered("Rejected") == [1]
    assert filtered("Unassigned") == [2]
    with pytest.raises(ParameterError, match="must be one of"):
        filtered("Some")
    est = scene()
    est.accepted_list = None
    with pytest.raises(ParameterError, match=r"needs estimates\.accepted_list"):
        est.filter_components(None, params, {"min_SNR": 7}, select_mode="Accepted")
    assert params.quality["min_SNR"] == 2.5  # nothing changed


def test_the_classifier_is_missing_and_says_so(params):
    params.change_params({"use_cnn": True})
    est = scene()
    for call in (est.evaluate_components, est.filter_components):
        with pytest.raises(MissingWeightsError, match="use_cnn=False"):
            call(np.zeros((40, 6, 7)), params)
    assert_array_equal(est.SNR_comp, scene().SNR_comp)


def test_nothing_to_evaluate(params, caplog):
    est = scene()
    est.select_components([])
    est.evaluate_components(np.zeros((40, 6, 7), np.float32), params)
    assert [len(v) for v in (est.idx_components, est.idx_components_bad, est.SNR_comp, est.r_values)] == [
        0
    ] * 4
    assert "no components" in caplog.text


# --- shapes


def test_thresholding_and_sizes_are_those_of_the_reference(stored):
    est = load(stored).threshold_spatial_components()
    assert abs(est.A_thr - stored["threshold_spatial_components"]).max() < 1e-6
    again = est.A_thr.copy()
    assert (est.threshold_spatial_components().A_thr != again).nnz == 0
    assert_array_equal(est.remove_small_large_neurons(60, 110), stored["remove_small_large_neurons_60_110"])
    assert_array_equal(est.idx_components, stored["remove_small_large_neurons_60_110"])


def test_a_component_that_is_there_twice_is_kept_once(stored):
    est = load(stored)
    est.select_components([*range(13)])
    est.A = sparse.hstack([est.A, est.A[:, :1]], format="csc")
    kept = est.threshold_spatial_components().remove_duplicates()
    assert repr(kept) == str(stored["remove_duplicates"])
    better_first = np.arange(14)[::-1]
    est.idx_components = None
    assert 0 in est.remove_duplicates(predictions=better_first)
    est.idx_components = None
    assert 0 in est.remove_duplicates(r_values=better_first / 14)


def squares(*corners, side=4, dims=(12, 12)):
    """Square footprints at (row, column) corners, of the given sides."""
    A = np.zeros((len(corners), *dims))
    for image, (r, c, *size) in zip(A, corners, strict=True):
        s = size[0] if size else side
        image[r : r + s, c : c + s] = 1
    return sparse.csc_matrix(A.reshape(len(corners), -1, order="F").T)


def test_sizes_are_strict_bounds_and_narrow_what_was_accepted():
    est = Estimates(A=squares((0, 0, 1), (2, 2, 2), (5, 5, 3)), C=np.ones((3, 4)), dims=(12, 12))
    est.A_thr = est.A
    assert est.remove_small_large_neurons(1, 9).tolist() == [1]
    est.idx_components = np.array([0, 2])
    assert est.remove_small_large_neurons(0, 9).tolist() == [0]
    assert est.idx_components_bad.tolist() == [1, 2]
    assert est.remove_small_large_neurons(0, 99, select_comp=True).tolist() == [0]
    assert est.A.shape[1] == 1
    assert est.discarded_components.A.shape[1] == 2


def test_duplicates_need_enough_overlap():
    #   a small square inside a large one; two that share a quarter; one alone
    est = Estimates(A=squares((0, 0, 5), (1, 1, 2), (6, 6), (8, 8), (0, 8)), dims=(12, 12))
    est.A_thr = est.A
    assert est.remove_duplicates().tolist() == [0, 2, 3, 4]
    est.idx_components = None
    assert est.remove_duplicates(r_values=np.array([0.1, 0.9, 0, 0, 0])).tolist() == [1, 2, 3, 4]
    est.idx_components = None
    assert est.remove_duplicates(thresh_subset=0.25).tolist() == [0, 3, 4]
    with pytest.raises(NotSupportedError, match="field_figure"):
        est.remove_duplicates(plot_duplicates=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda est: est.remove_duplicates(),
        lambda est: est.remove_small_large_neurons(1, 2),
        lambda est: est.masks_2_neurofinder("name"),
    ],
)
def test_masks_have_to_be_made_first(call):
    with pytest.raises(ParameterError, match=r"call threshold_spatial_components\(\) first"):
        call(Estimates(A=squares((0, 0)), dims=(12, 12)))


def test_neurofinder_regions():
    est = Estimates(A=squares((1, 2, 2), (0, 0, 1)), dims=(12, 12))
    est.A_thr = est.A
    assert est.masks_2_neurofinder("00.00") == {
        "dataset": "00.00",
        "regions": [{"coordinates": [[1, 2], [2, 2], [1, 3], [2, 3]]}, {"coordinates": [[0, 0]]}],
    }


# --- revising


def test_deconvolving_again_is_that_of_the_reference(reference, shared, params):
    from gpucalcium.cnmf.storage import read

    expected = read(shared / "data/caiman_reference/cnmf_saved.hdf5")[2]
    est = read(shared / "data/caiman_reference/cnmf_saved.hdf5")[2]
    noisy = est.C + est.YrA
    est.C, est.YrA, est.S_dff, est.F_dff_dec = noisy, 0 * noisy, None, None
    est.deconvolve(params, dff_flag=True)
    scale = np.abs(expected.C).max()
    assert_allclose(est.C, expected.C, atol=0.01 * scale)  # estimated decay and noise level: 1 %
    assert_allclose(est.S, expected.S, atol=0.01 * scale)
    assert_allclose(est.C + est.YrA, noisy, atol=1e-6 * scale)
    assert_allclose(est.g, expected.g, atol=1e-5)
    assert_allclose(est.F_dff_dec, expected.F_dff_dec, atol=1e-4)
    assert_allclose(est.S_dff, expected.S_dff, atol=1e-4)


def test_relative_fluorescence_is_needed_to_deconvolve_it(params):
    est = scene()
    est.F_dff = None
    with pytest.raises(ParameterError, match=r"call detrend_df_f\(\) first"):
        est.deconvolve(params, dff_flag=True)
    assert_array_equal(est.C, scene().C)


def test_manual_merging_is_that_of_the_reference(stored, movies, params):
    est = load(stored).evaluate_components(movies[0], params)
    snr = est.SNR_comp
    est.idx_components = np.array([0, 4, 12])
    est.manual_merge([[0, 3], [1, 2, 5]], params)
    assert abs(est.A - stored["manual_merge_A"]).max() < 1e-6
    assert_array_equal(est.SNR_comp[:8], snr[[4, 6, 7, 8, 9, 10, 11, 12]])
    assert np.isnan(est.SNR_comp[8:]).all()
    assert est.idx_components.tolist() == [
        0,
        7,
        8,
        9,
    ]  # 4 and 12 under their new numbers, and both merged ones
    assert est.nr == len(est.C) == len(est.bl) == 10
    sums = [np.corrcoef(est.C[k], stored["manual_merge_C"][k])[0, 1] for k in range(10)]
    assert min(sums) > 0.95


@pytest.mark.parametrize(
    ("groups", "text"),
    [([[0, 1], [1, 2]], "twice"), ([[0, 9]], "component 9"), ([[3]], r"\[3\] is not a group")],
)
def test_impossible_merges_change_nothing(params, groups, text):
    est = scene()
    with pytest.raises(ParameterError, match=text):
        est.manual_merge(groups, params)
    assert_array_equal(est.C, scene().C)


def split_cell():
    """Three cells; the first is in two pieces with nearly the same trace."""
    rng = np.random.default_rng(5)
    images = np.zeros((4, 20, 20))
    blob = ndimage.gaussian_filter(np.pad([[1.0]], 4), 1.5)
    images[0, 2:11, 2:11] = blob * (np.arange(9)[:, None] < 5)
    images[1, 2:11, 2:11] = blob * (np.arange(9)[:, None] >= 4)
    images[2, 10:19, 10:19] = blob
    images[3, 8:17, 2:11] = blob
    C = np.zeros((4, 300))
    spikes = rng.random((4, 300)) < 0.03
    spikes[1] = spikes[0]
    for t in range(1, 300):
        C[:, t] = 0.9 * C[:, t - 1] + spikes[:, t]
    est = Estimates(
        A=sparse.csc_matrix(images.reshape(4, -1, order="F").T), C=C.astype(np.float32), dims=(20, 20)
    )
    est.S, est.YrA = spikes.astype(np.float32), rng.normal(0, 0.01, C.shape).astype(np.float32)
    return est


def test_a_cell_in_two_pieces_becomes_one(params):
    est = split_cell()
    est.merge_components(None, params)
    assert est.A.shape[1] == est.nr == 3
    assert np.corrcoef(est.C[2] + est.YrA[2], split_cell().C[0])[0, 1] > 0.99
    assert est.merged_ROIs[0].tolist() == [0, 1]
    est.merge_components(None, params)
    assert est.A.shape[1] == 3
    for options in ({"max_merge_area": 20}, {"mx": 0}):
        assert split_cell().merge_components(None, params, **options).A.shape[1] == 4
    params.change_params({"max_merge_area": 20})
    assert split_cell().merge_components(None, params).A.shape[1] == 4


def test_residual_traces_are_needed(params):
    est = scene()
    est.YrA = est.R = None
    with pytest.raises(ParameterError, match=r"call compute_residuals\(movie\) first"):
        est.evaluate_components(np.zeros((40, 6, 7)), params)


@pytest.mark.parametrize(
    "call",
    [
        lambda est, params: est.evaluate_components(np.zeros((4, 3, 3)), params),
        lambda est, params: est.filter_components(np.zeros((4, 3, 3)), params),
        lambda est, params: est.deconvolve(params),
        lambda est, params: est.detrend_df_f(),
        lambda est, params: est.select_components([0]),
        lambda est, params: est.manual_merge([[0, 1]], params),
        lambda est, params: est.merge_components(None, params),
        lambda est, params: est.compute_residuals(np.zeros((4, 3, 3))),
        lambda est, params: est.threshold_spatial_components(),
        lambda est, params: est.plot_contours(),
    ],
)
def test_without_components_every_method_says_so(call, params):
    with pytest.raises(ParameterError, match=r"there are no (components|traces)"):
        call(Estimates(dims=(3, 3)), params)


def test_relative_fluorescence_of_a_known_step():
    """F0 of 50 with a transient of 25: dF/F 0.5, whatever the scale of the footprints."""
    T = 200
    est = Estimates(
        A=sparse.csc_matrix(np.full((4, 1), 3.0)), b=np.ones((4, 1)), f=np.full((1, T), 30.0), dims=(2, 2)
    )
    est.C = np.full((1, T), 20.0, np.float32)
    est.C[0, 100:120] += 25 * 1.0
    est.YrA = np.zeros((1, T), np.float32)
    est.detrend_df_f(quantileMin=8, frames_window=500, flag_auto=False)
    # in units of the unit footprint: C scales by |a| = 6, B = a'b f = 2 * 30
    assert_allclose(est.F_dff[0, :100], 0, atol=1e-5)
    assert_allclose(est.F_dff[0, 100:120], 25 * 6 / (20 * 6 + 60), rtol=0.02)
    before = est.F_dff.copy()
    assert_allclose(est.detrend_df_f(use_residuals=False, flag_auto=False).F_dff, before)


def test_contours_are_drawn_without_a_display():
    pytest.importorskip("matplotlib")
    est = Estimates(A=squares((1, 2), (6, 6)), dims=(12, 12))
    figure = est.plot_contours(idx=[0], display_numbers=False, thr=0.5, cmap="gray")
    assert figure.axes
    assert est.plot_contours(img=np.random.default_rng(0).random((12, 12))).axes


def test_every_documented_attribute_is_there_and_nothing_is_known_yet():
    names = (
        "A b C f R W b0 YrA S sn g bl c1 neurons_sn lam center merged_ROIs coordinates F_dff idx_components "
        "idx_components_bad SNR_comp r_values r_contrast cnn_preds ecc dims "
        "A_thr discarded_components noisyC C_on Ab Cf "
        "OASISinstances CY CC Ab_dense Yr_buf mn vr ind_new rho_buf AtA AtY_buf sv groups nr Cn optional_outputs "
        "F_dff_dec S_dff accepted_list rejected_list"
    ).split()
    assert vars(Estimates()) == {**dict.fromkeys(names), "shifts": []}
    assert Estimates(dims=np.array([3, 4])).dims == (3, 4)


def test_repr_says_how_much_there_is():
    assert repr(Estimates()) == "<Estimates: no components>"
    assert repr(scene()) == "<Estimates: 5 components, 40 frames, 2 accepted>"
