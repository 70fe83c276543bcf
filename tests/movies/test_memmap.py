"""Memory maps: written and read back bit for bit, whole or not at all, and exchanged with other programs."""

import errno
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.errors import ArrayTypeError, MovieFileError, MovieShapeError, ParameterError
from gpucalcium.movies import (
    load,
    load_memmap,
    memmap_write,
    open_movie,
    save_memmap,
    save_memmap_each,
    save_memmap_join,
)
from gpucalcium.movies.memmap import MapName
from gpucalcium.movies.traces_file import TracesFile
from tests.movies import files

FRAMES = np.random.default_rng(0).normal(100, 10, (29, 11, 7)).astype(np.float32)
VOLUMES = np.random.default_rng(1).normal(100, 10, (9, 5, 4, 3)).astype(np.float32)


def movie_of(name):
    yr, dims, count = load_memmap(name)
    return np.asarray(yr.T).reshape((count, *dims), order="F")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))
    return tmp_path


# ---------------------------------------------------------------------------- names


@given(
    base=st.from_regex(r"[a-zA-Z0-9_.\-]{0,12}", fullmatch=True),
    dims=st.tuples(*[st.integers(1, 999)] * 3),
    order=st.sampled_from("CF"),
    count=st.integers(1, 10**6),
    tail=st.sampled_from(["", "_", "__"]),
)
@settings(deadline=None)
def test_names_are_read_from_the_right(base, dims, order, count, tail):
    base += "_d1_5_order_F_frames_3"
    d1, d2, d3 = dims
    about = MapName.parse(Path(f"{base}_d1_{d1}_d2_{d2}_d3_{d3}_order_{order}_frames_{count}{tail}.mmap"))
    assert about == MapName(base, dims if d3 > 1 else (d1, d2), order, count)
    assert MapName.parse(Path(str(about))) == about


@pytest.mark.parametrize("frames", [FRAMES, VOLUMES], ids=["2-D", "3-D"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("tail", ["", "_", "__"])
def test_maps_of_other_programs(tmp_path, frames, order, tail):
    path = files.mmap(tmp_path, frames, order, base="a_d1_3_frames_9", tail=tail)
    assert_array_equal(movie_of(path), frames)
    assert_array_equal(open_movie(path).read(slice(None)), frames)
    assert_array_equal(load(path), frames)


def test_maps_of_the_reference(shared, stored):
    folder = shared / "data" / "caiman_reference"
    for key, name in (
        ("C", "mini_d1_12_d2_10_d3_1_order_C_frames_20"),
        ("F", "mini_d1_12_d2_10_d3_1_order_F_frames_20"),
    ):
        yr, dims, count = load_memmap(folder / f"{name}.mmap")
        assert_array_equal(yr, stored[f"mmap_Yr_{key}"])
        assert (dims, count) == ((12, 10), 20)
    yr, dims, count = load_memmap(folder / "mini3d_d1_12_d2_10_d3_4_order_C_frames_10.mmap")
    assert_array_equal(yr, stored["mmap_Yr_3d"])
    assert (dims, count) == ((12, 10, 4), 10)


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "frames", [FRAMES, VOLUMES, FRAMES[:1], FRAMES[:, :1, :1]], ids=["2-D", "3-D", "T=1", "pixel"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_round_trip(here, frames, order):
    name = save_memmap([frames], base_name="film", order=order)
    d1, d2, d3 = (*frames.shape[1:], 1)[:3]
    assert name == str(here / f"film_d1_{d1}_d2_{d2}_d3_{d3}_order_{order}_frames_{len(frames)}.mmap")
    yr = load_memmap(name)[0]
    assert_array_equal(yr, frames.reshape(len(frames), -1, order="F").T)
    assert yr.flags.c_contiguous if order == "C" else yr.flags.f_contiguous
    assert files.names(here) == [Path(name).name]


def test_agrees_with_the_reference(here, stored, inputs):
    """The reference adds 1e-4 to every value, and 1 to the smallest value that fills the border."""
    recording, volumes = inputs
    small = recording[:, :12, :10]
    paths = [files.tiff(here / "a.tif", small[:20]), files.tiff(here / "b.tif", small[20:32])]
    assert_allclose(load_memmap(save_memmap([small[:20]], order="C"))[0], stored["mmap_Yr_C"], atol=1.2e-4)
    assert_array_equal(load_memmap(save_memmap([small[:20]], order="F"))[0], stored["mmap_Yr_F"])
    assert_allclose(load_memmap(save_memmap([volumes], order="C"))[0], stored["mmap_Yr_3d"], atol=1.2e-4)

    joined = save_memmap(paths, base_name="join", order="C", border_to_0=1)
    assert Path(joined).name == str(stored["mmap_joined_name"])
    theirs = stored["mmap_joined_Yr"].T.reshape((32, 12, 10), order="F")
    ours = movie_of(joined)
    assert_allclose(ours[:, 1:-1, 1:-1], theirs[:, 1:-1, 1:-1], atol=1.2e-4)
    assert_allclose(ours[:, 0], theirs[:, 0] - 1, atol=1.2e-4)

    resized = save_memmap(paths[:1], "rsz", (0.5, 0.5, 0.5), remove_init=2, order="C", add_to_movie=3)
    assert Path(resized).name == str(stored["mmap_resized_name"])
    assert_allclose(load_memmap(resized)[0], stored["mmap_resized_Yr"], atol=1.2e-4)


@pytest.mark.parametrize("memory", ["3KiB", "20KiB", "1GiB"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_budget_changes_nothing(here, order, memory):
    with backend.limit(memory=memory):
        assert_array_equal(movie_of(save_memmap([FRAMES], order=order)), FRAMES)


def test_transposing_a_movie_larger_than_the_budget(here):
    frames = np.random.default_rng(0).integers(0, 9, (500, 40, 30)).astype(np.uint8)
    path = files.npy(here / "a.npy", frames)
    save_memmap([path], order="C")
    tracemalloc.start()
    try:
        with backend.limit(memory=400_000):
            name = save_memmap([path], order="C")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 700_000  # the movie takes 2,400,000 as float32
    assert_array_equal(movie_of(name), frames)


def test_parts_of_movies(here):
    source = [files.tiff(here / "a.tif", FRAMES)]
    cases = [
        ({"remove_init": 4}, FRAMES[4:]),
        ({"idx_xy": (slice(1, 5), slice(2, None))}, FRAMES[:, 1:5, 2:]),
        ({"remove_init": 4, "idx_xy": (slice(1, 5), slice(2, None))}, FRAMES[4:, 1:5, 2:]),
        ({"slices": slice(3, 9)}, FRAMES[3:9]),
        ({"slices": [slice(3, 9), slice(0, 4), slice(1, 3)]}, FRAMES[3:9, :4, 1:3]),
        ({"add_to_movie": 7}, FRAMES + 7),
    ]
    for options, expected in cases:
        assert_array_equal(movie_of(save_memmap(source, order="C", **options)), expected)
    bordered = movie_of(save_memmap(source, border_to_0=2))
    assert_array_equal(bordered[:, 2:-2, 2:-2], FRAMES[:, 2:-2, 2:-2])
    assert (bordered[:, :2] == FRAMES.min()).all()
    assert (bordered[:, :, -2:] == FRAMES.min()).all()


def test_shifts_are_applied_first(here):
    shifts = np.random.default_rng(0).integers(-2, 3, (len(FRAMES), 2))
    name = save_memmap([FRAMES], order="C", xy_shifts=[shifts], slices=slice(5, 25))
    expected = np.stack([ndimage.shift(f, s, order=0) for f, s in zip(FRAMES, shifts, strict=True)])[5:25]
    assert_allclose(movie_of(name)[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=1e-5)
    assert movie_of(save_memmap([FRAMES], xy_shifts=shifts)).shape == FRAMES.shape
    with pytest.raises(MovieShapeError, match="one shift"):
        save_memmap([FRAMES], xy_shifts=[shifts[:4]])
    with pytest.raises(ParameterError, match="1 arrays for 2 movies"):
        save_memmap([FRAMES, FRAMES], order="C", xy_shifts=[shifts])


def test_hdf5_data_sets_and_volumes(here):
    path = files.hdf5(here / "a.h5", VOLUMES, name="x")
    files.hdf5(here / "b.h5", FRAMES, name="x")
    assert_array_equal(movie_of(save_memmap([path], var_name_hdf5="x", is_3D=True)), VOLUMES)
    with pytest.raises(MovieShapeError, match="is_3D=True"):
        save_memmap([here / "b.h5"], var_name_hdf5="x", is_3D=True)


def test_each(here):
    paths = [files.tiff(here / f"film{k}.tif", FRAMES[k : k + 5]) for k in range(2)]
    names = save_memmap_each(paths, base_name="part")
    assert [Path(name).name[:9] for name in names] == ["part0000_", "part0001_"]
    for k, name in enumerate(names):
        assert "order_C" in name
        assert_array_equal(movie_of(name), FRAMES[k : k + 5])
    assert Path(save_memmap_each(paths)[1]).name.startswith("film1_d1")


@pytest.mark.parametrize("order", ["C", "F"])
def test_join(tmp_path, order):
    parts = [
        files.mmap(tmp_path, FRAMES[:9], order, base="a_b"),
        files.mmap(tmp_path, FRAMES[9:], order, base="c"),
    ]
    name = save_memmap_join(parts)
    assert name == str(tmp_path / f"a_b-#-2_d1_11_d2_7_d3_1_order_C_frames_{len(FRAMES)}.mmap")
    assert_array_equal(movie_of(name), FRAMES)
    assert_array_equal(movie_of(save_memmap_join(parts, base_name="new", add_to_mov=2)), FRAMES + 2)
    (tmp_path / "sub").mkdir()
    assert save_memmap_join(parts, base_name=str(tmp_path / "sub" / "x")).startswith(
        str(tmp_path / "sub" / "x_d1")
    )


@pytest.mark.parametrize("frames", [FRAMES, VOLUMES], ids=["2-D", "3-D"])
@pytest.mark.parametrize("orders", ["CCC", "FFF", "CFC"])
@pytest.mark.parametrize("memory", ["6KiB", "1GiB"])
def test_join_of_any_orders(tmp_path, frames, orders, memory):
    edges = [0, 2, 3, len(frames)]
    parts = [
        files.mmap(tmp_path, frames[edges[k] : edges[k + 1]], order, base=f"part{k}")
        for k, order in enumerate(orders)
    ]
    with backend.limit(memory=memory):
        assert_array_equal(movie_of(save_memmap_join(parts)), frames)


@pytest.mark.parametrize("frames", [FRAMES, VOLUMES], ids=["2-D", "3-D"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("wanted", ["C", "F"])
@pytest.mark.parametrize("memory", ["6KiB", "1GiB"])
def test_from_any_order_to_any(here, frames, order, wanted, memory):
    path = files.mmap(here, frames, order)
    with backend.limit(memory=memory):
        name = save_memmap([path], "other", order=wanted)
        assert_array_equal(movie_of(name), frames)
        assert_array_equal(movie_of(save_memmap([path], "more", order=wanted, add_to_movie=1)), frames + 1)
        assert_array_equal(
            movie_of(save_memmap([path, path], "twice", order="C")), np.concatenate([frames] * 2)
        )


@pytest.mark.parametrize("dtype", [">f4", ">i2", "int64", "bool", "float16", "float64"])
@pytest.mark.parametrize("fortran", [False, True])
def test_pixels_times_frames_of_other_dtypes(here, dtype, fortran):
    frames = (FRAMES % 2 if dtype == "bool" else FRAMES).astype(dtype)
    matrix = frames.reshape(len(frames), -1, order="F").T
    path = here / "matrix.npy"
    np.save(path, np.asfortranarray(matrix) if fortran else np.ascontiguousarray(matrix))
    source = open_movie(path, shape=frames.shape[1:])
    for step in (1, 3):
        assert_array_equal(source.read(slice(1, 20, step)), frames[1:20:step])
    for order in "CF":
        assert_array_equal(movie_of(save_memmap([source], order=order)), frames.astype(np.float32))
    assert_array_equal(movie_of(save_memmap([source, source], order="C")), np.concatenate([frames] * 2))


def test_join_refuses_different_fields(tmp_path):
    with pytest.raises(MovieShapeError, match="different sizes"):
        save_memmap_join([files.mmap(tmp_path, FRAMES, "C"), files.mmap(tmp_path, VOLUMES, "C")])
    with pytest.raises(ParameterError, match="empty list"):
        save_memmap_join([])


def test_what_cannot_be_saved(here):
    with pytest.raises(ArrayTypeError, match="input should be a list of filenames"):
        save_memmap("film.tif")
    with pytest.raises(ArrayTypeError, match="input should be a list of filenames"):
        save_memmap(FRAMES)
    with pytest.raises(ParameterError, match="You cannot merge files in F order, they must be in C order"):
        save_memmap([FRAMES, FRAMES])
    for options, text in (
        ({"order": "A"}, "order='A'"),
        ({"border_to_0": 4}, "border_to_0=4"),
        ({"remove_init": 29}, "leaves nothing"),
        ({"resize_fact": (0.5, 0.5)}, "three factors"),
        ({"resize_fact": (0.01, 1, 1)}, "leaves nothing"),
    ):
        with pytest.raises(ParameterError, match=text):
            save_memmap([FRAMES], **options)
    assert files.names(here) == []


@pytest.mark.parametrize("order", ["C", "F"])
def test_nothing_is_left_of_a_file_that_could_not_be_written(here, order):
    class Breaking:
        shape, dtype, name = (50, 4, 4), np.dtype(np.float32), "breaking"

        def __len__(self):
            return 50

        def read(self, frames, out=None):
            if frames.stop > 30:
                raise OSError("the disk went away")
            return np.zeros((frames.stop - frames.start, 4, 4), np.float32)

    with backend.limit(chunk_frames=5), pytest.raises(OSError, match="went away"):
        save_memmap([Breaking()], order=order)
    assert files.names(here) == []


def test_a_full_disk_is_an_error(here, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        save_memmap([FRAMES], order="C")
    assert files.names(here) == []


def test_a_file_system_that_cannot_reserve_space(here, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert_array_equal(movie_of(save_memmap([FRAMES], order="C")), FRAMES)


# ---------------------------------------------------------------------------- reading


def test_modes(tmp_path):
    path = files.mmap(tmp_path, FRAMES, "F")
    yr, _, _ = load_memmap(path)
    with pytest.raises(ValueError, match="read-only"):
        yr[0] = 3
    yr, _, _ = load_memmap(path, mode="r+")
    yr[0] = 3
    yr.flush()
    assert (load_memmap(path)[0][0] == 3).all()
    new = tmp_path / "new_d1_2_d2_3_d3_1_order_C_frames_4.mmap"
    assert_array_equal(load_memmap(str(new), mode="w+")[0], np.zeros((6, 4)))
    with pytest.raises(ParameterError, match="mode='a'"):
        load_memmap(path, mode="a")


def test_npy_named_like_a_map(tmp_path):
    matrix = FRAMES.reshape(len(FRAMES), -1, order="F").T
    path = tmp_path / "x_d1_11_d2_7_d3_1_order_C_frames_29.npy"
    np.save(path, np.ascontiguousarray(matrix))
    yr, dims, count = load_memmap(path)
    assert_array_equal(yr, matrix)
    assert (dims, count) == ((11, 7), 29)
    np.save(path, np.asfortranarray(matrix))
    with pytest.raises(MovieFileError, match="in order C"):
        load_memmap(path)


def test_sizes_and_extensions(tmp_path):
    path = files.mmap(tmp_path, FRAMES, "C")
    path.write_bytes(path.read_bytes()[:-4])
    for function in (load_memmap, open_movie, load):
        with pytest.raises(ValueError, match=r"has 8928 bytes.*8932"):
            function(path)
    with pytest.raises(ValueError, match="Unknown file extension"):
        load_memmap(tmp_path / "a.tif")


# ---------------------------------------------------------------------------- frames into traces, and back


@pytest.mark.parametrize("slab", [1 << 10, 3000, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "uint8", ">i2"])
@pytest.mark.parametrize("frames", [FRAMES, VOLUMES], ids=["2-D", "3-D"])
@pytest.mark.parametrize("fortran", [True, False])
def test_traces_are_written_slab_by_slab(here, monkeypatch, slab, dtype, frames, fortran):
    """Part of the field whose traces are written together, however large, in place of stretches of time."""
    monkeypatch.setattr(memmap_write, "_SLAB", slab)
    monkeypatch.setattr(memmap_write, "_PIECE", 1)
    monkeypatch.setattr(memmap_write, "_WORTH_READING", 1)
    slabs = memmap_write._write_slabs
    done = []
    monkeypatch.setattr(memmap_write, "_write_slabs", lambda *args: done.append(slabs(*args)) or done[-1])
    frames = frames.astype(dtype)
    path = here / "turned.npy"
    matrix = np.asfortranarray(frames.reshape(len(frames), -1, order="F").T)
    np.save(path, matrix if fortran else frames)
    source = open_movie(path, shape=frames.shape[1:]) if fortran else open_movie(path)
    assert_array_equal(movie_of(save_memmap([source], order="C")), frames)
    assert_array_equal(movie_of(save_memmap([source, source], order="C")), np.concatenate([frames, frames]))
    assert any(done)


@pytest.mark.parametrize("most", [1, 7, 64, 10_000])
@pytest.mark.parametrize("frames", [FRAMES, VOLUMES], ids=["2-D", "3-D"])
def test_tiles_of_any_size(tmp_path, monkeypatch, frames, most):
    monkeypatch.setattr("gpucalcium.movies.traces_file._TILE", most * 4 * len(frames))
    file = TracesFile(tmp_path / "traces", frames.shape[1:], len(frames), np.dtype(np.float32), offset=12)
    file.path.write_bytes(bytes(12))
    for first in range(0, len(frames), 4):
        file.write(frames[first : first + 4], first)
    expected = frames.reshape(len(frames), -1, order="F").T
    assert_array_equal(np.fromfile(file.path, np.float32, offset=12).reshape(expected.shape), expected)
    for wanted in (range(len(frames)), range(2, 7), range(1, 8, 3)):
        out = np.empty((len(wanted), *frames.shape[1:]), np.float64)
        file.read(wanted, out)
        assert_array_equal(out, frames[wanted.start : wanted.stop : wanted.step])


def test_what_a_source_keeps_is_counted(tmp_path):
    """Frames read on from traces come out of a block; it and the chunks stay within the budget together."""
    frames = np.random.default_rng(0).integers(0, 9, (500, 120, 100)).astype(np.float32)
    source = open_movie(files.mmap(tmp_path, frames, "C"))
    part = open_movie(source, subindices=slice(2, None))
    with backend.limit(memory=4_000_000):
        assert source.keeps == part.keeps == 20 * frames[0].nbytes
        for chunk in backend.stream(source):  # what is loaded and compiled does not count
            assert len(chunk)
        tracemalloc.start()
        try:
            starts = [float(chunk[0, 0, 0]) for chunk in backend.stream(part, working=frames[0].nbytes)]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert len(starts) > 1
    assert peak < 4_000_000


@pytest.mark.parametrize("block", [1, 2000, 1 << 20])
def test_frames_of_traces_in_any_order(tmp_path, monkeypatch, block):
    monkeypatch.setattr("gpucalcium.movies.memmap._BLOCK", block)
    source = open_movie(files.mmap(tmp_path, FRAMES, "C"))
    for start, stop, step in (
        (0, 2, 1),
        (2, 4, 1),
        (4, 6, 1),
        (20, 22, 1),
        (22, 29, 1),
        (3, 4, 1),
        (0, 29, 5),
    ):
        assert_array_equal(source.read(slice(start, stop, step)), FRAMES[start:stop:step])
    assert_array_equal(np.concatenate([source.read(slice(t, t + 1)) for t in range(29)]), FRAMES)


def test_a_map_that_became_shorter_is_an_error(tmp_path):
    path = files.mmap(tmp_path, FRAMES, "C")
    source = open_movie(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MovieFileError, match="has become shorter"):
        source.read(slice(None))
