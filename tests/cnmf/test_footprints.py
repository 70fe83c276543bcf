import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_dilation
from scipy.sparse import csc_matrix

from gpucalcium.cnmf.footprints import centers_of_mass, determine_search_location, threshold_components
from gpucalcium.errors import ParameterError

DIMS = (13, 11)


def column(image):
    return csc_matrix(np.asarray(image, float).ravel(order="F")[:, None])


def image(A, k=0, dims=DIMS):
    return np.asarray(csc_matrix(A)[:, k].todense()).reshape(dims, order="F")


def spot(centre, dims=DIMS, sigma=1.5):
    grid = np.indices(dims)
    out = np.exp(-sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / (2 * sigma**2))
    return np.where(out > 0.05, out, 0)


def test_search_is_a_dilation_by_the_given_element():
    core = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 1]])
    A = column(spot((1, 9)))
    expected = binary_dilation(spot((1, 9)) > 0, core)
    assert_array_equal(image(determine_search_location(A, DIMS, expandCore=core)) > 0, expected)


@pytest.mark.parametrize("dims, centre", [((13, 11), (6, 5)), ((7, 8, 5), (3, 3, 2))])
def test_ellipse_of_a_round_spot_is_a_ball(dims, centre):
    A = column(spot(centre, dims, 1.0))
    mask = image(determine_search_location(A, dims, "ellipse", min_size=2, max_size=2, dist=1.55), dims=dims)
    grid = np.indices(dims)
    ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= 3.1**2
    assert_array_equal(mask > 0, ball)


def test_search_of_an_empty_footprint_is_empty():
    empty = csc_matrix((143, 1))
    assert determine_search_location(empty, DIMS).nnz == 0
    assert determine_search_location(empty, DIMS, "ellipse").nnz == 0


def test_unknown_methods_are_refused():
    with pytest.raises(ParameterError, match="dilate"):
        determine_search_location(column(spot((3, 3))), DIMS, "grow")
    with pytest.raises(ParameterError, match="nrg"):
        threshold_components(column(spot((3, 3))), DIMS, thr_method="top")


def test_keeps_the_strongest_connected_piece():
    A = column(spot((4, 4)) + 0.5 * spot((10, 9), sigma=1.0))
    out = image(threshold_components(A, DIMS))
    assert out[4, 4] > 0.5
    assert out[10, 9] == 0
    both = image(threshold_components(A, DIMS, extract_cc=False))
    assert both[10, 9] > 0


def test_single_hot_pixels_are_smoothed_away():
    hot = spot((6, 5))
    hot[0, 10] = 5
    out = image(threshold_components(column(hot), DIMS))
    assert out[0, 10] == 0
    assert out[6, 5] > 0


@pytest.mark.parametrize("thr_method", ["max", "nrg"])
def test_cells_at_the_border_keep_their_border_pixels(thr_method):
    """A closing without room around it would take the outermost pixels away."""
    A = column(spot((0, 5), sigma=2.0))
    out = image(threshold_components(A, DIMS, thr_method=thr_method, nrgthr=0.99))
    assert out[0, 5] > 0


def test_a_cell_of_one_pixel_survives_the_energy_threshold():
    one = np.zeros(DIMS)
    one[3, 3] = 1
    out = image(threshold_components(column(one), DIMS, medw=(1, 1), thr_method="nrg"))
    assert out[3, 3] == 1


def test_thresholds():
    A = column(spot((6, 5), sigma=2.0))
    out = image(threshold_components(A, DIMS, medw=(1, 1), thr_method="max", maxthr=0.5, se=np.ones((1, 1))))
    assert (out[out > 0] > 0.5).all()
    low, high = (
        threshold_components(A, DIMS, medw=(1, 1), thr_method="nrg", nrgthr=t).nnz for t in (0.5, 0.99)
    )
    assert 0 < low < high


def test_empty_and_none():
    A = csc_matrix((143, 2))
    assert threshold_components(A, DIMS).nnz == 0
    assert threshold_components(A[:, :0], DIMS).shape == (143, 0)


def test_agrees_with_the_reference_but_at_the_border(reference):
    """The reference loses the frame of the field in its closing; inside, cuts may differ within rounding."""
    stored = reference.load("spatial_temporal")
    dims = (48, 40)
    inside = np.zeros(dims, bool)
    inside[1:-1, 1:-1] = True
    inside = inside.ravel(order="F")
    for method, allowed in (("max", 0), ("nrg", 3)):
        mine = threshold_components(
            stored["A_in"], dims, medw=(3, 3), thr_method=method, maxthr=0.2, nrgthr=0.98
        ).toarray()
        theirs = csc_matrix(stored[f"threshold_components_{method}"]).toarray()
        differ = np.abs(mine - theirs).max(1) > 1e-4 * theirs.max()
        assert (differ & inside).sum() <= allowed
    mine = determine_search_location(stored["A_in"], dims).toarray()
    assert_array_equal(mine, csc_matrix(stored["determine_search_location_dilate"]).toarray() > 0)


def test_centre_of_mass():
    A = csc_matrix(np.concatenate([column(spot((6, 5))).toarray(), np.zeros((143, 1))], 1))
    centres = centers_of_mass(A, DIMS)
    assert_allclose(centres[0], (6, 5), atol=1e-6)
    assert np.isnan(centres[1]).all()
