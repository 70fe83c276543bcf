"""Documented AR(2) function against stored references and known spikes, on every wing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.deconvolution import _ar2_fit, constrained_foopsi, constrained_oasisAR2, kkt_residual
from gpucalcium.deconvolution.oasis_ar2 import slower_root
from gpucalcium.errors import ParameterError
from tests.deconvolution.test_foopsi import NAMES, bernoulli, correlations, hosted

MODEL = (1.7, -0.71)


@pytest.fixture(scope="module")
def stored(reference):
    return reference.load("deconvolution"), reference.inputs("deconvolution")[1]


@pytest.mark.parametrize(("sn", "least_c", "least_s"), [(0.2, 0.999, 0.945), (0.5, 0.996, 0.74)])
def test_known_calcium_and_spikes_come_back(wing, sn, least_c, least_s):
    y, c_true, s_true = bernoulli(MODEL, sn)
    c, _, c1, _, _, s, _ = hosted(constrained_foopsi(wing.put(y), g=MODEL, sn=sn, p=2))
    c = c + c1[:, None] * slower_root(np.array([MODEL])) ** np.arange(1000)
    assert correlations(c, c_true).mean() >= least_c
    assert correlations(s[:, 1:], s_true[:, 1:]).mean() >= least_s


def test_few_large_spikes_are_the_true_ones(wing):
    y, _, s_true = bernoulli(MODEL, 0.2)
    s = hosted(constrained_oasisAR2(wing.put(y), MODEL, 0.2, penalty=0, s_min=0))[1]
    found_all = 0
    for found, true in zip(s, s_true, strict=True):
        times, near = np.flatnonzero(true[1:]) + 1, np.flatnonzero(found)
        found_all += all(np.abs(near - t).min() <= 1 for t in times)
    assert found_all >= 18


@pytest.mark.parametrize(
    ("case", "options"),
    [("given", {"optimize_b": False}), ("optb", {}), ("optb_nodec", {"decimate": 1})],
)
def test_reference(stored, case, options):
    ref, d = stored
    name = f"oasisAR2_pen1_smin0_{case}"
    y = d["Y"].astype(float) - (d["b"][:, None] if case == "given" else 0)
    c, s, b, _, lam = constrained_oasisAR2(y, ref[f"{name}_g"], 0.3, **options)
    assert_allclose(c, ref[f"{name}_c"], atol=2e-3)
    assert_allclose(s, ref[f"{name}_s"], atol=2e-3)
    assert_allclose(b, ref[f"{name}_b"].ravel(), atol=5e-4)
    if case != "given":  # there the penalty is kept when the baseline is
        assert_allclose(lam, ref[f"{name}_lam"].ravel(), rtol=5e-3)


@pytest.mark.parametrize("case", ["given", "given_bl", "fudge", "mean", "default"])
def test_foopsi_reference(stored, case):
    ref, d = stored
    options = {
        "given": {"g": ref["foopsi_p2_given_g"], "sn": 0.3},
        "given_bl": {"g": ref["foopsi_p2_given_bl_g"], "sn": 0.3, "bl": 0.5},
        "fudge": {"fudge_factor": 0.98, "noise_method": "mean", "lags": 10},
        "mean": {"noise_method": "mean"},
        "default": {},
    }[case]
    got = dict(zip(NAMES, constrained_foopsi(d["Y"], p=2, **options), strict=True))
    rows = np.arange(6)
    if case in ("default", "mean"):  # the coarse search of trace 3 stops before its target there
        rows = np.delete(rows, 3)
    rows = rows[
        got["c1"][rows] == 0
    ]  # there, calcium starts at 0 even where the given baseline is far too low
    assert len(rows) >= 3
    for name in ("c", "bl", "g", "sn", "sp"):
        expected = ref[f"foopsi_p2_{case}_{name}"].reshape(got[name].shape)[rows]
        assert_allclose(got[name][rows], expected, atol=5e-3 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("s_min", [0, 0.5, -1])
def test_few_spikes_are_those_stored(stored, s_min):
    """Pools are refitted jointly here, one after the other there: as few spikes, and no larger residual."""
    ref, d = stored
    name = f"oasisAR2_pen0_smin{s_min:g}_optb"
    c, s, b, _, _ = constrained_oasisAR2(d["Y"], ref[f"{name}_g"], 0.3, penalty=0, s_min=s_min)
    assert_allclose(b, ref[f"{name}_b"].ravel(), atol=5e-4)
    used, stored_used = (s > 1e-5).sum(1), (ref[f"{name}_s"] > 1e-5).sum(1)
    assert np.abs(used - stored_used).max() <= 4
    same = used == stored_used
    rss = ((d["Y"] - b[:, None] - c) ** 2).sum(1)
    assert (rss[same] < ((d["Y"] - ref[f"{name}_b"] - ref[f"{name}_c"]) ** 2).sum(1)[same] * 1.01).all()
    matched = [
        np.isin(np.flatnonzero(a > 1e-5), np.flatnonzero(e > 1e-5)).mean()
        for a, e in zip(s, ref[f"{name}_s"], strict=True)
    ]
    assert np.mean(matched) > 0.9


def test_calcium_at_the_start_decays(wing):
    y = bernoulli(MODEL, 0.1, K=2, T=300, rate=0.01)[0]
    decay = slower_root(np.array([MODEL]))[0]
    y = y + 6 * decay ** np.arange(300, dtype=np.float32)
    for s_min in (None, 0, -1):
        _, bl, c1, _, _, s, _ = hosted(constrained_foopsi(wing.put(y), g=MODEL, sn=0.1, p=2, s_min=s_min))
        assert_allclose(c1, 6, atol=0.5)
        assert_allclose(bl, 10, atol=0.2)
        assert (s[:, :3] < 0.5).all()


@pytest.mark.parametrize(
    "options", [{}, {"decimate": 0}, {"optimize_b": False}, {"b_nonneg": False}], ids=str
)
def test_more_passes_reach_the_optimum(wing, options):
    y, *_ = bernoulli(MODEL, 0.3, K=5, T=600, b=10 if options.get("optimize_b", True) else 0)
    once, often = (constrained_oasisAR2(wing.put(y), MODEL, 0.3, max_iter=n, **options) for n in (1, 15))
    before, after = (
        [backend.to_numpy(x).max() for x in kkt_residual(wing.put(y), c, b, g, lam, 0.3)]
        for c, _, b, g, lam in (once, often)
    )
    assert before[0] > 1e-3
    assert before[2] > 0.02
    assert after[0] < 1e-5
    assert after[1] < 1e-5
    assert after[2] < 1e-4 + 1e-6
    assert (backend.to_numpy(often[1]) >= 0).all()


@pytest.mark.parametrize("sn", [0.2, 0.5])
def test_every_seed_reaches_the_noise(sn):
    y, *_ = bernoulli(MODEL, sn)
    c, _, b, _, _ = constrained_oasisAR2(y, MODEL, sn, max_iter=15)
    assert np.abs(((y.astype(float) - b[:, None] - c) ** 2).sum(1) / (sn**2 * 1000) - 1).max() < 1e-3


@pytest.mark.parametrize(("window", "shift", "within"), [(200, 50, 1e-4), (200, 100, 1e-3), (400, 100, 1e-4)])
def test_windows_come_near_the_whole_trace(wing, window, shift, within):
    """The response to a spike falls by a factor 400 in 100 frames: what lies beyond hardly counts."""
    y, *_ = bernoulli(MODEL, 0.3, K=3, T=1003)
    y[:, :60] += 4 * slower_root(np.array([MODEL])) ** np.arange(60, dtype=np.float32)
    exact = hosted(constrained_oasisAR2(wing.put(y), MODEL, 0.3))
    near = hosted(constrained_oasisAR2(wing.put(y), MODEL, 0.3, window=window, shift=shift))
    assert_allclose(near[0], exact[0], atol=within * exact[0].max())
    assert_allclose(near[2], exact[2], rtol=1e-4)
    assert_array_equal(near[1][:, 0], 0)


def test_a_shift_alone_opens_windows_of_the_default_length():
    y, *_ = bernoulli(MODEL, 0.3, K=2, T=700)
    for a, b in zip(
        constrained_oasisAR2(y, MODEL, 0.3, shift=20),
        constrained_oasisAR2(y, MODEL, 0.3, shift=20, window=200),
        strict=True,
    ):
        assert_array_equal(a, b)
    narrow = constrained_oasisAR2(y, MODEL, 0.3, shift=5, window=10)[0]
    assert np.abs(narrow - constrained_oasisAR2(y, MODEL, 0.3)[0]).max() > 1e-3


def test_parameters_do_something():
    y, *_ = bernoulli(MODEL, 0.3, K=3, T=400)
    c = constrained_oasisAR2(y, MODEL, 0.3)[0]
    for options in (
        {"optimize_b": False},
        {"decimate": 2},
        {"decimate": 0},
        {"max_iter": 5},
        {"optimize_g": 3},
        {"tol": 1e-2},
        {"window": 30, "shift": 10},
        {"penalty": 0},
        {"penalty": 0, "s_min": 0.9},
    ):
        assert np.abs(constrained_oasisAR2(y, MODEL, 0.3, **options)[0] - c).max() > 1e-4, options
    low = y - 12
    assert (constrained_oasisAR2(low, MODEL, 0.3, b_nonneg=False)[2] < 0).all()
    assert_array_equal(constrained_oasisAR2(low, MODEL, 0.3)[2], 0)


def test_smallest_spike():
    y, *_ = bernoulli(MODEL, 0.3, K=3, T=400)
    s = constrained_oasisAR2(y, MODEL, 0.3, penalty=0, s_min=0.7)[1]
    assert s[s > 0].min() > 0.5


@pytest.mark.parametrize("value", [0.0, 7.7])
@pytest.mark.parametrize("T", [20, 100])
@pytest.mark.parametrize("s_min", [None, 0])
def test_constants_are_all_baseline(wing, value, T, s_min):
    c, bl, c1, _, _, s, _ = hosted(constrained_foopsi(wing.put(np.full((2, T), value)), p=2, s_min=s_min))
    assert not (c.any() or c1.any() or s.any())
    assert_allclose(bl, value, atol=1e-12)


def test_one_trace_is_a_batch_of_one(wing):
    y, *_ = bernoulli(MODEL, 0.3, K=3, T=300)
    batch = hosted(constrained_foopsi(wing.put(y), p=2))
    for k in range(3):
        for a, b in zip(hosted(constrained_foopsi(wing.put(y[k]), p=2)), batch, strict=True):
            assert a.shape == b[k].shape
            assert_allclose(a, b[k], rtol=1e-4, atol=1e-4)


def test_short_traces(wing):
    y = np.random.default_rng(0).normal(size=(2, 3))
    for result in hosted(constrained_oasisAR2(wing.put(y), MODEL, 0.5)):
        assert np.isfinite(result).all()


@pytest.mark.parametrize("g", [(1.0, -0.9), (1.9, -0.85), (0.2, 0.3)])
def test_roots_that_cannot_be_are_tamed(g):
    y, *_ = bernoulli(MODEL, 0.3, K=1, T=200)
    with pytest.warns(UserWarning, match="without ringing"):
        found = constrained_oasisAR2(y, g, 0.3)[3][0]
    roots = np.roots([1, *-found])
    assert_allclose(roots.imag, 0, atol=1e-6)
    assert (roots.real > -1e-6).all()
    assert (roots.real < 1).all()


def test_errors():
    y = np.zeros((2, 50))
    for options in ({"optimize_g": -1}, {"shift": 1}, {"shift": 300, "window": 200}, {"tol": -1e-6}):
        with pytest.raises(ParameterError, match=next(iter(options))):
            constrained_oasisAR2(y, MODEL, 0.3, **options)
    with pytest.raises(ParameterError, match="penalty=3"):
        constrained_oasisAR2(y, MODEL, 0.3, penalty=3)
    with pytest.raises(ParameterError, match="max_iter=0"):
        constrained_oasisAR2(y, MODEL, 0.3, max_iter=0)


def test_memory_budget_changes_nothing():
    y, *_ = bernoulli(MODEL, 0.3, K=7, T=200)
    whole = constrained_oasisAR2(y, MODEL, 0.3)
    with backend.limit(memory="100KiB"):
        for a, b in zip(constrained_oasisAR2(y, MODEL, 0.3), whole, strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize(
    "g", [(1.7, -0.71), (0.9, 0.0), (1.6975, -0.698)]
)  # the last one decays in 600 frames
@pytest.mark.parametrize("options", [{}, {"decimate": 0}, {"max_iter": 10}, {"penalty": 0}])
@pytest.mark.parametrize("T", [192, 301])
def test_segments_end_at_the_solution_of_the_whole(wing, monkeypatch, g, options, T):
    y = wing.put(bernoulli(g, 0.3, K=3, T=T)[0])
    whole = [backend.to_numpy(x) for x in constrained_oasisAR2(y, g, 0.3, **options)]
    monkeypatch.setattr(_ar2_fit, "SEGMENT", 64)
    monkeypatch.setattr(_ar2_fit, "MARGIN", 16)
    assert T >= 2 * (64 + 2 * 16)  # so that there are segments
    parts = [backend.to_numpy(x) for x in constrained_oasisAR2(y, g, 0.3, **options)]
    assert_array_equal(parts[1] > 0, whole[1] > 0)
    for a, b in zip(parts, whole, strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(b).max())


def test_threads_that_share_segments_change_no_bit(monkeypatch):
    y = bernoulli((1.7, -0.71), 0.3, K=1, T=6000)[0][0]
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
        results.append(constrained_oasisAR2(y, (1.7, -0.71), 0.3))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert_array_equal(a, b)
