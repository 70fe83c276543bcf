"""How well a raster agrees with the truth, in frames and in transients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cinac.metrics import Scores, compute_stats_over_gt, frame_scores
from gpucalcium.errors import ArrayShapeError

# ---------------------------------------------------------------------------- scores


def test_rates_by_hand():
    scores = Scores(tp=6, fp=2, fn=4, tn=8)
    assert_allclose(
        list(scores.as_dict().values()),
        [6, 2, 4, 8, 0.6, 0.8, 0.75, 8 / 12, 0.7, 0.4, 0.2, 0.25, 4 / 12, 3, 0.5, 2 * 0.75 * 0.6 / 1.35],
    )
    assert scores + Scores(1, 2, 3, 4) == Scores(7, 4, 7, 12)


def test_rates_of_nothing_are_one():
    rates = Scores(0, 0, 0, 0).as_dict()
    assert all(rates[name] == 1 for name in ("sensitivity", "specificity", "PPV", "NPV", "ACC", "LR+", "F1"))
    assert rates["LR-"] == 0
    assert Scores(3, 0, 0, 5).lr_plus == 1  # no false alarm
    assert Scores(0, 5, 0, 0).lr_minus == 1  # nothing was let alone
    assert Scores(0, 3, 2, 9).f1 == 0


@settings(deadline=None)  # the first call imports scikit-learn
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_frames_score_as_scikit_learn_says(seed, n):
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    truth, said = rng.random((2, n)) < rng.random((2, 1))
    scores = frame_scores(truth, said)
    assert_allclose(scores.accuracy, metrics.accuracy_score(truth, said))
    tn, fp, fn, tp = metrics.confusion_matrix(truth, said, labels=[False, True]).ravel()
    assert scores == Scores(tp, fp, fn, tn)
    if truth.any() and said.any():
        assert_allclose(scores.f1, metrics.f1_score(truth, said))
        assert_allclose(scores.ppv, metrics.precision_score(truth, said))
        assert_allclose(scores.sensitivity, metrics.recall_score(truth, said))


# ---------------------------------------------------------------------------- a known scene

#        0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19
TRACE = [1, 0, 2, 4, 3, 2, 0, 1, 0, 0, 1, 3, 2, 1, 0, 5, 6, 2, 1, 1]
TRUTH = [0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]
# could be: 1-3 (true), 6-7, 8-11, 14-16 (true)


def raster(*frames, n=20):
    made = np.zeros(n)
    made[list(frames)] = 1
    return made


def test_known_rasters():
    said = raster(2, 4, 7, 15, 16)
    chances = np.linspace(0, 0.95, 20)
    stats = compute_stats_over_gt(TRUTH, said, TRACE, chances)
    assert stats.frames == Scores(tp=3, fp=2, fn=3, tn=12)
    assert stats.transients == Scores(tp=2, fp=1, fn=0, tn=1)
    assert_allclose(stats.found, [100 / 3, 200 / 3])
    for name, best in (("TP", [3, 16]), ("FP", [7]), ("FN", []), ("TN", [11])):
        assert_allclose(stats.probabilities[name], chances[best])
    missed = compute_stats_over_gt(TRUTH, raster(9), TRACE)
    assert missed.transients == Scores(tp=0, fp=1, fn=2, tn=1)
    assert missed.probabilities is None
    assert missed.found.shape == (0,)


def test_perfect_empty_and_always_active():
    perfect = compute_stats_over_gt(TRUTH, TRUTH, TRACE)
    assert perfect.frames.f1 == perfect.transients.f1 == perfect.transients.specificity == 1
    assert_allclose(perfect.found, 100)
    silent = compute_stats_over_gt(TRUTH, raster(), TRACE)
    assert silent.transients == Scores(0, 0, 2, 2)
    assert silent.frames.f1 == 0
    always = compute_stats_over_gt(TRUTH, np.ones(20), TRACE)
    assert always.transients == Scores(2, 2, 0, 0)
    assert always.frames == Scores(6, 14, 0, 0)
    nothing = compute_stats_over_gt(raster(), raster(), np.zeros(20))
    assert nothing.frames.accuracy == nothing.transients.sensitivity == nothing.transients.f1 == 1


def test_low_peaks_are_no_transients_where_a_threshold_is_given():
    z = (np.array(TRACE) - np.mean(TRACE)) / np.std(TRACE)
    assert compute_stats_over_gt(TRUTH, raster(), TRACE, fluorescence_threshold=z[11]).transients.tn == 1
    assert compute_stats_over_gt(TRUTH, raster(), TRACE, fluorescence_threshold=9).transients.tn == 0


def test_only_annotated_frames_count():
    annotated = raster(*range(5), *range(10, 16))
    stats = compute_stats_over_gt(TRUTH, raster(2, 4, 7, 16), TRACE, annotated=annotated)
    assert stats.frames == Scores(tp=1, fp=1, fn=4, tn=5)
    assert stats.transients == Scores(tp=1, fp=0, fn=1, tn=1)
    assert compute_stats_over_gt(TRUTH, raster(7), TRACE, annotated=raster()).frames == Scores(0, 0, 0, 0)


def test_cells_are_pooled_and_nothing_given_is_changed():
    rng = np.random.default_rng(0)
    truth, said = rng.random((2, 5, 80)) < 0.2
    traces = 100 * rng.normal(size=(5, 80)).cumsum(1)
    chances = rng.random((5, 80))
    copies = [x.copy() for x in (truth, said, traces, chances)]
    pooled = compute_stats_over_gt(truth, said, traces, chances)
    single = [compute_stats_over_gt(*(x[k] for x in (truth, said, traces, chances))) for k in range(5)]
    assert pooled.frames == sum((one.frames for one in single), Scores(0, 0, 0, 0))
    assert pooled.transients == sum((one.transients for one in single), Scores(0, 0, 0, 0))
    assert_array_equal(pooled.found, np.concatenate([one.found for one in single]))
    for now, before in zip((truth, said, traces, chances), copies, strict=True):
        assert_array_equal(now, before)
    scaled = compute_stats_over_gt(truth, said, 7 * traces + 1000, chances)
    assert scaled.transients == pooled.transients


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros(20), np.zeros(19), np.zeros(20)), r"raster_to_evaluate has shape \(1, 19\)"),
        ((np.zeros(20), np.zeros(20), np.zeros((2, 20))), "traces has shape"),
        ((np.zeros(20), np.zeros(20), np.zeros(20), np.zeros(3)), "raster_predictions has shape"),
        ((np.zeros((2, 3, 4)), np.zeros(20), np.zeros(20)), r"\(cells, frames\) is expected"),
    ],
)
def test_shapes_that_do_not_fit(arguments, text):
    with pytest.raises(ArrayShapeError, match=text):
        compute_stats_over_gt(*arguments)
