"""The grid of patches: what the documented interface says of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.errors import ParameterError
from gpucalcium.registration.patches import PatchGrid


def test_the_documented_example():
    grid = PatchGrid.make((128, 128), (32, 32), (16, 16))
    assert grid.starts == ((0, 32, 64, 80), (0, 32, 64, 80))
    assert grid.width == (48, 48)
    assert_array_equal(grid.centres[0], [23.5, 55.5, 87.5, 103.5])
    assert grid.counts == (4, 4)
    assert grid.n == 16


def test_patches_longer_than_the_frame_are_the_frame():
    grid = PatchGrid.make((10, 200), (96, 96), (32, 32))
    assert grid.starts == ((0,), (0, 72))
    assert grid.width == (10, 128)
    assert grid.slices == [(slice(0, 10), slice(0, 128)), (slice(0, 10), slice(72, 200))]


def test_volumes():
    grid = PatchGrid.make((40, 36, 8), (16, 16, 8), (8, 8, 4))
    assert grid.counts == (2, 2, 1)
    assert grid.indices == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert_array_equal(grid.corners, [(0, 0, 0), (0, 12, 0), (16, 0, 0), (16, 12, 0)])


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40), st.integers(0, 40)), min_size=2, max_size=3)
)
def test_every_pixel_is_in_a_patch_and_every_patch_in_the_frame(axes):
    shape, strides, overlaps = map(tuple, zip(*axes, strict=True))
    grid = PatchGrid.make(shape, strides, overlaps)
    for n, starts, width, stride in zip(shape, grid.starts, grid.width, strides, strict=True):
        covered = {x for start in starts for x in range(start, start + width)}
        assert covered == set(range(n))
        assert list(starts) == sorted(set(starts))
        assert {b - a for a, b in itertools.pairwise(starts[:-1])} <= {stride}
    assert len(grid.indices) == len(grid.slices) == len(grid.corners) == grid.n


@pytest.mark.parametrize(
    ("strides", "overlaps", "complaint"),
    [
        ((48,), (24, 24), "strides=.* has 1 values"),
        ((48, 48), (24, 24, 4), "overlaps=.* has 3 values"),
        ((0, 48), (24, 24), "strides=.*1 or more"),
        ((48, 48.5), (24, 24), "strides=.*whole numbers"),
        ((48, 48), (-1, 24), "overlaps=.*0 or more"),
    ],
)
def test_bad_grids_are_named(strides, overlaps, complaint):
    with pytest.raises(ParameterError, match=complaint):
        PatchGrid.make((64, 64), strides, overlaps)


def test_numbers_of_numpy_are_taken():
    assert PatchGrid.make((np.int64(64), 60), (np.int64(32), 32), (8, np.float64(8))).width == (40, 40)
