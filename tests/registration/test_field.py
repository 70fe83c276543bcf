"""Fields spread from patches over pixels and tiles: against interpolation by other means, and stored fields."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import RectBivariateSpline

from gpucalcium import backend
from gpucalcium.registration.field import AxisBasis, Tiling, along_axes, bases, ramps, resized, shear
from gpucalcium.registration.patches import PatchGrid


def spread(basis: AxisBasis, nodes: np.ndarray) -> np.ndarray:
    """What a kernel makes of the nodes of one axis."""
    c = basis.coefficients @ nodes
    return sum(w * c[basis.first + p] for p, w in enumerate(basis.weights.astype(np.float64)))


@pytest.mark.parametrize("nodes", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 5, 64])
def test_stretched_grid_is_linear_between_half_pixel_centres(nodes, length):
    values = np.random.default_rng(nodes).normal(size=nodes)
    basis = AxisBasis.stretched(nodes, length)
    centres = (np.arange(nodes) + 0.5) * length / nodes - 0.5
    expected = np.interp(np.arange(length), centres, values)
    assert_allclose(spread(basis, values), expected, atol=1e-6)  # weights are float32
    assert_allclose(basis.matrix() @ values, expected, atol=1e-6)


@pytest.mark.parametrize("counts", [(4, 6), (5, 4), (9, 4)])
def test_splines_are_those_of_scipy(counts):
    rng = np.random.default_rng(1)
    shape = (50, 61)
    centres = [
        np.sort(rng.choice(np.arange(4, n - 4), g, replace=False)) + 0.5
        for n, g in zip(shape, counts, strict=True)
    ]
    values = rng.normal(size=counts)
    matrices = [basis.matrix() for basis in bases(shape, centres, interpolate=True)]
    found = np.asarray(along_axes(values[None, ..., None].astype(np.float32), matrices))[0, ..., 0]
    at = [np.clip(np.arange(n), c[0], c[-1]) for n, c in zip(shape, centres, strict=True)]
    expected = RectBivariateSpline(*centres, values, s=0)(*at)
    assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 8])
def test_splines_reproduce_polynomials_of_the_degree_that_nodes_determine(nodes):
    centres = np.linspace(5, 40, nodes) if nodes > 1 else np.array([20.0])
    polynomial = np.polynomial.Polynomial([1, -0.05, 0.003, -0.00004][: min(nodes, 4)])
    basis = AxisBasis.spline(centres, np.arange(48))
    inside = np.clip(np.arange(48), centres[0], centres[-1])
    assert_allclose(spread(basis, polynomial(centres)), polynomial(inside), atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 90), st.booleans(), st.floats(-30, 30))
def test_equal_nodes_give_equal_pixels(nodes, length, interpolate, value):
    centres = np.arange(nodes) * 7 + 3.5
    basis = (
        AxisBasis.spline(centres, np.arange(length)) if interpolate else AxisBasis.stretched(nodes, length)
    )
    assert_allclose(basis.weights.sum(0), 1, atol=3e-7)
    assert (np.diff(basis.first) >= 0).all()
    assert basis.first.min() >= 0
    assert basis.first.max() + len(basis.weights) <= nodes
    assert_allclose(spread(basis, np.full(nodes, value)), value, atol=1e-5)
    assert_allclose(resized(nodes, length).sum(1), 1, atol=1e-12)


def test_fields_of_tiles_are_the_stored_ones(wing, reference):
    stored = reference.load("motion")
    for strides, case, interpolate in ((24, "fft", False), (16, "fft_interp", True)):
        patches = PatchGrid.make((96, 88), (strides,) * 2, (16, 16))
        shifts = stored[f"tile_and_correct_{case.replace('fft', 'opencv')}_shifts"]
        field = shifts.reshape(1, *patches.counts, 2).astype(np.float32)
        tiling = Tiling.make((96, 88), (strides // 4,) * 2, (16, 16))
        found = backend.to_numpy(tiling.spread(wing.put(field), patches, interpolate))
        assert_allclose(found.reshape(-1, 2), stored[f"tile_and_correct_{case}_shifts"], atol=2e-5)


def test_tiles_weigh_as_stored(reference):
    along = ramps(4, 32, 8)[0]
    assert_allclose(np.outer(along, along), reference.load("motion")["weight_matrix"], atol=1e-6)


@pytest.mark.parametrize("overlap", [0, 1, 2, 9, 40])
def test_every_pixel_has_a_tile(overlap):
    tiling = Tiling.make((53,), (7,), (overlap,))
    (starts,), (weights,), (width,) = tiling.grid.starts, tiling.weights, tiling.grid.width
    total = np.zeros((2, 53))
    for i, start in enumerate(starts):
        total[:, start : start + width] += weights[:, i]
    assert (total[0] > 0).all()
    assert_array_equal(total[1], 1)  # side by side: one tile each
    assert all(size >= w + 8 for size, w in zip(tiling.size, tiling.grid.width, strict=True))


@pytest.mark.parametrize("counts", [(4, 3), (1, 5), (1, 1), (3, 2, 2)])
def test_shear_is_the_upper_quartile_of_largest_differences(wing, counts):
    field = np.random.default_rng(2).normal(size=(3, *counts, len(counts))).astype(np.float32)
    expected = []
    for one in field:
        largest = [
            np.abs(np.diff(one[..., k], axis=a)).max(initial=0)
            for a in range(len(counts))
            for k in range(len(counts))
        ]
        expected.append(np.percentile(largest, 75))
    assert_allclose(backend.to_numpy(shear(wing.put(field))), expected, rtol=1e-5)
