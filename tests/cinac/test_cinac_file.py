"""`.cinac` files: what is written is read, in order; what cannot be read is named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.cinac import (
    CinacFileReader,
    CinacFileWriter,
    create_cinac_recording_from_cinac_file_segment,
)
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    OutputError,
    ParameterError,
)
from tests.cinac.given import SEGMENT, rng, write_cinac


def test_segments_round_trip(tmp_path):
    said = write_cinac(
        tmp_path / "a.cinac",
        [
            (
                SEGMENT,
                {
                    "doubtful_frames": np.arange(10) > 7,
                    "cell_type": "Interneuron",
                    "pixels_around": 2,
                    "buffer": 1,
                },
            )
        ],
    )[SEGMENT]
    reader = CinacFileReader(tmp_path / "a.cinac")
    assert reader.get_all_segments() == [SEGMENT]
    assert_array_equal(reader.get_segment_ci_movie(SEGMENT), said["ci_movie"])
    for name, get in (
        ("raster_dur", reader.get_segment_raster_dur),
        ("doubtful_frames", reader.get_segment_doubtful_frames),
        ("smooth_traces", reader.get_segment_smooth_traces),
        ("raw_traces", reader.get_segment_raw_traces),
        ("invalid_cells", reader.get_segment_invalid_cells),
    ):
        assert_array_equal(get(SEGMENT), said[name])
    contours = reader.get_segment_cells_contour(SEGMENT)
    for found, given in zip(contours, said["cells_contour"], strict=True):
        assert_array_equal(found, np.rint(given))  # rounded, not truncated
    assert reader.get_segment_cell_type(SEGMENT) == "Interneuron"
    assert (reader.get_segment_pixels_around(SEGMENT), reader.get_segment_buffer(SEGMENT)) == (2, 1)
    assert reader.get_all_cell_types() == ["Interneuron"]


def test_what_need_not_be_there(tmp_path):
    write_cinac(tmp_path / "a.h5")
    reader = CinacFileReader(str(tmp_path / "a.h5"))
    assert reader.get_segment_doubtful_frames(SEGMENT) is None
    assert reader.get_segment_cell_type(SEGMENT) is None
    assert reader.get_segment_buffer(SEGMENT) is None
    assert reader.get_segment_pixels_around(SEGMENT) == 0
    assert reader.get_all_cell_types() == []
    assert not reader.with_full_data
    for get in (
        reader.get_n_cells,
        reader.get_n_frames,
        reader.get_ci_movie_file_name,
        reader.get_coords_full_movie,
        reader.get_invalid_cells,
        reader.get_smooth_traces,
        reader.get_raw_traces,
        reader.get_ci_movie,
    ):
        assert get() is None


def test_the_whole_recording_round_trips(tmp_path):
    movie = rng.integers(0, 999, (30, 8, 9)).astype("uint16")
    contours = [[[1, 4, 4], [1, 1, 5.5]], [[2, np.nan, 3], [6, 6, 7]]]
    smooth, raw = rng.normal(size=(2, 2, 30))
    write_cinac(
        tmp_path / "a.cinac", (), n_frames=30, n_cells=2, ci_movie_file_name="movie.tif", cells_contour=contours,
        invalid_cells=[0, 1], smooth_traces=smooth, raw_traces=raw, ci_movie=movie,
    )  # fmt: skip
    reader = CinacFileReader(tmp_path / "a.cinac")
    assert reader.with_full_data
    assert (reader.get_n_frames(), reader.get_n_cells(), reader.get_ci_movie_file_name()) == (
        30,
        2,
        "movie.tif",
    )
    found = reader.get_coords_full_movie()
    assert_array_equal(found[0], [[1, 4, 4], [1, 1, 6]])
    assert_array_equal(found[1], [[2, 3], [6, 7]])
    assert_array_equal(reader.get_invalid_cells(), [False, True])
    assert_array_equal(reader.get_smooth_traces(), smooth)
    assert_array_equal(reader.get_raw_traces(), raw)
    assert_array_equal(reader.get_ci_movie(), movie)
    assert reader.get_ci_movie().dtype == "uint16"
    assert reader.get_all_segments() == []


def test_files_of_other_programs_are_read(tmp_path):
    """Contours of equal length as one array, numbers as floats, texts as bytes, "None" as a text."""
    with h5py.File(tmp_path / "a.cinac", "w") as file:
        group = file.create_group("cell_0_5_7")
        group.attrs.update(pixels_around=np.int64(1), buffer="None", cell_type=np.bytes_("pyramidal"))
        group["raster_dur"] = np.array([0.0, 1, 1])
        group["smooth_traces"] = group["raw_traces"] = np.zeros(3, "f4")
        group["ci_movie"] = np.zeros((3, 5, 5))
        group["cells_contour"] = np.array([[[1, 2, 2], [1, 1, 3]], [[0, 1, 1], [4, 4, 3]]])
        group["invalid_cells"] = np.array([0, 0])
        file.create_group("something_else")
    reader = CinacFileReader(tmp_path / "a.cinac")
    (segment,) = reader.get_all_segments()
    assert (reader.get_segment_cell_type(segment), reader.get_segment_buffer(segment)) == ("pyramidal", None)
    assert_array_equal(reader.get_segment_raster_dur(segment), [0, 1, 1])
    assert_array_equal(reader.get_segment_cells_contour(segment)[1], [[0, 1, 1], [4, 4, 3]])
    assert reader.get_segment_ci_movie(segment).dtype == np.float32


def test_segments_come_in_order_of_their_numbers(tmp_path):
    segments = [(10, 0, 9), (3, 1000, 1009), (3, 200, 209), (2, 5, 14), (3, 200, 203)]
    write_cinac(tmp_path / "a.cinac", [(segment, {}) for segment in segments])
    assert CinacFileReader(tmp_path / "a.cinac").get_all_segments() == sorted(segments)


def test_frames_to_keep_are_counted_from_the_segment_s_first(tmp_path):
    said = write_cinac(
        tmp_path / "a.cinac", [(SEGMENT, {"doubtful_frames": np.arange(10) > 7}), ((1, 0, 4), {})]
    )
    keep = np.array([1, 4, 9])
    reader = CinacFileReader(tmp_path / "a.cinac", {SEGMENT: keep})
    assert_array_equal(reader.get_segment_ci_movie(SEGMENT), said[SEGMENT]["ci_movie"][keep])
    assert_array_equal(reader.get_segment_doubtful_frames(SEGMENT), [0, 0, 1])
    assert_array_equal(reader.get_segment_raw_traces(SEGMENT), said[SEGMENT]["raw_traces"][keep])
    assert len(reader.get_segment_raster_dur((1, 0, 4))) == 5
    raster = np.full((4, 300), 7)
    reader.fill_raster_dur_from_segments(raster)
    assert_array_equal(raster[3, 200 + keep], said[SEGMENT]["raster_dur"][keep])
    assert (raster[3] != 7).sum() == 3
    for wrong in ([10], [-1], [0.5], [[1]]):
        with pytest.raises(ParameterError, match="whole numbers from 0 to 9"):
            CinacFileReader(tmp_path / "a.cinac", {SEGMENT: wrong})
    with pytest.raises(ParameterError, match="no segment"):
        CinacFileReader(tmp_path / "a.cinac", {(9, 9, 9): [0]})


def test_rasters_are_filled(tmp_path):
    said = write_cinac(tmp_path / "a.cinac", [(SEGMENT, {}), ((0, 3, 12), {})])
    raster = np.zeros((4, 210))
    CinacFileReader(tmp_path / "a.cinac").fill_raster_dur_from_segments(raster)
    expected = np.zeros((4, 210))
    expected[3, 200:], expected[0, 3:13] = (said[s]["raster_dur"] for s in (SEGMENT, (0, 3, 12)))
    assert_array_equal(raster, expected)
    for shape in ((3, 210), (4, 209), (210,)):
        with pytest.raises(ArrayShapeError, match="does not fit a raster"):
            CinacFileReader(tmp_path / "a.cinac").fill_raster_dur_from_segments(np.zeros(shape))


def test_a_recording_of_a_segment(tmp_path):
    said = write_cinac(tmp_path / "a.cinac", [(SEGMENT, {"cell_type": "noise"})])[SEGMENT]
    reader = CinacFileReader(tmp_path / "a.cinac")
    made = create_cinac_recording_from_cinac_file_segment("a_3", reader, SEGMENT)
    assert (made.identifier, made.cell_type, made.get_n_frames(), made.get_n_cells()) == (
        "a_3",
        "noise",
        10,
        2,
    )
    assert made.movie.already_normalized
    assert_array_equal(made.movie.get_full_movie(True), said["ci_movie"])
    assert_array_equal(made.cells.contours[1], [[1], [1]])
    smooth = made.get_smooth_traces(normalized=False)
    assert_array_equal(smooth, said["smooth_traces"])
    assert made.get_smooth_traces(normalized=True).shape == (10,)
    assert_allclose(made.get_smooth_traces(normalized=True).mean(), -2)
    assert_array_equal(made.smooth_trace(0), made.get_smooth_traces(normalized=True))
    assert "1 segments" in repr(reader)
    assert made.get_raw_traces(False).shape == (2, 10)


def test_cells_that_a_patch_does_not_show(tmp_path):
    far, empty = [[30, 33, 33], [30, 30, 33]], [[np.nan], [np.nan]]
    contours = [[[2, 6, 6, 2], [3, 3, 7, 7]], far, empty]
    write_cinac(tmp_path / "a.cinac", [(SEGMENT, {"cells_contour": contours, "invalid_cells": [1, 0, 0]})])
    made = create_cinac_recording_from_cinac_file_segment("a", CinacFileReader(tmp_path / "a.cinac"), SEGMENT)
    assert_array_equal(made.cells.bounds, [[2, 3, 6, 7], [30, 30, 33, 33]])
    raw = made.get_raw_traces(normalized=False)
    assert np.isfinite(raw[0]).all()
    assert np.isnan(raw[1]).all()


# ---------------------------------------------------------------------------- bad files


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.cinac"
    with pytest.raises(MovieNotFoundError, match=r"a\.cinac not found"):
        CinacFileReader(path)
    with pytest.raises(OutputError, match="no folder"):
        CinacFileWriter(tmp_path / "none" / "a.cinac")
    write_cinac(path, [((0, 0, 999), {})])
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(MovieFileError, match=r"a\.cinac cannot be read.*truncated"):
        CinacFileReader(path)
    for size in (10, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(MovieFileError, match=r"a\.cinac cannot be read.*truncated"):
            CinacFileReader(path)
        with pytest.raises(MovieFileError, match=r"a\.cinac cannot be changed"):
            CinacFileWriter(path)
        assert path.read_bytes() == whole[:size]
        assert list(tmp_path.iterdir()) == [path]


def test_segments_that_lack_something(tmp_path):
    path = tmp_path / "a.cinac"
    write_cinac(path)
    with h5py.File(path, "a") as file:
        del file["cell_3_200_209/raster_dur"]
        del file["cell_3_200_209/raw_traces"]
        file["cell_3_200_209/raw_traces"] = np.zeros(7)
    reader = CinacFileReader(path)
    with pytest.raises(DatasetNotFoundError, match="cell_3_200_209 has no raster_dur"):
        reader.get_segment_raster_dur(SEGMENT)
    with pytest.raises(MovieFileError, match=r"raw_traces of segment .* has 7 frames, 10 are expected"):
        reader.get_segment_raw_traces(SEGMENT)
    with pytest.raises(ParameterError, match="has no segment"):
        reader.get_segment_raw_traces((3, 200, 210))
