"""Movies in blocks: what indexing gives, whichever way blocks lie, are missing, or are damaged."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieFileError
from gpucalcium.movies import blocks, hdf5, open_movie
from gpucalcium.movies.arrays import SlicedSource
from gpucalcium.movies.blocks import RawBlocks, Stored
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 60_000, (41, 19, 33)).astype(np.uint16)
VOLUMES = np.random.default_rng(1).integers(0, 60_000, (11, 9, 7, 5)).astype(np.int16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks as small as those of the tests are read past HDF5 too, by several threads."""
    monkeypatch.setattr(hdf5, "_LEAST_CHUNK", 1)
    monkeypatch.setattr(blocks, "_WORTH_SHARING", 1)


def in_blocks(path, movie, block):
    """A file of blocks one behind the other, whole also at the edges, and the movie in it."""
    counts = [-(-n // b) for n, b in zip(movie.shape, block, strict=True)]
    padded = np.zeros([c * b for c, b in zip(counts, block, strict=True)], movie.dtype)
    padded[tuple(map(slice, movie.shape))] = movie
    size = int(np.prod(block)) * movie.itemsize
    with path.open("wb") as file:
        for place in np.ndindex(*counts):
            file.write(
                padded[tuple(slice(k * b, (k + 1) * b) for k, b in zip(place, block, strict=True))].tobytes()
            )
    return RawBlocks(
        movie.shape,
        movie.dtype,
        str(path),
        block,
        lambda place: Stored(path, int(np.ravel_multi_index(place, counts)) * size, size),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_blocks_any_frames(tmp_path_factory, data):
    movie = data.draw(
        st.sampled_from([FRAMES, VOLUMES, FRAMES.astype(">f4"), FRAMES % 2 == 0, FRAMES[:1, :1, :1]])
    )
    block = tuple(data.draw(st.integers(1, n + 3)) for n in movie.shape)
    source = in_blocks(tmp_path_factory.mktemp("blocks") / "a.bin", movie, block)
    part = slice(
        data.draw(st.integers(0, len(movie))),
        data.draw(st.integers(0, len(movie))),
        data.draw(st.integers(1, 9)),
    )
    assert_array_equal(source.read(part), movie[part])
    assert source.dtype.isnative


@pytest.mark.parametrize("piece", [1, 700, 5000, 1 << 20])
@pytest.mark.parametrize("skip", [1, 1 << 20])
def test_size_of_pieces_changes_nothing(tmp_path, monkeypatch, piece, skip):
    monkeypatch.setattr(blocks, "PIECE", piece)
    monkeypatch.setattr(blocks, "_WORTH_SKIPPING", skip)
    for block in ((8, 10, 11), (8, 19, 33)):
        source = in_blocks(tmp_path / "a.bin", FRAMES, block)
        for step in (1, 2, 7, 30):
            assert_array_equal(source.read(slice(3, None, step)), FRAMES[3::step])


@pytest.mark.parametrize("chunks", [(8, 10, 11), (41, 19, 33), (1, 19, 33), (64, 7, 33)])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32", "float16", "bool"])
def test_chunks_of_hdf5(tmp_path, chunks, dtype):
    stored = FRAMES.astype(dtype)
    path = files.hdf5(tmp_path / "a.h5", stored, chunks=chunks, maxshape=(None, None, None))
    source = open_movie(path)
    assert isinstance(source, RawBlocks)
    assert_array_equal(source.read(slice(None)), stored)
    assert_array_equal(source.read(slice(5, 33, 3)), stored[5:33:3])


def test_chunks_that_hdf5_must_decode(tmp_path):
    for number, options in enumerate(
        ({"compression": "gzip"}, {"fletcher32": True}, {"shuffle": True}, {"scaleoffset": 0})
    ):
        path = files.hdf5(tmp_path / f"{number}.h5", FRAMES, chunks=(8, 10, 11), **options)
        assert isinstance(open_movie(path), SlicedSource)
        assert_array_equal(open_movie(path).read(slice(None)), FRAMES)
    with h5py.File(tmp_path / "u.h5", "w", userblock_size=512) as file:
        file.create_dataset("mov", data=FRAMES, chunks=(8, 10, 11))
    assert_array_equal(open_movie(tmp_path / "u.h5").read(slice(None)), FRAMES)
    with h5py.File(tmp_path / "e.h5", "w") as file:  # the values lie in a file of their own
        external = [(str(tmp_path / "values.bin"), 0, FRAMES.nbytes)]
        file.create_dataset("mov", FRAMES.shape, FRAMES.dtype, external=external)[:] = FRAMES
    assert_array_equal(open_movie(tmp_path / "e.h5").read(slice(None)), FRAMES)


def test_virtual_data_sets(tmp_path):
    files.hdf5(tmp_path / "part.h5", FRAMES, name="x")
    layout = h5py.VirtualLayout((82, *FRAMES.shape[1:]), FRAMES.dtype)
    for k in range(2):
        layout[41 * k : 41 * (k + 1)] = h5py.VirtualSource(str(tmp_path / "part.h5"), "x", FRAMES.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("mov", layout)
    assert_array_equal(open_movie(tmp_path / "a.h5").read(slice(None)), np.concatenate([FRAMES, FRAMES]))


def test_chunks_never_written_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("mov", FRAMES.shape, "u2", chunks=(8, 10, 11), fillvalue=7)
        data[10:14] = FRAMES[10:14]
    expected = np.full_like(FRAMES, 7)
    expected[10:14] = FRAMES[10:14]
    source = open_movie(tmp_path / "a.h5")
    assert isinstance(source, RawBlocks)
    assert_array_equal(source.read(slice(None)), expected)


def test_chunks_of_matlab(tmp_path):
    for movie in (FRAMES, VOLUMES):
        reversed_frames = movie.transpose(0, *range(movie.ndim - 1, 0, -1))
        path = files.hdf5(
            tmp_path / f"{movie.ndim}.mat", reversed_frames, name="Y", chunks=(4, 5, 6, 3)[: movie.ndim]
        )
        with h5py.File(path, "a") as file:
            file["Y"].attrs["MATLAB_class"] = np.bytes_(str(movie.dtype))
        source = open_movie(path)
        assert isinstance(source, RawBlocks)
        assert_array_equal(source.read(slice(1, None, 2)), movie[1::2])


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_of_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    kinds = [
        {"dtype": "u2"},
        {"dtype": ">u2"},
        {"dtype": "f4", "fill_value": np.nan},
        {"dtype": "u2", "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    ]
    for number, options in enumerate(kinds):
        if version == 3 and options["dtype"] == ">u2":
            options = {"dtype": "u2", "serializer": {"name": "bytes", "configuration": {"endian": "big"}}}
        path = tmp_path / f"{number}.zarr"
        store = zarr.create_array(
            path, shape=FRAMES.shape, chunks=(8, 10, 11), compressors=None, zarr_format=version, **options
        )
        store[:30] = FRAMES[:30]
        source = open_movie(path)
        assert isinstance(source, RawBlocks), options
        assert_array_equal(source.read(slice(None)), store[:])
        assert_array_equal(source.read(slice(0, 30, 4)), FRAMES[:30:4])


def test_what_zarr_must_decode(tmp_path):
    zarr = pytest.importorskip("zarr")
    kinds = [
        {"zarr_format": 3, "shards": (16, 20, 22)},
        {"zarr_format": 3},
        {"zarr_format": 2, "order": "F", "compressors": None},
        {
            "zarr_format": 3,
            "filters": [{"name": "transpose", "configuration": {"order": [2, 1, 0]}}],
            "compressors": None,
        },
    ]
    for number, options in enumerate(kinds):
        path = tmp_path / f"{number}.zarr"
        store = zarr.create_array(path, shape=FRAMES.shape, dtype="u2", chunks=(8, 10, 11), **options)
        store[:] = FRAMES
        assert isinstance(open_movie(path), SlicedSource), options
        assert_array_equal(open_movie(path).read(slice(3, None, 2)), FRAMES[3::2])


def test_a_chunk_that_is_cut_off_is_named(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "a.zarr"
    store = zarr.create_array(
        path, shape=FRAMES.shape, dtype="u2", chunks=(8, 10, 11), compressors=None, zarr_format=2
    )
    store[:] = FRAMES
    source = open_movie(path)
    for content in (b"", b"12345", bytes(10**6)):
        (path / "2.1.0").write_bytes(content)
        with pytest.raises(
            MovieFileError, match=r"a\.zarr.*of 41 frames, 16 to 23 cannot be read, in block \(2, 1, 0\)"
        ):
            source.read(slice(None))
        assert_array_equal(source.read(slice(0, 16)), FRAMES[:16])


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = files.hdf5(tmp_path / "a.h5", FRAMES, chunks=(8, 19, 33))
    source = open_movie(path)
    assert_array_equal(source.read(slice(0, 1)), FRAMES[:1])
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(MovieFileError, match=r"a\.h5.*cannot be read.*ends"):
        source.read(slice(None))


def test_memory_stays_within_the_budget(tmp_path):
    movie = np.zeros((600, 128, 128), np.uint16)
    path = files.hdf5(tmp_path / "a.h5", movie, chunks=(64, 32, 32))
    budget = 4 << 20
    next(iter(backend.stream(open_movie(path))))
    tracemalloc.start()
    with backend.use("cpu"), backend.limit(memory=budget):
        for chunk in backend.stream(open_movie(path)):
            assert not chunk.any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget + (1 << 20)
