"""Which pixels an outline covers."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cinac.masks import draw_mask
from gpucalcium.cinac.rois import (
    from_contours,
)
from tests.cinac.given import disc


def covered(polygon, shape):
    """Lattice points inside or on the outline of a polygon with whole corners."""
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    return np.array(
        [
            [polygon.covers(shapely.Point(x, y)) for x, y in zip(*row, strict=True)]
            for row in zip(xs, ys, strict=True)
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 18), st.integers(-3, 18)), min_size=3, max_size=7))
def test_masks_hold_all_lattice_points(points):
    polygon = shapely.convex_hull(shapely.MultiPoint(points))
    mask = draw_mask(polygon, (13, 15))
    assert (mask | ~covered(polygon, (13, 15))).all()
    near = shapely.buffer(polygon, 1)  # the outline is drawn through the pixels next to it
    assert (~mask | covered(near, (13, 15))).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 30), st.floats(-9, 30)), min_size=1, max_size=7))
def test_pixels_are_those_of_the_mask_of_the_whole_field(points):
    cells = from_contours([np.array(points).T])
    assert_array_equal(cells.pixels(0, (17, 23)), np.flatnonzero(draw_mask(cells.polygons[0], (17, 23))))


def test_masks_of_known_shapes():
    square = shapely.Polygon([(1, 1), (4, 1), (4, 3), (1, 3)])
    expected = np.zeros((6, 7), bool)
    expected[1:4, 1:5] = True
    assert_array_equal(draw_mask(square, (6, 7)), expected)
    assert_array_equal(draw_mask(square, (6, 7), corner=(1, -1)), np.roll(expected, (1, -1), (0, 1)))
    assert_array_equal(draw_mask(shapely.Point(2, 4), (6, 7)).nonzero(), [[4], [2]])
    assert_array_equal(
        draw_mask(shapely.LineString([(2, 4), (5, 4)]), (6, 7)).nonzero(), [[4] * 4, [2, 3, 4, 5]]
    )
    bow = from_contours([[[1, 5, 5, 1], [1, 5, 1, 5]]]).polygons[0]
    assert draw_mask(bow, (7, 7)).sum() == 17  # two triangles that share one pixel
    assert not draw_mask(square, (6, 7), corner=(30, 30)).any()
    assert not draw_mask(shapely.Polygon(), (6, 7)).any()
    far = shapely.Polygon([(0.9, 0.9), (3.9, 0.9), (3.9, 2.9), (0.9, 2.9)])
    assert_array_equal(
        draw_mask(far, (6, 7)), draw_mask(shapely.Polygon([(0, 0), (3, 0), (3, 2), (0, 2)]), (6, 7))
    )


@settings(deadline=None)
@given(st.floats(0, 4), st.floats(0, 4))
def test_masks_grow_with_the_buffer(one, other):
    polygon = shapely.Polygon(disc(12, 13, 4).T)
    small, large = (draw_mask(polygon, (26, 25), buffer=b) for b in sorted((one, other)))
    assert (large | ~small).all()


def test_a_buffer_grows_points_and_lines():
    for shape in (shapely.Point(5, 5), shapely.LineString([(5, 5), (7, 5)])):
        assert draw_mask(shape, (11, 13), buffer=2).sum() > draw_mask(shape, (11, 13)).sum()
