import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls
from scipy.sparse import csc_matrix, hstack

from gpucalcium.cnmf.temporal import deconvolve_traces, make_G_matrix, update_temporal_components
from gpucalcium.errors import ArrayShapeError, ParameterError
from tests.cnmf.scenes import gaussian_cells

OPTIONS = {"noise_method": "mean", "bas_nonneg": False, "fudge_factor": 0.96, "noise_range": [0.25, 0.5]}


@pytest.fixture(scope="module")
def scene():
    """Two of the four cells overlap."""
    return gaussian_cells(T=200, centers=[(5, 6), (12, 9), (6, 23), (9, 22)])


def update(scene, Y=None, p=1, **changes):
    given = {"A": scene.A, "b": scene.b, "Cin": scene.C, "fin": scene.f, **OPTIONS, **changes}
    A, b, C, f = (given.pop(name) for name in ("A", "b", "Cin", "fin"))
    return update_temporal_components(scene.Yr if Y is None else Y, A, b, C, f, p=p, **given)


@pytest.mark.parametrize("p", [0, 1])
def test_traces_of_known_cells(wing, scene, p):
    start = np.random.default_rng(0).random(scene.C.shape)
    C, _A, _b, f, S, bl, c1, sn, g, YrA, lam = update(scene, wing.put(scene.Yr), p, Cin=start, ITER=5)
    for mine, truth in zip(C, scene.C, strict=True):
        assert np.corrcoef(mine, truth)[0, 1] > (0.9 if p else 0.85)
    assert C.shape == S.shape == YrA.shape == (4, 200)
    assert bl.shape == c1.shape == sn.shape == lam.shape == (4,)
    assert g.shape == (4, p)
    assert np.abs(f / scene.f - 1).mean() < 0.03
    assert (S >= 0).all()


def test_many_sweeps_without_deconvolution_are_non_negative_least_squares(scene):
    """p = 0: components cannot be negative, backgrounds can; against SciPy frame by frame."""
    C, A, b, _f, *_ = update(scene, p=0, ITER=200, Cin=0 * scene.C)
    AA = np.hstack([A.toarray(), b, -np.asarray(b)])
    best = np.stack([nnls(AA, y)[0] for y in scene.Yr.T[:20]], 1)
    assert_allclose(C[:, :20], best[:4], atol=2e-2)


def test_residual_traces_are_what_is_left(scene):
    C, A, b, f, *_, YrA, _ = update(scene)
    both = csc_matrix(hstack([A, csc_matrix(b)])).toarray()
    rest = scene.Yr - both @ np.vstack([C, f])
    expected = (both.T @ rest / (both**2).sum(0)[:, None])[:4]
    assert_allclose(YrA, expected, atol=1e-4 * np.abs(C).max())


def test_the_fit_does_not_get_worse(scene):
    losses = []
    for sweeps in (1, 2, 4, 8):
        C, A, b, f, *_ = update(scene, p=0, ITER=sweeps, Cin=0 * scene.C)
        losses.append(((scene.Yr - A @ C - b @ f) ** 2).sum())
    assert all(late <= early * (1 + 1e-6) for early, late in itertools.pairwise(losses))


def test_rows_are_whole_traces(scene):
    """C_k = c + bl + c1 g^t: without baseline and start it is the AR(1) filter of the spikes."""
    C, _, _, _, S, bl, c1, _, g, *_ = update(scene)
    for k in range(4):
        rest = C[k] - bl[k] - c1[k] * g[k, 0] ** np.arange(200)
        assert_allclose((make_G_matrix(200, g[k]) @ rest)[1:], S[k, 1:], atol=1e-4 * C.max())


def test_a_trace_that_is_not_finite_does_not_spread(scene):
    traces = np.array(scene.C + 0.1, np.float32)
    alone = deconvolve_traces(traces[1:], 1, **OPTIONS)
    traces[0, 7] = np.nan
    found = deconvolve_traces(traces, 1, **OPTIONS)
    assert np.isnan(found.C[0]).all()
    assert_array_equal(found.C[1:], alone.C)


def test_a_footprint_without_pixels_is_dropped(scene):
    A = scene.A.toarray()
    A[:, 2] = 0
    C, A_out, *_ = update(scene, A=csc_matrix(A), Cin=np.delete(scene.C, 2, 0).repeat([1, 1, 2], 0) * 0)
    assert C.shape[0] == A_out.shape[1] == 3


def test_a_background_without_pixels_is_dropped_and_no_other(scene):
    b = np.hstack([np.zeros_like(scene.b), scene.b])
    f = np.vstack([0 * scene.f, scene.f])
    C, _A, b_out, f_out, _S, *_ = update(scene, b=b, fin=f)
    assert b_out.shape[1] == len(f_out) == 1
    assert_array_equal(b_out[:, 0], scene.b[:, 0])
    assert C.shape[0] == 4


@pytest.mark.parametrize("background", [True, False])
def test_without_components(scene, background):
    b, f = (scene.b, scene.f) if background else (None, None)
    C, _A, _b_out, f_out, S, *_ = update(scene, A=csc_matrix((600, 0)), Cin=None, b=b, fin=f)
    assert C.shape == S.shape == (0, 200)
    assert f_out.shape == (int(background), 200)


def test_says_what_is_wrong(scene):
    with pytest.raises(ParameterError, match="p is missing"):
        update(scene, p=None)
    with pytest.raises(ArrayShapeError, match="Cin has shape"):
        update(scene, Cin=scene.C[:, :9])
    with pytest.raises(ArrayShapeError, match="A has 600 pixels, but the movie has 599"):
        update(scene, Y=scene.Yr[1:])
    with pytest.raises(ArrayShapeError, match="b has 599 pixels"):
        update(scene, b=scene.b[1:])


@pytest.mark.parametrize("p, tolerance", [(0, 1e-4), (1, 2e-2)])
def test_agrees_with_the_reference(reference, p, tolerance):
    """The penalty search of the reference stops at another tolerance; at p = 0 all is linear algebra."""
    stored = reference.load("spatial_temporal")
    Y = reference.inputs("spatial_temporal")[0]["Y"]
    A, b, C, f = (stored[f"update_spatial_lasso_lars_dilate_{name}"] for name in "AbCf")
    out = update_temporal_components(Y.reshape(len(Y), -1, order="F").T, A, b, C, f, p=p, **OPTIONS)
    for name, mine in {"C": out[0], "f": out[3], "S": out[4]}.items():
        theirs = stored[f"update_temporal_p{p}_{name}"]
        assert np.linalg.norm(mine - theirs) < tolerance * np.linalg.norm(theirs) * (
            5 if name == "S" else 1
        ), name


def test_G_matrix_undoes_the_model():
    G = make_G_matrix(8, [1.5, -0.6]).toarray()
    impulse = np.linalg.solve(G, np.eye(8)[0])
    assert_allclose(impulse[:4], [1, 1.5, 1.65, 1.575])


@pytest.mark.parametrize(
    ("options", "text"),
    [({"p": -1}, "p=-1"), ({"p": 1.5}, "p=1.5"), ({"p": 1, "sn": [0.3]}, "sn has 1 values")],
)
def test_values_that_do_not_fit_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        deconvolve_traces(np.ones((2, 60)), **options)
