"""`load` and its relatives, and `movie.save`: what was written comes back."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
    MovieShapeError,
    NotSupportedError,
    ParameterError,
    UnknownFormatError,
)
from gpucalcium.movies import get_file_size, load, load_iter, load_movie_chain, movie
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 4000, (23, 7, 5)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).integers(0, 4000, (6, 3, 7, 5)).astype(np.uint16)


@pytest.mark.parametrize("kind", files.WRITERS)
def test_load_every_format(tmp_path, kind):
    path = files.WRITERS[kind](tmp_path, FRAMES)
    loaded = load(path, fr=12)
    assert isinstance(loaded, movie)
    assert loaded.dtype == np.float32
    assert loaded.fr == 12
    assert loaded.file_name == [str(path)]
    assert_array_equal(loaded, FRAMES)
    assert load(str(path), outtype=np.uint16).dtype == np.uint16
    for subindices in (
        slice(3, 9),
        slice(None, None, 4),
        [7, 2],
        range(2, 5),
        (slice(2, 5), slice(1, 3)),
        np.arange(3),
    ):
        first, *rest = subindices if isinstance(subindices, tuple) else (subindices,)
        expected = FRAMES[first][(slice(None), *rest)]
        assert_array_equal(load(path, subindices=subindices), expected)
        if rest:  # a list of one selector per axis is one of frames no more
            assert_array_equal(load(path, subindices=list(subindices)), expected)
    assert_array_equal(load(path, subindices=4), FRAMES[4])
    assert_array_equal(load(path, subindices=[4]), FRAMES[4:5])


@pytest.mark.parametrize("kind", files.WRITERS)
def test_load_iter_gives_the_frames_one_by_one(tmp_path, kind):
    path = files.WRITERS[kind](tmp_path, FRAMES)
    frames = list(load_iter(path, slice(None, 9)))
    assert_array_equal(frames, load(path)[:9])
    assert frames[0].dtype == np.float32
    frames[0][:] = 0  # every frame has its own memory
    assert frames[1].any()
    assert len(list(load_iter([path, path]))) == 2 * len(FRAMES)
    volumes = list(load_iter(files.npy(tmp_path / "v.npy", VOLUMES), is3D=True, outtype=np.uint16))
    assert_array_equal(volumes, VOLUMES)


def test_maps_are_not_loaded_unless_asked_for(tmp_path):
    wide = FRAMES.astype(np.float32)
    for path in (
        files.npy(tmp_path / "a.npy", wide),
        files.mmap(tmp_path, wide, "F"),
        files.mmap(tmp_path, wide, "C"),
    ):
        assert not load(path).flags.owndata
        assert not load(path).flags.writeable
        inside = load(path, in_memory=True)
        assert inside.flags.writeable
        assert_array_equal(inside, load(path))


def test_chains_crop_and_follow_each_other(tmp_path):
    paths = [files.tiff(tmp_path / "a.tif", FRAMES), files.npy(tmp_path / "b.npy", FRAMES[:4])]
    both = np.concatenate([FRAMES, FRAMES[:4]])
    assert_array_equal(load(paths), both)
    assert_array_equal(load_movie_chain(paths, fr=5), both)
    assert load(paths).file_name == [str(path) for path in paths]
    cropped = load_movie_chain(paths, top=1, bottom=2, left=3, right=1)
    assert_array_equal(cropped, both[:, 1:-2, 3:-1])
    assert_array_equal(load(paths[0], top=1, bottom=2, left=3, right=1), FRAMES[:, 1:-2, 3:-1])
    assert_array_equal(load(paths, subindices=slice(2)), np.concatenate([FRAMES[:2], FRAMES[:2]]))
    assert_array_equal(load(tuple(paths)), np.stack([FRAMES[0], FRAMES[0]]))
    volumes = [files.npy(tmp_path / "v.npy", VOLUMES)]
    assert_array_equal(load_movie_chain(volumes, z_top=1, z_bottom=2, is3D=True), VOLUMES[..., 1:-2])
    for wrong in ({"z_top": 1}, {"top": 7}, {"left": -1}):
        with pytest.raises(ParameterError):
            load_movie_chain(paths, **wrong)
    with pytest.raises(MovieShapeError, match="different sizes"):
        load([paths[0], files.npy(tmp_path / "c.npy", FRAMES[:, 1:])])
    with pytest.raises(ParameterError, match="empty list"):
        load([])


def test_one_channel(tmp_path):
    path = files.npy(tmp_path / "a.npy", VOLUMES)
    assert_array_equal(load(path, channel=1), VOLUMES[:, 1])
    assert_array_equal(load(path, channel=-1, subindices=slice(2, 4)), VOLUMES[2:4, -1])
    with pytest.raises(ParameterError, match="has 3 channels"):
        load(path, channel=3)
    with pytest.raises(ParameterError, match="has no channels"):
        load(files.npy(tmp_path / "b.npy", FRAMES), channel=0)


def test_images_matrices_and_other_options(tmp_path):
    image = files.npy(tmp_path / "a.npy", FRAMES[0])
    assert_array_equal(load(image), FRAMES[:1])
    assert_array_equal(load(files.tiff(tmp_path / "a.tif", FRAMES[0])), FRAMES[:1])
    matrix = files.npy(tmp_path / "m.npy", FRAMES.reshape(len(FRAMES), -1, order="F").T)
    assert_array_equal(load(matrix, shape=(7, 5)), FRAMES)
    assert_array_equal(load(files.hdf5(tmp_path / "a.h5", FRAMES, name="x"), var_name_hdf5="x"), FRAMES)
    described = load(image, start_time=4, meta_data={"a": 1})
    assert (described.start_time, described.meta_data) == (4.0, [{"a": 1}])
    with pytest.raises(NotSupportedError, match="is_behavior"):
        load(image, is_behavior=True)
    with pytest.raises(MovieShapeError, match="is3D=True"):
        load(image, is3D=True)


def test_file_sizes_come_from_headers(tmp_path):
    for kind, write in files.WRITERS.items():
        assert get_file_size(write(tmp_path, FRAMES)) == ((7, 5), 23), kind
    paths = [files.npy(tmp_path / "a.npy", FRAMES), files.npy(tmp_path / "b.npy", FRAMES[:4])]
    assert get_file_size(paths) == ((7, 5), (23, 4))
    assert get_file_size(tuple(paths)) == ((7, 5), (23, 4))
    assert get_file_size(files.npy(tmp_path / "v.npy", VOLUMES)) == ((3, 7, 5), 6)
    with pytest.raises(MovieShapeError, match="Files have FOVs with different sizes"):
        get_file_size([paths[0], tmp_path / "v.npy"])


# ---------------------------------------------------------------------------- save


@pytest.mark.parametrize("frames", [FRAMES, VOLUMES, FRAMES[:1]], ids=["2-D", "3-D", "T=1"])
@pytest.mark.parametrize("suffix", ["tif", "tiff", "btf", "h5", "hdf5", "npy", "mmap"])
def test_saved_movies_come_back(tmp_path, suffix, frames):
    m = movie(frames.astype(np.float32), fr=7.5, start_time=2, meta_data={"depth_um": 120, "who": ["a"]})
    name = m.save(tmp_path / f"film.{suffix}")
    assert files.names(tmp_path) == [Path(name).name]
    back = load(name)
    assert_array_equal(back, frames)
    if suffix not in ("npy", "mmap"):  # they have no place for it
        assert (back.fr, back.start_time, back.meta_data) == (7.5, 2.0, m.meta_data)
        assert load(name, fr=11).fr == 11
    if suffix == "mmap":
        assert f"film_d1_{frames.shape[1]}" in name
        assert "order_C" in m.save(tmp_path / "film.mmap", order="C")


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64", "bool"])
def test_saving_keeps_the_dtype_unless_asked(tmp_path, dtype):
    m = movie(FRAMES.astype(dtype), fr=3)
    for suffix in ("tif", "h5", "npy"):
        loaded = load(m.save(tmp_path / f"a.{suffix}", to32=False), outtype=dtype)
        assert_array_equal(loaded, FRAMES.astype(dtype))
    with tifffile.TiffFile(m.save(tmp_path / "a.tif")) as file:
        assert file.series[0].dtype == np.float32


def test_tiff_options(tmp_path):
    m = movie(FRAMES, fr=3.5)
    with tifffile.TiffFile(m.save(tmp_path / "a.tif")) as file:
        assert file.is_bigtiff
        assert len(file.pages) == len(FRAMES)
    with tifffile.TiffFile(m.save(tmp_path / "b.tif", bigtiff=False, compress=6, to32=False)) as file:
        assert not file.is_bigtiff
        assert file.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
    assert (tmp_path / "b.tif").stat().st_size < (tmp_path / "a.tif").stat().st_size
    name = m.save(tmp_path / "c.tif", imagej=True)
    with tifffile.TiffFile(name) as file:
        assert file.is_imagej
    assert load(name).fr == 3.5
    assert_array_equal(load(name), FRAMES)
    for wrong in ({"compress": 10}, {"imagej": True, "compress": 3}, {"imagej": True, "to32": False}):
        with pytest.raises(ParameterError):
            movie(FRAMES.astype(np.int32), fr=3).save(tmp_path / "d.tif", **wrong)
    assert not (tmp_path / "d.tif").exists()


def test_hdf5_options(tmp_path):
    m = movie(np.repeat(FRAMES, 40, axis=1), fr=3.5)
    plain, small = m.save(tmp_path / "a.h5"), m.save(tmp_path / "b.h5", compress=9, var_name_hdf5="deep/film")
    assert Path(small).stat().st_size < Path(plain).stat().st_size
    assert_array_equal(load(small, var_name_hdf5="deep/film"), m)


def test_names_without_a_folder_go_to_the_temporary_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path / "new"))
    monkeypatch.chdir(tmp_path)
    assert movie(FRAMES).save("a.npy") == str(tmp_path / "new" / "a.npy")
    assert movie(FRAMES).save("./a.npy") == "a.npy"
    assert (tmp_path / "a.npy").exists()


@pytest.mark.parametrize("suffix", ["xyz", "sbx", "bin", "n5"])
def test_formats_that_are_not_written(tmp_path, suffix):
    with pytest.raises(UnknownFormatError, match=r"Extension Unknown.*\.tif"):
        movie(FRAMES).save(tmp_path / f"a.{suffix}")


def test_frame_rates_of_several_files(tmp_path):
    names = [movie(FRAMES, fr=fr).save(tmp_path / f"{fr}.h5") for fr in (5, 10)]
    with pytest.raises(ParameterError, match=r"frame rates of \[5\.0, 10\.0\]"):
        load(names)
    assert load(names, fr=8).fr == 8
    assert load(names[:1] * 2).fr == 5
