from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.rois import (
    binary_masks,
    intersection_over_union,
    match_footprints,
    trace_correlations,
)


@st.composite
def footprint_pairs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels, one, other = draw(st.integers(1, 12)), draw(st.integers(0, 5)), draw(st.integers(0, 5))
    return [rng.random((pixels, k)) * (rng.random((pixels, k)) < 0.6) for k in (one, other)]


def iou_by_sets(a, b, fraction):
    one, other = (set(np.flatnonzero(x > fraction * x.max(initial=0))) for x in (a, b))
    return len(one & other) / len(one | other) if one & other else 0.0


@given(footprint_pairs(), st.sampled_from([0.0, 0.25, 0.7]))
def test_iou_equals_sets_of_pixels(pair, fraction):
    expected = [[iou_by_sets(a, b, fraction) for b in pair[1].T] for a in pair[0].T]
    found = intersection_over_union(sparse.csc_matrix(pair[0]), pair[1], fraction=fraction)
    assert_allclose(found, np.reshape(expected, found.shape))


@given(footprint_pairs())
def test_no_other_assignment_overlaps_more(pair):
    found, truth = pair
    iou = intersection_over_union(found, truth)
    worth = np.where(iou >= 0.5, iou, 0)
    wide = worth if worth.shape[0] <= worth.shape[1] else worth.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    match = match_footprints(found, truth)
    assert_allclose(match.iou.sum(), best)
    assert np.all(match.iou >= 0.5)
    assert len(set(match.found)) == len(set(match.truth)) == len(match.iou)


@given(footprint_pairs(), st.randoms())
def test_permutation_is_recovered_and_scores_one(pair, random):
    A = np.unique(pair[0] > 0, axis=1).astype(float)
    A = A[:, A.any(axis=0)]
    order = list(range(A.shape[1]))
    random.shuffle(order)
    match = match_footprints(A[:, order], A, least_iou=1.0)
    assert_array_equal(match.truth, order)
    assert match.f1 == (1.0 if order else 0.0)


def test_scores_count_what_is_missed_and_spurious():
    truth = np.kron(np.eye(4), np.ones((5, 1)))  # four cells of five pixels
    found = truth[:, [2, 0]]
    found = np.c_[found, np.eye(1, 20, 7).T]  # and one pixel of cell 1: an overlap of 0.2
    match = match_footprints(found, truth)
    assert_array_equal(match.found, [0, 1])
    assert_array_equal(match.truth, [2, 0])
    assert (match.precision, match.recall, match.f1) == (2 / 3, 2 / 4, 4 / 7)
    assert_array_equal(match.missed, [1, 3])
    assert_array_equal(match.spurious, [2])


@pytest.mark.parametrize(("k1", "k2"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_found_or_nothing_there(k1, k2):
    match = match_footprints(np.ones((9, k1)), np.ones((9, k2)))
    assert (match.precision, match.recall, match.f1) == (0, 0, 0)
    assert trace_correlations(np.ones((k1, 5)), np.ones((k2, 5)), match).shape == (0,)


def test_masks_leave_their_input_alone_and_drop_negatives():
    A = sparse.csc_matrix(np.array([[1.0, 0.0], [0.25, 0.0], [0.26, -1.0]]))
    before = A.copy()
    assert_array_equal(binary_masks(A).toarray(), [[True, False], [False, False], [True, False]])
    assert (before != A).nnz == 0


def test_trace_correlation_is_pearson():
    rng = np.random.default_rng(0)
    A = np.eye(6)
    found, truth = rng.standard_normal((6, 50)), rng.standard_normal((6, 50))
    found[2] = 1e6 + 3 * truth[2]
    found[3] = 7.0
    match = match_footprints(A, A)
    r = trace_correlations(found.astype(np.float32), truth, match)
    assert_allclose(r[[0, 1, 4, 5]], [np.corrcoef(found[i], truth[i])[0, 1] for i in (0, 1, 4, 5)], atol=1e-6)
    assert r[2] > 0.999
    assert np.isnan(r[3])


def test_errors_name_what_is_wrong():
    with pytest.raises(ArrayShapeError, match="4 and 5 pixels"):
        match_footprints(np.ones((4, 1)), np.ones((5, 1)))
    with pytest.raises(ParameterError, match="least_iou=0"):
        match_footprints(np.ones((4, 1)), np.ones((4, 1)), least_iou=0)
    with pytest.raises(ParameterError, match="fraction=1"):
        binary_masks(np.ones((4, 1)), 1.0)


def test_what_need_not_be_found_counts_neither_way():
    cells = np.kron(np.eye(4), np.ones((5, 1)))
    truth, border = cells[:, :2], cells[:, 2:3]
    match = match_footprints(cells, truth, uncounted=border)
    assert_array_equal(match.uncounted, [2])
    assert_array_equal(match.spurious, [3])
    assert (match.precision, match.recall) == (2 / 3, 1)
    assert match_footprints(cells[:, :2], truth, uncounted=border).f1 == 1
