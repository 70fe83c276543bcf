"""What the methods of movies take beside the movie and their results, measured in a process of their own.

The movie and the results are memory maps of files, which the system may drop from memory; what a process allocates
itself (RLIMIT_DATA) is limited to what it has after a rehearsal on few frames, and a part of the movie.
"""

import subprocess
import sys

import numpy as np
import pytest

T, FRAME = 3000, (128, 128)  # 94 MiB of uint16, 188 MiB of float32
BUDGET, SLACK = 8 << 20, 24 << 20
WORK = {
    "bin_median": "m.bin_median()",
    "computeDFF": "m.computeDFF(2, method='delta_f_over_f', out=(a, b))",
    "computeDFF, bins spread": "m.computeDFF(2, order='C', out=(a, b))",
    "removeBL": "m.removeBL(100, out=a)",
    "removeBL of a long window": "m.removeBL(2000, out=a)",
    "debleach": "m.debleach(out=a)",
    "calc_min": "m.calc_min()",
    "mean": "moments(np.asarray(m))",
    "extract_traces_from_masks": "m.extract_traces_from_masks(np.ones((3, 128, 128)))",
    "partition_FOV_KMeans": "m.partition_FOV_KMeans(fx=0.1, fy=0.1)",
    "online_NMF": "m.online_NMF(3, 'nmf', iterations=3)",
    "gaussian_blur_2D": "floats.gaussian_blur_2D()",
}
SCRIPT = """
import resource, sys
import numpy as np
from gpucalcium import backend, movie
from gpucalcium.movies.projecting import moments
folder, budget, slack, work = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
maps = [np.load(f"{folder}/{name}.npy", mmap_mode="r+") for name in ("m", "a", "b", "floats")]
def run(n):
    m, a, b, floats = (x if n is None else np.array(x[:n]) for x in maps)
    eval(work, globals() | {"m": movie(m, fr=30), "a": a, "b": b, "floats": movie(floats, fr=30)})
with backend.use("cpu"), backend.limit(memory=budget):
    run(200)
    data = next(int(x.split()[1]) << 10 for x in open("/proc/self/status") if x.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (data + slack,) * 2)
    run(None)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("maps")
    frames = np.lib.format.open_memmap(where / "m.npy", "w+", np.uint16, (T, *FRAME))
    frames[:] = np.random.default_rng(0).integers(100, 900, (100, *FRAME), np.uint16)[np.arange(T) % 100]
    for name in ("a", "b", "floats"):
        np.lib.format.open_memmap(where / f"{name}.npy", "w+", np.float32, (T, *FRAME))
    return where


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as on Linux")
@pytest.mark.parametrize("name", WORK)
def test_memory_does_not_grow_with_the_movie(folder, name):
    arguments = [str(folder), str(BUDGET), str(SLACK), WORK[name]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
