"""Files of predictions: where, in which format, whole or not at all."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from gpucalcium.cinac import output
from gpucalcium.cinac.output import checked_formats, results_folder, save_arrays
from gpucalcium.errors import OutputError, ParameterError

ARRAYS = {"predictions": np.arange(6.0).reshape(2, 3), "cells": np.array([0, 4])}


def test_formats_are_known_and_named_once():
    assert checked_formats("mat") == ("mat",)
    assert checked_formats(["npz", "mat", "npz"]) == ("npz", "mat")
    with pytest.raises(ParameterError, match="there are npy, npz, mat"):
        checked_formats(["npz", "csv"])


def test_arrays_round_trip_and_leave_nothing_else(tmp_path):
    files = save_arrays(tmp_path / "a.b", ARRAYS, ["npy", "npz", "mat"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b.mat", "a.b.npz"]
    assert [path.name for path in files] == ["a.b.npz", "a.b.mat"]
    with np.load(files[0], allow_pickle=False) as kept:
        for name, values in ARRAYS.items():
            assert_array_equal(kept[name], values)
    assert_array_equal(scipy.io.loadmat(files[1])["predictions"], ARRAYS["predictions"])


def test_what_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    save_arrays(tmp_path / "a", ARRAYS, ["npz"])
    before = (tmp_path / "a.npz").read_bytes()

    def broken(file, **_):
        file.write(b"half")
        raise RuntimeError("stopped")

    monkeypatch.setattr(output.np, "savez", broken)
    with pytest.raises(RuntimeError, match="stopped"):
        save_arrays(tmp_path / "a", ARRAYS, ["npz"])
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_folders_are_made_and_never_shared(tmp_path):
    assert results_folder(tmp_path / "x" / "y", stamped=False) == tmp_path / "x" / "y"
    made = {results_folder(tmp_path / "x", stamped=True) for _ in range(3)}
    assert len(made) == 3
    assert all(re.fullmatch(r"\d{4}(_\d\d){2}\.\d\d(-\d\d){2}(_\d)?", path.name) for path in made)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        results_folder(tmp_path / "file", stamped=True)
