import ast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_matrix

from gpucalcium.cnmf.update_order import update_order
from gpucalcium.errors import ParameterError


def path_graph(n):
    """Component k covers pixels k and k + 1."""
    A = np.zeros((n + 1, n))
    A[np.arange(n), np.arange(n)] = A[np.arange(n) + 1, np.arange(n)] = 1
    return csc_matrix(A)


def test_greedy_order_of_a_path_has_two_groups():
    groups, sizes = update_order(path_graph(7))
    assert groups == [[0, 2, 4, 6], [1, 3, 5]]
    assert sizes == [4, 3]


@given(st.integers(0, 2**20), st.sampled_from(["greedy", "random"]), st.integers(0, 12))
def test_groups_are_a_partition_without_overlap(seed, method, K):
    A = csc_matrix(np.random.default_rng(seed).random((15, K)) < 0.15)
    groups, sizes = update_order(A, method=method, seed=seed)
    assert sorted(k for group in groups for k in group) == list(range(K))
    assert sizes == list(map(len, groups))
    for group in groups:
        assert (A[:, group].sum(1) <= 1).all()


def test_a_new_component_joins_the_first_group_it_fits():
    A = path_graph(3)
    new = np.zeros((4, 1))
    new[3] = 1
    assert update_order(A, new, [[0, 2], [1]])[0] == [[0, 2], [1, 3]]
    assert update_order(A, np.ones((4, 1)), [[0, 2], [1]])[0] == [[0, 2], [1], [3]]


def test_refuses_half_of_a_pair_and_unknown_methods():
    with pytest.raises(ParameterError, match="belong together"):
        update_order(path_graph(3), new_a=np.ones((4, 1)))
    with pytest.raises(ParameterError, match="greedy"):
        update_order(path_graph(3), method="best")


def test_same_groups_as_the_reference(reference):
    stored = reference.load("spatial_temporal")
    truth = reference.inputs("spatial_temporal")[1]
    assert update_order(truth["A"])[0] == ast.literal_eval(str(stored["update_order_greedy"]))
