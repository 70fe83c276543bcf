import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix

from gpucalcium.cnmf.merging import merge_components
from gpucalcium.errors import ArrayShapeError
from tests.cnmf.scenes import gaussian_cells

T = 150
TEMPORAL = {"p": 0}


def merge(A, C, R=None, **changes):
    options = {"thr": 0.8, "mx": 50, **changes}
    temporal = options.pop("temporal", TEMPORAL)
    return merge_components(None, A, None, C, R, None, np.zeros_like(C), None, temporal, {}, **options)


@pytest.fixture
def scene():
    return gaussian_cells(T=T, centers=[(5, 6), (12, 9), (6, 23), (9, 22)])


def split(A, k, cut):
    """Component k in two: the pixels before `cut` and the others, which share three rows with the first."""
    A = A.toarray()
    first, second = A[:, k].copy(), A[:, k].copy()
    first[cut + 30 :] = 0
    second[:cut] = 0
    return csc_matrix(np.column_stack([np.delete(A, k, 1), first, second]))


@pytest.mark.parametrize("fast_merge", [True, False])
@pytest.mark.parametrize("p", [0, 1])
def test_a_split_cell_becomes_one(wing, scene, fast_merge, p):
    A = split(scene.A, 0, 105)
    C = np.vstack([scene.C[1:], scene.C[0], scene.C[0]])
    C = C + 0.01 * np.random.default_rng(0).standard_normal(C.shape)
    rows = np.arange(5.0)
    out = merge(
        A, C, fast_merge=fast_merge, temporal={"p": p, "noise_method": "mean", "bas_nonneg": False},
        bl=rows, c1=rows, sn=rows, g=np.full((5, p), 0.9),
    )  # fmt: skip
    A_new, C_new, nr, groups, S, bl, c1, sn, g, empty, R = out
    assert nr == A_new.shape[1] == 4
    assert_array_equal(groups, [[3, 4]])
    assert_array_equal(empty, [False])
    assert np.corrcoef(C_new[3], scene.C[0])[0, 1] > 0.99
    assert_array_equal(bl[:3], [0, 1, 2])
    assert all(len(x) == 4 for x in (C_new, S, bl, c1, sn, g, R))
    if fast_merge:
        whole = A_new[:, 3].toarray()[:, 0]
        truth = scene.A[:, 0].toarray()[:, 0]
        assert whole @ truth > 0.9 * np.linalg.norm(whole) * np.linalg.norm(truth)
        assert_allclose(np.linalg.norm(whole), 1, rtol=1e-5)


def test_nothing_to_merge_changes_nothing(scene):
    """Overlapping cells of different activity, and cells of the same activity that do not overlap, stay."""
    C = scene.C.copy()
    C[2] = C[0]
    out = merge(scene.A, C)
    assert out[2] == 4
    assert out[3] == []
    assert_array_equal(out[1], C.astype(np.float32))


def test_a_second_call_does_nothing(scene):
    A = split(scene.A, 0, 105)
    C = np.vstack([scene.C[1:], scene.C[0], scene.C[0]])
    once = merge(A, C)
    assert merge(once[0], once[1])[3] == []


def test_a_chain_merges_once():
    A = np.zeros((40, 3))
    for k in range(3):
        A[10 * k : 10 * k + 14, k] = 1
    trace = gaussian_cells(T=T).C[:1]
    out = merge(csc_matrix(A), np.vstack([trace] * 3))
    assert_array_equal(out[3], [[0, 1, 2]])
    assert out[2] == 1


def test_the_most_correlated_group_first_and_no_more_than_mx():
    scene = gaussian_cells(T=T)
    rng = np.random.default_rng(1)
    A = np.zeros((40, 4))
    A[:10, 0] = A[5:15, 1] = A[20:30, 2] = A[25:35, 3] = 1
    C = scene.C[[0, 0, 1, 1]] + np.array([[0.08], [0.08], [0.001], [0.001]]) * rng.standard_normal((4, T))
    out = merge(csc_matrix(A), C, mx=1)
    assert_array_equal(out[3], [[2, 3]])
    assert out[2] == 3


def test_groups_that_would_be_too_large_stay_apart(scene):
    A = split(scene.A, 0, 105)
    C = np.vstack([scene.C[1:], scene.C[0], scene.C[0]])
    assert merge(A, C, max_merge_area=10)[2] == 5
    assert merge(A, C, max_merge_area=600)[2] == 4


@pytest.mark.parametrize("bad", [np.nan, 3.0])
def test_constant_and_missing_traces_never_merge(bad):
    A = csc_matrix(np.ones((9, 2)))
    assert merge(A, np.full((2, T), bad, np.float32))[2] == 2


def test_no_components():
    assert merge(csc_matrix((9, 0)), np.zeros((0, T), np.float32), g=np.zeros((0, 1)))[2] == 0


def test_names_what_has_the_wrong_length(scene):
    with pytest.raises(ArrayShapeError, match="sn has 3 entries, but there are 4 components"):
        merge(scene.A, scene.C, sn=np.zeros(3))


def test_agrees_with_the_reference(reference):
    """The same groups and shapes; their deconvolution of merged traces got an index for a time constant."""
    stored = reference.load("spatial_temporal")
    C = stored["merge_before_C"]
    out = merge(stored["merge_in_A"], C, thr=0.7)
    assert_array_equal(out[3], stored["merge_fast1_merged_ROIs"])
    mine, theirs = out[0].toarray(), csc_matrix(stored["merge_fast1_A"]).toarray()
    assert mine.shape == theirs.shape
    for k in range(mine.shape[1]):
        assert mine[:, k] @ theirs[:, k] > 0.999 * np.linalg.norm(mine[:, k]) * np.linalg.norm(theirs[:, k])
