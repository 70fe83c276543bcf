from __future__ import annotations

import numpy as np
import pytest

from gpucalcium.pipeline import RunSettings
from gpucalcium.pipeline.guess import guess_parameters


def test_what_is_asked_for_is_not_guessed():
    image = np.random.default_rng(0).random((40, 50))
    asked = RunSettings(
        frame_rate=12.0,
        cell_radius=4.0,
        n_components=9,
        params={"init": {"nb": 1}, "quality": {"min_SNR": 3}},
    )
    params, notes = guess_parameters(image, asked)
    assert (params.get("data", "fr"), params.get("init", "K"), params.get("init", "nb")) == (12.0, 9, 1)
    assert params.get("init", "gSig")[0] == pytest.approx(0.85 * 4.0)
    assert params.get("quality", "min_SNR") == 3
    assert notes == ()
    _, notes = guess_parameters(image, RunSettings())
    assert any("30 Hz is assumed" in note for note in notes)
    assert any("radius" in note for note in notes)
