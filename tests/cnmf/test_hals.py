import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix, hstack

from gpucalcium.cnmf._movie import pixel_movie
from gpucalcium.cnmf.hals import hals_footprints, hals_traces
from tests.cnmf.scenes import gaussian_cells


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=80)


def both(scene):
    return csc_matrix(hstack([scene.A, csc_matrix(scene.b)]), dtype=np.float32)


def test_traces_from_nothing(wing, scene):
    A = both(scene)
    C, noisy = hals_traces(A.T @ scene.Yr, A.T @ A, np.zeros((5, 80)), sweeps=200, tol=1e-6)
    assert (C >= 0).all()
    assert_allclose(C[4:], scene.f, rtol=0.05)
    for mine, truth in zip(C[:4], scene.C, strict=True):
        assert np.corrcoef(mine, truth)[0, 1] > 0.9
    assert (noisy < 0).any()


def test_order_free_rows_and_the_given_start(scene):
    A = both(scene)
    start = np.ones((5, 80))
    C, _ = hals_traces(A.T @ scene.Yr, A.T @ A, start, order=[1], sweeps=1)
    assert_array_equal(C[[0, 2, 3, 4]], 1)
    assert_array_equal(start, 1)
    C, _ = hals_traces(A.T @ -scene.Yr, A.T @ A, start, free=[4], sweeps=5)
    assert (C[4] < 0).all()


def test_footprints_from_flat_ones(wing, scene):
    A = both(scene)
    A.data[:] = 1
    out = hals_footprints(pixel_movie(wing.put(scene.Yr)), A, np.vstack([scene.C, scene.f]), sweeps=20)
    assert not ((out != 0).astype(int) > (A != 0).astype(int)).nnz
    assert_allclose(out[:, 4].toarray(), scene.b, rtol=0.15)
    truth, mine = scene.A.toarray(), out[:, :4].toarray()
    assert ((truth * mine).sum(0) > 0.97 * np.linalg.norm(truth, axis=0) * np.linalg.norm(mine, axis=0)).all()


def test_footprints_that_are_not_to_change(scene):
    A = both(scene)
    out = hals_footprints(pixel_movie(scene.Yr), A, np.vstack([scene.C, scene.f]), 2, slice(0, 4))
    assert_array_equal(out[:, 4].toarray(), A[:, 4].toarray())
    assert np.abs(out[:, :4] - A[:, :4]).max() > 0


def test_agrees_with_the_reference(reference):
    stored = reference.load("spatial_temporal")
    Y = reference.inputs("spatial_temporal")[0]["Y"]
    Yr = Y.reshape(len(Y), -1, order="F").T.astype(np.float64)
    A = csc_matrix(stored["hals_in_Ab"])
    C, _noisy = hals_traces(A.T @ Yr, A.T @ A, stored["hals_in_noisyC"], sweeps=5)
    assert_allclose(C, stored["HALS4activity_C"], atol=1e-4 * C.max())
