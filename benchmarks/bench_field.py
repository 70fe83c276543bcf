"""Frames displaced by a field on a grid of patches: every pixel interpolated, or tiles shifted by Fourier transform.

The bound is reading the frames once in their own dtype and writing float32.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness import Peer, timed
from gpucalcium.registration.apply import displace_field
from gpucalcium.registration.patches import PatchGrid

FRAMES, FIELD = 400, (256, 256)
STRIDES, OVERLAPS = (48, 48), (24, 24)


@pytest.fixture(scope="module", params=["float32", "int16"])
def frames(request):
    """Photon noise."""
    return np.random.default_rng(0).poisson(100, (FRAMES, *FIELD)).astype(request.param)


@pytest.fixture(scope="module")
def grid():
    """As for piecewise-rigid registration of such frames."""
    return PatchGrid.make(FIELD, STRIDES, OVERLAPS)


@pytest.fixture(scope="module")
def field(grid):
    """A frame moves by up to five pixels, its patches by up to one more."""
    rng = np.random.default_rng(1)
    common = rng.uniform(-5, 5, (FRAMES, 1, 1, 2))
    return (common + rng.uniform(-1, 1, (FRAMES, *grid.counts, 2))).astype(np.float32)


def _opencv(frames, field):
    """The same by cv2.remap, whose maps have to be made at the size of the frame first."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in FIELD)

    def remap(cv2):
        for frame, moves in zip(frames, field, strict=True):
            y, x = (cv2.resize(np.ascontiguousarray(moves[..., a]), FIELD[::-1]) for a in (0, 1))
            cv2.remap(frame, columns - x, rows[:, None] - y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    return Peer("OpenCV", "cv2", remap)


@pytest.mark.parametrize("interpolate", [False, True], ids=["stretched", "splines"])
@pytest.mark.benchmark(group="displace_field 400x256x256, 48/24")
def test_warp(benchmark, wing, frames, field, grid, interpolate):
    timed(
        benchmark,
        wing,
        displace_field,
        wing.put(frames),
        wing.put(field),
        grid,
        interpolate=interpolate,
        bytes_moved=frames.nbytes + 4 * frames.size,
        frames=FRAMES,
        peers=[_opencv(frames, field)],
    )


@pytest.mark.benchmark(group="displace_field by tiles 400x256x256, 48/24")
def test_tiles(benchmark, wing, frames, field, grid):
    timed(
        benchmark,
        wing,
        displace_field,
        wing.put(frames),
        wing.put(field),
        grid,
        fourier=True,
        strides=STRIDES,
        overlaps=OVERLAPS,
        bytes_moved=frames.nbytes + 4 * frames.size,
        frames=FRAMES,
    )
