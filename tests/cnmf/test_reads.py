"""How often a two-photon movie is read, and what of it is in memory: held if it fits the budget, else streamed."""

import copy
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.cnmf import CNMF
from tests.cnmf.reads import Counted
from tests.cnmf.scenes import gaussian_cells

DIMS, T = (40, 50), 1200
SETTINGS = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 3, "tsub": 2}
SETTINGS |= {"params_dict": {"preprocess": {"sn": np.full(DIMS, 0.5)}}}  # whose own passes depend on the room
PATCHES = {"rf": 6, "stride": 3, "only_init_patch": True, "k": 1, "p_ssub": 2, "p_tsub": 2}
TOO_SMALL, LARGE_ENOUGH = 0.6, 20


@pytest.fixture(scope="module", params=[np.uint16, np.float32], ids=["uint16", "float32"])
def movie(request):
    return np.rint(8 * gaussian_cells(DIMS, T=T).Y).astype(request.param)


def made(**changes):
    settings = {**SETTINGS, **changes}
    values = settings.pop("params_dict")
    cnmf = CNMF(1, **settings)
    cnmf.params.change_params(values)
    return cnmf


@contextmanager
def room(share, movie):
    with backend.limit(memory=int(share * movie.nbytes)):
        yield


@pytest.fixture(scope="module")
def fitted(movie):
    with backend.use("cpu"):
        return made().fit(movie)


def finite(movie):
    """One more pass looks for missing values, which integers cannot have."""
    return int(movie.dtype.kind == "f")


def test_a_movie_that_fits_is_read_once(wing, movie, fitted):
    source = Counted(movie)
    with room(LARGE_ENOUGH, movie):
        made(ssub=4, tsub=4).fit(source)
        assert source.times() == 1
        fitted.refit(source)
        assert source.times() == 1


def test_a_movie_is_held_in_its_own_dtype(wing, movie):
    held = images_movie(Counted(movie)).source.array
    assert held.dtype == movie.dtype
    assert backend.is_cupy(held) == (wing.device == "cuda")


def test_a_fit_that_streams_reads_four_times_to_refine(movie, fitted):
    """The small movie is one pass, HALS on the whole movie two; each of two rounds is two."""
    source = Counted(movie)
    with room(TOO_SMALL, movie):
        begun = made(only_init_patch=True).fit(source)
        start = source.times()
        found = made().fit(source)
        # residual traces of only_init are a pass of their own
        assert source.times() == start - 1 + 4
        assert start <= finite(movie) + 1 + 2 * 2 + 1
        assert begun.estimates.A.shape == found.estimates.A.shape
    assert_array_equal(found.estimates.C, fitted.estimates.C)
    assert_array_equal(found.estimates.A.toarray(), fitted.estimates.A.toarray())


def test_a_refit_that_streams_reads_four_times(movie, fitted):
    source = Counted(movie)
    with room(TOO_SMALL, movie):
        again = fitted.refit(source)
    assert source.times() == finite(movie) + 4
    assert_array_equal(again.estimates.C, fitted.refit(movie).estimates.C)


@pytest.mark.parametrize(
    "step", ["update_spatial", "update_temporal", "compute_residuals", "HALS4traces", "HALS4footprints"]
)
def test_a_step_that_streams_reads_once(movie, fitted, step):
    source = Counted(movie)
    again = copy.deepcopy(fitted)
    with room(TOO_SMALL, movie):
        getattr(again, step)(source)
    assert source.times() <= 1


@pytest.mark.parametrize("share, times", [(LARGE_ENOUGH, 1), (TOO_SMALL, 12)])
def test_patches_and_their_refit(movie, share, times):
    """Streamed: patches are read in batches that fit half of the room, the field once for traces."""
    source = Counted(movie)
    with room(share, movie):
        first = made(**PATCHES).fit(source)
        assert source.times() <= times
        first.refit(source)
        assert source.times() <= (1 if share > 1 else finite(movie) + 4)


def test_what_the_model_leaves_is_never_a_movie(movie):
    """The room and a few traces: neither the movie nor a residual of it was ever there."""
    peaks = []
    for _ in range(2):  # what is compiled and imported on the way does not count
        source = Counted(movie)
        tracemalloc.start()
        with room(TOO_SMALL, movie):
            made(ssub=4, tsub=4).fit(source).refit(source)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * TOO_SMALL * movie.nbytes
