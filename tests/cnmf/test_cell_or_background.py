"""Which components of a one-photon movie are background."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csc_matrix, hstack

from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie, pixel_movie
from gpucalcium.cnmf.initialization.cell_or_background import is_background, time_courses
from gpucalcium.cnmf.ring import RingModel
from tests.cnmf.one_photon_scenes import one_photon


@pytest.fixture(scope="module")
def scene():
    return one_photon()


@pytest.fixture(scope="module")
def ring(scene):
    with backend.use("cpu"):
        return RingModel.fit(images_movie(scene.Y), scene.A, scene.C, 11.0, 2)


def test_time_courses_are_those_of_the_background(scene, ring):
    """Three blobs fluctuate: three courses hold what they do."""
    found = time_courses(ring, images_movie(scene.Y), scene.A, scene.C)
    assert found.shape == (3, 300)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)
    rows = scene.B.reshape(300, -1)[:, ::53].T.astype(float)
    rows -= rows.mean(1, keepdims=True)
    assert (((rows @ found.T) ** 2).sum(1) > 0.98 * (rows**2).sum(1)).all()


def test_cells_stay_and_a_piece_of_background_goes(wing, scene, ring):
    rng = np.random.default_rng(0)
    edge = scene.B[:, 20:23, 20:30].mean((1, 2)) - scene.B.mean()
    flat = gaussian_filter1d(rng.standard_normal(300), 2)
    bright = scene.C[0] + 0.05 * edge  # a cell in whose light the background takes part
    pieces = csc_matrix(np.eye(1760, 3, -50))
    A = csc_matrix(hstack([scene.A, pieces]))
    C = np.vstack([scene.C, edge, flat, bright]).astype(np.float32)
    with wing.chosen():
        movie = images_movie(wing.put(scene.Y))
        found = is_background(ring, movie, A, C, np.zeros_like(C))
    assert found.tolist() == [False] * 4 + [True, bool(found[5]), False]


def test_rows_of_pixels_say_the_same(scene, ring):
    rows = pixel_movie(scene.Y.reshape(300, -1, order="F").T)
    C = np.vstack([scene.C[:3], scene.B[:, 20, 20] - 150]).astype(np.float32)
    assert is_background(ring, rows, scene.A, C, 0 * C).tolist() == [False, False, False, True]


def test_short_movies_and_no_components(scene, ring):
    few = scene.Y[:30]
    C = scene.B[:30, 20:24, 20].T
    assert not is_background(ring, images_movie(few), scene.A, C, 0 * C).any()
    nothing = is_background(ring, images_movie(few), scene.A[:, :0], C[:0], C[:0])
    assert nothing.shape == (0,)
