"""The same movie gives the same components in the same order, wherever and in whatever pieces it is worked on.

Between wings footprints and traces agree to 1e-3 of their maximum (sums in float64, transforms in float32); chunks,
threads and the order of patches change no bit.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf.cnmf import CNMF
from tests.cnmf.scenes import gaussian_cells

WHOLE = {"k": 4, "gSig": [2, 2], "p": 1, "fr": 30, "decay_time": 0.3, "ssub": 1, "tsub": 1}
CASES = {
    "two_photon": WHOLE,
    "smaller": {**WHOLE, "ssub": 2, "tsub": 2, "gnb": 2, "p": 2},
    "sparse_nmf": {**WHOLE, "method_init": "sparse_nmf", "alpha_snmf": 0.5},
    "one_photon": {
        **WHOLE,
        "k": None,
        "method_init": "corr_pnr",
        "center_psf": True,
        "gnb": 0,
        "gSiz": (9, 9),
    }
    | {"min_corr": 0.5, "min_pnr": 3, "ring_size_factor": 1.5},
    "patches": {**WHOLE, "k": 2, "rf": 8, "stride": 4, "only_init_patch": True},
}
NAMES = ("A", "C", "b", "f", "S", "YrA", "sn")


@pytest.fixture(scope="module")
def scene():
    return gaussian_cells()


def found(case, movie, dview=None):
    estimates = CNMF(1, dview=dview, **CASES[case]).fit(movie).estimates
    values = {name: getattr(estimates, name) for name in NAMES}
    return {
        name: x.toarray() if hasattr(x, "toarray") else np.asarray(x)
        for name, x in values.items()
        if x is not None
    }


@pytest.fixture(scope="module")
def expected(scene):
    with backend.use("cpu"):
        return {case: found(case, scene.Y) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_wings_find_the_same_in_the_same_order(wing, scene, expected, case):
    mine = found(case, wing.put(scene.Y))
    assert mine.keys() == expected[case].keys()
    for name, value in expected[case].items():
        atol = 1e-3 * np.abs(value).max(initial=0)
        assert_allclose(mine[name], value, rtol=0, atol=atol, err_msg=f"{case} {name}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("limit", [{"chunk_frames": 1}, {"chunk_frames": 37}])
def test_chunks_change_no_bit(scene, expected, case, limit):
    with backend.limit(**limit):
        mine = found(case, scene.Y)
    for name, value in expected[case].items():
        assert_array_equal(mine[name], value, err_msg=f"{case} {name}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_change_no_bit(monkeypatch, scene, expected, case, threads):
    monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
    mine = found(case, scene.Y)
    for name, value in expected[case].items():
        assert_array_equal(mine[name], value, err_msg=f"{case} {name}")


class Backwards:
    """Works on the last patch first."""

    def map_sync(self, work, jobs):
        return [work(job) for job in reversed(jobs)][::-1]


@pytest.mark.parametrize("workers", [1, 4, None])
def test_order_of_patches_changes_no_bit(scene, expected, workers):
    if workers is None:
        mine = found("patches", scene.Y, Backwards())
    else:
        with ThreadPoolExecutor(workers) as pool:
            mine = found("patches", scene.Y, pool)
    for name, value in expected["patches"].items():
        assert_array_equal(mine[name], value, err_msg=name)


def test_a_second_run_is_the_first(wing, scene):
    for case in CASES:
        one, other = found(case, wing.put(scene.Y)), found(case, wing.put(scene.Y))
        for name, value in one.items():
            assert_array_equal(other[name], value, err_msg=f"{case} {name}")
