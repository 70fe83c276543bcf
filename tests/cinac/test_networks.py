"""Real networks, small ones, in one pass over the movie: what is cached equals what is encoded anew for each window."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("torch")
pytest.importorskip("shapely")
pytest.importorskip("safetensors")

from gpucalcium import backend, nets
from gpucalcium.cinac import CinacPredictor
from gpucalcium.cinac.prediction import predict_activity, predict_cell_types
from gpucalcium.cinac.shipped import FOLDER, weights
from gpucalcium.cinac.train import HELD_OUT_SEEDS, simulated
from tests.cinac.scenes import predicted_by_loop, recording

SMALL = {"conv_filters": (4, 4, 6, 6), "lstm_sizes": (5, 6), "bin_lstm_size": 7}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


def network(seed=3, precision="float32", **options):
    spec = nets.NetworkSpec(window_len=20, patch_size=15, **{**SMALL, **options})
    made = nets.build_network(spec, seed=seed, precision=precision)
    for parameter in made.torch_module.trunk.parameters():
        parameter.data *= 1.5  # so that predictions are not all near one half
    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_mode": "legacy", "buffer": None},
        {"tied_encoders": False, "mask_mode": "legacy"},
        {"n_classes": 3},
        {"n_inputs": 2, "batch_norm": True, "attention_before_lstm": False},
    ],
    ids=str,
)
def test_cached_frames_equal_frames_encoded_for_each_window(options):
    rec, model = recording(n_frames=53), network(**options)
    found = predict_activity(rec, range(5), model, overlap=0.6)
    expected = predicted_by_loop(rec, range(5), model, 0.6, buffer=model.buffer)
    assert np.ptp(expected) > 0.01
    assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_wings_predict_alike(wing):
    rec, model = recording(n_frames=41), network()
    with backend.use("cpu"):
        expected = predict_activity(rec, [0, 1], model)
    assert_allclose(predict_activity(rec, [0, 1], model), expected, rtol=0, atol=1e-6)


def test_half_precision_keeps_the_raster():
    rec = recording(n_frames=201, n_cells=12)
    exact, rounded = (
        predict_activity(rec, range(12), network(precision=precision)) for precision in ("float32", "bf16")
    )
    assert_allclose(rounded, exact, atol=0.02)
    assert (exact != rounded).any()
    sure = np.abs(exact - 0.5) > 0.01  # weights at random leave many at one half
    assert ((rounded >= 0.5) == (exact >= 0.5))[sure].mean() >= 0.999


def test_cell_types_of_a_network():
    rec = recording(n_frames=50)
    model = network(kind="cell_type", n_classes=3, n_inputs=2)
    found = predict_cell_types(rec, [0, 4], model)
    assert [values.shape for values in found] == [(2, 3), (2, 3)]
    assert_allclose(np.sum(found, axis=2), 1, atol=1e-6)


def test_predictor_reads_network_files(tmp_path):
    model = network()
    files = nets.save_network(model, tmp_path / "net")
    rec = recording(n_frames=41)
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(*files, "v1"): [0, 3], (str(files[0]), None, "v2"): [1]})
    found = predictor.predict(None)["one", "v1_v2"]
    assert_array_equal(np.flatnonzero(found.any(axis=1)), [0, 1, 3])
    assert_allclose(found[[0, 3]], predict_activity(rec, [0, 3], model)[..., 0], rtol=0, atol=1e-6)


@pytest.mark.skipif(
    not (FOLDER / "activity.json").is_file(), reason="this checkout has no trained classifier"
)
def test_precisions_of_the_trained_classifier_give_one_raster():
    """A movie that it was not trained on: 99.9 % of frames stay on their side of one half."""
    rec = simulated([HELD_OUT_SEEDS[1]], 300, "activity")[0].recording("held out")
    exact, tf32, bf16 = (
        predict_activity(rec, range(40), nets.load_network(weights("activity")[0], precision=precision))
        >= 0.5
        for precision in ("float32", "tf32", "bf16")
    )
    assert 0.01 < exact.mean() < 0.2
    for other in (tf32, bf16):
        assert (other == exact).mean() >= 0.999
