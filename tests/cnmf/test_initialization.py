import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.initialization import greedyROI, initialize_components
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.cnmf.initialization.downscale import downscale, upscale_footprints, upscale_traces
from gpucalcium.cnmf.initialization.seeded import components_in_masks
from gpucalcium.errors import ArrayShapeError, MovieShapeError, NotSupportedError, ParameterError
from tests.cnmf.scenes import f1, gaussian_cells, matched

FIND = {"K": 4, "gSig": [2, 2]}


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells(T=150)


def last(Y):
    return np.moveaxis(Y, 0, -1)


# ---------------------------------------------------------------------------- the whole


@pytest.mark.parametrize(
    "options", [{}, {"normalize_init": False}, {"rolling_sum": True, "rolling_length": 20}]
)
def test_finds_the_cells(wing, scene, options):
    A, C, b, f, center = initialize_components(wing.put(last(scene.Y)), **FIND, **options)
    pairs, cosine, r = matched(A, C, scene)
    assert len(pairs) == 4
    assert (cosine > 0.9).all()
    assert (r > 0.9).all()
    for truth, found in pairs:
        assert np.abs(center[found] - scene.centers[truth]).max() < 1
    assert b.shape == (600, 1)
    assert f.shape == (1, 150)
    assert_allclose(b @ f, scene.b @ scene.f, rtol=0.25)


@pytest.mark.parametrize("ssub, tsub", [(2, 1), (1, 2), (2, 2), (3, 4)])
def test_finds_them_in_a_smaller_movie(scene, ssub, tsub):
    A, C, b, f, _ = initialize_components(last(scene.Y), **FIND, ssub=ssub, tsub=tsub)
    _, cosine, r = matched(A, C, scene)
    assert (cosine > 0.85).all()
    assert (r > 0.85).all()
    assert A.shape[0] == b.shape[0] == 600
    assert C.shape[1] == f.shape[1] == 150


def test_finds_cells_in_volumes():
    scene = gaussian_cells((14, 16, 7), T=120, centers=[(4, 4, 2), (9, 11, 4)])
    A, C, *_, center = initialize_components(last(scene.Y), K=2, gSig=[2, 2, 2])
    _, cosine, r = matched(A, C, scene)
    assert (cosine > 0.9).all()
    assert (r > 0.9).all()
    assert center.shape == (2, 3)


def test_a_hidden_cell_is_found_in_place_of_a_part_of_another():
    """As many components as cells: the parts into which the greedy search tears a large cell are given back."""
    scene = gaussian_cells(
        (30, 30), T=400, sigma=3.0, centers=[(8, 8), (12, 12), (21, 20), (6, 23)], rate=1.0
    )
    small = {"gSig": [2, 2], "gSiz": [5, 5]}  # boxes smaller than the cells
    torn = initialize_components(last(scene.Y), K=4, use_hals=False, **small)
    mended = initialize_components(last(scene.Y), K=4, **small)
    assert (matched(torn[0], torn[1], scene)[1] < 0.8).any()
    assert (matched(mended[0], mended[1], scene)[1] > 0.9).all()


@pytest.mark.parametrize("nb", [0, 1, 2])
def test_rank_of_the_background(scene, nb):
    A, _, b, f, _ = initialize_components(last(scene.Y), **FIND, nb=nb)
    assert b.shape == (600, nb)
    assert f.shape == (nb, 150)
    assert A.shape[1] <= 4


@pytest.mark.parametrize("sub", [1, 2])
def test_background_of_full_rank(scene, sub):
    A, C, b, f, _ = initialize_components(last(scene.Y), **FIND, nb=-1, ssub=sub, tsub=sub)
    assert (b != csc_matrix(np.eye(600))).nnz == 0
    assert f.shape == (600, 150)
    assert_allclose((A @ C + f).mean(), scene.Y.mean(), rtol=0.05)


def test_more_backgrounds_than_frames_are_the_full_one():
    scene = gaussian_cells(T=5)
    assert initialize_components(last(scene.Y), K=1, gSig=2, nb=9)[2].shape == (600, 600)


def test_the_same_movie_gives_the_same_bits(wing, scene):
    first, second = (initialize_components(wing.put(last(scene.Y)), **FIND, nb=2) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert_array_equal(
            one.toarray() if hasattr(one, "toarray") else one,
            two.toarray() if hasattr(two, "toarray") else two,
        )


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_change_nothing(scene, chunk):
    whole = initialize_components(last(scene.Y), **FIND, ssub=2, tsub=4)
    with backend.limit(chunk_frames=chunk):
        parts = initialize_components(last(scene.Y), **FIND, ssub=2, tsub=4)
    assert_array_equal(parts[1], whole[1])
    assert_array_equal(parts[0].toarray(), whole[0].toarray())


def test_an_image_to_divide_by(scene):
    even = initialize_components(last(scene.Y), **FIND, img=np.full((20, 30), 5.0))
    plain = initialize_components(last(scene.Y), **FIND, normalize_init=False)
    assert_allclose((even[0] @ even[1]), (plain[0] @ plain[1]), atol=1e-3 * np.abs(plain[0] @ plain[1]).max())


def test_seeds_that_are_given(scene):
    A, C, *_ = initialize_components(
        last(scene.Y), K=9, gSig=[2, 2], seed_method=scene.centers[[2, 0]], ssub=2
    )
    assert A.shape[1] == 2
    assert np.corrcoef(C[0], scene.C[2])[0, 1] > 0.9
    with pytest.raises(ParameterError, match="outside the field"):
        initialize_components(last(scene.Y), gSig=[2, 2], seed_method=np.array([[3, 99]]))


def test_a_kernel_of_ones_own(scene):
    kernel = np.ones((5, 5)) / 25
    A, C, *_ = initialize_components(last(scene.Y), **FIND, kernel=kernel)
    assert (matched(A, C, scene)[2] > 0.9).all()
    with pytest.raises(ParameterError, match="odd sides"):
        initialize_components(last(scene.Y), **FIND, kernel=np.ones((4, 5)))


# ---------------------------------------------------------------------------- edges


@pytest.mark.parametrize("K", [0, 1, 12])
def test_any_number_of_cells(scene, K):
    A, C, _b, f, center = initialize_components(last(scene.Y), K=K, gSig=[2, 2])
    assert A.shape[1] == len(C) == len(center) <= K
    assert (K > 4) or A.shape[1] == K
    assert f.shape == (1, 150)


def test_a_field_smaller_than_the_box(wing):
    scene = gaussian_cells((6, 5), T=60, centers=[(2, 2)])
    A, C, *_ = initialize_components(wing.put(last(scene.Y)), K=1, gSig=[4, 4], ssub=2)
    assert matched(A, C, scene)[2][0] > 0.9


def test_missing_values_count_as_nothing(scene):
    Y = scene.Y.copy()
    Y[3, 5, 6] = np.nan
    Y[:, 0, 0] = np.nan
    A, C, b, f, _ = greedyROI(last(Y), nr=4, gSig=[2, 2], gSiz=[5, 5])
    assert all(np.isfinite(x).all() for x in (A, C, b, f))


@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_movie_has_no_cells(value):
    A, C, b, f, _ = initialize_components(np.full((9, 8, 30), value, np.float32), K=2, gSig=2)
    assert A.nnz == 0 or not (A @ C).any()
    assert np.isfinite(b @ f).all()


def test_shorter_than_the_rolling_mean(scene):
    A, C, *_ = initialize_components(last(scene.Y[:40]), **FIND, rolling_sum=True, rolling_length=100)
    assert C.shape == (A.shape[1], 40)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64"])
def test_any_number_type(scene, dtype):
    Y = np.rint(scene.Y * 4)
    A, C, *_ = initialize_components(last(Y.astype(dtype)), **FIND)
    assert (matched(A, C, scene)[2] > 0.9).all()


def test_says_what_is_not_there(scene):
    Y = last(scene.Y)
    with pytest.raises(ParameterError, match="define arguments for local NMF"):
        initialize_components(Y, method_init="local_nmf")
    with pytest.raises(ParameterError, match="not known"):
        initialize_components(Y, method_init="magic")
    with pytest.raises(ParameterError, match="one-photon"):
        initialize_components(Y, center_psf=True)
    with pytest.raises(NotSupportedError, match="clicking"):
        initialize_components(Y, gSig=2, seed_method="manual")
    with pytest.raises(MovieShapeError, match=r"\(d1, d2\[, d3\], T\)"):
        initialize_components(Y[0])
    with pytest.raises(ParameterError, match="gSig"):
        initialize_components(Y, gSig=[1, 2, 3])
    with pytest.raises(ParameterError, match="ssub=0"):
        initialize_components(Y, ssub=0)
    with pytest.raises(ParameterError, match=r"tsub=1\.5: expected a whole number"):
        initialize_components(Y, tsub=1.5)


def test_methods_in_any_case(scene):
    assert initialize_components(last(scene.Y), **FIND, method_init="Greedy_ROI")[0].shape[1] == 4


# ---------------------------------------------------------------------------- down and up


@pytest.mark.parametrize("ssub, tsub", [(1, 1), (2, 1), (1, 3), (3, 4)])
@pytest.mark.parametrize("shape", [(11, 7, 8), (12, 5, 6, 4)])
def test_block_means(wing, shape, ssub, tsub):
    Y = np.random.default_rng(0).random(shape).astype(np.float32)
    mine = backend.to_numpy(downscale(images_movie(wing.put(Y)), ssub, tsub))
    blocks = [-(-n // s) for n, s in zip(shape, (tsub, *[ssub] * (len(shape) - 1)), strict=True)]
    expected = np.zeros(blocks)
    for at in np.ndindex(*blocks):
        window = tuple(
            slice(i * s, (i + 1) * s) for i, s in zip(at, (tsub, *[ssub] * (len(shape) - 1)), strict=True)
        )
        expected[at] = Y[window].mean()
    assert_allclose(mine, expected, rtol=1e-5)


def test_block_means_of_the_reference(reference):
    stored = reference.load("init")
    Y = reference.inputs("init")[0]["Y"]
    for name, frames, (ssub, tsub) in (("2_2_1", 20, (2, 1)), ("3_3_2", 20, (3, 2))):
        mine = backend.to_numpy(downscale(images_movie(Y[:frames]), ssub, tsub))
        assert_allclose(np.moveaxis(mine, 0, -1), stored[f"downscale_{name}"], rtol=1e-4)


def test_a_ramp_comes_back_from_its_block_means():
    """Between the middles of the first and the last block linear interpolation is exact."""
    dims = (12, 9)
    ramp = (np.arange(12)[:, None] + 2.0 * np.arange(9)).astype(np.float32)
    small = backend.to_numpy(downscale(images_movie(ramp[None]), 3, 1))[0]
    back = upscale_footprints(csc_matrix(small.ravel(order="F")[:, None]), dims, 3).toarray()
    assert_allclose(back.reshape(dims, order="F")[1:-1, 1:-1], ramp[1:-1, 1:-1], rtol=1e-5)
    times = np.arange(11, dtype=float)[None]
    blocks = np.array([[0.5, 2.5, 4.5, 6.5, 8.5, 10]])
    assert_allclose(upscale_traces(blocks, 11, 2)[0, 1:], times[0, 1:], atol=1e-5)


# ---------------------------------------------------------------------------- background


@pytest.mark.parametrize("method", ["nndsvd", "nndsvda", "nndsvdar", "random"])
def test_background_is_the_factorisation(wing, method):
    rng = np.random.default_rng(3)
    W, H = rng.random((40, 2)), rng.random((2, 50))
    b, f = background_nmf(wing.put((W @ H).astype(np.float32)), 2, method, 2000)
    assert (b >= 0).all()
    assert (f >= 0).all()
    assert np.linalg.norm(b @ f - W @ H) < 0.02 * np.linalg.norm(W @ H)


def test_background_of_nothing():
    b, f = background_nmf(np.zeros((9, 11), np.float32), 2)
    assert_allclose(b @ f, 0, atol=1e-6)
    assert background_nmf(np.ones((9, 11), np.float32), 0)[1].shape == (0, 11)
    with pytest.raises(ParameterError, match="nndsvdar"):
        background_nmf(np.ones((9, 11), np.float32), 1, "svd")


# ---------------------------------------------------------------------------- masks


@pytest.mark.parametrize("nb", [0, 1, 2])
def test_cells_in_given_masks(wing, scene, nb):
    masks = scene.A > 0  # whole cells: tails outside would pass for background
    A, C, b, f = components_in_masks(images_movie(wing.put(scene.Y)), masks, nb)
    assert not (A.astype(bool) > masks).nnz
    assert b.shape == (600, nb)
    assert f.shape == (nb, 150)
    if nb:
        for mine, truth in zip(C, scene.C, strict=True):
            assert np.corrcoef(mine, truth)[0, 1] > 0.85


def test_masks_of_another_field(scene):
    with pytest.raises(ArrayShapeError, match="10 pixels"):
        components_in_masks(images_movie(scene.Y), np.ones((10, 1), bool), 1)


# ---------------------------------------------------------------------------- the reference


@pytest.mark.parametrize(
    "name, options",
    [("basic", {}), ("rolling", {"rolling_sum": True, "rolling_length": 50}), ("nb2", {"nb": 2})],
)
def test_greedy_search_is_that_of_the_reference(reference, name, options):
    stored = reference.load("init")
    Y = reference.inputs("init")[0]["Y"]
    A, C, _, b, f = greedyROI(last(Y), nr=8, gSig=[4, 4], gSiz=[9, 9], **options)
    assert_allclose(A, stored[f"greedyROI_{name}_A"], atol=1e-4)
    assert_allclose(C, stored[f"greedyROI_{name}_C"], atol=1e-4 * C.max())
    theirs = stored[f"greedyROI_{name}_b"] @ stored[f"greedyROI_{name}_f"]
    assert np.linalg.norm(b @ f - theirs) < 1e-3 * np.linalg.norm(theirs)


def test_traces_in_volumes_are_those_of_the_reference(reference):
    """Its footprints in volumes have their planes in disorder; seeds and traces do not."""
    stored = reference.load("init")
    volume = reference.inputs("init")[1]["Y"]
    _, C, center, *_ = greedyROI(last(volume), nr=4, gSig=[3, 3, 2], gSiz=[7, 7, 5])
    assert_allclose(C, stored["greedyROI_3d_C"], atol=1e-3 * C.max())
    assert np.abs(center - stored["greedyROI_3d_center"]).max() < 1


@pytest.mark.parametrize(
    "name, options", [("greedy", {}), ("greedy_ssub2", {"ssub": 2}), ("rolling", {"rolling_sum": True})]
)
def test_no_worse_than_the_reference(reference, name, options):
    stored = reference.load("init")
    truth = reference.inputs("init")[0]
    A, C, *_ = initialize_components(last(truth["Y"]), K=8, gSig=[4, 4], **options)
    mine = f1(A, C, truth["A"], truth["C"])[0]
    theirs = f1(
        stored[f"initialize_components_{name}_A"],
        stored[f"initialize_components_{name}_C"],
        truth["A"],
        truth["C"],
    )[0]
    assert mine >= theirs
