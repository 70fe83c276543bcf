"""Conversion: every readable kind of file to every writable one, in bounded memory."""

import json
import tracemalloc

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

import gpucalcium
from gpucalcium import backend
from gpucalcium.errors import MovieNotFoundError, ParameterError, UnknownFormatError, UnknownParameterError
from gpucalcium.movies import convert, load, movie, open_movie
from gpucalcium.movies.source import Source
from gpucalcium.movies.writers import FORMATS
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 250, (29, 8, 6)).astype(np.uint8)
EXACT = [".tif", ".npy", ".h5", ".mmap"]


def stored(name, var_name_hdf5="mov"):
    return open_movie(name, var_name_hdf5=var_name_hdf5).read(slice(None))


@pytest.mark.parametrize("kind", files.WRITERS)
@pytest.mark.parametrize("suffix", EXACT)
def test_any_to_any(tmp_path, kind, suffix):
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    source = files.WRITERS[kind](tmp_path / "from", FRAMES)
    name = convert(source, tmp_path / "to" / f"b{suffix}")
    assert len(files.names(tmp_path / "to")) == 1
    assert_array_equal(stored(name), FRAMES)
    if suffix != ".mmap":
        assert stored(name).dtype == stored(source).dtype


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_written(tmp_path, suffix):
    path = files.npy(tmp_path / "a.npy", FRAMES)
    assert convert(path, tmp_path / f"b{suffix}") == str(tmp_path / f"b{suffix}")


def test_frames_and_parts(tmp_path):
    path = files.npy(tmp_path / "a.npy", FRAMES)
    for number, frames in enumerate((slice(3, 20, 2), [5, 2, 9], (slice(4, None), slice(1, 7), [0, 3]), 7)):
        name = convert(path, tmp_path / f"{number}.h5", frames=frames, fr=10, start_time=5)
        with backend.use("cpu"):
            expected = open_movie(path, subindices=frames).read(slice(None))
        assert_array_equal(stored(name), expected)
    assert load(convert(path, tmp_path / "c.h5", frames=slice(3, 9), fr=10)).start_time == pytest.approx(0.3)
    assert load(convert(path, tmp_path / "d.h5", frames=-2, fr=10)).start_time == pytest.approx(2.7)


def test_what_is_known_goes_along(tmp_path):
    m = movie(FRAMES, fr=7.5, start_time=2, meta_data={"depth_um": 120})
    for number, source in enumerate((m, m.save(tmp_path / "a.h5"), m.save(tmp_path / "a.tif"))):
        back = load(convert(source, tmp_path / f"{number}.h5"))
        assert (back.fr, back.start_time, back.meta_data) == (7.5, 2.0, [{"depth_um": 120}])
        back = load(convert(source, tmp_path / f"{number}.tif", fr=9, start_time=0.5, meta_data=["new"]))
        assert (back.fr, back.start_time, back.meta_data) == (9.0, 0.5, ["new"])
    with h5py.File(tmp_path / "1.h5") as file:
        assert json.loads(file["mov"].attrs["file_name"]) == [str(tmp_path / "a.h5")]


def test_several_files_follow_each_other(tmp_path):
    parts = [movie(FRAMES[:9], fr=5).save(tmp_path / "a.h5"), movie(FRAMES[9:], fr=5).save(tmp_path / "b.h5")]
    back = load(convert(parts, tmp_path / "c.tif"))
    assert_array_equal(back, FRAMES)
    assert back.fr == 5
    parts[1] = movie(FRAMES[9:], fr=6).save(tmp_path / "b.h5")
    with pytest.raises(ParameterError, match=r"frame rates of \[5\.0, 6\.0\]"):
        convert(parts, tmp_path / "d.tif")
    assert load(convert(parts, tmp_path / "d.tif", fr=8)).fr == 8


def test_data_sets_have_names(tmp_path):
    path = files.hdf5(tmp_path / "a.h5", FRAMES, name="raw")
    with h5py.File(path, "a") as file:
        file["other"] = 1
    name = convert(path, tmp_path / "b.h5", dataset="raw", var_name_hdf5="deep/film", compress=3)
    assert_array_equal(stored(name, "deep/film"), FRAMES)


def test_options_of_the_format(tmp_path):
    path = files.npy(tmp_path / "a.npy", FRAMES)
    with tifffile.TiffFile(convert(path, tmp_path / "a.tif")) as file:
        assert file.pages[0].dtype == np.uint8
    with tifffile.TiffFile(convert(path, tmp_path / "b.tif", to32=True, imagej=True)) as file:
        assert file.is_imagej
        assert file.pages[0].dtype == np.float32
    assert "order_C" in convert(path, tmp_path / "c.mmap", order="C")
    with pytest.raises(UnknownParameterError, match="did you mean 'compress'"):
        convert(path, tmp_path / "d.tif", compres=3)


def test_what_cannot_be_converted(tmp_path):
    path = files.npy(tmp_path / "a.npy", FRAMES)
    with pytest.raises(UnknownFormatError, match="Extension Unknown"):
        convert(path, tmp_path / "a.xyz")
    with pytest.raises(MovieNotFoundError):
        convert(tmp_path / "b.npy", tmp_path / "a.tif")
    with pytest.raises(ParameterError, match="is the source itself"):
        convert(path, str(path))
    with pytest.raises(ParameterError, match="fr=-1"):
        convert(path, tmp_path / "a.tif", fr=-1)
    assert files.names(tmp_path) == ["a.npy"]
    assert gpucalcium.convert is convert


class Noise(Source):
    """A movie larger than the memory it may take."""

    def _fill(self, wanted, out):
        out[...] = wanted[0] % 251


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".npz", ".h5", ".zarr", ".nwb", ".mkv", ".mmap"])
def test_memory_does_not_grow_with_the_movie(tmp_path, suffix):
    movie_bytes, budget = 600 * 256 * 256, 8 << 20
    source = Noise((600, 256, 256), np.uint8, "noise")
    convert(Noise((2, 8, 8), np.uint8, "small"), tmp_path / f"small{suffix}")  # imports are not counted
    tracemalloc.start()
    with backend.limit(memory=budget):
        convert(source, tmp_path / f"a{suffix}", q_max=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < min(3 * budget, movie_bytes)
