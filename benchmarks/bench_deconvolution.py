"""Deconvolution of traces, noise of pixels, running baselines.

The bound of a deconvolution is reading each trace and writing calcium and spikes, float32; what it really
costs is the pools, which are serial in time, so peers are compared on one core.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.deconvolution import constrained_foopsi, constrained_oasisAR1, movie_noise

TRACES, FRAMES = 200, 3000
DECAY = float(np.exp(-1 / 15))  # half a second at 30 Hz
NOISE = [0.2, 0.5]  # of a spike


@pytest.fixture
def one_core():
    """Numba on one thread, as peers are that take a trace at a time."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


def traces_of(noise):
    """Spikes of size 1 at half a hertz, decaying, on a baseline, with noise: (TRACES, FRAMES) float32."""
    rng = np.random.default_rng(0)
    c = (rng.random((TRACES, FRAMES)) < 0.5 / 30).astype(float)
    for t in range(1, FRAMES):
        c[:, t] += DECAY * c[:, t - 1]
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
