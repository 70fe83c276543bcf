"""The table of every CNMF parameter: group, key, default, meaning, and what it may be.

Everything that lists parameters (constructor, ``set``, JSON, HDF5, ``describe``, the docs page) reads this one
table. Defaults are the documented ones; a documented signature outranks documented prose, and keys that the
documentation does not mention have the default of CaImAn 1.12.1 (see ``PRESETS`` for where the two differ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Check:
    """What a parameter may be: in words, for the error, and as a test."""

    words: str
    passes: Callable[[Any], bool]


@dataclass(frozen=True)
class Parameter:
    """One row of the table."""

    group: str
    key: str
    default: Any
    meaning: str
    check: Check
    form: type | None = None
    """list, tuple or ndarray: what a sequence read back from a file becomes. Follows from a default of such type."""


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or (isinstance(value, Integral) and value in (0, 1))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, bytes, Path))


def integer(least: int | None = None) -> Check:
    """An integer (2.0 counts), at least `least`."""
    bound = "" if least is None else f" of {least} or more"

    def passes(value: Any) -> bool:
        return _is_real(value) and value == np.floor(value) and (least is None or value >= least)

    return Check(f"an integer{bound}", passes)


def optional(check: Check) -> Check:
    """None, or what `check` takes."""
    return Check(f"None or {check.words}", lambda value: value is None or check.passes(value))


def one_of(*names: str) -> Check:
    """One of the names, upper or lower case."""
    known = {name.lower() for name in names}
    return Check(
        "one of " + ", ".join(map(repr, names)),
        lambda value: isinstance(value, str) and value.lower() in known,
    )


def either(first: Check, second: Check) -> Check:
    """What one of two checks takes."""
    return Check(f"{first.words} or {second.words}", lambda v: first.passes(v) or second.passes(v))


def each(check: Check, lengths: Sequence[int]) -> Check:
    """A sequence of one of the `lengths`, each entry of which passes."""

    def passes(value: Any) -> bool:
        return _is_sequence(value) and len(value) in lengths and all(check.passes(v) for v in value)

    return Check(f"a sequence of {' or '.join(map(str, lengths))}, each {check.words}", passes)


def per_axis(check: Check) -> Check:
    """One value for all image axes, or one for each of two or three."""
    return either(check, each(check, (2, 3)))


ANY = Check("anything", lambda value: True)
FLAG = Check("True or False", _is_flag)
TEXT = Check("a text", lambda value: isinstance(value, str))
NUMBER = Check("a number", _is_real)
POSITIVE = Check("a number above 0", lambda value: _is_real(value) and value > 0)
NOT_NEGATIVE = Check("a number of 0 or more", lambda value: _is_real(value) and value >= 0)
FRACTION = Check("a number from 0 to 1", lambda value: _is_real(value) and 0 <= value <= 1)
FACTOR = Check("a number of 1 or more", lambda value: _is_real(value) and value >= 1)
PERCENTILE = Check("a number from 0 to 100", lambda value: _is_real(value) and 0 <= value <= 100)
ARRAY = Check("an array or a sequence", _is_sequence)
SEEDS = Check(
    "an array of positions, or {'semi': array}",
    lambda value: (
        (isinstance(value, dict) and set(value) in ({"semi"}, {"manual"}))
        or (_is_sequence(value) and not any(map(_is_name, value)))
    ),
)
CALLABLE = Check("a function", callable)
SLICE = Check("a slice", lambda value: isinstance(value, slice))
FILES = Check(
    "a file name or a sequence of them",
    lambda value: _is_name(value) or (_is_sequence(value) and all(map(_is_name, value))),
)
NOISE_METHOD = one_of("mean", "median", "logmexp")
NOISE_BAND = each(FRACTION, (2,))

DIAMOND = (np.abs(np.arange(-2, 3))[:, None] + np.abs(np.arange(-2, 3)) <= 2).astype(int)
"""Pixels at most two steps away (5 x 5): how far a footprint may grow in one update."""

# fmt: off
_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "data": [
        ("fnames", None, "movie files, in order of time", optional(FILES), list),
        ("dims", None, "image size (d1, d2[, d3]) in pixels; read from the files if None",
         optional(each(integer(1), (2, 3))), tuple),
        ("fr", 30, "imaging rate, frames per second", POSITIVE),
        ("decay_time", 0.4, "length of a typical transient, seconds", POSITIVE),
        ("dxy", (1, 1), "spatial resolution, pixels per micrometre; kept with the results", per_axis(POSITIVE)),
        ("var_name_hdf5", "mov", "data set to read from HDF5 files", TEXT),
        ("caiman_version", None, "version of the library that made this object; kept with the results", optional(TEXT)),
        ("last_commit", None, "the same version, under its older name; kept with the results", optional(TEXT)),
        ("mmap_F", None, "frame-major memory maps of registered movies; kept with the results", optional(FILES), list),
        ("mmap_C", None, "pixel-major memory map of registered movies; kept with the results", optional(FILES)),
    ],
    "init": [
        ("K", 30, "number of cells to look for (per patch if patch.rf is set)", optional(integer(0))),
        ("SC_kernel", "heat", "graph NMF: affinity", one_of("heat", "cos", "binary")),
        ("SC_sigma", 1, "graph NMF: variance of the heat kernel", POSITIVE),
        ("SC_thr", 0, "graph NMF: affinities below this are dropped", NUMBER),
        ("SC_normalize", True, "graph NMF: standardise pixels first", FLAG),
        ("SC_use_NN", False, "graph NMF: keep nearest neighbours only", FLAG),
        ("SC_nnn", 20, "graph NMF: number of nearest neighbours", integer(1)),
        ("alpha_snmf", 100, "sparse NMF: weight of the penalty", NOT_NEGATIVE),
        ("candidates", 2.0, "greedy_roi: components looked at for each of the K kept; patches, which share cells: 1",
         FACTOR),
        ("center_psf", False, "one-photon mode: centred filter for seeds", FLAG),
        ("gSig", [5, 5], "radius of a cell, pixels: half its width", optional(per_axis(NUMBER))),
        ("gSiz", None, "box around a seed, pixels; None: 2 gSig + 1", optional(per_axis(NUMBER)), tuple),
        ("greedyroi_nmf_init_method", "nndsvdar", "background NMF: start", TEXT),
        ("greedyroi_nmf_max_iter", 200, "background NMF: iterations", integer(1)),
        ("init_iter", 2, "corr_pnr: searches for seeds", integer(1)),
        ("kernel", None, "greedy_roi: template in place of a Gaussian", optional(ARRAY), np.ndarray),
        ("lambda_gnmf", 1, "graph NMF: weight of the graph", NOT_NEGATIVE),
        ("snmf_l1_ratio", None, "sparse NMF: None: L1 penalty in the movie's units; else the share of L1 in a "
         "penalty that grows with the movie", optional(FRACTION)),
        ("maxIter", 5, "HALS iterations after greedy_roi", integer(0)),
        ("max_iter_snmf", 500, "factorisations: iterations", integer(1)),
        ("method_init", "greedy_roi", "how cells are found",
         one_of("greedy_roi", "corr_pnr", "sparse_nmf", "graph_nmf", "compressed_nmf", "pca_ica", "local_nmf")),
        ("min_corr", 0.85, "corr_pnr: least local correlation of a seed", NUMBER),
        ("min_pnr", 20, "corr_pnr: least peak-to-noise ratio of a seed", NUMBER),
        ("nIter", 5, "greedy_roi: rank-1 refinements of a seed", integer(1)),
        ("nb", 1, "background components; 0: ring model, -1: exact background", integer()),
        ("normalize_init", True, "divide by the mean image while looking for cells", FLAG),
        ("options_local_NMF", None, "local NMF: a dict with gSiz and maxIter, may be empty", ANY),
        ("perc_baseline_snmf", 20, "factorisations: percentile taken as baseline", PERCENTILE),
        ("ring_size_factor", 1.5, "ring radius in units of gSiz", optional(POSITIVE)),
        ("rolling_length", 100, "greedy_roi: frames in the rolling mean", integer(1)),
        ("rolling_sum", True, "greedy_roi: rank seeds by rolling mean, not by total", FLAG),
        ("seed_method", "auto", "where seeds come from; an array of seeds, or {'semi': array}",
         either(one_of("auto", "manual", "semi"), SEEDS)),
        ("sigma_smooth_snmf", (0.5, 0.5, 0.5), "factorisations: smoothing s.d. in time and space, frames and pixels",
         each(NOT_NEGATIVE, (3, 4))),
        ("ssub", 2, "spatial down-sampling while looking for cells", POSITIVE),
        ("ssub_B", 2, "spatial down-sampling of the ring background", POSITIVE),
        ("tsub", 2, "temporal down-sampling while looking for cells", POSITIVE),
    ],
    "merging": [
        ("do_merge", True, "merge components of one cell", FLAG),
        ("merge_thr", 0.8, "least correlation of two traces to merge", NUMBER),
        ("merge_parallel", False, "accepted for old scripts; merging is always batched", FLAG),
        ("max_merge_area", None, "largest merged footprint, pixels", optional(POSITIVE)),
    ],
    "motion": [
        ("border_nan", "copy", "border of shifted frames: NaN, 0, 'copy' or 'min'",
         either(FLAG, one_of("copy", "min"))),
        ("gSig_filt", None, "one-photon: s.d. of the high-pass filter, pixels", optional(per_axis(NUMBER))),
        ("is3D", False, "volumes", FLAG),
        ("max_deviation_rigid", 3, "largest local deviation from the rigid shift, pixels", optional(NUMBER)),
        ("max_shifts", (6, 6), "largest rigid shift per axis, pixels", per_axis(NOT_NEGATIVE)),
        ("min_mov", None, "least value of the movie; None: measured", optional(NUMBER)),
        ("niter_rig", 1, "passes of rigid registration", integer(1)),
        ("nonneg_movie", True, "subtract the least value from what is saved", FLAG),
        ("num_frames_split", 80, "frames in a piece of the movie", integer(1)),
        ("num_splits_to_process_els", None, "pieces to register, piecewise-rigid; None: all", ANY),
        ("num_splits_to_process_rig", None, "pieces to register, rigid; None: all", ANY),
        ("overlaps", (32, 32), "overlap of patches per axis, pixels", per_axis(integer(0))),
        ("pw_rigid", False, "piecewise-rigid registration", FLAG),
        ("shifts_interpolate", False, "interpolate patch shifts over the image", FLAG),
        ("shifts_opencv", True, "apply shifts by bicubic interpolation, else by FFT", FLAG),
        ("splits_els", 14, "pieces of the movie, piecewise-rigid", integer(1)),
        ("splits_rig", 14, "pieces of the movie, rigid", integer(1)),
        ("strides", (96, 96), "distance between patches per axis, pixels", per_axis(integer(1))),
        ("upsample_factor_grid", 4, "up-sampling of the patch grid", integer(1)),
        ("use_cuda", False, "accepted for old scripts; the device is chosen by backend.use()", FLAG),
        ("indices", (slice(None), slice(None)), "part of the image to register", each(SLICE, (1, 2, 3))),
    ],
    "online": [
        ("N_samples_exceptionality", None, "frames in the SNR window; None: ceil(fr decay_time)",
         optional(integer(1))),
        ("batch_update_suff_stat", False, "update statistics in batches", FLAG),
        ("dist_shape_update", False, "spread footprint updates over frames", FLAG),
        ("ds_factor", 1, "spatial down-sampling of each frame", POSITIVE),
        ("epochs", 1, "passes over the data", integer(1)),
        ("expected_comps", 500, "components to hold memory for", integer(1)),
        ("full_XXt", False, "ring model: keep the full second-moment matrix", FLAG),
        ("init_batch", 200, "frames for the start", integer(1)),
        ("init_method", "bare", "how the start is made", one_of("bare", "cnmf", "seeded")),
        ("iters_shape", 5, "sweeps in a footprint update", integer(0)),
        ("max_comp_update_shape", np.inf, "most footprints updated at a time", POSITIVE),
        ("max_num_added", 5, "most components added in a frame", integer(0)),
        ("max_shifts_online", 10, "largest shift, pixels (before down-sampling)", NOT_NEGATIVE),
        ("min_SNR", 2.5, "least SNR of a new component", NUMBER),
        ("min_num_trial", 5, "candidates tried in a frame", integer(0)),
        ("minibatch_shape", 100, "frames in the buffer", integer(1)),
        ("minibatch_suff_stat", 5, "frames in a batch of statistics", integer(1)),
        ("motion_correct", True, "register frames", FLAG),
        ("movie_name_online", "online_movie.avi", "file of the results movie, beside the data", TEXT),
        ("normalize", False, "divide frames by the initial mean image", FLAG),
        ("n_refit", 0, "extra iterations of the traces", integer(0)),
        ("num_times_comp_updated", np.inf, "most updates of a footprint", POSITIVE),
        ("opencv_codec", "H264", "video codec of the results movie", TEXT),
        ("path_to_model", "cnn_model_online.h5", "weights of the online classifier", optional(TEXT)),
        ("ring_CNN", False, "subtract the background by a ring network", FLAG),
        ("rval_thr", 0.8, "least spatial correlation of a new component", NUMBER),
        ("save_online_movie", False, "save the results movie", FLAG),
        ("show_movie", False, "show the movie while processing", FLAG),
        ("simultaneously", False, "demix and deconvolve at once", FLAG),
        ("sniper_mode", False, "screen candidates by the classifier", FLAG),
        ("stop_detection", False, "stop adding components before the last epoch", FLAG),
        ("test_both", False, "screen by classifier and correlation", FLAG),
        ("thresh_CNN_noisy", 0.5, "least score of the online classifier", FRACTION),
        ("thresh_fitness_delta", -50, "fitness threshold of differences, log probability", NUMBER),
        ("thresh_fitness_raw", None, "fitness threshold, log probability; None: from min_SNR", optional(NUMBER)),
        ("thresh_overlap", 0.5, "overlap above which a candidate is known already", FRACTION),
        ("update_freq", 200, "frames within which each footprint is updated", integer(1)),
        ("update_num_comps", True, "look for new components", FLAG),
        ("use_corr_img", False, "look for candidates in the correlation image", FLAG),
        ("use_dense", True, "hold footprints dense", FLAG),
        ("use_peak_max", True, "find candidates as local maxima", FLAG),
        ("W_update_factor", 1, "ring model: growth of the update interval", NUMBER),
    ],
    "patch": [
        ("border_pix", 0, "pixels left out at each border", integer(0)),
        ("del_duplicates", False, "keep a cell only in the patch whose centre is nearest", FLAG),
        ("in_memory", True, "hold patches in memory", FLAG),
        ("low_rank_background", True, "global background of low rank; None: of the patches", optional(FLAG)),
        ("memory_fact", 1, "accepted for old scripts; memory has one budget", NOT_NEGATIVE),
        ("n_processes", 1, "accepted for old scripts; threads are set once for all", optional(integer(1))),
        ("nb_patch", 1, "background components of a patch", integer()),
        ("only_init", True, "initialise patches and refine the whole", FLAG),
        ("p_patch", 0, "order of the calcium model in patches", integer(0)),
        ("remove_very_bad_comps", False, "drop very bad components in patches", FLAG),
        ("rf", None, "half size of a patch, pixels; None: whole image", optional(per_axis(POSITIVE))),
        ("skip_refinement", False, "one round of updates only", FLAG),
        ("p_ssub", 2, "spatial down-sampling in patches", POSITIVE),
        ("stride", None, "overlap of patches, pixels; None: a fifth of rf", optional(per_axis(NOT_NEGATIVE))),
        ("p_tsub", 2, "temporal down-sampling in patches", POSITIVE),
    ],
    "preprocess": [
        ("check_nan", True, "interpolate over NaN", FLAG),
        ("compute_g", False, "one calcium model for all pixels", FLAG),
        ("include_noise", False, "use the noise level in that model", FLAG),
        ("lags", 5, "autocovariance lags", integer(1)),
        ("max_num_samples_fft", 3072, "samples in a spectrum", integer(3)),
        ("n_pixels_per_process", None, "accepted for old scripts; blocks follow the budget", optional(integer(1))),
        ("noise_method", "mean", "average over the noise band", NOISE_METHOD),
        ("noise_range", [0.25, 0.5], "noise band, cycles per frame", NOISE_BAND),
        ("p", 2, "order of the calcium model: 0, 1 or 2", integer(0)),
        ("pixels", None, "pixels used for the one calcium model", optional(ARRAY), np.ndarray),
        ("sn", None, "noise level of each pixel; None: measured", ANY, np.ndarray),
    ],
    "ring_CNN": [
        ("n_channels", 2, "ring kernels", integer(1)),
        ("use_bias", False, "bias in the convolution", FLAG),
        ("use_add", False, "additive layer", FLAG),
        ("pct", 0.01, "quantile of the loss", FRACTION),
        ("patience", 3, "epochs without progress before stopping", integer(0)),
        ("max_epochs", 100, "most epochs", integer(1)),
        ("width", 5, "width of the ring, pixels", integer(1)),
        ("loss_fn", "pct", "loss: quantile or mean square", one_of("pct", "mse")),
        ("lr", 1e-3, "learning rate", POSITIVE),
        ("lr_scheduler", None, "learning rate by epoch", optional(CALLABLE)),
        ("path_to_model", None, "saved weights", optional(TEXT)),
        ("remove_activity", False, "subtract the last frame's activity first", FLAG),
        ("reuse_model", False, "use saved weights, do not train", FLAG),
    ],
    "quality": [
        ("SNR_lowest", 0.5, "reject at or below this SNR", NUMBER),
        ("cnn_lowest", 0.1, "reject at or below this classifier score", NUMBER),
        ("gSig_range", None, "cell sizes tried by the classifier", optional(ARRAY), list),
        ("min_SNR", 2.5, "accept above this SNR", NUMBER),
        ("min_cnn_thr", 0.9, "accept from this classifier score on", NUMBER),
        ("rval_contrast", True, "spatial correlation also with what transients add to the mean image", FLAG),
        ("rval_lowest", -1, "reject at or below this spatial correlation", NUMBER),
        ("rval_thr", 0.8, "accept from this spatial correlation on", NUMBER),
        ("use_cnn", True, "use the classifier of footprints", FLAG),
        ("use_ecc", False, "reject elongated footprints", FLAG),
        ("max_ecc", 3, "largest ratio of a footprint's axes", POSITIVE),
    ],
    "spatial": [
        ("dist", 3, "growth of the ellipse", POSITIVE),
        ("expandCore", DIAMOND, "growth of a footprint by dilation", optional(ARRAY)),
        ("extract_cc", True, "keep the largest connected piece", FLAG),
        ("maxthr", 0.1, "threshold, fraction of the peak ('max')", FRACTION),
        ("medw", None, "median filter, pixels; None: 3 per axis", optional(each(integer(1), (2, 3))), tuple),
        ("method_exp", "dilate", "where a footprint may grow", one_of("dilate", "ellipse")),
        ("method_ls", "lasso_lars", "regression of a pixel on the traces", one_of("lasso_lars", "nnls_L0")),
        ("n_pixels_per_process", None, "accepted for old scripts; blocks follow the budget", optional(integer(1))),
        ("nb", 1, "background components (follows init.nb)", integer()),
        ("normalize_yyt_one", True, "unit traces while updating footprints", FLAG),
        ("noise_thr", 1.0, "weights below this many standard errors are left out of footprints", NOT_NEGATIVE),
        ("nrgthr", 0.9999, "threshold, fraction of the energy ('nrg')", FRACTION),
        ("num_blocks_per_run_spat", 20, "accepted for old scripts; blocks follow the budget", integer(1)),
        ("se", None, "closing element; None: ones, 3 per axis", optional(ARRAY), np.ndarray),
        ("ss", None, "neighbourhood of connected pixels; None: ones, 3 per axis", optional(ARRAY), np.ndarray),
        ("thr_method", "nrg", "threshold by energy or by peak", one_of("nrg", "max")),
        ("update_background_components", True, "update the background images", FLAG),
        ("block_size_spat", 5000, "accepted for old scripts; blocks follow the budget", integer(1)),
    ],
    "temporal": [
        ("ITER", 2, "sweeps over the traces", integer(0)),
        ("bas_nonneg", True, "baseline of 0 or more, else of the least value or more", FLAG),
        ("block_size_temp", 5000, "accepted for old scripts; blocks follow the budget", integer(1)),
        ("fudge_factor", 0.96, "correction of the decay's bias", POSITIVE),
        ("lags", 5, "autocovariance lags", integer(1)),
        ("optimize_g", False, "events used to refine the decay", either(FLAG, integer(0))),
        ("memory_efficient", False, "accepted for old scripts; memory has one budget", FLAG),
        ("method_deconvolution", "oasis", "solver", one_of("oasis", "cvx", "cvxpy")),
        ("nb", 1, "background components (follows init.nb)", integer()),
        ("noise_method", "mean", "average over the noise band", NOISE_METHOD),
        ("noise_range", [0.25, 0.5], "noise band, cycles per frame", NOISE_BAND),
        ("num_blocks_per_run_temp", 20, "accepted for old scripts; blocks follow the budget", integer(1)),
        ("p", 2, "order of the calcium model: 0, 1 or 2", integer(0)),
        ("s_min", None, "smallest spike; None: L1 penalty", optional(NUMBER)),
        ("solvers", ["ECOS", "SCS"], "solvers for cvxpy", ARRAY),
        ("verbosity", False, "report the solver's progress", FLAG),
    ],
}
# fmt: on


def _row(
    group: str, key: str, default: Any, meaning: str, check: Check, form: type | None = None
) -> Parameter:
    if form is None and isinstance(default, (list, tuple, np.ndarray)):
        form = type(default)
    return Parameter(group, key, default, meaning, check, form)


TABLE: dict[str, dict[str, Parameter]] = {
    group: {row[0]: _row(group, *row) for row in rows} for group, rows in _ROWS.items()
}
"""``TABLE[group][key]``, in the order in which groups and keys are listed everywhere."""

GROUP_ALIASES = {"merge": "merging"}
KEY_ALIASES = {"thr": "merge_thr"}

KEYWORDS = {"k": "K", "gnb": "nb", "merge_thresh": "merge_thr", "only_init_patch": "only_init"}
"""Constructor keywords that are not the name of their key."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "caiman-1.12": {
        "init": {"alpha_snmf": 0.5, "candidates": 1.0, "snmf_l1_ratio": 0.0},
        "online": {"movie_name_online": "online_movie.mp4"},
        "quality": {"rval_contrast": False},
        "spatial": {"noise_thr": 0.0},
        "temporal": {"bas_nonneg": False},
    },
}
"""Named sets of values. ``caiman-1.12``: the defaults of CaImAn 1.12 where they left the documented ones."""


def groups_with(key: str) -> list[str]:
    """Groups that have the key, in table order."""
    return [group for group, rows in TABLE.items() if key in rows]
