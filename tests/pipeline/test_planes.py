from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    MovieShapeError,
    ParameterError,
    UnknownFormatError,
)
from gpucalcium.pipeline import open_planes

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 999, (7, 2, 23, 31)).astype(np.uint16)  # T, Z, Y, X
ONE = PLANES[:, 0]


def contents(planes):
    return [plane.source.read(slice(None)) for plane in planes]


@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        (PLANES, None),
        (PLANES, "TZYX"),
        (PLANES.transpose(1, 0, 2, 3), "ztyx"),
        (PLANES.transpose(0, 2, 3, 1), None),
        (PLANES.transpose(3, 2, 1, 0), "XYZT"),
    ],
)
def test_planes_of_npz_in_any_order(tmp_path, stored, axes):
    np.savez(tmp_path / "movie.npz", movie=stored, frame_rate=30.0)
    planes = open_planes(tmp_path / "movie.npz", axes=axes)
    assert [plane.name for plane in planes] == ["plane_0", "plane_1"]
    for z, frames in enumerate(contents(planes)):
        assert_array_equal(frames, PLANES[:, z])


@pytest.mark.parametrize(
    ("stored", "axes"), [(PLANES, None), (PLANES.transpose(0, 2, 3, 1), "TYXZ"), (PLANES, "TZYX")]
)
def test_planes_of_files_that_are_read_in_pieces(tmp_path, stored, axes):
    with h5py.File(tmp_path / "movie.h5", "w") as file:
        file["recording"] = stored
        file["other"] = np.zeros((3, 3))
    for z, plane in enumerate(open_planes(tmp_path / "movie.h5", dataset="recording", axes=axes)):
        assert_array_equal(plane.source.read(slice(1, None, 2)), PLANES[1::2, z])


def test_exchanged_rows_and_columns(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", ONE)
    (plane,) = open_planes(tmp_path / "movie.tif", axes="TXY")
    assert plane.name == ""
    assert_array_equal(plane.source.read(slice(None)), ONE.transpose(0, 2, 1))


def test_one_plane_is_the_movie_itself(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", ONE)
    (plane,) = open_planes(tmp_path / "movie.tif")
    assert_array_equal(plane.source.read(slice(None)), ONE)
    assert plane.name == ""


@pytest.mark.parametrize(
    ("shape", "axes", "error", "message"),
    [
        ((7, 20, 23, 31), None, MovieShapeError, "name the axes"),
        ((7, 23), None, MovieShapeError, "2 axes"),
        ((7, 23, 31), "TZYX", MovieShapeError, "names 4 axes"),
        ((7, 23, 31), "TTX", ParameterError, "each of T, Y, X once"),
    ],
)
def test_axes_that_do_not_fit(tmp_path, shape, axes, error, message):
    np.savez(tmp_path / "movie.npz", movie=np.zeros(shape, np.uint8))
    with pytest.raises(error, match=message):
        open_planes(tmp_path / "movie.npz", dataset="movie", axes=axes)


def test_time_must_come_first_in_files_read_frame_by_frame(tmp_path):
    np.save(tmp_path / "movie.npy", PLANES)
    with pytest.raises(ParameterError, match="T must be the first axis"):
        open_planes(tmp_path / "movie.npy", axes="ZTYX")


def test_npz_errors_name_the_array(tmp_path):
    path = tmp_path / "movie.npz"
    np.savez(path, a=ONE, b=ONE)
    with pytest.raises(DatasetNotFoundError, match="2 arrays that could be a movie; name one of 'a', 'b'"):
        open_planes(path)
    with pytest.raises(DatasetNotFoundError, match="no array 'c'; there is 'a', 'b'"):
        open_planes(path, dataset="c")
    assert_array_equal(contents(open_planes(path, dataset="b"))[0], ONE)


def test_npz_that_cannot_be_read(tmp_path):
    with pytest.raises(MovieNotFoundError, match="not found"):
        open_planes(tmp_path / "absent.npz")
    path = tmp_path / "movie.npz"
    np.savez(path, movie=ONE)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(MovieFileError, match="may be truncated"):
        open_planes(path)
    np.savez(path, movie=np.array([{"code": 1}], object))
    with pytest.raises(MovieFileError, match="never read"):
        open_planes(path, dataset="movie")
    (tmp_path / "movie.xyz").write_bytes(b"1")
    with pytest.raises(UnknownFormatError, match=r"\.xyz"):
        open_planes(tmp_path / "movie.xyz")
