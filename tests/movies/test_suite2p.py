"""Reading of the binary files of suite2p."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import MovieFileError, ParameterError
from gpucalcium.movies import get_file_size, load, open_movie
from tests.movies import recordings
from tests.movies.recordings import FRAMES


@pytest.fixture
def path(tmp_path):
    """A movie without anything that describes it."""
    path = recordings.suite2p(tmp_path)
    (tmp_path / "ops.json").unlink()
    return path


def test_a_movie_that_nothing_describes(path):
    with pytest.raises(
        MovieFileError, match=r"data\.bin has no header: give shape=\(Ly, Lx\), or write .*ops\.json"
    ):
        open_movie(path)
    assert_array_equal(load(path, shape=(18, 14)), FRAMES)
    assert get_file_size(path, shape=(18, 14)) == ((18, 14), 41)
    with pytest.raises(MovieFileError, match="truncated, or its frames are not"):
        open_movie(path, shape=(10**6, 10**6))
    with pytest.raises(ParameterError, match="one row"):
        open_movie(path, shape=(0, 5))


def test_sizes_from_an_archive(path):
    np.savez(path.with_name("ops.npz"), Ly=18, Lx=14, fs=7.0, other=np.zeros(3))
    assert_array_equal(load(path), FRAMES)
    assert load(path).fr == 7
    np.savez(path.with_name("ops.npz"), Ly=18, Lx=14, nframes=50)
    with pytest.raises(MovieFileError, match=r"data\.bin.*41\.00 frames.*50 expected"):
        open_movie(path)
    for content in (b"PK\x03\x04 no archive", b"none"):
        path.with_name("ops.npz").write_bytes(content)
        with pytest.raises(MovieFileError, match=r"ops\.npz, which describes data\.bin"):
            open_movie(path)


def test_sizes_from_what_suite2p_writes(path):
    ops = {
        "Ly": np.int64(18),
        "Lx": 14,
        "nframes": 41,
        "nchannels": 2,
        "fs": 12.5,
        "meanImg": FRAMES.mean(axis=0),
        "data_path": ["/a"],
        "save_path": Path("/b"),
    }
    np.save(path.with_name("ops.npy"), ops, allow_pickle=True)
    assert_array_equal(load(path), FRAMES)
    assert load(path).fr == 12.5
    second = path.with_name("data_chan2.bin")  # the other channel of the recording has a file of its own
    second.write_bytes(FRAMES[::-1].astype("<i2").tobytes())
    assert_array_equal(load([path, second]), np.concatenate([FRAMES, FRAMES[::-1]]))
    np.save(path.with_name("ops.npy"), ops | {"nframes": 12}, allow_pickle=True)
    with pytest.raises(MovieFileError, match=r"41\.00 frames.*12 expected"):
        open_movie(path)


class Evil:
    def __init__(self, sign):
        self._sign = sign

    def __reduce__(self):
        return os.mkdir, (str(self._sign),)


def test_hostile_descriptions(path, tmp_path):
    sign = tmp_path / "sign"
    np.save(path.with_name("ops.npy"), {"Ly": 18, "Lx": 14, "x": Evil(sign)}, allow_pickle=True)
    with pytest.raises(
        MovieFileError, match=r"ops\.npy, which describes data\.bin, cannot be used: it refers to.*mkdir"
    ):
        open_movie(path)
    assert not sign.exists()
    assert_array_equal(load(path, shape=(18, 14)), FRAMES)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"Ly": 18}',
        "[1]",
        '"text"',
        '{"Ly": 18, "Lx": "many"}',
        '{"Ly": 18, "Lx": 1e999}',
        '{"Ly": 18, "Lx": 14, "nframes": "all"}',
        '{"Ly": 18, "Lx": 14, "nframes": null}',
        "[" * 100_000,
        "",
        "\x00",
    ],
)
def test_descriptions_that_say_nothing(path, text):
    path.with_name("ops.json").write_text(text)
    with pytest.raises(MovieFileError, match=r"ops\.json|Ly and Lx"):
        open_movie(path)
