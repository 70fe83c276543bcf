"""Windows of a cell as they are handed about."""

from __future__ import annotations

import numpy as np
import pytest

from gpucalcium.cinac import (
    MoviePatchData,
)
from gpucalcium.errors import ArrayShapeError, ParameterError
from tests.cinac.given import blinking


def test_patches_are_equal_by_recording_cell_and_first_frame():
    one, other = blinking(), blinking()
    patch = MoviePatchData(one, 0, 10, 20, movie_info={"n": 1}, ground_truth=np.zeros(20))
    assert patch == MoviePatchData(one, 0, 10, 30, weight=5)
    assert patch not in (
        MoviePatchData(one, 1, 10, 20),
        MoviePatchData(one, 0, 11, 20),
        MoviePatchData(other, 0, 10, 20),
    )
    assert patch != "patch"
    assert len({patch, patch.copy(), MoviePatchData(one, 1, 10, 20)}) == 2
    twin = patch.copy()
    twin.ground_truth[:] = 1
    twin.movie_info["n"] = 2
    twin.weight = 7
    assert patch.ground_truth.sum() == 0
    assert (patch.movie_info, patch.weight, patch.session_id) == ({"n": 1}, 1, "r")
    assert twin.cinac_recording is one


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"ground_truth": np.zeros(19)}, ArrayShapeError, r"has shape \(19,\)"),
        ({"ground_truth": [1, 0]}, ArrayShapeError, r"\(20,\) is expected"),
        ({"index_movie": -1}, ParameterError, "index_movie=-1"),
        ({"window_len": 0}, ParameterError, "one frame or more"),
    ],
)
def test_impossible_patches(given, error, text):
    with pytest.raises(error, match=text):
        MoviePatchData(
            **{"cinac_recording": blinking(), "cell": 0, "index_movie": 0, "window_len": 20} | given
        )


def test_the_truth_of_a_patch_may_be_a_class():
    assert MoviePatchData(blinking(), 0, 0, 20, ground_truth=2).ground_truth == 2
