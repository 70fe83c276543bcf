"""Segments written from recordings: what a network is shown of them is what it is shown of the recording."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cinac import (
    CinacDataMovie,
    CinacFileReader,
    CinacFileWriter,
    CinacRecording,
    create_cinac_recording_from_cinac_file_segment,
    write_recording,
    write_segment,
)
from gpucalcium.cinac.cutouts import cutouts
from gpucalcium.cinac.prediction import predict_activity
from gpucalcium.errors import ArrayShapeError, ParameterError
from tests.cinac.given import noisy
from tests.cinac.models import Halved

CONTOURS = [
    [[10, 16, 16, 10], [12, 12, 18, 18]],
    [[15, 21, 21, 15], [16, 16, 22, 22]],  # meets the first
    [[0, 4, 4, 0], [0, 0, 5, 5]],  # in a corner
    [[36, 39, 39, 36], [27, 27, 30, 30]],  # in the other
]


def scene(shape=(30, 31, 40)):
    made = CinacRecording("scene")
    made.set_movie(CinacDataMovie(noisy(shape)))
    fits = [points for points in CONTOURS if np.max(points[0]) < shape[2] and np.max(points[1]) < shape[1]]
    made.set_rois_2d_array(fits, from_matlab=False)
    return made


def written(path, recording, segment, n=10, **others):
    raster = np.arange(n) % 2
    with CinacFileWriter(path) as writer:
        write_recording(writer, recording)
        write_segment(writer, recording, segment, raster, **others)
    return CinacFileReader(path)


@pytest.mark.parametrize("cell", range(4))
@pytest.mark.parametrize("side", [9, 12, 25])
def test_the_patch_holds_what_the_network_sees(tmp_path, cell, side):
    recording = scene()
    reader = written(tmp_path / "a.cinac", recording, (cell, 5, 14), side=side)
    patch = create_cinac_recording_from_cinac_file_segment("a", reader, (cell, 5, 14))
    assert patch.get_n_cells() == 1 + len(recording.cells.neighbours[cell])
    inputs = ("input_0", "input_1", "input_2")
    of_all = cutouts(recording.cells, [cell], (31, 40), side, inputs, mask_mode="corrected", buffer=1)
    of_patch = cutouts(patch.cells, [0], (side, side), side, inputs, mask_mode="corrected", buffer=1)
    assert_array_equal(of_patch.corners, [[0, 0]])
    assert_array_equal(of_patch.masks, of_all.masks)
    top, left = of_all.corners[0]
    box = left, left + side - 1, top, top + side - 1
    assert_array_equal(
        patch.movie.get_full_movie(True), recording.get_source_profile_frames(slice(5, 15), box)
    )


@pytest.mark.parametrize("cell", range(4))
def test_a_network_says_the_same_of_a_segment_as_of_the_recording(tmp_path, cell):
    recording, model = scene(), Halved(patch_size=12)
    model.mask_mode, model.buffer = "corrected", 1.0
    with CinacFileWriter(tmp_path / "a.cinac") as writer:
        write_segment(writer, recording, (cell, 0, 29), np.zeros(30), side=12)
    reader = CinacFileReader(tmp_path / "a.cinac")
    segment = create_cinac_recording_from_cinac_file_segment("a", reader, (cell, 0, 29))
    whole = predict_activity(recording, [cell], model)
    assert whole.std() > 0
    assert_array_equal(predict_activity(segment, [0], model), whole)


def test_traces_and_the_rest(tmp_path):
    recording = scene()
    reader = written(
        tmp_path / "a.cinac", recording, (1, 5, 14), doubtful_frames=np.arange(10) > 6, cell_type="noise"
    )
    segment = (1, 5, 14)
    assert_array_equal(reader.get_segment_raster_dur(segment), np.arange(10) % 2)
    assert_array_equal(reader.get_segment_doubtful_frames(segment), np.arange(10) > 6)
    assert reader.get_segment_cell_type(segment) == "noise"
    assert_allclose(reader.get_segment_raw_traces(segment), recording.get_raw_traces(True)[1, 5:15])
    assert_allclose(reader.get_segment_smooth_traces(segment), recording.get_smooth_traces(True)[1, 5:15] + 2)
    assert (reader.get_n_frames(), reader.get_n_cells()) == (30, 4)
    assert_allclose(reader.get_raw_traces(), recording.get_raw_traces(True))
    assert_allclose(reader.get_smooth_traces().mean(axis=1), 0, atol=1e-12)
    for found, given in zip(reader.get_coords_full_movie(), CONTOURS, strict=True):
        assert_array_equal(found, given)
    assert reader.get_ci_movie() is None


def test_the_movie_may_go_along(tmp_path):
    with CinacFileWriter(tmp_path / "a.cinac") as writer:
        write_recording(writer, scene(), with_movie=True)
    assert_array_equal(CinacFileReader(tmp_path / "a.cinac").get_ci_movie(), noisy((30, 31, 40)))


@pytest.mark.parametrize("shape", [(12, 7, 40), (12, 31, 8), (12, 7, 8)])
def test_frames_smaller_than_a_patch_lie_in_its_middle(tmp_path, shape):
    recording = scene(shape)
    cell = recording.get_n_cells() - 1
    reader = written(tmp_path / "a.cinac", recording, (cell, 0, 9), side=25)
    patch = reader.get_segment_ci_movie((cell, 0, 9))
    assert patch.shape == (10, 25, 25)
    assert np.count_nonzero(patch.any(axis=0)) == min(shape[1], 25) * min(shape[2], 25)
    margin = (25 - min(shape[1], 25)) // 2
    assert not patch[:, :margin].any()
    assert patch[:, margin].any()


@pytest.mark.parametrize(
    ("segment", "raster", "options", "error", "text"),
    [
        ((4, 0, 9), np.zeros(10), {}, ParameterError, "has 4 cells and 30 frames"),
        ((0, 21, 30), np.zeros(10), {}, ParameterError, "has 4 cells and 30 frames"),
        ((0, 9, 0), np.zeros(10), {}, ParameterError, "segment"),
        ((0, 0, 9), np.zeros(9), {}, ArrayShapeError, r"raster_dur has shape \(9,\); \(10,\)"),
        ((0, 0, 9), np.zeros(10), {"side": 0}, ParameterError, "side=0"),
        ((0, 0, 9), np.zeros(10), {"doubtful_frames": [1]}, ArrayShapeError, "doubtful_frames has shape"),
    ],
)
def test_impossible_segments(tmp_path, segment, raster, options, error, text):
    with pytest.raises(error, match=text), CinacFileWriter(tmp_path / "a.cinac") as writer:
        write_segment(writer, scene(), segment, raster, **options)
    assert list(tmp_path.iterdir()) == []
