"""Changing `.cinac` files: whole or not at all."""

from __future__ import annotations

import gc

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.cinac import (
    CinacFileReader,
    CinacFileWriter,
)
from gpucalcium.errors import (
    ArrayShapeError,
    ParameterError,
)
from tests.cinac.given import SEGMENT, segment_parts, write_cinac


def test_the_layout_is_the_documented_one(tmp_path):
    write_cinac(
        tmp_path / "a.cinac",
        [(SEGMENT, {"buffer": 1})],
        n_frames=300,
        n_cells=4,
        cells_contour=[[[1], [2]]] * 4,
    )
    with h5py.File(tmp_path / "a.cinac") as file:
        assert set(file) == {"full_data", "cell_3_200_209"}
        segment, full = file["cell_3_200_209"], file["full_data"]
        assert dict(segment.attrs) == {"pixels_around": 0, "buffer": 1}
        assert dict(full.attrs) == {"n_frames": 300, "n_cells": 4}
        assert segment["cells_contour"].shape == (3, 2)
        assert h5py.check_vlen_dtype(segment["cells_contour"].dtype) == np.int32
        assert full["cells_contour"].shape == (4, 2)
        assert h5py.check_vlen_dtype(full["cells_contour"].dtype) == np.int16
        assert segment["ci_movie"].shape == (10, 9, 9)


def test_files_are_changed_and_groups_replaced(tmp_path):
    path = tmp_path / "a.cinac"
    write_cinac(path, [(SEGMENT, {}), ((1, 0, 9), {})], n_frames=500, n_cells=5)
    with CinacFileWriter(path) as writer:
        assert set(writer.get_group_names()) == {"full_data", "cell_3_200_209", "cell_1_0_9"}
        writer.add_segment_group(SEGMENT, **segment_parts(raster_dur=np.ones(10)))
        writer.delete_groups(["cell_1_0_9"])
        with pytest.raises(ParameterError, match="no group 'cell_9_9_9'"):
            writer.delete_groups(["full_data", "cell_9_9_9"])
        assert writer.add_segment_group((7, 0, 9), **segment_parts()) == "cell_7_0_9"
        writer.create_full_data_group(600, 6)
        assert CinacFileReader(path).get_n_cells() == 5  # until the writer is closed
    reader = CinacFileReader(path)
    assert reader.get_all_segments() == [SEGMENT, (7, 0, 9)]
    assert reader.get_segment_raster_dur(SEGMENT).all()
    assert reader.get_n_cells() == 6


def test_of_a_segment_that_is_there_what_is_given_is_replaced(tmp_path):
    path = tmp_path / "a.cinac"
    said = write_cinac(
        path, [(SEGMENT, {"cell_type": "noise", "buffer": 2, "doubtful_frames": np.ones(10)})]
    )[SEGMENT]
    with CinacFileWriter(path) as writer:
        writer.add_segment_group(SEGMENT, raster_dur=np.ones(10), cell_type="pyramidal")
        writer.add_segment_group(SEGMENT, invalid_cells=[0, 0, 1], pixels_around=3)
        with pytest.raises(ArrayShapeError, match=r"invalid_cells has shape \(2,\); \(3,\)"):
            writer.add_segment_group(SEGMENT, invalid_cells=[0, 0])
        with pytest.raises(ParameterError, match="is new and needs ci_movie, cells_contour, invalid_cells"):
            writer.add_segment_group((0, 0, 9), raster_dur=np.ones(10))
    reader = CinacFileReader(path)
    assert reader.get_all_segments() == [SEGMENT]
    assert reader.get_segment_raster_dur(SEGMENT).all()
    assert_array_equal(reader.get_segment_ci_movie(SEGMENT), said["ci_movie"])
    assert reader.get_segment_doubtful_frames(SEGMENT).all()
    assert_array_equal(reader.get_segment_invalid_cells(SEGMENT), [0, 0, 1])
    assert reader.get_segment_cell_type(SEGMENT) == "pyramidal"
    assert (reader.get_segment_buffer(SEGMENT), reader.get_segment_pixels_around(SEGMENT)) == (2, 3)


def test_after_an_error_the_file_is_as_it_was(tmp_path):
    path = tmp_path / "a.cinac"
    write_cinac(path)
    before = path.read_bytes()
    with pytest.raises(ArrayShapeError), CinacFileWriter(path) as writer:
        writer.add_segment_group((0, 0, 9), **segment_parts())
        writer.add_segment_group((0, 0, 3), **segment_parts())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writers_close_when_told_and_when_forgotten(tmp_path):
    writer = CinacFileWriter(tmp_path / "a")
    writer.add_segment_group(SEGMENT, **segment_parts())
    writer.close_file()
    writer.close_file()
    assert CinacFileReader(tmp_path / "a.cinac").get_all_segments() == [SEGMENT]
    with pytest.raises(ParameterError, match="has been closed"):
        writer.get_group_names()
    forgotten = CinacFileWriter(tmp_path / "b.cinac")
    forgotten.add_segment_group(SEGMENT, **segment_parts())
    del forgotten
    gc.collect()
    assert CinacFileReader(tmp_path / "b.cinac").get_all_segments() == [SEGMENT]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.cinac", "b.cinac"]


@pytest.mark.parametrize(
    ("others", "error", "text"),
    [
        ({"raster_dur": np.zeros(9)}, ArrayShapeError, r"raster_dur has shape \(9,\); \(10,\)"),
        ({"raster_dur": np.full(10, 2)}, ParameterError, "something else than 0 and 1"),
        ({"smooth_traces": np.zeros((1, 10))}, ArrayShapeError, "smooth_traces has shape"),
        ({"ci_movie": np.zeros((9, 5, 5))}, ArrayShapeError, "ci_movie has shape"),
        ({"ci_movie": np.zeros((10, 5))}, ArrayShapeError, "ci_movie has shape"),
        ({"invalid_cells": [0]}, ArrayShapeError, "invalid_cells has shape"),
        ({"cells_contour": [[1, 2, 3]]}, ArrayShapeError, "contour of cell 0"),
        ({"cells_contour": [[[1e12], [0]]], "invalid_cells": [0]}, ParameterError, "goes beyond"),
    ],
)
def test_impossible_segments(tmp_path, others, error, text):
    with pytest.raises(error, match=text):
        write_cinac(tmp_path / "a.cinac", [(SEGMENT, others)])
    assert not (tmp_path / "a.cinac").exists()


@pytest.mark.parametrize("segment", [(-1, 0, 9), (0, -1, 8), (0, 9, 0)])
def test_segments_that_cannot_be(tmp_path, segment):
    with (
        pytest.raises(ParameterError, match="the last not before the first"),
        CinacFileWriter(tmp_path / "a") as writer,
    ):
        writer.add_segment_group(segment, **segment_parts())


@pytest.mark.parametrize(
    "others",
    [
        {"smooth_traces": np.zeros((2, 29))},
        {"invalid_cells": [0]},
        {"cells_contour": [[[1], [1]]] * 3},
        {"ci_movie": np.zeros((29, 4, 4))},
    ],
)
def test_impossible_recordings(tmp_path, others):
    with pytest.raises(ArrayShapeError, match="is expected"):
        write_cinac(tmp_path / "a.cinac", (), n_frames=30, n_cells=2, **others)
