"""How fast truth is made: the simulator must not be what a demo or test waits for."""

from __future__ import annotations

import pytest

from benchmarks.harness import timed
from gpucalcium.simulate import two_photon


@pytest.mark.benchmark(group="two_photon 512x128x128 uint16")
@pytest.mark.parametrize("motion", [0.0, 4.0])
def test_two_photon(benchmark, wing, motion):
    if wing.name == "cuda":
        pytest.skip("the simulator works on the CPU")
    shape = (512, 128, 128)
    timed(
        benchmark,
        wing,
        two_photon,
        shape[0],
        shape[1:],
        motion=motion,
        bytes_moved=2 * shape[0] * shape[1] * shape[2],
        frames=shape[0],
    )
