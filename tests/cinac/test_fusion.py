"""Predictions of cell types put together, and classifiers chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cinac import (
    fusion_cell_type_predictions,
    fusion_cell_type_predictions_by_type,
    select_activity_classifier_on_cell_type_outputs,
)
from gpucalcium.errors import ArrayShapeError, ParameterError, UnknownParameterError

FIRST = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0, 0, 1]]
SECOND = [[0.1, 0.9, 0], [0, 0, 0], [0.6, 0.4, 0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [SECOND[0], FIRST[1], SECOND[2]]),
        ({"cell_types_to_not_fusion_with_gt": [2]}, [SECOND[0], FIRST[1], FIRST[2]]),
        ({"with_new_category": [(1, 3)]}, [[0.1, 0, 0, 0.9], [0.1, 0.8, 0.1, 0], [0.6, 0, 0, 0.4]]),
        ({"with_new_category": [(1, 4)]}, [[0.1, 0, 0, 0, 0.9], [0.1, 0.8, 0.1, 0, 0], [0.6, 0, 0, 0, 0.4]]),
        ({"with_new_category": [(0, 1)]}, [[0.9, 0.1, 0], FIRST[1], [0.4, 0.6, 0]]),
        ({"with_new_category": [(0, 1), (1, 2)]}, [[0.9, 0, 0.1], FIRST[1], [0.4, 0, 0.6]]),
        (
            {"with_new_category": [(1, 3), (0, 4)]},
            [[0, 0, 0, 0.9, 0.1], [*FIRST[1], 0, 0], [0, 0, 0, 0.4, 0.6]],
        ),
        ({"with_new_category": []}, [SECOND[0], FIRST[1], SECOND[2]]),
    ],
)
def test_rows_of_the_second_replace_those_of_the_first(options, expected):
    first, second = np.array(FIRST), np.array(SECOND)
    found = fusion_cell_type_predictions(first, second, **options)
    assert_allclose(found, expected)
    assert_array_equal(first, FIRST)
    assert_array_equal(second, SECOND)
    found[:] = 5
    assert_array_equal(first, FIRST)


def test_fused_predictions_are_saved(tmp_path):
    for name in ("a", "b.npy"):
        found = fusion_cell_type_predictions(FIRST, SECOND, filename_to_save=tmp_path / name)
        assert_array_equal(np.load((tmp_path / name).with_suffix(".npy")), found)
    found = fusion_cell_type_predictions_by_type({}, FIRST, filename_to_save=str(tmp_path / "v1.0"))
    assert_array_equal(np.load(tmp_path / "v1.0.npy"), found)


def test_changes_are_told_by_name(tmp_path, caplog):
    caplog.set_level("INFO", "gpucalcium")
    path = tmp_path / "types.yaml"
    path.write_text("cell_type_categories: [Gaba, Pyramid, junk]")
    fusion_cell_type_predictions(FIRST, SECOND, [(1, 3)], path)
    assert "cell 0: type 3, was Gaba" in caplog.text
    assert "cell 2: Gaba, was junk" in caplog.text
    assert "cell 1" not in caplog.text
    caplog.clear()
    fusion_cell_type_predictions(FIRST, SECOND)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("first", "second", "options", "error", "text"),
    [
        (FIRST, SECOND[:2], {}, ArrayShapeError, r"\(3, 3\) and cell_type_pred_2 \(2, 3\)"),
        (FIRST, np.ones((3, 2)), {}, ArrayShapeError, "same cells and types"),
        (FIRST[0], SECOND[0], {}, ArrayShapeError, r"\(cells, types\) is expected"),
        (
            FIRST,
            [[np.nan, 1, 0], *SECOND[1:]],
            {},
            ParameterError,
            "cell_type_pred_2 holds NaN, e.g. for cell 0",
        ),
        (FIRST, SECOND, {"with_new_category": [(-1, 2)]}, ParameterError, "counted from 0"),
    ],
)
def test_impossible_fusions(first, second, options, error, text):
    with pytest.raises(error, match=text):
        fusion_cell_type_predictions(first, second, **options)


# ---------------------------------------------------------------------------- by type

ONE_HOT = np.eye(3)


@pytest.mark.parametrize(
    ("claims", "skip", "source"),
    [
        ((), None, "default"),
        ((0,), None, 0),
        ((2,), None, 2),
        ((0, 1), None, "default"),
        ((0, 1), 0, 1),
        ((0, 1), 1, 0),
        ((0, 1), 2, "default"),
        ((2,), 2, 2),
        ((0, 1, 2), 0, "default"),
    ],
)
@pytest.mark.parametrize("with_yaml", [False, True])
def test_each_cell_goes_to_the_one_that_claims_it(claims, skip, source, with_yaml, tmp_path):
    path = None
    if with_yaml:
        path = tmp_path / "types.yaml"
        path.write_text("cell_type_categories: [a, b, c]")
    given = {
        code: np.array([(0.5 if code in claims else -0.5) * ONE_HOT[code] + 0.01 * code + 0.3])
        for code in (2, 0, 1)
    }
    default = np.array([[0.2, 0.2, 0.6]])
    found = fusion_cell_type_predictions_by_type(given, default, skip, path)
    assert_array_equal(found, default if source == "default" else given[source])
    assert_array_equal(default, [[0.2, 0.2, 0.6]])


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from([None, 0, 1, 2]))
def test_claims_cell_by_cell(seed, n_types, skip):
    rng = np.random.default_rng(seed)
    default, given = rng.random((9, 4)), {code: rng.random((9, 4)) for code in range(n_types)}
    found = fusion_cell_type_predictions_by_type(given, default, skip)
    for cell in range(9):
        claiming = [code for code in given if int(np.argmax(given[code][cell])) == code]
        if len(claiming) == 2 and skip in claiming:
            claiming.remove(skip)
        expected = given[claiming[0]][cell] if len(claiming) == 1 else default[cell]
        assert_array_equal(found[cell], expected)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({0: np.ones((2, 3))}, ArrayShapeError, r"cell_type_preds_dict\[0\] is \(2, 3\)"),
        ({5: np.ones((3, 3))}, ParameterError, "type 5"),
        ({1: np.full((3, 3), np.nan)}, ParameterError, "NaN"),
    ],
)
def test_impossible_claims(given, error, text):
    with pytest.raises(error, match=text):
        fusion_cell_type_predictions_by_type(given, FIRST)


# ---------------------------------------------------------------------------- choosing classifiers

TYPES = [[0.5, 0.5, 0], [0.9, 0.1, 0], [0, 0.2, 0.8], [0, 0, 0], [0.1, 0.9, 0]]
DEFAULT, OF_TYPE_0 = ("d.json", "d.h5", "default"), ("i.json", "i.h5", "inter")


def chosen(**options):
    arguments = {
        "cell_type_config_file": None,
        "cell_type_predictions": TYPES,
        "cell_type_to_classifier": {"Interneuron": OF_TYPE_0},
        "default_classifier": DEFAULT,
    } | options
    return {
        key: cells.tolist()
        for key, cells in select_activity_classifier_on_cell_type_outputs(**arguments).items()
    }


def test_classifiers_by_type(caplog):
    caplog.set_level("INFO", "gpucalcium")
    assert chosen() == {DEFAULT: [0, 3], OF_TYPE_0: [1]}
    assert "2 cells of no type" in caplog.text
    assert "1 cells of type pyramidal" in caplog.text
    caplog.clear()
    assert chosen(unknown_cell_type_action="default", verbose=0) == {DEFAULT: [0, 2, 3, 4], OF_TYPE_0: [1]}
    assert caplog.text == ""
    with pytest.raises(ParameterError, match="cell 2 is of type 'noise'"):
        chosen(unknown_cell_type_action="exception")
    assert chosen(cell_type_predictions=TYPES[:2], unknown_cell_type_action="exception") == {
        DEFAULT: [0],
        OF_TYPE_0: [1],
    }
    assert chosen(cell_type_to_classifier={"interneuron": DEFAULT}) == {DEFAULT: [0, 1, 3]}


def test_types_are_named_by_keywords(tmp_path):
    path = tmp_path / "types.yaml"
    path.write_text("cell_type_categories: [{Inter: {keywords: [IN]}}, pyr, junk]")
    assert chosen(cell_type_config_file=path, cell_type_to_classifier={"in": OF_TYPE_0})[OF_TYPE_0] == [1]
    with pytest.raises(UnknownParameterError, match="'glia' is no type"):
        chosen(cell_type_config_file=path, cell_type_to_classifier={"glia": OF_TYPE_0})


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize(
    ("threshold", "pyramidal"), [(0.5, [1, 2]), (0.51, [2]), (0.0, [0, 1, 2]), (0.95, [])]
)
def test_one_probability_has_a_threshold(tmp_path, column, threshold, pyramidal):
    path = tmp_path / "types.yaml"
    path.write_text("cell_type_categories: [{pyr: {predicted_celll_type: true}}, {inter: }]")
    given = np.array([0.1, 0.5, 0.9])
    found = chosen(
        cell_type_config_file=path,
        cell_type_predictions=given[:, None] if column else given,
        cell_type_to_classifier={"pyr": OF_TYPE_0},
        cell_type_threshold=threshold,
        unknown_cell_type_action="default",
    )
    rest = [cell for cell in range(3) if cell not in pyramidal]
    assert found == {k: v for k, v in ((OF_TYPE_0, pyramidal), (DEFAULT, rest)) if v}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"unknown_cell_type_action": "skip"}, ParameterError, "choose one of"),
        ({"cell_type_predictions": [0.5, 0.1]}, ArrayShapeError, "3 types: it must have a column for each"),
        ({"cell_type_predictions": [[0.5, 0.1]]}, ArrayShapeError, "2 columns; there are 3 types"),
        ({"cell_type_predictions": [[0.5, 0.1, np.nan]]}, ParameterError, "holds NaN"),
        ({"cell_type_to_classifier": {"glia": OF_TYPE_0}}, UnknownParameterError, "glia"),
    ],
)
def test_impossible_choices(options, error, text):
    with pytest.raises(error, match=text):
        chosen(**options)
