"""Cells as shapes: outlines, pixels, whom they meet."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cinac.masks import draw_mask
from gpucalcium.cinac.rois import (
    from_contours,
    from_pixel_masks,
)
from gpucalcium.errors import (
    ArrayShapeError,
    ParameterError,
)
from tests.cinac.given import SQUARE, disc


def moved(x, y):
    return SQUARE + np.array([[x], [y]])


def test_what_a_contour_says():
    cells = from_contours([SQUARE, moved(10, -3.5)])
    assert_allclose(cells.centroids, [[4, 5.5], [14, 2]])
    assert_array_equal(cells.bounds, [[2, 3, 6, 8], [12, 0, 16, 4]])  # -0.5 is truncated toward zero
    assert_array_equal(cells.boxes, [[2, 6, 3, 8], [12, 16, 0, 4]])
    assert cells.bounds.dtype == np.int64
    assert [list(n) for n in cells.neighbours] == [[], []]
    assert len(cells) == 2


@pytest.mark.parametrize("make", [from_contours, from_pixel_masks])
def test_no_cells(make):
    cells = make([])
    assert len(cells) == 0
    assert cells.neighbours == ()
    assert cells.centroids.shape == (0, 2)
    assert cells.bounds.shape == cells.boxes.shape == (0, 4)


def test_matlab_counts_from_one_and_nothing_given_is_changed():
    given = [SQUARE.copy(), SQUARE.astype(float) + 0.5]
    cells = from_contours(given, from_matlab=True)
    assert_array_equal(cells.contours[0], SQUARE - 1)
    assert_array_equal(cells.contours[1], SQUARE - 0.5)
    assert_array_equal(given[0], SQUARE)
    assert_array_equal(given[1], SQUARE + 0.5)
    same = from_contours(given)
    same.contours[1][:] = 0
    assert_array_equal(given[1], SQUARE + 0.5)


@pytest.mark.parametrize(
    ("points", "kind", "centroid", "bounds"),
    [
        ([[5], [7]], "Point", [5, 7], [5, 7, 5, 7]),
        ([[5, 5, 5, 5], [7, 7, 7, 7]], "Point", [5, 7], [5, 7, 5, 7]),
        ([[5, 8], [7, 7]], "LineString", [6.5, 7], [5, 7, 8, 7]),
        ([[1, 3, 5], [1, 3, 5]], "", [3, 3], [1, 1, 5, 5]),
        ([[1, 5, 5, 1], [1, 5, 1, 5]], "MultiPolygon", [3, 3], [1, 1, 5, 5]),
        ([[np.nan, 2, 6, np.nan, 6, 2], [np.nan, 3, 3, np.nan, 8, 8]], "Polygon", [4, 5.5], [2, 3, 6, 8]),
        ([[2, 6, 6, 2, 2], [3, 3, 8, np.nan, 8]], "Polygon", [4, 5.5], [2, 3, 6, 8]),
    ],
)
def test_odd_shapes_are_valid(points, kind, centroid, bounds):
    cells = from_contours([points, [[40], [40]]])
    assert cells.polygons[0].is_valid
    assert kind in ("", cells.polygons[0].geom_type)
    assert_allclose(cells.centroids[0], centroid)
    assert_array_equal(cells.bounds[0], bounds)
    assert len(cells.pixels(0, (50, 50))) > 0


@pytest.mark.parametrize(
    ("contours", "error", "text"),
    [
        ([SQUARE, np.empty((2, 0))], ParameterError, "cell 1 is empty"),
        ([SQUARE, SQUARE, [[np.nan], [1]]], ParameterError, "cell 2 is empty"),
        ([[[1, np.inf], [0, 1]]], ParameterError, "cell 0 has infinite"),
        ([SQUARE.T], ArrayShapeError, r"cell 0 has shape \(4, 2\).*transpose"),
        ([[1, 2, 3]], ArrayShapeError, r"\(2, n\) is expected"),
    ],
)
def test_impossible_contours(contours, error, text):
    with pytest.raises(error, match=text):
        from_contours(contours)


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (moved(4, 0), True),  # a common edge
        (moved(4, 5), True),  # a common corner
        (moved(5, 0), False),
        ([[4], [4]], True),
        ([[6], [8]], True),
        ([[7], [8]], False),
        ([[0, 9], [0, 0]], False),
        ([[0, 9], [2, 9]], True),
        ([[3, 4, 4], [4, 4, 5]], True),  # inside
    ],
)
def test_to_touch_is_to_meet(other, meets):
    cells = from_contours([SQUARE, other])
    assert [list(n) for n in cells.neighbours] == ([[1], [0]] if meets else [[], []])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_neighbours_are_those_of_all_pairs(seed, n):
    rng = np.random.default_rng(seed)
    cells = from_contours(
        [disc(*rng.uniform(5, 60, 2), rng.uniform(1, 8), rng.integers(1, 12)) for _ in range(n)]
    )
    for k, found in enumerate(cells.neighbours):
        assert list(found) == [
            j for j in range(n) if j != k and cells.polygons[j].intersects(cells.polygons[k])
        ]
    assert len(cells.neighbours) == n


def pixels_of(mask):
    y, x = np.nonzero(mask)
    return x, y


@pytest.mark.parametrize("form", ["rows", "weights", "lists", "records", "columns", "columns with weights"])
def test_pixels_in_every_form(form):
    rng = np.random.default_rng(1)
    masks = [draw_mask(shapely.Polygon(disc(8, 9, r).T), (20, 22)) for r in (3, 1, 5)]
    given = []
    for x, y in map(pixels_of, masks):
        w = rng.random(len(x)).astype("f4")
        rows = [(int(a), int(b), float(c)) for a, b, c in zip(x, y, w, strict=True)]
        given.append(
            {
                "rows": np.stack([x, y], 1),
                "weights": np.stack([x, y, w], 1),
                "lists": [list(row[:2]) for row in rows],
                "records": np.array(rows, dtype=[("x", "u4"), ("y", "u4"), ("weight", "f4")]),
                "columns": (x, y),
                "columns with weights": (x, y, w),
            }[form]
        )
    cells = from_pixel_masks(given)
    for k, mask in enumerate(masks):
        assert_array_equal(cells.pixels(k, mask.shape), np.flatnonzero(mask))
        hull = shapely.convex_hull(shapely.MultiPoint(np.stack(pixels_of(mask), 1)))
        assert cells.polygons[k].equals(hull)
        assert shapely.Polygon(cells.contours[k].T).equals(hull)


@pytest.mark.parametrize("pixels", [[(3, 4)], [(3, 4), (4, 4)], [(3, 4), (4, 5), (5, 6)]])
def test_cells_of_few_pixels(pixels):
    cells = from_pixel_masks([pixels, [(20, 20)]])
    assert_allclose(cells.centroids[0], np.mean(pixels, 0))
    assert len(cells.pixels(0, (30, 30))) == len(pixels)
    assert_array_equal(cells.bounds[0], [*np.min(pixels, 0), *np.max(pixels, 0)])


def test_two_pixels_are_rows_and_two_vectors_are_columns():
    rows = from_pixel_masks([np.array([[1, 2], [3, 9]])])
    columns = from_pixel_masks([(np.array([1, 2]), np.array([3, 9]))])
    assert_array_equal(rows.bounds, [[1, 2, 3, 9]])
    assert_array_equal(columns.bounds, [[1, 3, 2, 9]])


@pytest.mark.parametrize(
    ("masks", "error", "text"),
    [
        ([[(1, 2)], []], ParameterError, "cell 1 has no pixels"),
        ([[(1.5, 2)]], ParameterError, "no whole numbers"),
        ([[(np.nan, 2)]], ParameterError, "no whole numbers"),
        ([np.zeros((2, 9))], ArrayShapeError, "transpose it"),
        ([np.zeros((9, 5))], ArrayShapeError, "one row per pixel"),
    ],
)
def test_impossible_pixels(masks, error, text):
    with pytest.raises(error, match=text):
        from_pixel_masks(masks)
