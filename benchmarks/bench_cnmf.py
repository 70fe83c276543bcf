"""CNMF: a whole fit, and the passes over the movie that it consists of.

The bound of a fit is the movie read once for the noise, twice to initialise and twice for each of two rounds of
refinement; that of a product, one reading. Scene: 60 cells in 128 x 128 pixels, 2000 frames.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csc_matrix, hstack

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.initialization import initialize_components
from gpucalcium.cnmf.spatial import update_spatial_components
from gpucalcium.cnmf.temporal import update_temporal_components
from gpucalcium.simulate import SimulatedMovie, two_photon

FRAMES, FIELD, CELLS = 2000, (128, 128), 60
SETTINGS = {"k": 65, "gSig": [4, 4], "gnb": 2, "fr": 20, "decay_time": 0.6}
PATCHES = {"k": 9, "gSig": [4, 4], "gnb": 2, "fr": 20, "decay_time": 0.6, "rf": 20, "stride": 10}
PATCHES |= {"p_ssub": 2, "p_tsub": 2, "only_init_patch": True}
PASSES = {"fit": 7, "initialise": 2, "update": 1, "patches": 4, "refit": 5}
TEMPORAL = {"noise_method": "mean", "bas_nonneg": False, "fudge_factor": 0.96, "noise_range": [0.25, 0.5]}


@pytest.fixture(scope="module")
def scene() -> SimulatedMovie:
    return two_photon(FRAMES, FIELD, CELLS, seed=3)


def _model(scene: SimulatedMovie) -> tuple[csc_matrix, np.ndarray, np.ndarray, np.ndarray]:
    return csc_matrix(scene.A), np.asarray(scene.C), np.asarray(scene.b), np.asarray(scene.f)


def _stated_peak(benchmark, call) -> None:
    """Run once, and state what the host held at most beside the movie, and the budget."""
    tracemalloc.start()
    call()
    benchmark.extra_info["peak_host_bytes"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    benchmark.extra_info["budget_bytes"] = backend.budget()
    print(
        f"peak {benchmark.extra_info['peak_host_bytes'] / 2**20:.0f} MiB of {backend.budget() / 2**20:.0f} MiB"
    )
    assert benchmark.extra_info["peak_host_bytes"] < backend.budget()


@pytest.mark.benchmark(group=f"CNMF.fit {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells")
@pytest.mark.parametrize("p", [1, 2])
def test_fit(benchmark, wing, scene, p):
    movie = scene.movie.astype(np.float32)
    frames = wing.put(movie)

    def peer(cnmf):
        theirs = cnmf.CNMF(1, only_init_patch=False, p=p, **SETTINGS)
        theirs.fit(movie)

    def fitted():
        return CNMF(1, p=p, **SETTINGS).fit(frames)

    _stated_peak(benchmark, fitted)
    timed(
        benchmark,
        wing,
        fitted,
        bytes_moved=PASSES["fit"] * movie.nbytes,
        frames=FRAMES,
        peers=[Peer("CaImAn", "caiman.source_extraction.cnmf.cnmf", peer)],
    )


@pytest.mark.benchmark(group=f"CNMF.fit in patches {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells")
@pytest.mark.parametrize("step", ["patches", "refit"])
def test_fit_in_patches(benchmark, wing, scene, step):
    """Patches of 41 x 41 pixels that overlap by 10; the peak is what the host holds beside the movie."""
    movie = scene.movie.astype(np.float32)
    frames = wing.put(movie)

    def fitted():
        return CNMF(1, p=2, **PATCHES).fit(frames)

    def peer(cnmf):
        theirs = cnmf.CNMF(1, p=2, **PATCHES)
        theirs.fit(movie)

    first = fitted()
    call = fitted if step == "patches" else lambda: first.refit(frames)
    _stated_peak(benchmark, call)
    timed(
        benchmark,
        wing,
        call,
        bytes_moved=PASSES[step] * movie.nbytes,
        frames=FRAMES,
        peers=[Peer("CaImAn", "caiman.source_extraction.cnmf.cnmf", peer)] if step == "patches" else [],
    )


@pytest.mark.benchmark(group=f"initialize_components {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells")
@pytest.mark.parametrize("sub", [1, 2])
def test_initialize(benchmark, wing, scene, sub):
    movie = images_movie(wing.put(scene.movie))
    timed(
        benchmark,
        wing,
        lambda: initialize_components(movie, K=65, gSig=[4, 4], nb=2, ssub=sub, tsub=sub, rolling_sum=True),
        bytes_moved=PASSES["initialise"] * scene.movie.nbytes,
        frames=FRAMES,
    )


@pytest.mark.benchmark(group=f"spatial and temporal update {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells")
def test_update_spatial(benchmark, wing, scene):
    movie = images_movie(wing.put(scene.movie))
    A, C, b, f = _model(scene)
    timed(
        benchmark,
        wing,
        lambda: update_spatial_components(
            movie, C=C, f=f, A_in=A, sn=np.full(movie.d, 8.0), dims=FIELD, b_in=b
        ),
        bytes_moved=PASSES["update"] * scene.movie.nbytes,
        frames=FRAMES,
    )


@pytest.mark.benchmark(group=f"spatial and temporal update {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells")
def test_update_temporal(benchmark, wing, scene):
    movie = images_movie(wing.put(scene.movie))
    A, C, b, f = _model(scene)
    timed(
        benchmark,
        wing,
        lambda: update_temporal_components(movie, A, b, C, f, p=1, **TEMPORAL),
        bytes_moved=PASSES["update"] * scene.movie.nbytes,
        frames=FRAMES,
    )


@pytest.mark.benchmark(group=f"products {FRAMES}x{FIELD[0]}x{FIELD[1]}, {CELLS} cells and 2 backgrounds")
@pytest.mark.parametrize("what", ["A'Y", "Y C' on supports"])
def test_products(benchmark, wing, scene, what):
    movie = images_movie(wing.put(scene.movie))
    A, C, b, f = _model(scene)
    both = csc_matrix(hstack([A, csc_matrix(b)]))
    pattern = movie.in_frame_order(both)
    columns = np.repeat(np.arange(both.shape[1]), np.diff(pattern.indptr))
    traces = np.vstack([C, f])
    calls = {
        "A'Y": lambda: movie.project(both),
        "Y C' on supports": lambda: movie.sample(traces, pattern.indices, columns),
    }
    timed(benchmark, wing, calls[what], bytes_moved=scene.movie.nbytes, frames=FRAMES)
