"""Cells from every source: their shapes, whom they meet, which pixels are theirs."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, sparse

from gpucalcium.cinac.masks import draw_mask
from gpucalcium.cinac.rois import (
    from_contours,
    from_fiji,
    from_footprints,
    from_nwb,
    from_pixel_masks,
    from_suite2p,
)
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
)

SQUARE = np.array([[2, 6, 6, 2], [3, 3, 8, 8]])


def moved(x, y):
    return SQUARE + np.array([[x], [y]])


def disc(x, y, radius, n=24):
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.array([x + radius * np.cos(angle), y + radius * np.sin(angle)])


# ---------------------------------------------------------------------------- contours


def test_what_a_contour_says():
    cells = from_contours([SQUARE, moved(10, -3.5)])
    assert_allclose(cells.centroids, [[4, 5.5], [14, 2]])
    assert_array_equal(cells.bounds, [[2, 3, 6, 8], [12, 0, 16, 4]])  # -0.5 is truncated toward zero
    assert_array_equal(cells.boxes, [[2, 6, 3, 8], [12, 16, 0, 4]])
    assert cells.bounds.dtype == np.int64
    assert [list(n) for n in cells.neighbours] == [[], []]
    assert len(cells) == 2


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


# ---------------------------------------------------------------------------- masks


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


# ---------------------------------------------------------------------------- pixels


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


# ---------------------------------------------------------------------------- suite2p

STAT = [
    {
        "xpix": np.array(x, "i4"),
        "ypix": np.array(y, "i4"),
        "lam": np.ones(len(x), "f4"),
        "med": [3, 4],
        "overlap": np.zeros(len(x), bool),
        "npix": len(x),
        "skew": np.float32(1.5),
    }
    for x, y in ([(3, 4, 4), (7, 7, 8)], [(10,), (11,)], [(5, 6, 5, 6), (1, 1, 2, 2)])
]


def written(path, cells, protocol=None):
    if protocol is None:
        array = np.empty(len(cells), object)
        array[:] = cells
        np.save(path, array, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(cells, protocol))
    return path


@pytest.mark.parametrize("protocol", [None, 0, 2, 3, 4, 5])
def test_cells_of_suite2p(tmp_path, protocol):
    stat = written(tmp_path / "stat.npy", STAT, protocol)
    np.save(tmp_path / "iscell.npy", [[1, 0.9], [0, 0.1], [1, 0.7]])
    every = from_suite2p(None, stat)
    kept = from_suite2p(tmp_path / "iscell.npy", stat)
    assert_array_equal(every.bounds, [[3, 7, 4, 8], [10, 11, 10, 11], [5, 1, 6, 2]])
    assert_array_equal(kept.bounds, every.bounds[[0, 2]])
    assert_array_equal(kept.pixels(0, (20, 20)), [7 * 20 + 3, 7 * 20 + 4, 8 * 20 + 4])


class Evil:
    def __init__(self, sign):
        self.sign = str(sign)

    def __reduce__(self):
        return os.mkdir, (self.sign,)


@pytest.mark.parametrize("protocol", [None, 0, 2, 4, 5])
def test_hostile_stat_is_refused_and_not_run(tmp_path, protocol):
    sign = tmp_path / "sign"
    for cells in ([*STAT, Evil(sign)], [STAT[0] | {"lam": Evil(sign)}], [STAT[0] | {"xpix": Evil(sign)}]):
        stat = written(tmp_path / "stat.npy", cells, protocol)
        with pytest.raises(MovieFileError, match=r"stat\.npy.*refers to"):
            from_suite2p(None, stat)
        assert not sign.exists()


def test_hostile_iscell_is_refused(tmp_path):
    stat = written(tmp_path / "stat.npy", STAT)
    np.save(tmp_path / "iscell.npy", np.array([Evil(tmp_path / "sign")]), allow_pickle=True)
    with pytest.raises(MovieFileError, match=r"iscell\.npy must be"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    assert not (tmp_path / "sign").exists()


def test_damaged_files_of_suite2p(tmp_path):
    stat = written(tmp_path / "stat.npy", STAT)
    np.save(tmp_path / "iscell.npy", np.ones((2, 2)))
    with pytest.raises(ArrayShapeError, match=r"2 rows and .* 3 cells"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    np.save(tmp_path / "iscell.npy", np.ones((3, 2, 2)))
    with pytest.raises(MovieFileError, match="a row for each cell"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    for name in ("iscell.npy", "stat.npy"):
        with pytest.raises(MovieNotFoundError, match="not found"):
            from_suite2p(
                tmp_path / "none" / name if name[0] == "i" else None,
                tmp_path / "none" / name if name[0] == "s" else stat,
            )
    stat.write_bytes(stat.read_bytes()[:-30])
    with pytest.raises(MovieFileError, match=r"stat\.npy cannot be read"):
        from_suite2p(None, stat)
    for cells, text in (
        ([{"xpix": np.arange(3)}], "cell 0 has no array ypix"),
        ([{"xpix": np.arange(3), "ypix": np.arange(2)}], "equally long"),
        ([{"xpix": np.arange(3.0), "ypix": np.arange(3)}], "whole numbers"),
        (["text"], "no list of dictionaries"),
    ):
        with pytest.raises(MovieFileError, match=text):
            from_suite2p(None, written(tmp_path / "stat.npy", cells))


# ---------------------------------------------------------------------------- NWB


def session(masks, invert=False, column="pixel_mask"):
    from pynwb import NWBFile
    from pynwb.ophys import ImageSegmentation, OpticalChannel

    made = NWBFile("session", "id", datetime(2026, 1, 2, tzinfo=UTC))
    plane = made.create_imaging_plane(
        name="plane", description="", device=made.create_device("scope"), excitation_lambda=900.0, indicator="",
        location="", optical_channel=OpticalChannel(name="green", description="", emission_lambda=500.0),
    )  # fmt: skip
    segmentation = ImageSegmentation(name="seg")
    made.create_processing_module("ophys", "traces").add(segmentation)
    table = segmentation.create_plane_segmentation(name="cells", description="", imaging_plane=plane)
    for mask in masks:
        if column == "pixel_mask":
            table.add_roi(pixel_mask=[(y, x, w) if invert else (x, y, w) for x, y, w in mask])
        else:
            table.add_roi(image_mask=np.ones((3, 3)))
    return made


MASKS = [[(3, 7, 1.0), (4, 7, 0.5), (4, 8, 0.1)], [(10, 11, 1.0)]]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("from_file", [False, True])
def test_cells_of_nwb(tmp_path, invert, from_file):
    data = session(MASKS, invert)
    if from_file:
        from pynwb import NWBHDF5IO

        with NWBHDF5IO(str(tmp_path / "a.nwb"), "w") as file:
            file.write(data)
        data = tmp_path / "a.nwb"
    cells = from_nwb(data, "ophys", "seg", "cells", invert_xy=invert)
    assert_array_equal(cells.bounds, [[3, 7, 4, 8], [10, 11, 10, 11]])
    assert_array_equal(cells.pixels(0, (20, 30)), [7 * 30 + 3, 7 * 30 + 4, 8 * 30 + 4])


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("behavior", "seg", "cells"), "processing module named 'behavior'.*ophys"),
        (("ophys", "other", "cells"), "image segmentation in ophys named 'other'.*seg"),
        (("ophys", "seg", "other"), "plane segmentation in seg named 'other'.*cells"),
    ],
)
def test_names_that_an_nwb_file_lacks(names, text):
    with pytest.raises(DatasetNotFoundError, match=text):
        from_nwb(session(MASKS), *names)


def test_nwb_without_pixels():
    with pytest.raises(DatasetNotFoundError, match="no column pixel_mask; there are: image_mask"):
        from_nwb(session(MASKS, column="image_mask"), "ophys", "seg", "cells")
    with pytest.raises(MovieNotFoundError):
        from_nwb("nowhere.nwb", "ophys", "seg", "cells")


# ---------------------------------------------------------------------------- footprints and Fiji


def footprint(mask):
    return mask.ravel(order="F").astype(float)


def test_cells_from_footprints():
    ys, xs = np.mgrid[:30, :40]
    masks = [np.hypot(xs - x, ys - y) < r for x, y, r in ((9, 12, 5), (30, 20, 7))]
    masks[0][28, 38] = True  # a lone pixel far away
    A = sparse.csc_matrix(np.stack([footprint(mask) for mask in masks], 1))
    cells = from_footprints(A, (30, 40), thr=0.5, thr_method="max")
    assert_allclose(cells.centroids, [[9, 12], [30, 20]], atol=1e-6)
    masks[0][28, 38] = False
    for k, mask in enumerate(masks):
        drawn = draw_mask(cells.polygons[k], mask.shape)
        # the outline runs half a pixel outside, and its corners are truncated: the mask is wider to the upper left
        assert (drawn | ~mask).all()
        assert (~drawn | ndimage.binary_dilation(mask, np.ones((3, 3)))).all()
    assert_allclose(from_footprints(A.toarray(), (30, 40)).centroids, [[9, 12], [30, 20]], atol=0.5)
    with pytest.raises(ParameterError, match="cell 1 has no positive pixel"):
        from_footprints(np.stack([footprint(masks[0]), np.zeros(1200)], 1), (30, 40))
    with pytest.raises(ArrayShapeError, match="do not fit"):
        from_footprints(A, (30, 41))


def test_cells_drawn_in_fiji(tmp_path):
    roifile = pytest.importorskip("roifile")
    drawn = [
        roifile.ImagejRoi.frompoints(disc(12, 9, 4).T),
        roifile.ImagejRoi.frompoints(SQUARE.T.astype(float)),
    ]
    roifile.roiwrite(tmp_path / "all.zip", drawn)
    roifile.roiwrite(tmp_path / "one.roi", drawn[1])
    cells = from_fiji(tmp_path / "all.zip")
    assert_allclose(cells.centroids, [[12, 9], [4, 5.5]], atol=1e-4)
    assert_allclose(from_fiji(tmp_path / "one.roi").contours[0], SQUARE)
    (tmp_path / "bad.roi").write_bytes(b"Iout\0\0")
    with pytest.raises(MovieFileError, match="cannot be read as Fiji"):
        from_fiji(tmp_path / "bad.roi")
    with pytest.raises(MovieNotFoundError):
        from_fiji(tmp_path / "none.zip")
