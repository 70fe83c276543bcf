"""CNMF of volumes: against truth and the reference, whole fields and patches, and edges."""

import numpy as np
import pytest

from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.errors import NotSupportedError
from tests.cnmf.scenes import f1

SETTINGS = {"gSig": [3, 3, 1.3], "gnb": 1, "p": 1, "fr": 10, "decay_time": 0.8}


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("cnmf"), reference.inputs("cnmf")[2]


@pytest.mark.parametrize("sub", [1, 2])
def test_is_at_least_the_reference(stored, sub):
    theirs, made = stored
    found = CNMF(1, k=5, ssub=sub, tsub=sub, **SETTINGS).fit(made["Y"]).estimates
    mine = f1(found.A, found.C, made["A"], made["C"])
    reached = f1(theirs["vol_A"], theirs["vol_C"], made["A"], made["C"])
    assert mine[0] >= reached[0] == 1
    assert mine[1] >= reached[1] - 5e-4
    assert found.A.shape == theirs["vol_A"].shape
    assert found.center.shape == (5, 3)


def test_patches_find_the_same_cells(stored):
    _, made = stored
    patches = {"rf": [10, 10, 4], "stride": [5, 5, 2], "p_ssub": 1, "p_tsub": 1, "only_init_patch": True}
    with pytest.warns(UserWarning, match="not larger than init.gSiz"):
        model = CNMF(1, k=5, **SETTINGS, **patches)
    found = model.fit(made["Y"]).estimates
    assert f1(found.A, found.C, made["A"], made["C"]) >= (1, 0.98)
    again = model.refit(made["Y"]).estimates
    assert f1(again.A, again.C, made["A"], made["C"]) >= (1, 0.98)


def test_part_of_a_volume_lies_in_the_whole(stored):
    _, made = stored
    window = (slice(0, 24), slice(3, 22), slice(0, 6))
    found = CNMF(1, k=5, **SETTINGS).fit(made["Y"], window).estimates
    assert found.A.shape[0] == 24 * 22 * 6
    image = np.asarray(found.A.sum(1)).reshape(24, 22, 6, order="F")
    assert not image[:, :3].any()
    assert f1(found.A, found.C, made["A"], made["C"])[0] > 0.7


def test_a_volume_of_one_plane_is_a_plane(stored):
    _, made = stored
    plane = made["Y"][:, :, :, 1]
    settings = {**SETTINGS, "k": 3}
    flat = CNMF(1, **{**settings, "gSig": [3, 3]}).fit(plane).estimates
    deep = CNMF(1, **settings).fit(plane[..., None]).estimates
    assert flat.A.shape == deep.A.shape
    np.testing.assert_allclose(deep.C, flat.C, atol=2e-3 * flat.C.max())


@pytest.mark.parametrize(
    "movie",
    [
        np.full((60, 9, 10, 3), 7, np.uint16),
        np.random.default_rng(0).poisson(20, (60, 9, 10, 3)).astype(np.int16),
        np.random.default_rng(0).normal(20, 2, (40, 3, 2, 2)).astype(np.float32),
    ],
)
def test_movies_without_cells_and_small_ones(movie):
    found = CNMF(1, k=2, **SETTINGS).fit(movie).estimates
    assert found.A.shape[0] == movie[0].size
    assert found.C.shape[1] == len(movie)
    assert np.isfinite(found.C).all()


def test_missing_border_and_integers(stored):
    _, made = stored
    Y = made["Y"].copy()
    Y[:, 0] = np.nan
    found = CNMF(1, k=5, **SETTINGS).fit(Y).estimates
    assert f1(found.A, found.C, made["A"], made["C"])[0] == 1
    whole = CNMF(1, k=5, **SETTINGS).fit(np.rint(made["Y"] * 4).astype(np.uint16)).estimates
    assert f1(whole.A, whole.C, made["A"], made["C"])[0] == 1


def test_one_photon_says_that_it_is_for_planes(stored):
    _, made = stored
    model = CNMF(1, method_init="corr_pnr", center_psf=True, k=None, gSig=[3, 3, 2], gSiz=[9, 9, 5], gnb=0)
    with pytest.raises(NotSupportedError, match="planes"):
        model.fit(made["Y"])
