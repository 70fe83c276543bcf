"""Recordings: what must be set before what, traces, and cells that were removed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.cinac import CinacDataMovie, CinacRecording, rois
from gpucalcium.cinac.recording import get_new_cell_indices_if_cells_removed
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, ParameterError
from tests.cinac.given import CONTOURS, noisy, recording


def test_the_movie_comes_first():
    made = CinacRecording("one")
    for ask in (made.get_n_frames, lambda: made.set_rois_2d_array(CONTOURS, False), lambda: made.movie):
        with pytest.raises(ParameterError, match="'one' has no movie: call set_movie"):
            ask()
    with pytest.raises(ArrayTypeError, match="CinacDataMovie"):
        made.set_movie(noisy())
    made.set_movie(CinacDataMovie(noisy()))
    for ask in (made.get_n_cells, lambda: made.get_raw_traces(True), lambda: made.cells):
        with pytest.raises(ParameterError, match="'one' has no cells"):
            ask()
    made.set_rois_2d_array(CONTOURS, False)
    assert (made.get_n_frames(), made.get_n_cells(), made.cell_type) == (37, 3, None)
    assert "3 cells" in repr(made)


def test_another_movie_drops_the_cells():
    made = recording()
    made.set_movie(CinacDataMovie(noisy((5, 8, 8))))
    with pytest.raises(ParameterError, match="no cells"):
        made.get_n_cells()


def test_cells_outside_are_named():
    with pytest.raises(
        ParameterError, match=r"cell 1 lies outside .*columns 3 to 3, rows 13 to 13 of 17 columns"
    ):
        recording(contours=[[[1], [1]], [[3], [13]]])
    with pytest.raises(ParameterError, match="given no cells"):
        recording(contours=[])
    assert recording(contours=[[[-3, 1, 1], [2, 2, 5]]]).get_n_cells() == 1  # partly inside


def test_every_setter_sets():
    made = recording()
    made.set_rois_using_pixel_mask([[(1, 2), (3, 4)]])
    assert made.get_n_cells() == 1
    A = np.zeros((13 * 17, 2))
    A[[14, 15, 27, 28], 0] = A[[100, 101], 1] = 1
    made.set_rois_from_footprints(A)
    assert made.get_n_cells() == 2


@pytest.mark.parametrize(
    ("setter", "maker", "arguments"),
    [
        ("set_rois_from_suite_2p", "from_suite2p", ("iscell.npy", "stat.npy")),
        ("set_rois_from_nwb", "from_nwb", ("a.nwb", "ophys", "seg", "plane", True)),
        ("set_rois_from_fiji", "from_fiji", ("all.zip",)),
    ],
)
def test_setters_of_files_hand_everything_on(monkeypatch, setter, maker, arguments):
    asked = []

    def made_of(*given):
        asked.append(given)
        return rois.from_contours(CONTOURS)

    monkeypatch.setattr(rois, maker, made_of)
    made = recording(contours=CONTOURS[:1])
    getattr(made, setter)(*arguments)
    assert asked == [arguments]
    assert made.get_n_cells() == 3


def test_source_profile_frames():
    made = recording()
    assert_array_equal(
        made.get_source_profile_frames([3, 5], (2, 6, 1, 4)),
        made.movie.get_frames_section([3, 5], 2, 6, 1, 4),
    )


# ---------------------------------------------------------------------------- cells that were removed


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_removed_cells(kind):
    new, original = get_new_cell_indices_if_cells_removed(kind([0, 1, 3]), kind([0, -1, 1, 2]))
    assert_array_equal(new, [0, 2])
    assert_array_equal(original, [0, 3])


def test_without_mapping_there_are_two_copies():
    given = np.array([4, 2])
    new, original = get_new_cell_indices_if_cells_removed(given, None)
    new[0] = 9
    assert_array_equal(original, [4, 2])
    assert_array_equal(given, [4, 2])


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.data())
def test_what_is_left_is_where_the_mapping_says(kept, data):
    mapping = np.where(kept, np.cumsum(kept) - 1, -1)
    cells = data.draw(st.lists(st.integers(0, len(kept) - 1), max_size=25))
    new, original = get_new_cell_indices_if_cells_removed(cells, mapping)
    assert [(int(a), int(b)) for a, b in zip(new, original, strict=True)] == [
        (sum(kept[:cell]), cell) for cell in cells if kept[cell]
    ]


@pytest.mark.parametrize(
    ("cells", "mapping", "error", "text"),
    [
        ([0, 4], [0, 1, 2, 3], ParameterError, "cell 4: removed_cells_mapping is of 4 cells"),
        ([-1], [0, 1], ParameterError, "cell -1"),
        ([0.5], [0, 1], ParameterError, "whole numbers"),
        ([[0]], [0, 1], ArrayShapeError, "vector"),
        ([0], 3, ArrayShapeError, "removed_cells_mapping has shape"),
    ],
)
def test_impossible_indices(cells, mapping, error, text):
    with pytest.raises(error, match=text):
        get_new_cell_indices_if_cells_removed(cells, mapping)
