"""Stages of a run: timed, and their bars move with the frames that are read, wherever these are."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.movies import open_movie
from gpucalcium.pipeline.stages import Stages

MOVIE = np.arange(10 * 6 * 5, dtype=np.float32).reshape(10, 6, 5)


def test_frames_of_a_watched_movie_stay_on_their_device(wing, capsys):
    source = open_movie(wing.put(MOVIE))
    stages = Stages(shown=True)
    watched = stages.watched(source)
    assert watched.array is source.array
    with stages.stage("reading", 20), backend.limit(chunk_frames=4):
        chunks = list(backend.stream(watched))
        assert all(backend.is_cupy(chunk) == (wing.device == "cuda") for chunk in chunks)
        assert_array_equal(np.concatenate([backend.to_numpy(chunk) for chunk in chunks]), MOVIE)
        assert stages._bar.n == 10
        assert_array_equal(watched.read(slice(1, 9, 3)), MOVIE[1:9:3])
        assert stages._bar.n == 13
    assert stages._bar.n == 20
    assert list(stages.seconds) == ["reading"]
    assert "reading" in capsys.readouterr().err


def test_a_bar_that_is_not_shown_costs_nothing():
    stages = Stages()
    source = open_movie(MOVIE)
    with stages.stage("reading", 10):
        assert stages.watched(source) is source
