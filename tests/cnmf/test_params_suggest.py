"""CNMFParams.suggest: noise, motion and cells of simulated movies are measured, and the proposals follow them.

Tolerances: cell size 18 % (steps of outlines and donuts), number of cells 20 %, noise 10 % (activity has some power
above a quarter of the frame rate), displacements 0.5 px.
"""

import numpy as np
import pytest
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.params_measure import measure
from gpucalcium.cnmf.params_suggest import noise_snr
from gpucalcium.errors import MovieShapeError, MovieValueError, NotSupportedError
from gpucalcium.simulate import two_photon
from tests.cnmf.scenes import f1


@pytest.fixture
def simulate(reference):
    """The simulator of the reference data."""
    return reference.simulate


def radius_at_half_height(A, dims):
    """Median over footprints of the radius of a disc as large as what is above half of the peak, holes filled."""
    images = A.toarray().reshape(*dims, -1, order="F")
    areas = [ndimage.binary_fill_holes(a > a.max() / 2).sum() for a in np.moveaxis(images, -1, 0) if a.any()]
    return np.sqrt(np.median(areas) / np.pi)


@pytest.mark.parametrize(("radius", "cells"), [(3.0, 80), (4.5, 60), (6.0, 35), (8.0, 20)])
def test_size_number_and_noise_of_own_cells(radius, cells):
    scene = two_photon(400, (128, 128), cells, radius=radius, seed=2)
    found = measure(scene.movie)
    assert found.half_width == pytest.approx(radius_at_half_height(scene.A, scene.dims), rel=0.18)
    assert found.gSig == pytest.approx(0.85 * radius, rel=0.18)
    assert found.cells == pytest.approx(cells, rel=0.2)
    expected = scene.A @ scene.C.mean(axis=1) + scene.b @ scene.f.mean(axis=1)
    noise = np.sqrt(scene.noise.gain * expected + scene.noise.read_noise**2)
    assert found.noise == pytest.approx(np.median(noise), rel=0.1)
    assert max(found.shifts) < 0.5


@pytest.mark.parametrize(("sigma", "cells"), [(2.5, 70), (3.5, 60), (5.0, 25)])
def test_size_and_number_of_cells_of_another_simulator(simulate, sigma, cells):
    scene = simulate.two_photon(T=400, K=cells, sigma=sigma, seed=1, n_pairs=4)
    found = measure(scene["Y"])
    assert found.half_width == pytest.approx(radius_at_half_height(scene["A"], scene["dims"]), rel=0.18)
    assert found.gSig == pytest.approx(sigma, rel=0.18)
    assert found.cells == pytest.approx(cells, rel=0.2)
    assert max(found.shifts) < 0.7  # the neuropil drifts


@pytest.mark.parametrize(("sigma", "cells"), [(2.0, 40), (3.0, 40), (4.5, 20)])
def test_one_photon_cells(simulate, sigma, cells):
    scene = simulate.one_photon(T=400, K=cells, sigma=sigma, seed=1)
    params = CNMFParams(fr=10, decay_time=0.8, method_init="corr_pnr", center_psf=True)
    suggestion = params.suggest(scene["Y"])
    assert suggestion.measured.gSig == pytest.approx(sigma, rel=0.18)
    assert suggestion.measured.cells == pytest.approx(cells, rel=0.2)
    assert suggestion.measured.shifts is None  # nothing but fluctuating blur to register by
    assert "motion.max_shifts" not in suggestion.reasons
    assert suggestion.changes["motion"]["gSig_filt"] == (round(suggestion.measured.gSig),) * 2
    assert suggestion.params.init["gSiz"][0] == pytest.approx(4 * sigma + 1, abs=2.5)
    assert 0.3 <= suggestion.params.init["min_corr"] <= 0.85
    assert 3 <= suggestion.params.init["min_pnr"] <= 20
    assert suggestion.params.patch["rf"] is None


def test_motion_of_own_movies():
    scene = two_photon(400, (100, 110), 40, radius=4.5, motion=5, seed=3)
    true = np.abs(scene.shifts - np.median(scene.shifts, axis=0)).max(axis=0)
    suggestion = CNMFParams(fr=20, decay_time=0.6).suggest(scene.movie)
    assert suggestion.measured.shifts == pytest.approx(true, abs=0.5)
    allowed = np.array(suggestion.params.motion["max_shifts"])
    assert (allowed >= true + 1).all()
    assert (allowed <= 2 * true + 2).all()
    assert suggestion.params.patch["border_pix"] in (5, 6)
    assert suggestion.measured.gSig == pytest.approx(0.85 * 4.5, rel=0.18)


def test_motion_of_another_simulator(simulate):
    scene = simulate.moving_two_photon(T=200, max_shift=5, seed=2, shape=(96, 100), K=35)
    found = measure(scene["Y"])
    true = np.abs(scene["shifts"] - np.median(scene["shifts"], axis=0)).max(axis=0)
    assert found.shifts == pytest.approx(true, abs=0.5)


def test_times_follow_rate_and_decay():
    movie = np.random.default_rng(0).standard_normal((400, 24, 24)).astype(np.float32)
    for fr, decay_s, p, tsub, rolling in [(2, 0.4, 0, 1, 6), (10, 0.4, 1, 1, 32), (30, 1.0, 2, 4, 240)]:
        params = CNMFParams(fr=fr, decay_time=decay_s).suggest(movie).params
        assert (params.preprocess["p"], params.temporal["p"]) == (p, p)
        assert (params.init["tsub"], params.init["rolling_length"]) == (tsub, rolling)
    assert CNMFParams(fr=100).suggest(movie).params.init["rolling_length"] == 320
    assert noise_snr(500, 2) > noise_snr(500, 12) > 0  # the longer the event the less noise looks like it


def test_a_wide_field_is_cut_in_patches():
    scene = two_photon(100, (256, 300), 160, radius=4, rate_hz=1.0, seed=3)
    params = CNMFParams().suggest(scene.movie).params
    rf, box = params.patch["rf"], params.init["gSiz"][0]
    assert rf == 4 * box
    assert params.patch["stride"] == box
    assert params.init["K"] == pytest.approx(1.2 * 160 * (2 * rf) ** 2 / (256 * 300), rel=0.25, abs=1)


def test_suggestions_have_reasons_and_change_nothing():
    scene = two_photon(200, (64, 70), 12, radius=4, seed=1)
    params = CNMFParams(fr=20, rf=30)
    suggestion = params.suggest(scene.movie)
    assert params == CNMFParams(fr=20, rf=30)
    assert suggestion.params.patch["rf"] is None
    assert suggestion.params == CNMFParams(fr=20).change_params(suggestion.changes)
    for name, reason in suggestion.reasons.items():
        group, key = name.split(".")
        assert len(reason) > 10
        assert f"{name} = {suggestion.changes[group][key]!r}: {reason}" in str(suggestion)


def test_nothing_to_measure_keeps_what_was_asked():
    suggestion = CNMFParams(gSig=(3, 3)).suggest(np.ones((40, 20, 20), np.uint16))
    assert suggestion.measured.gSig is None
    assert suggestion.measured.cells == 0
    assert "gSig" not in suggestion.changes["init"]
    assert suggestion.params.init["gSig"] == (3, 3)


def test_missing_values_and_order_in_memory_do_not_matter():
    scene = two_photon(200, (64, 70), 12, radius=4, seed=1)
    movie = scene.movie.astype(np.float32)
    found = measure(movie)
    assert measure(np.asfortranarray(movie)).half_width == found.half_width
    movie[:, :2] = np.nan
    assert measure(movie).half_width == pytest.approx(found.half_width, rel=0.1)
    with pytest.raises(MovieValueError):
        measure(np.full((40, 20, 20), np.nan))


def test_wings_measure_the_same(wing):
    scene = two_photon(40, (32, 30), 4, radius=3, rate_hz=2, seed=1)
    with backend.use("cpu"):
        expected = measure(scene.movie)
    found = measure(wing.put(scene.movie))
    assert found.cells == expected.cells
    assert found.half_width == pytest.approx(expected.half_width, rel=1e-3)  # counts pixels above a threshold
    assert found.shifts == pytest.approx(expected.shifts, abs=0.01)
    assert found.noise == pytest.approx(expected.noise, rel=1e-4)


@pytest.mark.parametrize("shape", [(29, 20, 20), (40, 15, 20)])
def test_too_small_movies(shape):
    with pytest.raises(MovieShapeError, match="30 frames"):
        CNMFParams().suggest(np.zeros(shape))


def test_one_photon_volumes_are_refused():
    params = CNMFParams(method_init="corr_pnr", center_psf=True)
    with pytest.raises(NotSupportedError, match="volume"):
        params.suggest(np.zeros((40, 20, 20, 3)))


@pytest.mark.parametrize(("sigma", "cells", "motion"), [((3, 3, 1.3), 12, 2), ((4, 4, 2), 8, 0)])
def test_volumes(simulate, sigma, cells, motion):
    """Depth within a quarter: a plane is as thick as what is measured."""
    scene = simulate.volume(T=300, sigma=sigma, K=cells, shifts=motion, shape=(56, 60, 10))
    suggestion = CNMFParams(fr=10, decay_time=0.8).suggest(scene["Y"])
    found, params = suggestion.measured, suggestion.params
    assert found.gSig == pytest.approx(sigma[0], rel=0.18)
    assert found.gSig_across == pytest.approx(sigma[2], rel=0.25)
    assert found.cells == pytest.approx(cells, rel=0.35)
    true = np.abs(scene["shifts"] - np.median(scene["shifts"], axis=0)).max(axis=0)
    assert found.shifts == pytest.approx(true, abs=0.5)
    assert len(params.init["gSig"]) == len(params.init["gSiz"]) == len(params.motion["max_shifts"]) == 3
    assert params.motion["is3D"]
    assert params.patch["border_pix"] == 0
    assert "motion.pw_rigid" not in suggestion.reasons


@pytest.mark.slow
def test_a_fit_of_a_volume_takes_what_is_suggested(simulate):
    scene = simulate.volume(T=300, K=12, shape=(56, 60, 10))
    params = CNMFParams(fr=10, decay_time=0.8, only_init_patch=False).suggest(scene["Y"]).params
    found = CNMF(1, params=params).fit(scene["Y"]).estimates
    assert f1(found.A, found.C, scene["A"], scene["C"])[0] > 0.85


@pytest.mark.parametrize(("bent", "expected"), [(0, False), (2, True), (4, True)])
def test_parts_that_move_apart_ask_for_piecewise_registration(simulate, bent, expected):
    scene = simulate.moving_two_photon(T=300, max_shift=5, nonrigid=bent, seed=1)
    suggestion = CNMFParams(fr=20).suggest(scene["Y"])
    assert suggestion.params.motion["pw_rigid"] is expected
    field = np.einsum("tam,mij->taij", scene["coef"], scene["modes"]) if bent else np.zeros((1, 2, 1, 1))
    true = np.quantile(np.linalg.norm(field, axis=1), 0.95)  # of pixels; patches lie farther inside
    assert suggestion.measured.local_shift == pytest.approx(0.8 * true, abs=0.3)
    assert "as a whole" in suggestion.reasons["motion.pw_rigid"]


@pytest.mark.parametrize(("frames", "bent", "seed"), [(200, 0, 2), (400, 0, 1), (400, 2, 1)])
def test_size_of_cells_that_move(simulate, frames, bent, seed):
    """Half of these cells are filled, with a radius of 4.2 at half height, half are donuts of 5.9."""
    scene = simulate.moving_two_photon(T=frames, nonrigid=bent, seed=seed, shape=(96, 100), K=35)
    found = measure(scene["Y"])
    assert found.half_width == pytest.approx(radius_at_half_height(scene["A"], scene["dims"]), rel=0.18)


@pytest.mark.slow
def test_a_fit_with_suggestions_finds_more_than_with_defaults(simulate):
    scene = simulate.two_photon(T=500, K=20, sigma=5, seed=4, n_pairs=2, shape=(90, 100))
    default = CNMFParams(fr=20, decay_time=0.6, only_init_patch=False)

    def score(params):
        cnmf = CNMF(1, params=params)
        cnmf.fit(scene["Y"])
        return f1(cnmf.estimates.A, cnmf.estimates.C, scene["A"], scene["C"])[0]

    suggested = score(default.suggest(scene["Y"]).params)
    assert suggested > 0.9
    assert suggested > score(default)
