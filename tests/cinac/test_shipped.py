"""The classifiers that come with the library: there, small, and as they are described."""

from __future__ import annotations

import numpy as np
import pytest

from gpucalcium import nets
from gpucalcium.cinac import CinacPredictor, compute_stats_over_gt, shipped, weights
from gpucalcium.cinac.cell_types import DEFAULT_CELL_TYPES
from gpucalcium.cinac.simulated import SimulationParams, simulate_recording
from gpucalcium.cinac.simulated_cells import KINDS
from gpucalcium.errors import MissingWeightsError, UnknownParameterError


@pytest.mark.parametrize(("name", "kind"), [("activity", "activity"), ("cell_types", "cell_type")])
def test_shipped_networks_load(name, kind):
    model_file, weights_file, identifier = weights(name)
    network = nets.load_network(model_file, weights_file)
    assert network.kind == kind and identifier == f"gpucalcium_{name}"


def test_unknown_shipped_networks_are_named():
    with pytest.raises(UnknownParameterError, match="activity, cell_types"):
        weights("calcium")


def test_they_are_small():
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) < 2_000_000


def test_a_file_that_is_absent_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(MissingWeightsError, match=r"cinac\.train activity"):
        weights("activity")


SCENE = {"n_frames": 400, "dimensions": (60, 60), "n_cells_of_interest": 4, "noise_variance": 0.02}


def predicted(made, name, **more):
    predictor = CinacPredictor(device="cpu")
    predictor.add_recording(made.recording("held out"), {weights(name): None})
    return predictor.predict(None, **more)["held out", f"gpucalcium_{name}"]


def test_transients_of_a_movie_not_trained_on_are_found():
    made = simulate_recording(2000, SimulationParams(**SCENE, non_overlap_by_cell_range=(1, 4)))
    found = predicted(made, "activity") >= 0.5
    smooth = made.recording("held out").get_smooth_traces(normalized=True)
    assert compute_stats_over_gt(made.raster, found, smooth).transients.f1 > 0.85


def test_types_of_cells_not_trained_on_are_found():
    params = SimulationParams(**SCENE, non_overlap_by_cell_range=(1, 4), cell_types=dict.fromkeys(KINDS, 1.0))
    made = simulate_recording(2001, params)
    found = predicted(made, "cell_types", cell_type_classifier_mode=True).argmax(axis=1)
    right = found == [DEFAULT_CELL_TYPES.code(name) for name in made.cell_types]
    assert np.mean(right) > 0.8
