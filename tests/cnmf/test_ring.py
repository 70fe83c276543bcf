"""Ring model: against plain linear algebra, a known background, and itself in chunks and bands."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie, pixel_movie
from gpucalcium.cnmf.ring import RingModel, block_side, compute_W, ring_places
from gpucalcium.errors import ArrayShapeError, MemoryBudgetError, NotSupportedError, ParameterError
from tests.cnmf.one_photon_scenes import one_photon


@pytest.fixture(scope="module")
def scene():
    return one_photon((17, 22), T=90, centers=((5, 6), (11, 15)))


def pixels(Y):
    return np.ascontiguousarray(Y.reshape(len(Y), -1, order="F").T)


def blocks_of(image, side):
    grid = tuple(-(-n // side) for n in image.shape)
    return np.array(
        [
            image[r * side : (r + 1) * side, c * side : (c + 1) * side].mean()
            for c in range(grid[1])
            for r in range(grid[0])
        ]
    )


def plain_W(scene, radius, side, tsub=1):
    """The formula, pixel by pixel; blocks in Fortran order."""
    Yr = pixels(scene.Y).astype(float)
    rest = Yr - scene.A @ scene.C
    rest -= rest.mean(1, keepdims=True)
    X = np.stack([blocks_of(frame.reshape(scene.dims, order="F"), side) for frame in rest.T], 1)
    X = np.stack([X[:, t : t + tsub].mean(1) for t in range(0, X.shape[1], tsub)], 1)
    grid = tuple(-(-n // side) for n in scene.dims)
    at = np.array(np.unravel_index(np.arange(len(X)), grid, order="F")).T
    W = np.zeros((len(X), len(X)))
    r = round(radius / side)
    for i in range(len(X)):
        distance = ((at - at[i]) ** 2).sum(1)
        ring = np.flatnonzero((distance > r**2) & (distance <= (r + 1) ** 2))
        gram = X[ring] @ X[ring].T
        W[i, ring] = np.linalg.solve(gram + 1e-5 * np.trace(gram) * np.eye(len(ring)), X[ring] @ X[i])
    return W


@pytest.mark.parametrize(("radius", "ssub", "tsub"), [(5, 1, 1), (6, 2, 1), (7, 3, 4)])
def test_weights_are_the_formula(wing, scene, radius, ssub, tsub):
    with wing.chosen():
        W, b0 = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, radius, ssub=ssub, tsub=tsub)
    expected = plain_W(scene, radius, ssub, tsub)
    assert W.shape == expected.shape
    assert_allclose(W.toarray(), expected, atol=2e-4 * np.abs(expected).max())
    assert_allclose(b0, pixels(scene.Y).mean(1) - scene.A @ scene.C.mean(1), rtol=1e-5)


def test_weights_are_those_of_the_reference(reference):
    stored = reference.load("init")
    made = reference.inputs("init")[2]
    W, b0 = compute_W(pixels(made["Y"]), made["A"], made["C"], (48, 40), 12)
    assert_allclose(W[stored["compute_W_rows"]].toarray(), stored["compute_W_W_of_rows"].toarray(), atol=1e-6)
    assert_allclose(b0, stored["compute_W_b0"], rtol=1e-5)
    W, b0 = compute_W(pixels(made["Y"]), made["A"], made["C"], (48, 40), 12, ssub=2)
    assert_allclose(W.toarray(), stored["compute_W_ssub2_W"].toarray(), atol=1e-6)


def test_nothing_off_the_ring_or_over_the_border(scene):
    W, _ = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5)
    at = np.array(np.unravel_index(np.arange(W.shape[0]), scene.dims, order="F")).T
    rows, columns = W.nonzero()
    distance = np.sqrt(((at[rows] - at[columns]) ** 2).sum(1))
    assert distance.min() > 5
    assert distance.max() <= 6
    assert len(ring_places(5)) - 1 == np.diff(W.indptr).max()


def background_agreement(ssub):
    """Lowest correlation over time of the background found with that there is."""
    scene = one_photon(T=300, noise=0.5)
    model = RingModel.fit(images_movie(scene.Y), scene.A, scene.C, 8, ssub)
    rest = model.without_background(images_movie(scene.Y), scene.A, scene.C)
    B = np.concatenate([backend.to_numpy(B) for _, B in rest.backgrounds()]).reshape(scene.B.shape)
    return min(
        np.corrcoef(B[:, i, j], scene.B[:, i, j])[0, 1] for i in range(0, 40, 3) for j in range(0, 44, 3)
    )


@pytest.mark.parametrize("ssub", [2, 3])
def test_finds_a_smooth_background(wing, ssub):
    with wing.chosen():
        assert background_agreement(ssub) > 0.98


def test_finds_a_smooth_background_pixel_by_pixel():
    assert background_agreement(1) > 0.98


def test_residual_and_background_make_the_movie(wing, scene):
    with wing.chosen():
        movie = images_movie(scene.Y)
        rest = RingModel.fit(movie, scene.A, scene.C, 5, 2).without_background(movie, scene.A, scene.C)
        left = np.concatenate([backend.to_numpy(y) for _, y in rest.frames()])
        B = np.concatenate([backend.to_numpy(b) for _, b in rest.backgrounds()])
    assert_allclose(left + B, scene.Y.reshape(len(B), -1), rtol=1e-5, atol=1e-3)


def test_background_is_its_equation(scene):
    """B = b0 + U W D (Y - A C - b0)."""
    W, b0 = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5, ssub=2)
    rest = pixels(scene.Y) - scene.A @ scene.C - b0[:, None]
    X = np.stack([blocks_of(frame.reshape(scene.dims, order="F"), 2) for frame in rest.T], 1)
    grid = tuple(-(-n // 2) for n in scene.dims)
    whole = (
        (W @ X).T.reshape(-1, *grid, order="F").repeat(2, 1).repeat(2, 2)[:, : scene.dims[0], : scene.dims[1]]
    )
    expected = whole + b0.reshape(scene.dims, order="F")
    for movie in (images_movie(scene.Y), pixel_movie(pixels(scene.Y))):
        model = RingModel.of(W, b0, scene.dims)
        rest = model.without_background(movie, scene.A, scene.C)
        B = np.concatenate([b for _, b in rest.backgrounds()])
        B = B.reshape(-1, *scene.dims) if len(movie.dims) > 1 else B.reshape(-1, *scene.dims, order="F")
        assert_allclose(B, expected, atol=2e-3)


def test_weights_survive_as_a_matrix(scene):
    model = RingModel.fit(images_movie(scene.Y), scene.A, scene.C, 6, 3)
    again = RingModel.of(model.W(), model.b0.ravel(order="F"), scene.dims)
    assert_array_equal(again.W().toarray(), model.W().toarray())
    assert_array_equal(again.b0, model.b0)
    assert again.ssub == 3


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_and_bands_change_no_bit(scene, chunk):
    whole = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5)
    with backend.limit(chunk_frames=chunk):
        parts = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5)
    assert_array_equal(parts[0].toarray(), whole[0].toarray())
    with backend.limit(memory=3_000_000):
        bands = compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5)
    assert_array_equal(bands[0].toarray(), whole[0].toarray())


def test_twice_the_same(wing, scene):
    with wing.chosen():
        one, two = (compute_W(pixels(scene.Y), scene.A, scene.C, scene.dims, 5, ssub=2)[0] for _ in range(2))
    assert_array_equal(one.toarray(), two.toarray())


def test_a_constant_movie_has_no_weights():
    W, b0 = compute_W(np.full((99, 20), 7, np.uint8), csc_matrix((99, 0)), np.zeros((0, 20)), (9, 11), 3)
    assert W.nnz == 0
    assert_array_equal(b0, 7)


@pytest.mark.parametrize("dims", [(3, 30), (30, 2), (1, 40), (4, 4)])
def test_a_ring_wider_than_the_field(dims):
    scene = one_photon(dims, T=60, centers=((1, 1),))
    W, _ = compute_W(pixels(scene.Y), scene.A, scene.C, dims, 9)
    assert_allclose(W.toarray(), plain_W(scene, 9, 1), atol=1e-4)


def test_says_what_is_wrong(scene):
    Yr = pixels(scene.Y)
    with pytest.raises(NotSupportedError, match="planes"):
        compute_W(Yr, scene.A, scene.C, (17, 11, 2), 5)
    with pytest.raises(ArrayShapeError, match="374 pixels"):
        compute_W(Yr, scene.A, scene.C, (17, 23), 5)
    with pytest.raises(ArrayShapeError, match="needs"):
        compute_W(Yr, scene.A, scene.C[:, 1:], scene.dims, 5)
    with pytest.raises(ParameterError, match="radius=0"):
        compute_W(Yr, scene.A, scene.C, scene.dims, 0)
    with pytest.raises(ArrayShapeError, match="does not fit"):
        block_side((6, 4), 7)
    with backend.limit(memory=300_000), pytest.raises(MemoryBudgetError, match="ssub_B"):
        compute_W(Yr, scene.A, scene.C, scene.dims, 5)
