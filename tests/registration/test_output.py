"""Files for registered frames: what was put in is there, whole or not at all, and a later run goes on with it."""

import os
import resource
import tracemalloc
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, OutputError, ParameterError
from gpucalcium.movies import load_memmap, open_movie
from gpucalcium.movies.files import unfinished
from gpucalcium.movies.save_options import Recording
from gpucalcium.registration import output as module
from gpucalcium.registration.output import DTYPES, FORMATS, open_output

FRAMES = np.random.default_rng(0).normal(100, 300, (70, 11, 9)).astype(np.float32)
VOLUMES = np.random.default_rng(1).normal(100, 300, (13, 5, 4, 3)).astype(np.float32)
KINDS = [("mmap", "F"), ("mmap", "C"), ("hdf5", "F"), ("zarr", "F"), ("tiff", "F")]


def put(out, frames, lengths=(9, 1, 30, 64), start=0):
    """Frames into an output, in pieces of these lengths and then the rest."""
    for length in (*lengths, len(frames)):
        if start < len(frames):
            out.sink(start, frames[start : start + length])
            start += length


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stored(path):
    """As other programs read it."""
    if path.suffix == ".mmap":
        yr, dims, count = load_memmap(path)
        return np.asarray(yr.T).reshape((count, *dims), order="F")
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return file["mov"][...]
    return zarr.open_group(path, mode="r")["mov"][...] if path.is_dir() else tifffile.imread(path)


def expected(frames, dtype, fill=0):
    about = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    values = frames if dtype == "float32" else np.clip(frames, about.min, about.max)
    if about.dtype.kind == "f":
        return values.astype(dtype)
    return np.where(np.isnan(frames), fill, np.rint(values)).astype(dtype)


# ---------------------------------------------------------------------------- what is in the files


@pytest.mark.parametrize(
    "frames", [FRAMES, VOLUMES, FRAMES[:1], FRAMES[:, :1, :1]], ids=["2-D", "3-D", "T=1", "pixel"]
)
@pytest.mark.parametrize(("format", "order"), KINDS)
def test_other_programs_find_the_frames(tmp_path, format, order, frames):
    with open_output(tmp_path / "film", frames.shape, format=format, order=order) as out:
        put(out, frames)
        assert not out.path.exists()
    assert names(tmp_path) == [out.path.name]
    assert_array_equal(stored(out.path).reshape(frames.shape), frames)
    assert_array_equal(open_movie(out.path).read(slice(None)).reshape(frames.shape), frames)


@pytest.mark.parametrize("format", ["hdf5", "zarr", "tiff"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(tmp_path, wing, format, dtype):
    frames = 200 * FRAMES
    frames[3, 2, 1], frames[4, 2, 1], frames[5, 2, 1] = np.nan, 1e9, -np.inf
    with open_output(tmp_path / "film", frames.shape, dtype=dtype, format=format, fill=17) as out:
        for start in range(0, 70, 20):
            ready = out.prepare(wing.put(frames[start : start + 20]))
            out.sink(start, backend.to_numpy(ready))
    assert stored(out.path).dtype == dtype
    assert_array_equal(stored(out.path), expected(frames, dtype, 17))


@pytest.mark.parametrize(("format", "order"), KINDS)
def test_prepared_on_a_device(tmp_path, wing, format, order):
    with open_output(tmp_path / "film", VOLUMES.shape, format=format, order=order) as out:
        for start in range(0, 13, 5):
            out.sink(start, backend.to_numpy(out.prepare(wing.put(VOLUMES[start : start + 5]))))
    assert_array_equal(stored(out.path), VOLUMES)


def test_frames_of_another_dtype(tmp_path):
    frames = FRAMES.astype(np.int32)
    for format, order in KINDS:
        with open_output(tmp_path / "film", frames.shape, format=format, order=order) as out:
            put(out, frames)
        assert_array_equal(stored(out.path), frames)


def test_what_is_known_of_the_recording(tmp_path):
    for format in ("hdf5", "tiff", "zarr"):
        with open_output(tmp_path / "a", FRAMES.shape, format=format, about=Recording(fr=7.5)) as out:
            put(out, FRAMES)
        assert open_movie(out.path).about["fr"] == 7.5


def test_names(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))
    for where, format, name in (
        ("film_rig_", "mmap", "film_rig__d1_11_d2_9_d3_1_order_F_frames_70.mmap"),
        ("film", "hdf5", "film.h5"),
        ("film.hdf5", "hdf5", "film.hdf5"),
        ("film.1", "tiff", "film.1.tif"),
        ("film.btf", "tiff", "film.btf"),
        ("film", "zarr", "film.zarr"),
    ):
        with open_output(where, FRAMES.shape, format=format) as out:
            put(out, FRAMES)
        assert out.path == tmp_path / name


@pytest.mark.parametrize(("format", "order"), KINDS)
def test_what_stood_there_is_replaced(tmp_path, format, order):
    for frames in (FRAMES, FRAMES + 1):
        with open_output(tmp_path / "film", frames.shape, format=format, order=order) as out:
            put(out, frames)
    assert names(tmp_path) == [out.path.name]
    assert_array_equal(stored(out.path), FRAMES + 1)


def test_memory_is_bounded(tmp_path):
    frames = np.ones((32, 64, 64), np.float32)
    tracemalloc.start()
    try:
        with backend.limit(memory="4MB"), open_output(tmp_path / "film", (4096, 64, 64), order="C") as out:
            for start in range(0, 4096, 32):
                out.sink(start, frames)
        assert tracemalloc.get_traced_memory()[1] < 4e6  # the movie takes 67e6
    finally:
        tracemalloc.stop()
    assert_array_equal(open_movie(out.path).read(slice(4000, None)), 1)


# ---------------------------------------------------------------------------- going on


@pytest.mark.parametrize(("format", "order"), KINDS)
@pytest.mark.parametrize("killed_at", [9, 40, 69])
def test_a_later_run_goes_on(tmp_path, monkeypatch, format, order, killed_at):
    monkeypatch.setattr("gpucalcium.movies.write_frames._STRETCH", 16)
    monkeypatch.setattr("gpucalcium.movies.write_chunked._FRAMES_A_CHUNK", 16)
    args = {"format": format, "order": order, "resume": True}
    with open_output(tmp_path / "whole", FRAMES.shape, **args) as whole:
        put(whole, FRAMES)
    assert not whole.resumed
    with pytest.raises(KeyboardInterrupt), open_output(tmp_path / "film", FRAMES.shape, **args) as out:
        put(out, FRAMES[:killed_at])
        done = out.sync()
        raise KeyboardInterrupt
    assert 0 <= done <= killed_at
    assert names(tmp_path)[0] == unfinished(out.path).name
    with open_output(tmp_path / "film", FRAMES.shape, **args) as out:
        assert out.resumed
        put(out, FRAMES, start=done)
    assert_array_equal(stored(out.path), FRAMES)
    if not out.path.is_dir():
        assert out.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize(("format", "order"), KINDS)
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path, format, order):
    args = {"format": format, "order": order, "resume": True}
    with pytest.raises(KeyboardInterrupt), open_output(tmp_path / "film", (40, 11, 9), **args) as out:
        raise KeyboardInterrupt
    rest = unfinished(out.path)
    with open_output(tmp_path / "film", FRAMES.shape, **args) as out:
        put(out, FRAMES)
    if format != "mmap":  # whose names differ
        assert_array_equal(stored(out.path), FRAMES)
    if format != "zarr":
        rest.write_bytes(b"torn")
        with open_output(tmp_path / "film", (40, 11, 9), **args) as out:
            assert not out.resumed
            put(out, FRAMES[:40])
        assert_array_equal(stored(out.path), FRAMES[:40])


# ---------------------------------------------------------------------------- what cannot be done


def test_settings_that_cannot_be(tmp_path):
    for wrong, text in (
        ({"format": "avi"}, "format='avi': expected 'mmap', 'hdf5'"),
        ({"dtype": "int32", "format": "hdf5"}, "dtype='int32'"),
        ({"dtype": "int16"}, "no place for a dtype"),
        ({"order": "A"}, "order='A'"),
        ({"order": "C", "format": "tiff"}, "only memory maps"),
        ({"dtype": "uint16", "format": "tiff", "fill": -1}, "fill=-1"),
        ({"dtype": "uint16", "format": "tiff", "fill": np.nan}, "fill=nan"),
    ):
        with pytest.raises(ParameterError, match=text), open_output(tmp_path / "film", FRAMES.shape, **wrong):
            pass
    for shape in ((4, 5), (0, 4, 5)):
        with pytest.raises(MovieShapeError, match="not empty"), open_output(tmp_path / "film", shape):
            pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("format", FORMATS)
def test_places_that_cannot_be_written_to(tmp_path, format):
    with (
        pytest.raises(OutputError, match="there is no folder"),
        open_output(tmp_path / "absent" / "film", FRAMES.shape, format=format),
    ):
        pass
    if format != "zarr":
        with open_output(tmp_path / "film", FRAMES.shape, format=format) as out:
            put(out, FRAMES)
        out.path.unlink()
        out.path.mkdir()
        with (
            pytest.raises(OutputError, match="a folder has that name"),
            open_output(tmp_path / "film", FRAMES.shape, format=format),
        ):
            pass


@contextmanager
def file_size(limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(("format", "order"), KINDS)
def test_a_full_disk(tmp_path, format, order, resume):
    shape = (256, 64, 64)
    noise = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    with (
        file_size(1 << 19),
        pytest.raises(OutputError, match="is kept in" if resume else "Nothing is left"),
        open_output(tmp_path / "film", shape, format=format, order=order, resume=resume) as out,
    ):
        put(out, noise)
    assert bool(names(tmp_path)) == resume


def test_the_disk_fills_up_while_writing(tmp_path, monkeypatch):
    """Where space cannot be taken beforehand."""
    monkeypatch.setattr(module, "reserve", lambda path, *_, **__: path.touch())
    with (
        file_size(1 << 16),
        pytest.raises(OutputError, match="Nothing is left"),
        open_output(tmp_path / "film", (256, 64, 64)) as out,
    ):
        put(out, np.ones((256, 64, 64), np.float32))
    assert names(tmp_path) == []


@pytest.mark.parametrize(("format", "order"), KINDS)
def test_an_error_leaves_nothing(tmp_path, format, order):
    with (
        pytest.raises(ValueError, match="went away"),
        open_output(tmp_path / "film", FRAMES.shape, format=format, order=order) as out,
    ):
        put(out, FRAMES[:30])
        raise ValueError("the source went away")
    assert names(tmp_path) == []
    assert not os.path.exists(out.path)  # noqa: PTH110
