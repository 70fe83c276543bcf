"""Reading of NumPy's archives and MATLAB's files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    DatasetNotFoundError,
    MemoryBudgetError,
    MovieFileError,
)
from gpucalcium.movies import load, open_movie
from tests.movies import recordings
from tests.movies.recordings import FRAMES, VOLUMES


def test_pickled_attributes_are_left_alone(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, input_arr=FRAMES, fr=5.0, meta_data=np.array([{"a": 1}], object))
    assert load(path).fr == 5
    assert load(path).meta_data == [None]
    with pytest.raises(MovieFileError, match="never unpickled"):
        open_movie(path, var_name_hdf5="meta_data")


def test_matlab_images_of_both_versions(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["Y"] = FRAMES[0].T
        file["Y"].attrs["MATLAB_class"] = np.bytes_("uint8")
    assert_array_equal(load(tmp_path / "a.mat"), FRAMES[:1])
    assert_array_equal(load(recordings.matlab73(tmp_path / "v.mat", VOLUMES)), VOLUMES)


@pytest.mark.parametrize("wrong", [1j * np.ones((3, 4, 5)), "text", {"a": 1}])
def test_mat_variables_that_are_no_movies(tmp_path, wrong):
    scipy.io.savemat(tmp_path / "a.mat", {"x": wrong})
    with pytest.raises(MovieFileError, match=r"a\.mat:x is no array of real numbers"):
        open_movie(tmp_path / "a.mat")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "stored", [FRAMES, VOLUMES, FRAMES[0], FRAMES.astype(">f4"), FRAMES % 2 == 0], ids=str
)
def test_arrays_in_fortran_order(tmp_path, packed, stored):
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", np.asfortranarray(stored))
    expected = stored if stored.ndim > 2 else stored[None]
    source = open_movie(tmp_path / "a.npz")
    assert_array_equal(source.read(slice(None)), expected)
    assert_array_equal(source.read(slice(0, 30, 7)), expected[0:30:7])
    np.save(tmp_path / "a.npy", np.asfortranarray(stored))
    assert_array_equal(open_movie(tmp_path / "a.npy").read(slice(0, 30, 7)), expected[0:30:7])


def test_compressed_arrays_in_fortran_order_must_fit(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", input_arr=np.asfortranarray(FRAMES))
    with (
        backend.limit(memory=FRAMES.nbytes),
        pytest.raises(MemoryBudgetError, match=r"unpacked whole.*ascontiguous"),
    ):
        open_movie(tmp_path / "a.npz")


@pytest.mark.parametrize("packed", [False, True])
def test_the_only_array_that_could_be_a_movie(tmp_path, packed):
    save = np.savez_compressed if packed else np.savez
    save(tmp_path / "a.npz", Y=FRAMES, rate=30.0, image=FRAMES[0], names=np.array(["a", "b"]))
    assert_array_equal(load(tmp_path / "a.npz"), FRAMES)
    save(tmp_path / "a.npz", Y=FRAMES, Z=FRAMES, rate=30.0)
    with pytest.raises(
        DatasetNotFoundError, match=r"no array 'mov'; there is 'Y', 'Z', 'rate'.*2 arrays.*'Y', 'Z'"
    ):
        load(tmp_path / "a.npz")
    save(tmp_path / "a.npz", image=FRAMES[0], rate=30.0)
    with pytest.raises(DatasetNotFoundError, match=r"0 arrays.*one of 'image', 'rate'"):
        load(tmp_path / "a.npz")
