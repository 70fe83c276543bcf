"""Settings in .mat files of version 5: what SciPy reads, and no memory for what a damaged header promises."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium.movies import mat_struct
from gpucalcium.movies.mat_struct import read_struct

SETTINGS = {
    "sz": np.array([512, 796]),
    "resfreq": 7930.5,
    "volscan": 1,
    "otparam": np.array([0.0, 100.0, 3.0]),
    "name": "a text \u00b5m",
    "chan": {"nchan": 2, "sample": np.array([1, 0, 1, 0], np.uint8), "deep": {"deeper": -3}},
    "big": 2**40,
    "a_very_long_name_of_a_field_of": np.int16(-5),
}
LEFT_OUT = {"empty": np.zeros((0, 0)), "cell": np.array([1, "a"], object), "several": [{"a": 1}, {"a": 2}]}


def written(path, packed, **values):
    scipy.io.savemat(path, values or {"other": 1, "info": SETTINGS | LEFT_OUT}, do_compression=packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_reads(tmp_path, packed):
    path = written(tmp_path / "a.mat", packed)
    found = read_struct(path, "info")
    expected = scipy.io.loadmat(path, simplify_cells=True)["info"]
    assert set(found) == set(SETTINGS)
    assert found["chan"]["deep"] == {"deeper": -3}
    assert found["name"] == SETTINGS["name"]
    for name in ("sz", "otparam", "resfreq", "volscan", "big", "a_very_long_name_of_a_field_of"):
        assert_array_equal(found[name], expected[name])
    assert_array_equal(found["chan"]["sample"], expected["chan"]["sample"])


def test_what_is_no_structure(tmp_path):
    with pytest.raises(ValueError, match="no structure 'info'"):
        read_struct(written(tmp_path / "a.mat", False, info=5), "info")
    for content in (b"", b"no such thing", bytes(200)):
        (tmp_path / "b.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"no \.mat file of version 5"):
            read_struct(tmp_path / "b.mat", "info")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("share", np.linspace(0.05, 0.99, 9))
def test_truncated(tmp_path, packed, share):
    path = written(tmp_path / "a.mat", packed)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"."):
        read_struct(path, "info")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(128, 2000), st.integers(0, 255)), min_size=1, max_size=5))
def test_damage_takes_no_memory(tmp_path_factory, changes):
    path = written(tmp_path_factory.mktemp("m") / "a.mat", False)
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        read_struct(path, "info")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_a_shape_that_promises_petabytes(tmp_path):
    path = written(tmp_path / "a.mat", False, info={"sz": np.arange(5.0)})
    shape = struct.pack("<ii", 1, 5)
    assert path.read_bytes().count(shape) == 1
    path.write_bytes(path.read_bytes().replace(shape, struct.pack("<ii", 2**31 - 1, 2**31 - 1)))
    assert_array_equal(read_struct(path, "info")["sz"], np.arange(5.0))


def test_absurd_lengths(tmp_path, monkeypatch):
    path = written(tmp_path / "a.mat", True)
    monkeypatch.setattr(mat_struct, "_MOST", 300)
    with pytest.raises(ValueError, match="more than settings need"):
        read_struct(path, "info")
