"""Movies whose axes are not (T, rows, columns[, planes]): named by the caller or by the file."""

from __future__ import annotations

from itertools import permutations

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies import convert, get_file_size, load, load_iter, load_movie_chain, open_movie
from gpucalcium.movies.chain import Chain, Selection
from tests.movies import files, recordings

TZYXC = np.random.default_rng(0).integers(0, 999, (9, 3, 7, 5, 2)).astype(np.uint16)
ONE = TZYXC[..., 1]
PLANE = TZYXC[:, 0, ..., 0]


def hdf5(path, values):
    return files.hdf5(path.with_suffix(".h5"), values, chunks=tuple(min(3, n) for n in values.shape))


def plain_hdf5(path, values):
    return files.hdf5(path.with_suffix(".hdf5"), values)


def npy(path, values):
    return files.npy(path.with_suffix(".npy"), values)


def fortran_npy(path, values):
    return files.npy(path.with_suffix(".npy"), np.asfortranarray(values))


def npz(path, values):
    return files.npz(path.with_suffix(".npz"), values)


def packed_npz(path, values):
    return files.zlib_npz(path.with_suffix(".npz"), values)


def zarr(path, values):
    return recordings.zarred(path.with_suffix(".zarr"), values)


KINDS = [hdf5, plain_hdf5, npy, fortran_npy, npz, packed_npz, zarr]


def in_order(values, order, of="TZYXC"):
    return np.ascontiguousarray(values.transpose([of.index(axis) for axis in order]))


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("axes", ["TZYXC", "tcyxz", "CTZYX", "YXTZC", "XYZTC", "ZCXYT"])
def test_five_axes_in_any_order(tmp_path, write, axes):
    path = write(tmp_path / "a", in_order(TZYXC, axes.upper()))
    letters = axes.upper().replace("C", "")
    planes_last = letters.index("Z") > max(letters.index("Y"), letters.index("X"))
    expected = np.moveaxis(ONE, 1, -1) if planes_last else ONE
    for channel in (1, -1):
        source = open_movie(path, axes=axes, channel=channel)
        assert_array_equal(source.read(slice(None)), expected)
        assert_array_equal(source.read(slice(2, 8, 3)), expected[2:8:3])
    assert_array_equal(
        load(path, axes=axes, channel=1, subindices=(slice(1, 4), [0, 2])), expected[1:4][:, [0, 2]]
    )
    assert get_file_size(path, axes=axes, channel=0) == (expected.shape[1:], 9)
    with pytest.raises(ParameterError, match=r"5 axes.*2 channels: say which"):
        open_movie(path, axes=axes)
    with pytest.raises(ParameterError, match=r"channel=2.*2 channels"):
        open_movie(path, axes=axes, channel=2)


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("TYX")])
def test_three_axes_in_any_order(tmp_path, write, axes):
    path = write(tmp_path / "a", in_order(PLANE, axes, "TYX"))
    assert_array_equal(load(path, axes=axes), PLANE)
    assert_array_equal(list(load_iter(path, slice(1, 5), axes=axes)), PLANE[1:5])
    assert_array_equal(
        load_movie_chain([path, path], axes=axes, top=1), np.concatenate([PLANE, PLANE])[:, 1:]
    )
    assert_array_equal(load(convert(path, tmp_path / "b.tif", axes=axes)), PLANE)


def test_arrays_and_data_sets_in_memory(tmp_path):
    stored = in_order(TZYXC, "CXTYZ")
    expected = np.moveaxis(ONE, 1, -1)
    assert_array_equal(open_movie(stored, axes="CXTYZ", channel=1).read(slice(None)), expected)
    with h5py.File(npy(tmp_path / "a", stored).with_suffix(".h5"), "w") as file:
        file["x"] = stored
        assert_array_equal(open_movie(file["x"], axes="CXTYZ", channel=1).read(slice(1, 4)), expected[1:4])


def test_labels_of_hdf5_and_zarr_name_the_axes(tmp_path):
    path = plain_hdf5(tmp_path / "a", TZYXC)
    with pytest.raises(MovieShapeError, match=r"5 axes.*axes='TCZYX'"):
        open_movie(path, channel=1)
    with h5py.File(path, "a") as file:
        for dimension, name in zip(file["mov"].dims, ["time", "z", "y", "x", "channel"], strict=True):
            dimension.label = name
    assert_array_equal(load(path, channel=1), ONE)
    with pytest.raises(ParameterError, match="2 channels: say which"):
        load(path)
    store = pytest.importorskip("zarr").create_array(
        tmp_path / "b.zarr", shape=TZYXC.shape, dtype="u2", dimension_names=["t", "z", "y", "x", "c"]
    )
    store[:] = TZYXC
    assert_array_equal(load(tmp_path / "b.zarr", channel=1), ONE)


def test_labels_without_channels_change_nothing(tmp_path):
    path = plain_hdf5(tmp_path / "a", np.moveaxis(PLANE, 0, -1))
    with h5py.File(path, "a") as file:
        for dimension, name in zip(file["mov"].dims, "yxt", strict=True):
            dimension.label = name
    assert open_movie(path).shape == (7, 5, 9)


@pytest.mark.parametrize("kind", ["tif", "zlib mat", "mmap F", "pages tif"])
def test_frames_of_other_files_are_turned(tmp_path, kind):
    values = PLANE.astype(np.float32)
    path = files.WRITERS[kind](tmp_path, values)
    assert_array_equal(load(path, axes="TXY"), values.transpose(0, 2, 1))
    assert_array_equal(load(path, axes="TYX"), values)
    with pytest.raises(ParameterError, match="T must be the first axis"):
        load(path, axes="YXT")
    with pytest.raises(MovieShapeError, match="names 4 axes"):
        load(path, axes="TZYX")


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ("TYY", ParameterError, "each of T, Y, X once"),
        ("TY", ParameterError, "each of T, Y, X once"),
        ("TYXQ", ParameterError, "each of T, Y, X once"),
        ("TZYX", MovieShapeError, "names 4 axes, but .* has shape"),
    ],
)
def test_axes_that_do_not_fit(tmp_path, axes, error, message):
    for write in KINDS:
        with pytest.raises(error, match=message):
            open_movie(write(tmp_path / write.__name__, PLANE), axes=axes)
    with pytest.raises(ParameterError, match="no channels, its axes are YXT"):
        open_movie(PLANE, axes="YXT", channel=0)


def test_chunks_along_time_are_read_once(monkeypatch):
    monkeypatch.setattr("gpucalcium.movies.arrays.PIECE", 4 * PLANE[0].nbytes)
    asked = []

    class Store:
        shape, dtype, chunks = (7, 5, 9), PLANE.dtype, (7, 5, 3)

        def __getitem__(self, key):
            asked.extend({frame // 3 for frame in range(9)[key[2]]})
            return np.moveaxis(PLANE, 0, -1)[key]

    assert_array_equal(open_movie(Store(), axes="YXT").read(slice(None)), PLANE)
    assert sorted(asked) == [0, 1, 2]


# --- what is known of a recording, in parts and in chains


def test_parts_and_chains_keep_what_is_known(tmp_path):
    path = files.npz(tmp_path / "a.npz", PLANE, fr=10.0, start_time=3.0, meta_data='[{"a": 1}]')
    part = open_movie(path, subindices=(slice(4, None), slice(2)))
    assert part.about == {"fr": 10.0, "start_time": 3.4, "meta_data": [{"a": 1}]}
    assert open_movie(path, subindices=slice(3)).about["start_time"] == 3.0
    both = open_movie([path, path])
    assert both.about == {"fr": 10.0, "start_time": 3.0, "meta_data": [{"a": 1}, {"a": 1}]}
    other = files.npz(tmp_path / "b.npz", PLANE, fr=20.0)
    assert "fr" not in open_movie([path, other]).about
    assert dict(Selection(PLANE_SOURCE, 2).about) == {}
    assert dict(Chain([PLANE_SOURCE]).about) == {}
    turned = open_movie(path, axes="TXY")
    assert turned.about["fr"] == 10
    back = load(convert(part, tmp_path / "c.h5"))
    assert (back.fr, back.start_time, back.meta_data) == (10.0, 3.4, [{"a": 1}])


PLANE_SOURCE = open_movie(PLANE)
