"""A whole unmodified script, from a movie file with motion to a file of results."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gpucalcium.cnmf.storage import read
from gpucalcium.rois import match_footprints
from gpucalcium.simulate import two_photon

SCRIPT = Path(__file__).parent / "scripts" / "two_photon.py"


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    scene = two_photon(400, (60, 52), 10, motion=2.0, seed=4)
    folder = tmp_path_factory.mktemp("script")
    tifffile.imwrite(folder / "movie.tif", scene.movie)
    return scene, folder


def test_the_script_finds_the_cells(truth):
    scene, folder = truth
    command = [sys.executable, "-m", "gpucalcium.accel", SCRIPT, "movie.tif", str(folder)]
    environment = {**os.environ, "GPUCALCIUM_TEMP": str(folder), "GPUCALCIUM_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, params, est = read(folder / "results.hdf5")
    match = match_footprints(est.A, scene.A)
    assert match.f1 >= 0.8
    assert est.F_dff.shape == est.C.shape == (est.A.shape[1], 400)
    assert (est.SNR_comp > 2.5).any()
    assert est.Cn.shape == est.dims == (60, 52)
    assert params.data["fnames"] == ["movie.tif"]
    assert np.isfinite(est.F_dff).all()
    left = sorted(path.name for path in folder.iterdir() if path.suffix != ".mmap")
    assert left == ["movie.tif", "results.hdf5"]
