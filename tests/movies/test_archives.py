"""Reading of NumPy's archives and MATLAB's files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
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


def test_big_fortran_arrays_in_archives_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", input_arr=np.asfortranarray(FRAMES))
    with pytest.raises(MovieFileError, match=r"Fortran order.*ascontiguousarray"):
        open_movie(tmp_path / "a.npz")
    image = np.asfortranarray(FRAMES[0])
    np.savez(tmp_path / "b.npz", image)
    assert_array_equal(load(tmp_path / "b.npz"), FRAMES[:1])
