"""Deconvolution of traces, noise of pixels, running baselines.

The bound of a deconvolution is reading each trace and writing calcium and spikes, float32; what it really
costs is the pools, so peers are compared on one core. What the kernels move, a sample (T x K of them), at a noise of
0.2 of a spike, half a spike per second at 30 Hz, where the first level has 0.13 pools a sample and the last 0.05:

- AR(1): 16 bytes to lay out segments, 8 to read them twice, 17 for pools that are pushed and popped, 84 a pool and step
  of the search (five: 38), 24 for calcium and spikes: about 100 bytes, and 60 double operations. 10,000 traces of
  30,000 samples: 31 GB and 2e10 operations, 7 ms and 0.6 ms on an H200 (4.3 TB/s, 34 TFLOPS).
- AR(2): 100 bytes for tables, 40 a round of non-negative least squares (ten), 40 for AR(1) on means and the layout:
  about 550 bytes, and 400 operations. 10,000 x 30,000: 165 GB, 38 ms; but a thread takes a trace there, so 313 warps
  wait for memory in turn: some 60 walks of 30,000 samples at 600 cycles, about 0.6 s.

None of it has been timed on that card.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.deconvolution import (
    constrained_foopsi,
    constrained_oasisAR1,
    constrained_oasisAR2,
    movie_noise,
)

TRACES, FRAMES = 200, 3000
DECAY = float(np.exp(-1 / 15))  # half a second at 30 Hz
RISE = float(np.exp(-1 / 1.5))  # 50 ms
MODEL = (DECAY + RISE, -DECAY * RISE)
NOISE = [0.2, 0.5]  # of a spike


@pytest.fixture
def one_core(monkeypatch):
    """One thread, as peers are that take a trace at a time."""
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


def traces_of(noise, traces=TRACES, frames=FRAMES, rise=0.0):
    """Spikes of size 1 at half a hertz, rising and decaying, on a baseline, with noise: (traces, frames) float32."""
    rng = np.random.default_rng(0)
    c = (rng.random((traces, frames)) < 0.5 / 30).astype(float)
    for t in range(1, frames):
        c[:, t] += (DECAY + rise) * c[:, t - 1] - DECAY * rise * (c[:, t - 2] if t > 1 else 0)
    return (c + 1 + noise * rng.standard_normal(c.shape)).astype(np.float32)


@pytest.mark.benchmark(group=f"OASIS AR(1), baseline free, {TRACES}x{FRAMES}, one core")
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("penalty", [1, 0])
def test_constrained_oasis(benchmark, wing, one_core, noise, penalty):
    traces = traces_of(noise)
    given = wing.put(traces)
    doubles = traces.astype(np.float64)
    options = {"optimize_b": True, "penalty": penalty}

    def peer(oasis):
        for y in doubles:
            oasis.constrained_oasisAR1(y, DECAY, noise, **options)

    timed(
        benchmark,
        wing,
        constrained_oasisAR1,
        given,
        DECAY,
        noise,
        s_min=0,
        **options,
        bytes_moved=3 * traces.nbytes,
        frames=TRACES * FRAMES,
        peers=[Peer("oasis-deconv", "oasis.oasis_methods", peer)],
    )


@pytest.mark.benchmark(group=f"OASIS AR(2), {TRACES}x{FRAMES}, one core")
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("max_iter", [1, 10])
def test_constrained_oasis_ar2(benchmark, wing, one_core, noise, max_iter):
    """Peers make one pass each; that of oasis-deconv's compiled function has no windows either."""
    traces = traces_of(noise, rise=RISE)
    given = wing.put(traces)
    doubles = traces.astype(np.float64)

    def compiled(oasis):
        for y in doubles:
            oasis.constrained_oasisAR2(y, *MODEL, noise, optimize_b=True)

    timed(
        benchmark,
        wing,
        constrained_oasisAR2,
        given,
        MODEL,
        noise,
        max_iter=max_iter,
        bytes_moved=3 * traces.nbytes,
        frames=TRACES * FRAMES,
        peers=[Peer("oasis-deconv", "oasis.oasis_methods", compiled)],
    )


@pytest.mark.benchmark(group="OASIS AR(1), baseline free, one trace of 1,000,000")
@pytest.mark.parametrize("threads", ["1", "all"])
def test_one_long_trace(benchmark, wing, monkeypatch, threads):
    if threads != "all":
        monkeypatch.setenv("GPUCALCIUM_THREADS", threads)
    trace = traces_of(0.2, 1, 1_000_000)
    timed(
        benchmark,
        wing,
        constrained_oasisAR1,
        wing.put(trace),
        DECAY,
        0.2,
        optimize_b=True,
        bytes_moved=3 * trace.nbytes,
        frames=trace.size,
    )


@pytest.mark.benchmark(group=f"constrained_foopsi, all estimated, {TRACES}x{FRAMES}, one core")
@pytest.mark.parametrize("p", [1, 2])
def test_constrained_foopsi(benchmark, wing, one_core, p):
    traces = traces_of(0.2)
    given = wing.put(traces)

    def peer(deconvolution):
        for y in traces:
            deconvolution.constrained_foopsi(y, p=p)

    timed(
        benchmark,
        wing,
        constrained_foopsi,
        given,
        p=p,
        bytes_moved=3 * traces.nbytes,
        frames=TRACES * FRAMES,
        peers=[Peer("CaImAn", "caiman.source_extraction.cnmf.deconvolution", peer)],
    )


@pytest.mark.benchmark(group="movie_noise 1000x256x256 float32")
def test_movie_noise(benchmark, wing):
    movie = np.random.default_rng(0).standard_normal((1000, 256, 256), np.float32)
    given = wing.put(movie)
    pixels = np.ascontiguousarray(movie.reshape(len(movie), -1).T)
    timed(
        benchmark,
        wing,
        movie_noise,
        given,
        bytes_moved=movie.nbytes,
        frames=len(movie),
        peers=[
            Peer(
                "CaImAn",
                "caiman.source_extraction.cnmf.pre_processing",
                lambda noise: noise.get_noise_fft(pixels, noise_method="mean"),
            )
        ],
    )


@pytest.mark.benchmark(group=f"running percentile, window 500, {TRACES}x{FRAMES}")
def test_running_percentile(benchmark, wing):
    traces = traces_of(0.2)
    given, q = wing.put(traces), wing.put(np.full(TRACES, 8.0))
    timed(
        benchmark,
        wing,
        backend.wing(given).quantile.running_percentile,
        given,
        q,
        500,
        bytes_moved=2 * traces.nbytes,
        frames=TRACES * FRAMES,
        peers=[
            Peer(
                "SciPy", "scipy.ndimage", lambda ndimage: ndimage.percentile_filter(traces, 8, size=(1, 500))
            )
        ],
    )
