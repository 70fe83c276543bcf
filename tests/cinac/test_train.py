"""The script that trains what comes with the library."""

from __future__ import annotations

import numpy as np
import pytest

from gpucalcium import nets
from gpucalcium.cinac import compute_stats_over_gt, train
from gpucalcium.cinac.prediction import predict_activity
from gpucalcium.cinac.simulated import SimulationParams, simulate_recording


def test_the_script_trains(tmp_path, monkeypatch):
    few = {"patches_per_epoch": 8, "max_validation_patches": 4, "overlap_value": 0.0}
    monkeypatch.setattr(train, "OF_ACTIVITY", {**train.OF_ACTIVITY, **few})
    train.main(["activity", str(tmp_path), "--movies", "1", "--frames", "500", "--epochs", "1"])
    assert nets.load_network(tmp_path / "activity.json").kind == "activity"


def test_full_networks_have_the_published_sizes(tmp_path):
    activity, types = (train.model(what, tmp_path, full=True).params for what in ("activity", "cell_types"))
    assert activity.spec == nets.NetworkSpec()
    assert (types.max_width, types.window_len, types.spec.kind, types.spec.n_inputs) == (
        20,
        500,
        "cell_type",
        2,
    )


def test_scenes_differ_by_seed():
    assert train.scene(0, 100) == train.scene(0, 100) != train.scene(1, 100)


@pytest.mark.slow
def test_one_movie_teaches_what_another_shows(tmp_path):
    """Transients of a movie that was not trained on are found: F1 above 0.8."""
    params = {"with_mvt": True, "noise_variance": 0.01, "non_overlap_by_cell_range": (1, 4)}
    seen, other = (
        simulate_recording(seed, SimulationParams(n_frames=n, **params)) for seed, n in ((0, 2000), (1, 800))
    )
    one = train.model("activity", tmp_path, full=False, n_epochs=8)
    one.add_recording(seen.recording("seen"), seen.raster)
    one.prepare_model()
    one.fit()
    rec = other.recording("other")
    found = predict_activity(rec, np.arange(len(other.raster)), one.network)[..., 0]
    stats = compute_stats_over_gt(other.raster, found >= 0.5, rec.get_smooth_traces(normalized=True))
    assert stats.transients.f1 > 0.8
