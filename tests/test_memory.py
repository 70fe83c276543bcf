"""A movie of ten times the memory budget is read, summarised, registered and rewritten within the budget."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.memory_probe import WORK

SLACK = 128 << 20
"""Address space beside the budget: stacks of threads and what the allocator sets aside."""
FIXED = 32 << 20
"""What does not grow with the budget: the pieces of a chunk that are worked on in the cache, the allocator's rest."""


def write_film(path, frames, shape):
    """A movie of noise; blocks repeat, as content does not matter here."""
    block = np.random.default_rng(0).integers(100, 900, (64, *shape)).astype(np.uint16)
    with path.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": (frames, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(frames // 64):
            file.write(block)
    return path


def growth(work, film, budget):
    """Bytes by which resident memory grows in another process, and of the movie."""
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "GPUCALCIUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory_probe", work, str(film), str(budget), str(SLACK)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "film.npy", 16384, (128, 160))


pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is measured as Linux tells it"
)


@pytest.mark.parametrize("work", WORK)
def test_ten_times_the_budget(film, work):
    budget = 64 << 20
    assert film.stat().st_size >= 10 * budget
    assert growth(work, film, budget) <= budget + FIXED


@pytest.mark.slow
@pytest.mark.parametrize("work", ["local_correlations", "register"])
def test_ten_gigabytes_in_one(tmp_path, work):
    film = write_film(tmp_path / "film.npy", 10_000_000_000 // (2 * 512 * 512) // 64 * 64 + 64, (512, 512))
    assert film.stat().st_size >= 10e9
    assert growth(work, film, 10**9) <= 10**9
