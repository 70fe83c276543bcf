"""CNMF of a one-photon movie: a whole fit beside the ring model, with what it finds, and the passes that are its own.

The bound of a fit is the movie read once for the noise, once to make it smaller, twice for the ring model, once for its
time courses, and twice for each of four rounds of refinement. Scene: 36 cells in 128 x 128 pixels, 1000 frames, on
blobs as bright as they are. Beside the time: F1 and median correlation of traces with the truth, the host memory that
the fit takes beside the movie, and the budget that it kept to.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.initialization.corr_pnr import SeedSearch, find_seeded
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.ring import RingModel
from tests.cnmf.one_photon_scenes import OnePhotonScene, one_photon
from tests.cnmf.scenes import f1

FRAMES, FIELD, NOISE = 1000, (128, 128), 12.0
CENTERS = tuple((13 + 20 * i + 3 * (j % 2), 13 + 20 * j + 2 * (i % 3)) for i in range(6) for j in range(6))
SETTINGS = {
    "method_init": "corr_pnr",
    "center_psf": True,
    "k": None,
    "gSig": (3, 3),
    "gSiz": (13, 13),
    "gnb": 0,
}
SETTINGS |= {"p": 1, "min_corr": 0.8, "min_pnr": 8, "ring_size_factor": 1.4, "fr": 10, "decay_time": 0.6}
PATCHES = {"rf": 40, "stride": 20, "p_ssub": 2, "p_tsub": 2}
PASSES = {"whole": 13, "patches": 7}
RADIUS = 18.0  # pixels


@pytest.fixture(scope="module")
def scene() -> OnePhotonScene:
    return one_photon(FIELD, FRAMES, CENTERS, sigma=3.0, noise=NOISE, seed=3)


@pytest.mark.benchmark(group=f"CNMF-E {FRAMES}x{FIELD[0]}x{FIELD[1]}, {len(CENTERS)} cells")
@pytest.mark.parametrize(("way", "budget"), [("whole", "48MiB"), ("whole", "4GiB"), ("patches", "4GiB")])
def test_fit(benchmark, wing, scene, way, budget):
    """With 48 MiB the movie, 62 MiB, does not fit and is streamed in every pass; with 4 GiB it is held."""
    frames = wing.put(scene.Y)
    options = {**SETTINGS, **(PATCHES if way == "patches" else {}), "only_init_patch": way == "patches"}

    def fitted() -> CNMF:
        with backend.limit(memory=budget):
            return CNMF(1, params=CNMFParams(**options)).fit(frames)

    def peer(cnmf):
        theirs = cnmf.CNMF(1, params=cnmf.params.CNMFParams(params_dict=options))
        theirs.fit(scene.Y)

    found = fitted().estimates
    tracemalloc.start()
    fitted()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    score, r = f1(found.A, found.C, scene.A, scene.C)
    benchmark.extra_info.update(F1=score, r=r, peak_host_bytes=peak, budget=budget)
    print(
        f"\n{way}, budget {budget}: F1 {score:.3f}, r {r:.3f}, peak beside the movie {peak / 2**20:.0f} MiB"
    )
    timed(
        benchmark,
        wing,
        fitted,
        bytes_moved=PASSES[way] * scene.Y.nbytes,
        frames=FRAMES,
        peers=[Peer("CaImAn", "caiman.source_extraction.cnmf.cnmf", peer)] if way == "whole" else [],
    )


@pytest.mark.benchmark(group=f"ring model {FRAMES}x{FIELD[0]}x{FIELD[1]}")
@pytest.mark.parametrize("side", [1, 2])
def test_ring_model(benchmark, wing, scene, side):
    movie = images_movie(wing.put(scene.Y))
    timed(
        benchmark,
        wing,
        lambda: RingModel.fit(movie, scene.A, scene.C, RADIUS, side),
        bytes_moved=2 * scene.Y.nbytes,
        frames=FRAMES,
    )


@pytest.mark.benchmark(group=f"ring background {FRAMES}x{FIELD[0]}x{FIELD[1]}")
def test_background(benchmark, wing, scene):
    """B made as it is read, seen by one footprint."""
    movie = images_movie(wing.put(scene.Y))
    whole = RingModel.fit(movie, scene.A, scene.C, RADIUS, 2).background(movie, scene.A, scene.C)
    timed(benchmark, wing, lambda: whole.project(scene.A[:, :1]), bytes_moved=scene.Y.nbytes, frames=FRAMES)


@pytest.mark.benchmark(group=f"search for seeds {FRAMES}x{FIELD[0]}x{FIELD[1]}")
def test_search(benchmark, wing, scene):
    rows = wing.put(np.ascontiguousarray(np.moveaxis(scene.Y, 0, -1)))
    search = SeedSearch(gSig=(3.0, 3.0), gSiz=(13.0, 13.0), min_pnr=8)
    timed(
        benchmark,
        wing,
        lambda: find_seeded(rows.copy(), search),
        bytes_moved=3 * scene.Y.nbytes,
        frames=FRAMES,
    )
