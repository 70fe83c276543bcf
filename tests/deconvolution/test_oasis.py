"""Documented AR(1) functions against stored references; every parameter changes something."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.deconvolution import constrained_oasisAR1, oasisAR1
from gpucalcium.errors import ParameterError


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("deconvolution"), reference.inputs("deconvolution")[0]


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("given", {}),
        ("optb", {"optimize_b": True}),
        ("optb_anyb", {"optimize_b": True, "b_nonneg": False}),
    ],
)
@pytest.mark.parametrize("penalty", [(1, 0), (0, 0.5), (0, -1)])
def test_reference(stored, case, options, penalty):
    ref, d = stored
    y = d["Y"].astype(float) - (d["b"][:, None] if case == "given" else 0)
    got = constrained_oasisAR1(y, d["g"][0], 0.3, penalty=penalty[0], s_min=penalty[1], **options)
    for name, value in zip("csbg", got, strict=False):
        expected = ref[f"oasisAR1_pen{penalty[0]}_smin{penalty[1]:g}_{case}_{name}"].reshape(value.shape)
        assert_allclose(value, expected, atol=1e-3, err_msg=name)
    # the stored searches end within 1e-4 of the noise level, which leaves the penalty uncertain by 1e-3
    assert_allclose(got[4], ref[f"oasisAR1_pen{penalty[0]}_smin{penalty[1]:g}_{case}_lam"].ravel(), rtol=3e-3)


def test_decimated_search_is_rough(stored):
    ref, d = stored
    got = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True, decimate=4)
    assert_allclose(got[0], ref["oasisAR1_pen1_smin0_optb_dec_c"], atol=0.25)
    exact = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True)
    difference = np.abs(got[0] - exact[0]).max()
    assert 1e-4 < difference < 0.25
    assert_allclose(got[2], exact[2], atol=0.05)


def test_penalty_of_its_own_gives_the_same_calcium(stored):
    _, d = stored
    c, s, b, g, lam = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True)
    again, spikes = oasisAR1(d["Y"] - b[:, None], g, lam)
    assert_allclose(again, c, atol=1e-5)
    assert_allclose(spikes, s, atol=1e-5)
    one, _ = oasisAR1(d["Y"][2] - b[2], g[2], lam[2])
    assert_array_equal(one, again[2])


def test_smallest_spike_of_plain_pools(stored):
    _, d = stored
    s = oasisAR1(d["Y"] - d["b"][:, None], d["g"][0], s_min=0.5)[1]
    assert s[s > 0].min() >= 0.5 - 1e-6


def test_steps_are_counted(stored):
    _, d = stored
    rough = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True, max_iter=1)
    exact = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True)
    assert np.abs(rough[0] - exact[0]).max() > 1e-4


def test_errors(stored):
    y = stored[1]["Y"]
    with pytest.raises(ParameterError, match="optimize_g=-1"):
        constrained_oasisAR1(y, 0.9, 0.3, optimize_g=-1)
    with pytest.raises(ParameterError, match="penalty=2"):
        constrained_oasisAR1(y, 0.9, 0.3, penalty=2)
    with pytest.raises(ParameterError, match="decimate=0"):
        constrained_oasisAR1(y, 0.9, 0.3, decimate=0)
    with pytest.warns(UserWarning, match="clipped"):
        constrained_oasisAR1(y, 1.0, 0.3)
