"""Every key of the parameter table: it changes a fit, a test elsewhere shows what it does, or nothing reads it yet.

A fit is changed key by key, away from the setting in which the key counts. What is accepted for old scripts says so in
its meaning and changes nothing.
"""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import issparse

from gpucalcium.cnmf._fit_file import MOTION_OPTIONS
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.params_table import TABLE
from gpucalcium.deconvolution import constrained_foopsi
from gpucalcium.errors import NotSupportedError
from tests.cnmf.scenes import gaussian_cells

RECORD = "kept with the results"  # what is no setting
TESTS = Path(__file__).parents[1]
START = {
    "init": {"K": 4, "gSig": [2, 2], "ssub": 1, "tsub": 1, "nb": 1},
    "patch": {"only_init": False},
    "preprocess": {"p": 1},
    "temporal": {"p": 1},
}
GRAPH = {"method_init": "graph_nmf", "K": 3}
SPARSE = {"method_init": "sparse_nmf", "K": 3, "alpha_snmf": 1.0}
CLOSED = {"expandCore": np.ones((7, 7)), "medw": (1, 1), "thr_method": "max", "maxthr": 0.06}

CHANGES = {
    "init": {
        "K": (2, {}),
        "SC_kernel": ("cos", GRAPH),
        "SC_sigma": (0.001, GRAPH),
        "SC_thr": (0.9, GRAPH),
        "SC_normalize": (False, GRAPH),
        "SC_use_NN": (True, GRAPH),
        "SC_nnn": (3, {**GRAPH, "SC_use_NN": True}),
        "alpha_snmf": (0.2, SPARSE),
        "candidates": (1.0, {"K": 2}),
        "gSig": ([3, 2], {}),
        "gSiz": ((9, 9), {}),
        "greedyroi_nmf_init_method": ("random", {"nb": 2}),
        "greedyroi_nmf_max_iter": (1, {"nb": 2}),
        "kernel": (np.ones((3, 3)), {"maxIter": 0}),
        "lambda_gnmf": (50.0, GRAPH),
        "snmf_l1_ratio": (0.0, SPARSE),
        "maxIter": (1, {}),
        "max_iter_snmf": (2, SPARSE),
        "method_init": ("sparse_nmf", {}),
        "nIter": (1, {"maxIter": 0}),
        "nb": (2, {}),
        "normalize_init": (False, {}),
        "options_local_NMF": ({"maxIter": 1}, {"method_init": "local_nmf", "options_local_NMF": {}}),
        "perc_baseline_snmf": (50, SPARSE),
        "rolling_sum": (False, {"K": 1, "candidates": 1.0}),
        "seed_method": (np.array([[9, 9], [2, 20]]), {"K": 2}),
        "sigma_smooth_snmf": ((2.0, 1.0, 1.0), SPARSE),
        "ssub": (2, {}),
        "tsub": (2, {}),
    },
    "merging": {
        "do_merge": (False, {"merge_thr": -1.0}),
        "merge_thr": (0.999, {"merge_thr": -1.0}),
        "max_merge_area": (3, {"merge_thr": -1.0}),
    },
    "patch": {"only_init": (True, {}), "skip_refinement": (True, {})},
    "preprocess": {
        "compute_g": (True, {}),
        "include_noise": (True, {"compute_g": True}),
        "lags": (9, {"compute_g": True}),
        "pixels": ([1, 2], {"compute_g": True}),
        "max_num_samples_fft": (30, {}),
        "noise_method": ("median", {}),
        "noise_range": ([0.1, 0.3], {}),
        "p": (0, {}),
        "sn": (np.full(480, 3.0), {}),
    },
    "spatial": {
        "dist": (1, {"method_exp": "ellipse", "thr_method": "max", "maxthr": 0.0}),
        "expandCore": (np.ones((7, 7)), {}),
        "maxthr": (0.5, {"thr_method": "max"}),
        "medw": ((1, 1), {}),
        "method_exp": ("ellipse", {}),
        "method_ls": ("nnls_L0", {}),
        "noise_thr": (5.0, {}),
        "normalize_yyt_one": (False, {}),
        "nrgthr": (0.5, {}),
        "se": (np.ones((7, 7)), CLOSED),
        "ss": (np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]), CLOSED),
        "thr_method": ("max", {}),
        "update_background_components": (False, {}),
    },
    "temporal": {
        "ITER": (1, {}),
        "bas_nonneg": (False, {}),
        "fudge_factor": (0.8, {}),
        "lags": (12, {}),
        "optimize_g": (2, {}),
        "method_deconvolution": ("cvxpy", {}),
        "noise_method": ("median", {}),
        "noise_range": ([0.1, 0.4], {}),
        "s_min": (0.5, {}),
    },
}
"""By group: the key's other value, and what is set besides in its group on both sides."""

ELSEWHERE = {
    "cnmf/test_params.py::test_files_give_dims_and_splits": ["data.fnames", "data.dims"],
    "cnmf/test_params.py::test_derived_values_follow_later_changes": ["data.fr", "data.decay_time"],
    "cnmf/test_params.py::test_background_number_couples_groups": ["spatial.nb", "temporal.nb"],
    "cnmf/test_cnmf.py::test_fit_file": ["data.var_name_hdf5"],
    "cnmf/test_cnmf.py::test_missing_values_are_filled": ["preprocess.check_nan"],
    "cnmf/test_cnmf.py::test_steps_one_by_one_are_the_fit": ["temporal.p"],
    "cnmf/test_every_parameter.py::test_rolling_mean": ["init.rolling_length"],
    "cnmf/test_every_parameter.py::test_update_spatial": ["spatial.extract_cc"],
    "cnmf/test_corr_pnr.py::test_every_parameter_changes_the_result": [
        f"init.{key}" for key in ("center_psf", "min_corr", "min_pnr")
    ],
    "cnmf/test_one_photon.py::test_every_parameter_of_the_ring_changes_the_result": [
        f"init.{key}" for key in ("ring_size_factor", "ssub_B", "init_iter")
    ],
    "cnmf/test_patches.py::test_every_parameter_changes_the_result": [
        f"patch.{key}"
        for key in "rf stride border_pix nb_patch low_rank_background del_duplicates p_ssub p_tsub p_patch".split()
    ],
    "cnmf/test_patches.py::test_files_give_what_arrays_give": ["patch.in_memory"],
    "cnmf/test_patches.py::test_very_bad_components_go": ["patch.remove_very_bad_comps"],
    "cnmf/test_quality.py::test_every_decision": [
        f"quality.{key}"
        for key in "SNR_lowest cnn_lowest min_SNR min_cnn_thr rval_lowest rval_thr use_ecc max_ecc".split()
    ],
    "cnmf/test_quality.py::test_contrast_sees_the_cell_where_the_resting_image_hides_it": [
        "quality.rval_contrast"
    ],
    "cnmf/test_quality.py::test_classifier_without_weights_says_what_to_do": [
        "quality.use_cnn",
        "quality.gSig_range",
    ],
    "registration/test_parameters.py::test_parameter_changes_the_result": [
        f"motion.{key}"
        for key in "border_nan gSig_filt max_deviation_rigid max_shifts min_mov niter_rig nonneg_movie "
        "num_frames_split num_splits_to_process_els num_splits_to_process_rig overlaps pw_rigid shifts_interpolate "
        "shifts_opencv splits_els splits_rig strides upsample_factor_grid indices".split()
    ],
    "cnmf/test_params.py::test_volumes_need_three_entries": ["motion.is3D"],
    "deconvolution/test_convex.py::test_solvers_are_tried_in_turn": ["temporal.solvers"],
}
"""Where keys are shown to count that need another movie, patches, or a step that a fit does not have."""

NOT_READ_YET = ("online", "ring_CNN")
"""Groups of methods that the library does not have."""


@cache
def scene():
    """Two cells overlap, the third stands alone."""
    return gaussian_cells((20, 24), T=120, centers=[(5, 6), (9, 9), (13, 19)], sigma=2.2)


def fitted(group, changes):
    params = CNMFParams(params_dict=START).change_params({group: changes})
    estimates = CNMF(1, params=params).fit(scene().Y).estimates
    results = (getattr(estimates, name) for name in "A C S b f".split())
    return [np.asarray(x.toarray() if issparse(x) else x, float) for x in results if x is not None]


@pytest.mark.parametrize(("group", "key"), [(group, key) for group, rows in CHANGES.items() for key in rows])
def test_key_changes_the_fit_or_is_refused_by_name(group, key):
    value, besides = CHANGES[group][key]
    if key == "method_deconvolution":
        pytest.importorskip("cvxpy")
    try:
        one, other = fitted(group, besides), fitted(group, {**besides, key: value})
    except NotSupportedError as err:
        named = {key, *besides}
        assert any(name in str(err) for name in named)
        return
    assert any(a.shape != b.shape or not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_no_key_is_forgotten():
    shown = {f"{group}.{key}" for group, rows in CHANGES.items() for key in rows}
    shown |= {"temporal.verbosity"}  # the test of its name below
    shown |= {name for names in ELSEWHERE.values() for name in names}
    quiet = {
        f"{group}.{key}"
        for group, rows in TABLE.items()
        for key, row in rows.items()
        if group in NOT_READ_YET
        or row.meaning.startswith("accepted for old scripts")
        or RECORD in row.meaning
    }
    known = {f"{group}.{key}" for group, rows in TABLE.items() for key in rows}
    assert shown | quiet == known
    assert not shown & quiet


def test_registration_of_files_takes_every_key():
    assert set(MOTION_OPTIONS) | {"use_cuda"} == set(TABLE["motion"])


def test_verbosity_shows_what_the_solver_does(capfd):
    pytest.importorskip("cvxpy")
    y = scene().C[0] + 0.1 * np.random.default_rng(0).standard_normal(120)
    said = []
    for verbosity in (False, True):
        constrained_foopsi(y, p=1, method_deconvolution="cvxpy", solvers=["CLARABEL"], verbosity=verbosity)
        said.append(capfd.readouterr().out)
    assert not said[0]
    assert said[1]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_the_tests_elsewhere_are_there(place):
    file, name = place.split("::")
    assert f"def {name}(" in (TESTS / file).read_text()


@pytest.mark.parametrize(
    ("group", "key"),
    [
        (g, k)
        for g, rows in TABLE.items()
        for k, row in rows.items()
        if row.meaning.startswith("accepted for old")
    ],
)
def test_what_is_accepted_for_old_scripts_is_taken_as_it_is(group, key):
    value = {"merge_parallel": True, "use_cuda": True, "memory_efficient": True}.get(key, 7)
    assert CNMFParams(params_dict={group: {key: value}}).get(group, key) == value


@pytest.mark.parametrize("module", ["gpucalcium.online", "gpucalcium.ring_cnn"])
def test_methods_that_would_read_the_other_groups_are_not_there(module):
    """When they come, their keys belong in the table above."""
    assert importlib.util.find_spec(module) is None
