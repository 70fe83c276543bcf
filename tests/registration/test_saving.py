"""Files of registered movies, and runs that are killed and go on."""

from __future__ import annotations

import fcntl
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import OutputError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration import MotionCorrect
from gpucalcium.registration.matching import Matcher
from gpucalcium.registration.output import Output
from gpucalcium.registration.record import SweepRecord
from tests.registration.scenes import moving_cells

SCENE = moving_cells(T=48, shape=(40, 36), largest=2.0)
MOVIE = SCENE.movie.astype(np.float32)
SETTINGS = {"max_shifts": (4, 4), "splits_rig": 6, "splits_els": 6, "strides": (16, 16), "overlaps": (8, 8)}
KILLED = """
import json, os, signal, sys
from gpucalcium import backend
from gpucalcium.registration import MotionCorrect, journal
from gpucalcium.registration.output import Output

names, at, settings = sys.argv[1].split(","), int(sys.argv[2]), json.loads(sys.argv[3])
write, seen = Output.sink, 0

def sink(self, start, frames):
    global seen
    write(self, start, frames)
    seen += len(frames)
    if seen >= at:
        os.kill(os.getpid(), signal.SIGKILL)

Output.sink = sink
journal.Journal._checkpoint = journal.Journal._sync  # every chunk is safe at once
with backend.use("cpu"), backend.limit(chunk_frames=5):
    MotionCorrect(names, resume=True, **settings).motion_correct(save_movie=True)
"""


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path / "temp"))
    return tmp_path / "temp"


def films(folder: Path, count: int = 1) -> list[str]:
    names = [str(folder / f"film{k}.npy") for k in range(count)]
    for k, name in enumerate(names):
        np.save(name, MOVIE + np.float32(k))
    return names


def killed(names: list[str], at: int, **settings) -> None:
    command = [sys.executable, "-c", KILLED, ",".join(names), str(at), json.dumps({**SETTINGS, **settings})]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def failing(names, at: int, monkeypatch, **settings) -> None:
    """A run whose disk fails at this frame."""
    write = Output.sink

    def sink(self, start, frames):
        if start >= at:
            raise OSError("the disk went away")
        write(self, start, frames)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="went away"):
        patch.setattr(Output, "sink", sink)
        corrected(names, resume=True, **settings)


def corrected(names, template=None, **settings) -> MotionCorrect:
    return MotionCorrect(names, **{**SETTINGS, **settings}).motion_correct(template, save_movie=True)


def content(path: Path) -> dict[str, bytes]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {p.name: p.read_bytes() for p in files}


def located(monkeypatch) -> list[int]:
    """How many frames are looked for from now on, call by call."""
    counts: list[int] = []
    locate = Matcher.locate
    monkeypatch.setattr(
        Matcher, "locate", lambda self, frames: counts.append(len(frames)) or locate(self, frames)
    )
    return counts


# ---------------------------------------------------------------------------- killed

CASES = {
    "rigid, memory map": (1, 30, {"niter_rig": 2}),
    "rigid, HDF5 in float16": (1, 41, {"save_format": "hdf5", "save_dtype": "float16"}),
    "piecewise, Zarr": (1, 22, {"pw_rigid": True, "save_format": "zarr", "save_dtype": "uint16"}),
    "two recordings, TIFF": (2, 70, {"save_format": "tiff", "save_dtype": "int16", "border_nan": "copy"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_to_the_same_bits(case, tmp_path, temp, monkeypatch):
    count, at, settings = CASES[case]
    names = films(tmp_path, count)
    whole = corrected(names, **settings)
    expected = [content(Path(name)) for name in whole.mmap_file]
    for name in whole.mmap_file:
        Path(name).rename(tmp_path / f"whole-{Path(name).name}")
    killed(names, at, **settings)
    assert not any(Path(name).exists() for name in whole.mmap_file)
    assert list(temp.iterdir())
    counts, starts = located(monkeypatch), []
    begin = SweepRecord.before
    monkeypatch.setattr(SweepRecord, "before", lambda self: starts.append(self.start) or begin(self))
    again = corrected(names, resume=True, **settings)
    if settings.get("save_format") != "zarr":  # of which a chunk was not full yet
        assert max(starts) > 0  # what was on the disk was not written again
    assert [content(Path(name)) for name in again.mmap_file] == expected
    assert again.mmap_file == whole.mmap_file
    for name in ("shifts_rig", "templates_rig", "x_shifts_els", "templates_els"):
        assert_array_equal(getattr(again, name), getattr(whole, name))
    for name in ("peak", "clamped", "no_signal", "missing"):
        assert_array_equal(getattr(again.frame_quality, name), getattr(whole.frame_quality, name))
    monkeypatch.undo()
    assert sorted(p.name for p in temp.iterdir()) == sorted(Path(name).name for name in again.mmap_file)
    fresh = located(monkeypatch)
    corrected(names, **settings)
    assert sum(fresh) - sum(counts) >= at - 10  # what had been found was not looked for again


def test_a_run_that_is_stopped_twice(tmp_path, temp):
    names = films(tmp_path)
    expected = content(Path(corrected(names).mmap_file[0]))
    killed(names, 15)
    killed(names, 20)
    again = corrected(names, resume=True)
    assert content(Path(again.mmap_file[0])) == expected


@pytest.mark.parametrize("piecewise", [False, True])
def test_an_error_on_the_way_leaves_what_is_done(piecewise, wing, temp, monkeypatch):
    movie = wing.put(MOVIE[:7, :32, :28])
    settings = {"pw_rigid": piecewise, "splits_rig": 3, "splits_els": 3, "max_deviation_rigid": 2}
    expected = content(Path(corrected(movie, **settings).mmap_file[0]))
    with backend.limit(chunk_frames=3):
        failing(movie, 5, monkeypatch, **settings)
        again = corrected(movie, resume=True, **settings)
    assert list(content(Path(again.mmap_file[0])).values()) == list(expected.values())


@pytest.mark.parametrize("changed", ["recording", "setting", "template"])
def test_another_run_starts_from_the_first_frame_and_says_so(changed, tmp_path, temp, monkeypatch, caplog):
    names = films(tmp_path)
    with backend.limit(chunk_frames=5):
        failing(names, 30, monkeypatch)
    settings, template = {}, None
    if changed == "recording":
        np.save(names[0], MOVIE[::-1])
    elif changed == "setting":
        settings = {"max_shifts": (3, 3)}
    else:
        template = MOVIE[:20].mean(axis=0)
    with caplog.at_level(logging.WARNING, logger="gpucalcium"):
        again = corrected(names, template, resume=True, **settings)
    assert "belongs to another run" in caplog.text
    result = content(Path(again.mmap_file[0]))
    assert content(Path(corrected(names, template, **settings).mmap_file[0])) == result


def test_shifts_without_frames_are_kept_too(temp, monkeypatch):
    counts = located(monkeypatch)
    first = MotionCorrect(MOVIE, resume=True, **SETTINGS).motion_correct()
    assert not list(temp.iterdir())  # the journal is gone once all is done
    before = sum(counts)
    assert_array_equal(MotionCorrect(MOVIE, **SETTINGS).motion_correct().shifts_rig, first.shifts_rig)
    assert sum(counts) == 2 * before


def test_arrays_are_known_by_what_they_hold(temp):
    names = [MotionCorrect(MOVIE, resume=True).motion_correct(save_movie=True).mmap_file[0] for _ in range(2)]
    other = MotionCorrect(MOVIE + 1, resume=True).motion_correct(save_movie=True).mmap_file[0]
    assert names[0] == names[1] != other


# ---------------------------------------------------------------------------- formats


@pytest.mark.parametrize(("form", "suffix"), [("hdf5", ".h5"), ("zarr", ".zarr"), ("tiff", ".tif")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int16", "uint16"])
def test_formats_hold_the_registered_movie(form, suffix, dtype, temp):
    mc = corrected(MOVIE, save_format=form, save_dtype=dtype, border_nan="copy")
    (name,) = mc.mmap_file
    assert Path(name).suffix == suffix
    source = open_movie(name)
    assert source.stored == np.dtype(dtype)
    expected = mc.registered_movie().read(slice(None)) - np.float32(mc.min_mov)
    if dtype.endswith("16"):
        expected = expected.astype(dtype) if dtype == "float16" else np.rint(expected)
    assert_allclose(source.read(slice(None)), expected, atol=0 if dtype == "uint16" else 1e-3)


def test_frame_rate_goes_with_the_movie(tmp_path, temp):
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["mov"] = MOVIE
        file["mov"].attrs["fr"] = 12.5
    mc = corrected(str(tmp_path / "film.h5"), save_format="hdf5")
    assert open_movie(mc.mmap_file[0]).about["fr"] == 12.5
    name = mc.registered_movie().write(tmp_path / "again", format="tiff", dtype="uint16")
    assert name == tmp_path / "again.tif"
    assert open_movie(name).about["fr"] == 12.5


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_integers_have_no_place_for_nan(dtype, wing):
    mc = corrected(wing.put(MOVIE[:8]), save_format="hdf5", save_dtype=dtype)
    frames = open_movie(mc.mmap_file[0]).read(slice(None))
    outside = np.isnan(mc.registered_movie().read(slice(None)))
    assert outside.any()
    assert (frames[outside] == 0).all()


def test_values_beyond_the_range_are_counted(caplog, wing):
    bright = MOVIE[:8] * 1000
    with caplog.at_level(logging.WARNING, logger="gpucalcium"):
        mc = corrected(wing.put(bright), save_format="tiff", save_dtype="int16", border_nan="copy")
    frames = open_movie(mc.mmap_file[0]).read(slice(None))
    exact = mc.registered_movie().read(slice(None)) - np.float32(mc.min_mov)
    count = int(((exact > 32767) | (exact < -32768)).sum())
    assert (frames == 32767).sum() >= count > 0
    assert f"{count} values beyond the range of int16" in caplog.text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"save_format": "avi"}, "save_format='avi'"),
        ({"save_dtype": "int8"}, "save_dtype='int8'"),
        ({"save_dtype": "int16"}, "memory maps hold float32"),
    ],
)
def test_wrong_settings_are_refused_at_once(settings, text):
    with pytest.raises(ParameterError, match=text):
        MotionCorrect(MOVIE, **settings)


def test_a_second_process_is_kept_out(tmp_path, temp):
    names = films(tmp_path)
    temp.mkdir()
    with (temp / ".film0_rig_.journal").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process"):
            corrected(names, resume=True)


def test_chunks_and_budget_change_nothing(temp):
    one = corrected(MOVIE, pw_rigid=True, save_format="hdf5")
    with backend.limit(chunk_frames=7):
        other = corrected(MOVIE, pw_rigid=True, save_format="hdf5")
    assert_array_equal(
        open_movie(one.mmap_file[0]).read(slice(None)), open_movie(other.mmap_file[0]).read(slice(None))
    )
    assert_array_equal(one.total_template_els, other.total_template_els)
