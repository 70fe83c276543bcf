"""Numbers out of pickles: what they hold, and that nothing of them is ever run."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpucalcium.movies import plain_pickle
from gpucalcium.movies.plain_pickle import read_dictionary, read_records

OPS = {
    "Ly": 512,
    "Lx": np.int64(796),
    "nframes": np.uint32(10**6),
    "fs": np.float32(7.5),
    "aspect": np.float64(1.25),
    "two_step": np.bool_(True),
    "swapped": np.dtype(">i4").type(-5),
    "keep": False,
    "name": "a text",
    "large": 2**40,
    "negative": -7,
}
SKIPPED = {
    "none": None,
    "data_path": ["a", "b"],
    "folder": pathlib.PurePosixPath("/a"),
    "when": datetime.datetime(2026, 1, 2),
    "meanImg": np.arange(90_000.0).reshape(300, 300),
    "xrange": np.array([1, 2]),
    "nested": {"Ly": 3, "list": [[1.5, None]] * 9},
    "some": {1, 2},
    "text": "long " * 1000,
    "strings": np.array(["a", "b"]),
    "record": np.zeros(2, "i4,f8"),
    5: 6,
}


def written(path, value, protocol=None):
    if protocol is None:
        np.save(path, value, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [None, 0, 1, 2, 3, 4, 5])
def test_what_a_dictionary_holds(tmp_path, protocol):
    found = read_dictionary(written(tmp_path / "ops.npy", OPS | SKIPPED, protocol))
    expected = {name: value.item() if isinstance(value, np.generic) else value for name, value in OPS.items()}
    if protocol in (0, 1):  # these write NumPy scalars by other means
        found, expected = ({k: v for k, v in d.items() if type(OPS[k]) is int} for d in (found, expected))
    assert found == expected
    assert all(type(value) in (int, float, bool, str) for value in found.values())


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=20),
        st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=40),
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_any_plain_dictionary(tmp_path_factory, values, protocol):
    path = written(tmp_path_factory.mktemp("p") / "a.npy", values, protocol)
    assert read_dictionary(path) == values


class Evil:
    """What a pickle can call; run, it would leave a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [None, 0, 2, 4, 5])
@pytest.mark.parametrize("inside", [True, False])
def test_hostile_pickles_are_refused_and_not_run(tmp_path, protocol, inside):
    sign = tmp_path / "sign"
    for evil in (
        Evil(os.mkdir, str(sign)),
        Evil(eval, f"open({str(sign)!r}, 'w')"),
        Evil(exec, f"open({str(sign)!r}, 'w')"),
        Evil(__import__, "antigravity"),
    ):
        path = written(tmp_path / "ops.npy", {"Ly": 5, "x": evil} if inside else evil, protocol)
        before = set(sys.modules)
        with pytest.raises(ValueError, match="refers to"):
            read_dictionary(path)
        assert not sign.exists()
        assert set(sys.modules) == before


def test_no_name_is_followed_even_where_it_is_known(tmp_path):
    """NumPy can load pickles and libraries: its names are passed over, not looked up."""
    sign = tmp_path / "sign"
    content = b"cnumpy\nsave\n(V" + str(sign).encode() + b"\nI1\ntR."
    (tmp_path / "a.npy").write_bytes(b"}(VLy\n" + content[:-1] + b"u.")
    assert read_dictionary(tmp_path / "a.npy") == {}
    (tmp_path / "a.npy").write_bytes(b"}(VLy\nI5\nVx\n" + b"cnumpy.no_such.module\nanything\n(I1\ntRu.")
    assert read_dictionary(tmp_path / "a.npy") == {"Ly": 5}
    assert not list(tmp_path.glob("sign*"))
    assert "numpy.no_such" not in sys.modules


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        b".",
        b"}",
        b"I5\n.",
        b"(",
        b"}u.",
        b"(I1\nu.",
        b"}(I1\nu.",
        b"}VLy\ns.",
        b"h\x05.",
        b"R.",
        b"I1\nI2\nR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"ios\nsystem\n(S'true'\no.",
        b"(ios\nsystem\n.",
        b"\x82\x01.",
        b"Ppersistent\n.",
        b"\x8e" + (2**62).to_bytes(8, "little") + b"x.",
        b"B\xff\xff\xff\x7fx.",
        b"\x8b\xff\xff\xff\x7fx.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY",
        b"\xff" * 50,
    ],
)
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"."):
        read_dictionary(tmp_path / "a.npy")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
@example(b"(((((((((tttttttt.")
@example(b"]q\x00h\x00a.")
def test_any_bytes_end_in_an_answer_or_a_value_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("p") / "a.npy"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        read_dictionary(path)


@pytest.mark.parametrize("share", np.linspace(0, 0.99, 12))
def test_truncated(tmp_path, share):
    path = written(tmp_path / "a.npy", OPS | SKIPPED)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"."):
        read_dictionary(path)


def test_absurd_lengths(tmp_path, monkeypatch):
    path = written(tmp_path / "a.npy", OPS)
    monkeypatch.setattr(plain_pickle, "MOST_OPCODES", 20)
    with pytest.raises(ValueError, match="more than 20 parts"):
        read_dictionary(path)
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 20)
    with pytest.raises(ValueError, match="more than a description"):
        read_dictionary(path)


# ---------------------------------------------------------------------------- arrays in lists of dictionaries

CELL = {
    "xpix": np.arange(300, dtype="i4"),
    "ypix": np.arange(300, dtype=">i8"),
    "lam": np.linspace(0, 1, 7, dtype="f4"),
    "mask": np.array([True, False]),
    "plane": np.arange(6, dtype="u2").reshape(2, 3),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(20)[::3],
    "empty": np.zeros((0, 3)),
    "med": [1, 2.5, np.float32(3)],
    "pair": (4, 5),
}
NO_ARRAYS = {
    "text": "abc",
    "names": np.array(["a", "b"]),
    "objects": np.array([{}, None]),
    "complex": np.array([1j]),
    "nested": [[1], [2]],
    "number": 3,
}


def written_records(path, cells, protocol=None):
    array = np.empty(len(cells), object)
    array[:] = cells
    return written(path, array if protocol is None else cells, protocol)


@pytest.mark.parametrize("protocol", [None, 0, 1, 2, 3, 4, 5])
def test_arrays_of_records(tmp_path, protocol):
    path = written_records(tmp_path / "stat.npy", [CELL | NO_ARRAYS, {"xpix": np.arange(2)}, {}], protocol)
    first, second, third = read_records(path, [*CELL, *NO_ARRAYS, "absent"])
    assert third == {}
    assert list(second) == ["xpix"]
    expected = dict(CELL)
    assert set(first) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(first[name], value)
        assert first[name].dtype.isnative
        if isinstance(value, np.ndarray):
            assert first[name].dtype == value.dtype.newbyteorder("=")
    only = read_records(path, ["lam"])
    assert [list(found) for found in only] == [["lam"], [], []]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_garbled_records_are_refused_or_read(tmp_path_factory, seed, changes):
    rng = np.random.default_rng(seed)
    content = bytearray(pickle.dumps([CELL, CELL], int(rng.integers(0, 6))))
    for place in rng.integers(0, len(content), changes):
        content[place] = rng.integers(0, 256)
    path = tmp_path_factory.mktemp("p") / "a.npy"
    path.write_bytes(bytes(content[: rng.integers(1, len(content) + 1)]))
    with contextlib.suppress(ValueError):
        for found in read_records(path, list(CELL)):
            assert all(
                isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in found.values()
            )


@pytest.mark.parametrize("value", [{"xpix": np.arange(3)}, 5, "text", [1, 2], np.array([1, 2])])
def test_what_holds_no_records(tmp_path, value):
    with pytest.raises(ValueError, match="no list of dictionaries"):
        read_records(written(tmp_path / "a.npy", value, 4), ["xpix"])
