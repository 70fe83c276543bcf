"""Activity by a network in a run: beside the spikes in the file of results, the figures and the report."""

from __future__ import annotations

import re
from copy import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("torch")
pytest.importorskip("shapely")
pytest.importorskip("safetensors")

from gpucalcium import backend, nets
from gpucalcium.cinac import CinacDataMovie, CinacRecording, predict_activity
from gpucalcium.cinac.shipped import FOLDER
from gpucalcium.cli import main
from gpucalcium.cnmf.storage import load_CNMF
from gpucalcium.errors import MissingWeightsError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.pipeline import RunSettings, read_activity, run
from gpucalcium.pipeline.activity import cell_activity, load_classifier
from gpucalcium.pipeline.stages import Stages
from gpucalcium.simulate import two_photon

SMALL = {"conv_filters": (4, 4, 4, 4), "lstm_sizes": (4,), "bin_lstm_size": 4, "window_len": 50}
ASKED = {"frame_rate": 20.0, "decay_s": 0.6, "refit": False, "motion_correct": False}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


@pytest.fixture(scope="module")
def scene():
    return two_photon(300, (48, 50), 6, seed=4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    network = nets.build_network(nets.NetworkSpec(**SMALL), seed=1, device="cpu")
    file, _ = nets.save_network(network, tmp_path_factory.mktemp("nets") / "mine")
    return file


@pytest.fixture(scope="module")
def done(scene, classifier, tmp_path_factory):
    asked = RunSettings(**ASKED, cinac=True, cinac_model=classifier)
    with backend.use("cpu"):
        return run(scene.movie, tmp_path_factory.mktemp("runs") / "out", asked)


def test_activity_is_that_of_the_accepted_cells_in_the_movie(scene, classifier, done):
    assert len(done.accepted) > 0
    assert_array_equal(done.activity.cells, done.accepted)
    assert done.activity.predictions.shape == (len(done.accepted), 300)
    recording = CinacRecording("expected")
    recording.set_movie(CinacDataMovie(scene.movie))
    recording.set_rois_from_footprints(done.estimates.A[:, done.accepted])
    expected = predict_activity(recording, np.arange(len(done.accepted)), nets.load_network(classifier))
    assert_allclose(done.activity.predictions, expected[..., 0], rtol=0, atol=1e-6)
    assert_array_equal(done.activity.raster, done.activity.predictions >= 0.5)


def test_activity_lies_beside_the_spikes(done):
    file = done.output / "results.hdf5"
    kept = read_activity(file)
    assert_array_equal(kept.predictions, done.activity.predictions)
    assert_array_equal(kept.cells, done.accepted)
    assert kept.classifier == "mine.json"
    assert_array_equal(load_CNMF(file).estimates.S, done.estimates.S)
    assert {path.name for path in (done.output / "figures").glob("activity*")} == {
        "activity.pdf",
        "activity.png",
    }
    text = (done.output / "report.html").read_text(encoding="utf-8")
    assert "<figcaption><b>Activity</b>Frames in which the network" in text
    assert "mine.json" in text
    assert done.facts()["active (%)"] in text
    assert "activity" in done.seconds


@pytest.mark.skipif(
    not (FOLDER / "activity.json").is_file(), reason="this checkout has no trained classifier"
)
def test_the_shipped_classifier_is_the_default(scene):
    found = run(scene.movie, None, RunSettings(**ASKED, cinac=True))
    assert found.activity.classifier == "activity.json"
    assert 0 < found.activity.raster.mean() < 0.5


def test_not_asked_for_there_is_none(scene, tmp_path):
    plain = run(scene.movie, tmp_path / "out", RunSettings(**ASKED))
    assert plain.activity is None
    assert "active (%)" not in plain.facts()
    assert read_activity(tmp_path / "out" / "results.hdf5") is None


def test_without_accepted_cells_there_is_none(scene, classifier, done):
    found = copy(done.estimates)
    found.idx_components = np.array([], int)
    loaded = load_classifier(RunSettings(cinac=True, cinac_model=classifier))
    assert cell_activity(found, open_movie(scene.movie), loaded, Stages()) is None


def test_command(scene, classifier, tmp_path, capsys):
    np.save(tmp_path / "movie.npy", scene.movie)
    words = [
        "run",
        str(tmp_path / "movie.npy"),
        "-o",
        str(tmp_path / "out"),
        "--cinac-model",
        str(classifier),
    ]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--frame-rate", "20", "--no-refit", "--no-motion-correct", "--device", "cpu"])
    assert re.search(r"active in \d+\.\d % of frames, by mine\.json", capsys.readouterr().out)
    assert read_activity(tmp_path / "out" / "results.hdf5") is not None


def test_what_is_missing_is_said_before_the_work(scene, tmp_path, monkeypatch):
    asked = RunSettings(cinac=True, cinac_model=tmp_path / "none.json")
    with pytest.raises(MissingWeightsError, match=r"none\.json"):
        run(scene.movie, tmp_path / "out", asked)
    types = nets.build_network(nets.NetworkSpec(**SMALL, kind="cell_type"), seed=1)
    file, _ = nets.save_network(types, tmp_path / "types")
    with pytest.raises(ParameterError, match="kind 'cell_type'; one that predicts activity"):
        run(scene.movie, None, RunSettings(cinac=True, cinac_model=file))
    with pytest.raises(ParameterError, match="cinac=False"):
        RunSettings(cinac_model=file)
    monkeypatch.setattr("gpucalcium.cinac.shipped.FOLDER", tmp_path)
    with pytest.raises(MissingWeightsError, match=r"activity\.json is not there"):
        run(scene.movie, None, RunSettings(cinac=True))
    assert not (tmp_path / "out").exists()
