import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix
from sklearn.linear_model import Lasso

from gpucalcium import backend
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.errors import ArrayShapeError, ParameterError
from tests.cnmf.scenes import gaussian_cells

PLAIN = {"medw": (1, 1), "thr_method": "max", "maxthr": 0.0, "extract_cc": False, "se": np.ones((1, 1))}
"""No post-processing beyond dropping zeros."""


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=120)


def update(scene, **changes):
    given = {
        "C": scene.C,
        "f": scene.f,
        "A_in": scene.A,
        "sn": scene.sn,
        "dims": scene.dims,
        "b_in": scene.b,
        **changes,
    }
    Y = given.pop("Y", scene.Yr)
    return update_spatial_components(Y, **given)


def test_recovers_a_movie_without_noise(wing):
    scene = gaussian_cells(noise=0.0, T=60)
    A, b, C, f = update(scene, Y=wing.put(scene.Yr), sn=np.full(600, 1e-6), **PLAIN)
    assert_allclose(A @ C, (scene.A @ scene.C), atol=1e-3 * (scene.A @ scene.C).max())
    assert_allclose(b @ f, scene.b @ scene.f, rtol=1e-3)
    assert_allclose(np.linalg.norm(C, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("method_ls", ["lasso_lars", "nnls_L0"])
def test_cells_at_their_place(wing, scene, method_ls):
    A, _, C, _ = update(scene, Y=wing.put(scene.Yr), method_ls=method_ls)
    truth = scene.A.toarray()
    cosine = (
        (A.toarray() * truth).sum(0) / np.linalg.norm(A.toarray(), axis=0) / np.linalg.norm(truth, axis=0)
    )
    assert (cosine > 0.95).all()
    assert_allclose(C, scene.C / np.linalg.norm(scene.C, axis=1, keepdims=True), rtol=1e-5)


def test_is_the_lasso(scene):
    """Against scikit-learn on the time-centred traces, pixel by pixel, with the documented penalty."""
    A, _, C, _ = update(scene, **PLAIN)
    A = A.toarray()
    T = scene.Y.shape[0]
    X = np.vstack([C, scene.f])
    X = X - X.mean(1, keepdims=True)
    norms = np.linalg.norm(X, axis=1)
    checked = 0
    for pixel in np.flatnonzero(A.sum(1))[::7]:
        y = scene.Yr[pixel].astype(float)
        kappa = 0.5 * scene.sn[pixel] * norms / np.sqrt(T)  # unit rows: max |c| = 1
        active = np.r_[np.flatnonzero(A[pixel]), 4]
        # scaling x_j by 1 / kappa_j makes the penalty common to all
        Z = (X[active] / kappa[active, None]).T
        model = Lasso(alpha=1.0 / T, positive=True, fit_intercept=False, max_iter=100_000, tol=1e-12)
        weights = model.fit(Z, y - y.mean()).coef_ / kappa[active]
        if (weights[:-1] > 0).all():
            assert_allclose(A[pixel, active[:-1]], weights[:-1], rtol=2e-3)
            checked += 1
    assert checked > 20


def test_a_boolean_mask_is_the_support(scene):
    mask = scene.A != 0
    A = update(scene, A_in=csc_matrix(mask), **PLAIN)[0]
    assert not (A.astype(bool) > mask).nnz


def test_pixels_without_noise_level_are_left_out(scene):
    sn = scene.sn.copy()
    sn[::2] = 0
    A = update(scene, sn=sn, **PLAIN)[0].toarray()
    assert (A[::2] == 0).all()
    assert A[1::2].any()


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 0.1])
def test_silent_components_are_dropped(scene, bad):
    C = scene.C.copy()
    C[1] = bad
    A, b, C_out, _f = update(scene, C=C)
    assert A.shape == (600, 3)
    assert C_out.shape == (3, 120)
    assert np.isfinite(C_out).all()
    assert b.shape == (600, 1)


def test_background_stays_unless_it_is_to_change(scene):
    b = 0.5 * scene.b
    assert_array_equal(update(scene, b_in=b, update_background_components=False)[1], b)
    assert_allclose(update(scene, b_in=b)[1], scene.b, rtol=0.2)


def test_background_on_its_own_support(scene):
    half = scene.b.copy()
    half[300:] = 0
    b = update(scene, b_in=half, low_rank_background=None)[1]
    assert (b[300:] == 0).all()
    assert_allclose(b[:300], scene.b[:300], rtol=0.2)
    everywhere = update(scene, b_in=half, low_rank_background=True)[1]
    assert (everywhere[300:] > 0).all()


def test_without_background(scene):
    A, b, _, f = update(scene, f=None, b_in=None)
    assert b is None or b.shape == (600, 0)
    assert f.shape == (0, 120)
    assert A.shape == (600, 4)


def test_volume_is_the_same_path():
    scene = gaussian_cells((12, 14, 6), T=80, centers=[(3, 4, 2), (8, 9, 4)])
    A, *_ = update(scene, medw=None, se=None, ss=None)
    truth = scene.A.toarray()
    cosine = (
        (A.toarray() * truth).sum(0) / np.linalg.norm(A.toarray(), axis=0) / np.linalg.norm(truth, axis=0)
    )
    assert (cosine > 0.95).all()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_change_nothing(scene, chunk):
    whole = update(scene)
    with backend.limit(chunk_frames=chunk):
        parts = update(scene)
    assert_array_equal(parts[0].toarray(), whole[0].toarray())
    assert_array_equal(parts[1], whole[1])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dims": (20, 31)}, "dims has shape 620, expected 600"),
        ({"C": np.ones((4, 7))}, "C has shape"),
        ({"f": np.ones((1, 7))}, "f has shape"),
        ({"sn": np.ones(7)}, "sn has shape"),
        ({"b_in": np.ones((600, 2))}, "b_in has shape"),
        ({"Y": np.ones((4, 5, 6))}, "pixels x time"),
        (
            {"C": np.ones((0, 120)), "A_in": csc_matrix((600, 0)), "f": None, "b_in": None},
            "nothing to update",
        ),
    ],
)
def test_names_the_argument_that_does_not_fit(scene, changes, words):
    with pytest.raises(ArrayShapeError, match=words):
        update(scene, **changes)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"dims": None}, "dims"),
        ({"sn": None}, "sn"),
        ({"A_in": None}, "A_in"),
        ({"method_ls": "ridge"}, "lasso_lars"),
    ],
)
def test_says_what_is_missing(scene, changes, words):
    with pytest.raises(ParameterError, match=words):
        update(scene, **changes)


def test_agrees_with_the_reference(reference):
    """Shapes of components; theirs are in units that are off by the standard deviation of the trace."""
    stored = reference.load("spatial_temporal")
    Y = reference.inputs("spatial_temporal")[0]["Y"]
    A, _, C, _ = update_spatial_components(
        Y.reshape(len(Y), -1, order="F").T,
        C=stored["C_in"],
        f=stored["f_in"],
        A_in=stored["A_in"],
        sn=stored["sn_pixel"],
        dims=Y.shape[1:],
        b_in=stored["b_in"],
    )
    theirs = csc_matrix(stored["update_spatial_lasso_lars_dilate_A"]).toarray()
    mine = A.toarray()
    cosine = (mine * theirs).sum(0) / np.linalg.norm(mine, axis=0) / np.linalg.norm(theirs, axis=0)
    assert (cosine > 0.97).all()
    assert_allclose(C, stored["update_spatial_lasso_lars_dilate_C"], rtol=1e-4)
    assert (((mine > 0) != (theirs > 0)).sum(0) <= 0.12 * (theirs > 0).sum(0)).all()
