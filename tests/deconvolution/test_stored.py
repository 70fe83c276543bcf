"""Stored references that no other file holds: decimated, refitted, thresholded and iterated solutions, and plain NNLS.

Where the stored solution is only near the optimum, the conditions of the optimum decide.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpucalcium import backend
from gpucalcium.deconvolution import (
    constrained_foopsi,
    constrained_oasisAR1,
    constrained_oasisAR2,
    kkt_residual,
)


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("deconvolution"), reference.inputs("deconvolution")


@pytest.mark.parametrize("s_min", [0, 0.5, -1])
def test_decimated_search_for_few_spikes(stored, s_min):
    ref, (d, _) = stored
    got = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True, decimate=4, penalty=0, s_min=s_min)
    rows = np.arange(6)
    for name, value in zip("csb", got, strict=False):
        expected = ref[f"oasisAR1_pen0_smin{s_min:g}_optb_dec_{name}"].reshape(value.shape)
        if s_min == 0:  # greedy: there, trace 4 ends with one spike at another of two frames
            rows = np.delete(np.arange(6), 4)
        assert_allclose(value[rows], expected[rows], atol=1e-3, err_msg=name)


@pytest.mark.parametrize("lam", [0, 2])
def test_plain_nnls(stored, wing, lam):
    """The stored one ends at a gradient of 2e-5, in windows; calcium differs by as much of its largest value."""
    ref, (_, d) = stored
    g = ref["oasisAR2_pen1_smin0_optb_g"]
    y = (d["Y"][:1] - d["b"][0]).astype(np.float64)
    c, s = (wing.put(np.empty(y.shape, np.float32)) for _ in range(2))
    given = [wing.put(x) for x in (y, g[:1], np.zeros(1), np.full(1, float(lam)), np.ones(y.shape, np.uint8))]
    backend.wing(c).onnls.nnls_ar2(*given, 1e-9, False, c, s)
    expected = ref[f"onnls_p2_lam{lam}_c"]
    assert_allclose(backend.to_numpy(c)[0], expected, atol=3e-5 * expected.max())
    assert_allclose(backend.to_numpy(s)[0], ref[f"onnls_p2_lam{lam}_s"], atol=2e-4)
    mine, theirs = (
        kkt_residual(y, x, 0.0, g[0], float(lam)).gradient[0] for x in (backend.to_numpy(c), expected[None])
    )
    assert mine < 1e-7 < 1e-5 < theirs


@pytest.mark.parametrize("case", ["given", "optb", "optb_nodec"])
@pytest.mark.parametrize("s_min", [0, 0.5, -1])
def test_few_spikes_of_calcium_that_rises(stored, case, s_min):
    """Refitted jointly here, one by one there: none too small, all large ones, calcium no worse at equal counts."""
    ref, (_, d) = stored
    name = f"oasisAR2_pen0_smin{s_min:g}_{case}"
    y = d["Y"].astype(float) - (d["b"][:, None] if case == "given" else 0)
    c, s, b, _, _ = constrained_oasisAR2(
        y,
        ref[f"{name}_g"],
        0.3,
        optimize_b=case != "given",
        decimate=1 if case == "optb_nodec" else 5,
        penalty=0,
        s_min=s_min,
    )
    assert_allclose(b, ref[f"{name}_b"].ravel(), atol=1e-3)
    mine, theirs = s > 1e-5, ref[f"{name}_s"] > 1e-5
    least = s_min if s_min >= 0 else -s_min * 0.3 * np.sqrt(1 - max(np.roots([1, *-ref[f"{name}_g"][0]])))
    assert s[s > 0].min() >= least
    if s_min == 0:
        assert np.abs(mine.sum(1) - theirs.sum(1)).max() <= 4
    near = np.stack([np.roll(mine, lag, axis=1) for lag in (-1, 0, 1)]).any(0)
    large = ref[f"{name}_s"] > max(2 * least, 0.3)
    assert (large & near).sum() > 0.95 * large.sum()
    rss = [
        ((y - level - x) ** 2).sum(1) for level, x in ((b[:, None], c), (ref[f"{name}_b"], ref[f"{name}_c"]))
    ]
    same = mine.sum(1) <= theirs.sum(1)
    assert (rss[0][same] > 1.02 * rss[1][same]).sum() <= 0.4 * same.sum()


@pytest.mark.parametrize("case", ["smin0", "sminneg1", "smin05", "bl_any"])
def test_foopsi_of_calcium_that_rises(stored, case):
    ref, (_, d) = stored
    options = {"smin0": {"s_min": 0}, "sminneg1": {"s_min": -1}, "smin05": {"s_min": 0.5}}
    got = constrained_foopsi(d["Y"], p=2, **options.get(case, {"bas_nonneg": False}))
    for index, name in ((1, "bl"), (3, "g"), (4, "sn")):
        expected = ref[f"foopsi_p2_{case}_{name}"].reshape(got[index].shape)
        rows = np.delete(np.arange(6), 3)  # the coarse search of trace 3 stops before its target there
        assert_allclose(got[index][rows], expected[rows], atol=1e-3, err_msg=name)
    mine, theirs = got[5] > 1e-5, ref[f"foopsi_p2_{case}_sp"] > 1e-5
    assert np.abs(mine.sum(1) - theirs.sum(1)).max() <= 6
    for k in range(6):
        whole = got[0][k] + got[2][k] * max(np.roots([1, *-got[3][k]])) ** np.arange(1000)
        assert np.corrcoef(whole, ref[f"foopsi_p2_{case}_c"][k])[0, 1] > 0.98
    if case == "bl_any":
        assert_allclose(got[5][rows], ref["foopsi_p2_bl_any_sp"][rows], atol=5e-3)


@pytest.mark.parametrize("penalty", [1, 0])
def test_more_passes_end_nearer_the_noise_than_what_is_stored(stored, penalty):
    ref, (_, d) = stored
    name = f"oasisAR2_pen{penalty}_smin0_optb_iter5"
    c, _, b, g, lam = constrained_oasisAR2(d["Y"], ref[f"{name}_g"], 0.3, max_iter=15, penalty=penalty)
    y = d["Y"].astype(float)
    mine = ((y - b[:, None] - c) ** 2).sum(1) / 90
    theirs = ((y - ref[f"{name}_b"] - ref[f"{name}_c"]) ** 2).sum(1) / 90
    if penalty == 1:
        assert np.abs(mine - 1).max() < 1.1e-4 < np.abs(theirs - 1).max()
        assert kkt_residual(d["Y"], c, b, g, lam).gradient.max() < 1e-5
    else:  # as few spikes as reach it
        assert (mine < 1).all()
        assert (mine > 0.9).all()


@pytest.mark.parametrize("s_min", [0, 0.5, -1])
def test_refitted_decay_with_few_spikes(stored, s_min):
    """The decay is refitted before spikes are pruned, so it is the same for all penalties, as it is there."""
    _, (d, _) = stored
    refitted = constrained_oasisAR1(d["Y"], d["g"][0], 0.3, optimize_b=True, optimize_g=5)[3]
    c, s, b, g, _ = constrained_oasisAR1(
        d["Y"], d["g"][0], 0.3, optimize_b=True, optimize_g=5, penalty=0, s_min=s_min
    )
    assert_allclose(g, refitted, rtol=1e-12)
    if s_min == 0:
        assert (((d["Y"] - b[:, None] - c) ** 2).sum(1) < 90 * (1 + 1e-6)).all()
    if s_min > 0:
        assert s[s > 0].min() >= s_min - 1e-5
