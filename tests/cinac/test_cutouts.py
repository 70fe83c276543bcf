"""Squares around cells: corners and masks, against the rules written out once more, and by properties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.cinac.cutouts import Cutouts, corner, cutouts
from gpucalcium.cinac.masks import draw_mask
from gpucalcium.errors import ParameterError

shapely = pytest.importorskip("shapely")
pytest.importorskip("PIL")

ACTIVITY = ("input_0", "input_1", "input_2")


@dataclass
class Cells:
    """Outlines and who touches whom, by comparing all pairs."""

    polygons: list

    def __post_init__(self):
        self.centroids = np.array([(p.centroid.x, p.centroid.y) for p in self.polygons])
        self.bounds = np.array([p.bounds for p in self.polygons]).astype(int)
        self.neighbours = [
            np.array([j for j, q in enumerate(self.polygons) if j != i and p.intersects(q)], int)
            for i, p in enumerate(self.polygons)
        ]


def disc(x, y, radius=4.0):
    return shapely.Point(x, y).buffer(radius, quad_segs=4)


def drawn(cells, dims, side=25, inputs=ACTIVITY, **options) -> Cutouts:
    return cutouts(cells, np.arange(len(cells.polygons)), dims, side, inputs, **options)


def patches(movie, cut: Cutouts):
    """Every cell's squares as its inputs see them, (n, N, I, P, P), not normalised."""
    n, inputs, side, _ = cut.masks.shape
    found = backend.wing(movie).cutouts.gather_patches(
        movie, cut.corners.repeat(inputs, axis=0), cut.masks.reshape(-1, side, side), 0.0, 1.0
    )
    return found.reshape(len(movie), n, inputs, side, side)


def crops(movie, cut: Cutouts):
    """Every cell's whole square, (n, N, P, P)."""
    return patches(movie, Cutouts(cut.corners, np.ones_like(cut.masks[:, :1])))[:, :, 0]


def by_the_rules(cells, i, dims, side):
    """The corner (row, column) of the original, rule after rule."""
    height, width = dims
    cx, cy = int(cells.centroids[i][0]) - side // 2, int(cells.centroids[i][1]) - side // 2
    minx, miny, maxx, maxy = cells.bounds[i]
    if height == width == side:
        return 0, 0
    if maxx - minx + 1 >= side or maxy - miny + 1 >= side:
        x0, y0 = cx, cy
    else:
        x0, y0 = cx, cy
        if cx + side - 1 < maxx:
            x0 = maxx - side + 1
        least = min(cells.bounds[j][1] for j in [i, *cells.neighbours[i]])
        y0 = min(cy, least)
        if y0 + side - 1 < maxy:
            y0 = maxy - side + 1
    x0, y0 = max(x0, 0), max(y0, 0)
    if x0 + side >= width:
        x0 = width - side - 1
    if y0 + side >= height:
        y0 = height - side - 1
    return y0, x0


def crowd(seed, dims, n=14, reach=6.0):
    rng = np.random.default_rng(seed)
    return Cells(
        [
            disc(rng.uniform(0, dims[1] - 1), rng.uniform(0, dims[0] - 1), rng.uniform(0.6, reach))
            for _ in range(n)
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(12, 60), st.integers(12, 60), st.sampled_from([4, 9, 11]))
def test_legacy_corners_follow_the_rules(seed, height, width, side):
    cells = crowd(seed, (height, width))
    for i in range(len(cells.polygons)):
        assert corner(cells, i, (height, width), side, "legacy") == by_the_rules(
            cells, i, (height, width), side
        )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(11, 60), st.integers(11, 60))
def test_corrected_squares_hold_the_cell_and_lie_in_the_frame(seed, height, width):
    side, cells = 11, crowd(seed, (height, width))
    for i, (minx, miny, maxx, maxy) in enumerate(cells.bounds):
        y, x = corner(cells, i, (height, width), side, "corrected")
        assert 0 <= y <= height - side
        assert 0 <= x <= width - side
        for first, low, high, length in ((x, minx, maxx, width), (y, miny, maxy, height)):
            low, high = max(low, 0), min(high, length - 1)
            if high - low < side:
                assert first <= low
                assert high < first + side


def test_corrected_square_is_centred_where_it_can_be():
    cells = Cells([disc(30.4, 22.9), disc(3, 40)])
    assert corner(cells, 0, (60, 70), 25, "corrected") == (22 - 12, 30 - 12)
    assert corner(cells, 1, (60, 70), 25, "corrected") == (40 - 12, 0)


@pytest.mark.parametrize("dims", [(9, 25), (25, 9), (25, 25), (24, 40), (1, 1)])
@pytest.mark.parametrize("mask_mode", ["legacy", "corrected"])
def test_small_frames_are_centred_in_zeros(dims, mask_mode):
    cells = Cells([disc(dims[1] / 2, dims[0] / 2, 0.8)])
    movie = np.full((1, *dims), 5, np.uint16)
    cut = drawn(cells, dims, mask_mode=mask_mode)
    (crop,) = crops(movie, cut)[0]
    top, left = ((25 - n) // 2 if n <= 25 else 0 for n in dims)
    expected = np.zeros((25, 25))
    expected[top : top + dims[0], left : left + min(dims[1], 25)] = 5
    assert_array_equal(crop, expected)


def test_first_input_is_the_crop_on_the_cell(movie_and_crowd):
    movie, cells = movie_and_crowd
    for mode in ("legacy", "corrected"):
        cut = drawn(cells, movie.shape[1:], mask_mode=mode)
        assert_array_equal(patches(movie, cut)[:, :, 0], crops(movie, cut) * cut.masks[:, 0])


def test_corrected_mode_keeps_a_cell_in_the_last_column():
    cells = Cells([shapely.Polygon([(59, 20), (59, 24), (57, 22)])])
    movie = np.ones((1, 50, 60), np.int16)
    seen = {
        m: patches(movie, drawn(cells, (50, 60), mask_mode=m))[0, 0, 0].sum() for m in ("legacy", "corrected")
    }
    assert seen["corrected"] == 9
    assert seen["legacy"] == 4  # column 59 is lost


@pytest.fixture
def movie_and_crowd():
    rng = np.random.default_rng(5)
    return rng.integers(1, 1000, (3, 50, 47)).astype(np.int16), crowd(8, (50, 47))


def test_legacy_inputs_are_the_crop_without_its_first_rows(movie_and_crowd):
    movie, cells = movie_and_crowd
    cut = drawn(cells, movie.shape[1:])
    seen, whole = patches(movie, cut), crops(movie, cut)
    alone = [len(x) == 0 for x in cells.neighbours]
    assert any(alone)
    assert not all(alone)
    for i in range(len(cells.polygons)):
        for k, gone in ((1, {1} if alone[i] else {0, 1}), (2, {0, 1})):
            zero = {int(row) for row in np.flatnonzero(~seen[:, i, k].any(axis=(0, 2)))}
            assert zero == gone
            kept = sorted(set(range(25)) - gone)
            assert_array_equal(seen[:, i, k, kept], whole[:, i, kept])


def test_corrected_inputs_part_the_crop(movie_and_crowd):
    movie, cells = movie_and_crowd
    cut = drawn(cells, movie.shape[1:], mask_mode="corrected")
    seen, whole = patches(movie, cut), crops(movie, cut)
    own, others, rest = cut.masks.swapaxes(0, 1)
    assert not (rest & (own | others)).any()
    assert (own | others | rest).all()
    off_overlaps = ~(own & others)
    assert (own & others).any()
    assert_array_equal((seen.sum(axis=2) * off_overlaps), whole * off_overlaps)
    for i, near in enumerate(cells.neighbours):
        assert others[i].any() == any(
            draw_mask(cells.polygons[j], (25, 25), cut.corners[i][::-1]).any() for j in near
        )


def test_cell_type_inputs(movie_and_crowd):
    movie, cells = movie_and_crowd
    cut = drawn(cells, movie.shape[1:], 20, ("input_0", "input_1"), kind="cell_type")
    assert_array_equal(patches(movie, cut)[:, :, 1], crops(movie, cut))
    only = drawn(cells, movie.shape[1:], 20, ("input_0",), kind="cell_type", all_pixels=False)
    assert_array_equal(only.masks, cut.masks[:, :1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 8))
def test_masks_hold_what_is_covered_and_little_more(seed, corners):
    """Every lattice point in the truncated polygon is set; what is set lies within a pixel of it."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(1, 11, corners)
    points = 12 + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    mask = draw_mask(shapely.Polygon(points + np.array((100, 50))), (25, 25), (100, 50))
    truncated = shapely.Polygon(np.trunc(points))
    x, y = np.meshgrid(np.arange(25), np.arange(25))
    lattice = shapely.points(x, y)
    if truncated.is_valid:
        assert mask[shapely.covers(truncated, lattice)].all()
    assert shapely.distance(truncated, lattice)[mask].max() < 1


def test_vertices_are_truncated_towards_zero():
    line = shapely.LineString([(9.6, 9.3), (12.7, 9.9)])  # 0.4 left of the square, 0.7 above it
    mask = draw_mask(line, (5, 5), (10, 10))
    assert_array_equal(np.argwhere(mask), [(0, 0), (0, 1), (0, 2)])


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        (shapely.Point(6.9, 7.2), [(7, 6)]),
        (shapely.LineString([(6, 7), (7, 7)]), [(7, 6), (7, 7)]),
        (shapely.Polygon([(3, 3), (5, 5), (7, 7)]), [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7)]),
        (shapely.MultiPoint([(1, 2), (4, 5)]), [(2, 1), (5, 4)]),
        (shapely.Polygon(), []),
    ],
)
def test_small_and_flat_cells(shape, pixels):
    mask = draw_mask(shape, (11, 11))
    assert_array_equal(np.argwhere(mask), np.reshape(pixels, (-1, 2)))


def test_self_crossing_and_large_cells():
    bow = shapely.make_valid(shapely.Polygon([(1, 1), (9, 9), (9, 1), (1, 9)]))
    mask = draw_mask(bow, (11, 11))
    assert mask[5, 3] or mask[3, 5]
    assert mask[5, 5]
    everything = draw_mask(disc(50, 50, 40), (25, 25), (40, 40))
    assert everything.all()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 6), st.floats(0, 2), st.floats(0, 2))
def test_masks_grow_with_the_buffer(radius, one, other):
    small, large = (draw_mask(disc(12, 12, radius), (25, 25), buffer=b) for b in sorted((one, other)))
    assert not (small & ~large).any()
    assert draw_mask(shapely.Point(12, 12), (25, 25), buffer=2).sum() > 5


def test_what_cannot_be_fed_is_named():
    cells = Cells([disc(20, 20)])
    with pytest.raises(
        ParameterError, match=r"wants the inputs input_0, input_3.*is input_0, input_1, input_2"
    ):
        drawn(cells, (50, 50), inputs=("input_0", "input_3"))
    with pytest.raises(ParameterError, match="with all_pixels=True"):
        drawn(cells, (50, 50), inputs=("input_0", "input_1"), kind="cell_type", all_pixels=False)
    with pytest.raises(ParameterError, match="mask_mode='old'"):
        drawn(cells, (50, 50), mask_mode="old")
    with pytest.raises(ParameterError, match="kind 'spikes'"):
        drawn(cells, (50, 50), kind="spikes")
