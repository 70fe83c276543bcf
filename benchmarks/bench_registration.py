"""Rigid registration: shifts, displaced frames and templates of a moving two-photon scene.

The bound is reading the movie once in its own dtype, beside writing float32 where frames are displaced.
"""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.movies import open_movie
from gpucalcium.registration import MotionCorrect, RigidParams, register_rigid
from gpucalcium.registration.template import first_matcher, sample_of

FRAMES, FIELD = 1000, (256, 256)
BOUND = (10, 10)  # pixels
MARGIN = 6


@pytest.fixture(scope="module", params=["float32", "int16"])
def movie(request):
    """Spots that move by up to five pixels, in photon noise."""
    rng = np.random.default_rng(0)
    canvas = tuple(n + 2 * MARGIN for n in FIELD)
    spots = gaussian_filter((rng.uniform(size=canvas) > 0.997).astype(float), 3)
    image = 30 + 40 * spots / spots.max()
    frames = np.empty((FRAMES, *FIELD), np.float32)
    for frame, (row, column) in zip(frames, rng.integers(-5, 6, (FRAMES, 2)), strict=True):
        still = image[MARGIN - row : MARGIN - row + FIELD[0], MARGIN - column : MARGIN - column + FIELD[1]]
        frame[...] = rng.poisson(still)
    return frames.astype(request.param)


def _caiman(movie, folder):
    name = str(folder / "movie.tif")
    tifffile.imwrite(name, movie)
    return Peer(
        "CaImAn",
        "caiman.motion_correction",
        lambda module: module.MotionCorrect(name, max_shifts=BOUND).motion_correct(save_movie=False),
    )


@pytest.mark.benchmark(group="register_rigid 1000x256x256")
def test_register_rigid(benchmark, wing, movie, tmp_path):
    frames = wing.put(movie)
    found = timed(
        benchmark,
        wing,
        lambda: register_rigid(open_movie(frames), RigidParams(max_shifts=BOUND)),
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
        peers=[_caiman(movie, tmp_path)],
    )
    assert not found.quality.clamped.any()


@pytest.mark.benchmark(group="MotionCorrect, movie saved, 1000x256x256")
def test_motion_correct_and_save(benchmark, wing, movie, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))
    frames = wing.put(movie)

    def correct():
        mc = MotionCorrect(frames, max_shifts=BOUND).motion_correct(save_movie=True)
        (tmp_path / mc.mmap_file[0]).unlink()

    timed(benchmark, wing, correct, bytes_moved=movie.nbytes + 8 * movie.size, frames=FRAMES)


@pytest.mark.benchmark(group="locate 1000x256x256")
def test_locate(benchmark, wing, movie):
    frames = wing.put(movie)
    matcher, _ = first_matcher(sample_of(open_movie(frames)), BOUND)
    timed(benchmark, wing, matcher.locate, frames, bytes_moved=movie.nbytes, frames=FRAMES)


@pytest.mark.benchmark(group="warp 1000x256x256")
def test_warp(benchmark, wing, movie):
    frames = wing.put(movie)
    shifts = wing.put(np.random.default_rng(1).uniform(-5, 5, (FRAMES, 2)).astype(np.float32))
    warp = backend.wing(frames).registration.warp
    timed(
        benchmark,
        wing,
        warp,
        frames,
        shifts,
        0.0,
        "nan",
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
    )
