from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.plotting.contours import get_contours, outlines


def disc(dims, center, radius):
    """Cone of height 1 whose sides reach 0 at `radius`: its outline at a fraction f is a circle of (1 - f) radius."""
    rows, columns = np.indices(dims)
    cone = 1 - np.hypot(rows - center[0], columns - center[1]) / radius
    return np.maximum(cone, 0).ravel(order="F")[:, None]


def test_outline_of_a_cone_is_a_circle():
    dims, center = (41, 37), np.array([20.0, 15.0])
    found = outlines(disc(dims, center, 10), dims, thr=0.3)[0]
    assert len(found.paths) == 1
    assert_allclose(np.linalg.norm(found.paths[0] - center, axis=1), 7, atol=0.1)
    assert_array_equal(found.paths[0][0], found.paths[0][-1])
    assert_allclose(found.center, center)
    assert found.box == (slice(11, 30), slice(6, 25))


def inside(path, dims):
    from skimage.measure import points_in_poly

    return points_in_poly(np.indices(dims).reshape(2, -1).T, path).reshape(dims)


@given(st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_energy_outline_holds_the_energy(thr, seed):
    """The curve encloses just the brightest pixels that together reach `thr` of the energy."""
    rng = np.random.default_rng(seed)
    dims = (19, 23)
    image = disc(dims, rng.uniform(8, 11, 2), rng.uniform(3, 7)).reshape(dims, order="F")
    found = outlines(image.reshape(-1, 1, order="F"), dims, thr, "nrg")[0]
    covered = (image * np.logical_or.reduce([inside(path, dims) for path in found.paths])) ** 2
    energy = (image**2).sum()
    brightest = np.sort(image.ravel() ** 2)[::-1]
    needed = brightest[: np.searchsorted(np.cumsum(brightest), thr * energy) + 1]
    assert_allclose(covered.sum(), needed.sum(), rtol=1e-9)


@pytest.mark.parametrize("center", [(0, 0), (0, 9), (14, 9), (7, 0)])
def test_cells_at_the_border_are_closed(center):
    found = outlines(disc((15, 10), center, 4), (15, 10))[0]
    assert_array_equal(found.paths[0][0], found.paths[0][-1])


def test_donut_has_two_curves():
    image = disc((31, 31), (15, 15), 10) - disc((31, 31), (15, 15), 5) * 2
    assert len(outlines(image, (31, 31))[0].paths) == 2


def test_documented_dictionaries():
    dims = (30, 40)
    A = sparse.csc_matrix(np.c_[disc(dims, (8, 30), 5), np.zeros(1200), disc(dims, (20, 10), 4)])
    first, empty, last = get_contours(A, dims, thr=0.2, thr_method="max")
    assert [first["neuron_id"], empty["neuron_id"], last["neuron_id"]] == [1, 2, 3]
    curve = first["coordinates"]
    assert np.isnan(curve[[0, -1]]).all()
    assert np.isfinite(curve[1:-1]).all()
    assert_allclose(np.nanmean(curve, axis=0), [30, 8], atol=0.3)  # x is the column
    assert_allclose(first["CoM"], [8, 30])
    assert first["bbox"] == [4, 13, 26, 35]
    assert np.isnan(empty["coordinates"]).all()
    assert np.isnan(empty["CoM"]).all()
    assert empty["bbox"] == []


def test_volume_is_outlined_plane_by_plane():
    dims = (15, 12, 3)
    volume = np.zeros(dims)
    volume[..., 1] = disc(dims[:2], (7, 6), 4).reshape(dims[:2], order="F")
    (cell,) = get_contours(volume.reshape(-1, 1, order="F"), dims, 0.2, "max")
    flat = get_contours(volume[..., 1].reshape(-1, 1, order="F"), dims[:2], 0.2, "max")[0]
    assert [len(curve) for curve in cell["coordinates"]] == [1, len(flat["coordinates"]), 1]
    assert_array_equal(cell["coordinates"][1], flat["coordinates"])
    assert_allclose(cell["CoM"], [7, 6, 1])
    assert cell["bbox"][4:] == [1, 2]


def test_no_cells():
    assert get_contours(sparse.csc_matrix((12, 0)), (3, 4)) == []


@pytest.mark.parametrize(
    ("dims", "thr", "method", "error", "message"),
    [
        ((3, 5), 0.2, "max", ArrayShapeError, "12 pixels do not fit a field of 3x5"),
        ((12,), 0.2, "max", ArrayShapeError, "expected"),
        ((3, 4, 2), 0.2, "max", ArrayShapeError, "do not fit a volume"),
        ((3, 4), 1.5, "max", ParameterError, "thr=1.5"),
        ((3, 4), 0.2, "mean", ParameterError, "'mean'"),
    ],
)
def test_errors_name_what_is_wrong(dims, thr, method, error, message):
    with pytest.raises(error, match=message):
        get_contours(np.ones((12, 1)), dims, thr, method)
