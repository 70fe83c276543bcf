"""Arrays that benchmarks read."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_array_equal

from gpucalcium.cinac.benchmark_files import read_array
from gpucalcium.errors import (
    MovieFileError,
)


@pytest.mark.parametrize("ending", ["npy", "npz", "mat", "h5"])
def test_arrays_of_every_kind(tmp_path, ending):
    values, path = np.arange(6.0).reshape(2, 3), tmp_path / f"a.{ending}"
    match ending:
        case "npy":
            np.save(path, values)
        case "npz":
            np.savez(path, values=values)
        case "mat":
            scipy.io.savemat(path, {"values": values})
        case "h5":
            with h5py.File(path, "w") as file:
                file["values"] = values
                file["group/deep"] = values + 1
    assert_array_equal(read_array(path, None), values)
    assert_array_equal(read_array(path, "values"), values)
    if ending == "h5":
        assert_array_equal(read_array(path, "group/deep"), values + 1)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(MovieFileError, match="cannot be read"):
        read_array(path, None)
