"""A whole unmodified script for DeepCINAC: Keras classifiers, a movie, contours; into files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile

from gpucalcium import nets
from gpucalcium.cinac import CinacDataMovie, CinacRecording, predict_activity, predict_cell_types
from tests.nets.fixtures import FOLDER

SCRIPT = Path(__file__).parent / "scripts" / "cinac.py"

pytest.importorskip("torch")
pytest.importorskip("shapely")


def test_the_script_predicts_what_its_classifiers_say(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")
    movie = np.random.default_rng(0).integers(100, 900, (40, 30, 33)).astype(np.uint16)
    contours = np.array(
        [
            [(5, 9, 9, 5), (6, 6, 11, 11)],
            [(8, 14, 14, 8), (8, 8, 12, 12)],
            [(20, 24, 22, 20), (20, 20, 26, 24)],
        ]
    )
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    np.save(tmp_path / "contours.npy", contours)
    command = [sys.executable, "-m", "gpucalcium.accel", SCRIPT, str(tmp_path), str(FOLDER)]
    environment = {**os.environ, "GPUCALCIUM_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    recording = CinacRecording("p5_19_03_25_a001")
    recording.set_movie(CinacDataMovie(movie))
    recording.set_rois_2d_array(list(contours), from_matlab=False)
    activity, types = (
        nets.load_network(FOLDER / f"{name}.json", FOLDER / f"{name}.h5")
        for name in ("activity", "cell_type")
    )
    assert activity.mask_mode == types.mask_mode == "legacy"
    with np.load(tmp_path / "p5_19_03_25_a001_predictions_v1.npz") as written:
        assert written["cells"].tolist() == [0, 1]
        found = written["predictions"]
    expected = predict_activity(recording, [0, 1], activity)
    np.testing.assert_allclose(found[:2], expected[..., 0], rtol=0, atol=1e-6)
    assert not found[2].any()
    in_matlab = scipy.io.loadmat(tmp_path / "p5_19_03_25_a001_predictions_v1.mat")["predictions"]
    np.testing.assert_array_equal(in_matlab, found)
    raster = np.load(tmp_path / "raster_p5_19_03_25_a001_v1.npy")
    np.testing.assert_array_equal(raster, found >= 0.5)
    means = [windows.mean(axis=0) for windows in predict_cell_types(recording, range(3), types, overlap=0.5)]
    np.testing.assert_allclose(np.load(tmp_path / "types.npy"), means, rtol=0, atol=1e-6)
