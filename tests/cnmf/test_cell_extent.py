"""How far footprints of one-photon cells go, and which of them are one cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix

from gpucalcium.cnmf.cell_extent import groups_at_one_place, reach, within_reach


def spot(dims, center, sigma):
    grid = np.indices(dims)
    return np.exp(-sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) / (2 * sigma**2))


def columns(*images):
    return csc_matrix(np.array([image.ravel(order="F") for image in images]).T.astype(np.float32))


def test_reach_is_the_larger_of_three_sigma_and_three_quarters_of_the_size():
    assert reach((3, 3), (13, 13)) == (9.75, 9.75)
    assert reach((3, 2), (7, 7)) == (9, 6)


def test_a_cell_keeps_its_shape_and_background_goes():
    dims = (41, 37)
    cell = spot(dims, (20, 18), 3)
    bounded = np.where(cell > 0.03, cell, 0)
    mine = within_reach(columns(bounded, cell + 0.3), dims, (9.75, 9.75)).toarray()
    assert_array_equal(mine[:, 0], columns(bounded).toarray()[:, 0])
    image = mine[:, 1].reshape(dims, order="F")
    assert np.abs(image - cell).max() < 0.03  # what a spot has itself at the rim
    grid = np.indices(dims)
    assert not image[(grid[0] - 20) ** 2 + (grid[1] - 18) ** 2 > 9.75**2].any()


def test_the_level_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    dims = (15, 17)
    image = rng.random(dims) * (rng.random(dims) < 0.8)
    image[4, 9] = 2
    mine = within_reach(columns(image), dims, (6.0, 4.0)).toarray()[:, 0].reshape(dims, order="F")
    grid = np.indices(dims)
    distance = np.sqrt(((grid[0] - 4) / 6) ** 2 + ((grid[1] - 9) / 4) ** 2)
    level = np.median(image.astype(np.float32)[(distance > 0.8) & (distance <= 1)])
    assert level > 0
    assert_allclose(mine, np.where(distance <= 1, np.maximum(image - level, 0), 0), atol=1e-6)


def test_volumes_and_nothing():
    dims = (9, 11, 5)
    ball = spot(dims, (4, 5, 2), 1.0)
    mine = within_reach(columns(ball, 0 * ball), dims, (3.0, 3.0, 2.0))
    assert mine[:, 0].nnz
    assert mine[:, 1].nnz == 0
    assert within_reach(csc_matrix((9 * 11 * 5, 0)), dims, (3.0, 3.0, 2.0)).shape == (495, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.floats(1.5, 20), st.floats(0.1, 100))
def test_scale_goes_through_and_nothing_grows(seed, far, scale):
    rng = np.random.default_rng(seed)
    dims = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    A = columns(rng.random(dims) * (rng.random(dims) < 0.5))
    once = within_reach(A, dims, (far, far))
    again = within_reach(A * np.float32(scale), dims, (far, far))
    assert_allclose(again.toarray(), scale * once.toarray(), rtol=1e-4, atol=1e-6 * scale)
    assert (once.toarray() <= A.toarray()).all()
    assert (once.toarray() >= 0).all()


@pytest.mark.parametrize(("apart", "one"), [(1.0, True), (2.0, True), (4.5, False), (30.0, False)])
def test_cells_are_one_if_nearer_than_they_could_be_told_apart(apart, one):
    """Spots of sigma s at distance d have cosine exp(-d^2 / 4 s^2): 0.7 at 1.2 s."""
    A = columns(spot((40, 60), (20, 12), 2.5), 3 * spot((40, 60), (20, 12 + apart), 2.5))
    groups = groups_at_one_place(A)
    assert len(groups) == one
    assert not one or groups[0].tolist() == [0, 1]


def test_no_footprints_make_no_group():
    assert groups_at_one_place(csc_matrix((20, 0))) == []
    assert groups_at_one_place(csc_matrix((20, 3))) == []
