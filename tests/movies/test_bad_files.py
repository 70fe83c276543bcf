"""Files that are not what they should be: a clear error, at once, without a huge allocation."""

import re
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    DatasetNotFoundError,
    GpuCalciumError,
    MissingExtraError,
    MovieFileError,
    MovieNotFoundError,
    UnknownFormatError,
)
from gpucalcium.movies import get_file_size, load, load_memmap, open_movie
from tests.movies import files

FRAMES = np.random.default_rng(0).integers(0, 60_000, (40, 16, 12)).astype(np.uint16)


def read_whole(path):
    """Open and read with little memory to spare."""
    tracemalloc.start()
    try:
        with backend.use("cpu"):
            return np.concatenate([chunk.copy() for chunk in backend.stream(open_movie(path))])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50e6


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("kind", files.WRITERS)
def test_truncated_files(tmp_path, kind, share):
    path = files.WRITERS[kind](tmp_path, FRAMES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    try:
        frames = read_whole(path)
    except GpuCalciumError as err:
        assert isinstance(err, MovieFileError)
        assert path.name in str(err)
        if share == 0:
            assert "empty (0 bytes)" in str(err)
    else:  # nothing but what comes after the frames was lost
        assert_array_equal(frames, FRAMES)


def test_which_frame_of_a_damaged_tiff(tmp_path):
    path = files.tiff(tmp_path / "z.tif", FRAMES, compression="zlib")
    source = open_movie(path)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\x78\x9c")  # the last page's data
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(MovieFileError, match=r"z\.tif: frame 39 \(page 39\) cannot be decoded"):
        source.read(slice(None))


def test_a_compression_that_needs_an_extra_names_it(tmp_path, monkeypatch):
    def asarray(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    source = open_movie(files.tiff(tmp_path / "z.tif", FRAMES, compression="lzw"))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    with pytest.raises(MissingExtraError, match=r"z\.tif.*gpucalcium\[tiff\]"):
        source.read(slice(0, 1))


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = files.npy(tmp_path / "a.npy", FRAMES)
    source = open_movie(path)
    path.write_bytes(path.read_bytes()[: -FRAMES[0].nbytes - 5])
    with pytest.raises(MovieFileError, match="in frame 38"):
        source.read(slice(None))


@pytest.mark.parametrize("kind", files.WRITERS)
def test_noise_instead_of_a_file(tmp_path, kind):
    path = files.WRITERS[kind](tmp_path, FRAMES)
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(MovieFileError, match=re.escape(path.name)):
        read_whole(path)


def test_a_header_that_promises_petabytes(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 1000, 1000)}
        )
    with pytest.raises(MovieFileError, match=r"truncated.*10{9}, 1000, 1000"):
        read_whole(path)
    lying = tmp_path / "a_d1_100000_d2_100000_d3_1_order_F_frames_100000.mmap"
    lying.write_bytes(b"1234")
    with pytest.raises(MovieFileError, match=r"has 4 bytes.*are\s+4000000000000000"):
        read_whole(lying)


def test_a_header_that_is_gigabytes_long(tmp_path):
    path = tmp_path / "a.npy"
    for version in (2, 3):
        path.write_bytes(
            b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<I", 4_000_000_000) + b"{'descr': "
        )
        with pytest.raises(MovieFileError, match=r"a\.npy is not a readable.*4000000000 bytes"):
            read_whole(path)
        with path.open("wb") as file:
            np.lib.format.write_array(file, FRAMES, version=(version, 0))
        assert_array_equal(read_whole(path), FRAMES)


@pytest.mark.parametrize(("kind", "name"), [("zlib tif", "z.tif"), ("pages tif", "p.tif")])
@pytest.mark.parametrize("tag", [273, 279, 257])  # StripOffsets, StripByteCounts, ImageLength
def test_a_late_directory_of_a_tiff_that_lies(tmp_path, kind, name, tag):
    path = files.WRITERS[kind](tmp_path, FRAMES)
    with tifffile.TiffFile(path) as file:
        entry = file.pages[30].tags[tag]
        place, order = entry.offset, file.byteorder
    for count, value in ((1, 1_500_000_000), (0, 0)):
        content = bytearray(path.read_bytes())
        struct.pack_into(f"{order}II", content, place + 4, count, value)
        bad = tmp_path / f"{count}{name}"
        bad.write_bytes(content)
        try:
            frames = read_whole(bad)
        except MovieFileError as err:
            assert bad.name in str(err)
        else:  # what lies is not needed: all frames have one size, and that of uncompressed ones is known
            assert tag == 257 or kind == "pages tif"
            assert_array_equal(frames, FRAMES)


def test_a_tiff_that_promises_more_rows_than_it_has(tmp_path):
    path = files.tiff(tmp_path / "a.tif", FRAMES, metadata=None)
    content = bytearray(path.read_bytes())
    rows, many = (struct.pack("<HHII", 257, 4, 1, n) for n in (16, 60_000))  # tag ImageLength
    assert rows in content
    path.write_bytes(bytes(content).replace(rows, many))
    with pytest.raises(MovieFileError, match=r"a\.tif"):
        read_whole(path)


def test_pickles_are_never_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(MovieFileError, match="never unpickled"):
        open_movie(path)


@pytest.mark.parametrize("function", [open_movie, load, get_file_size])
def test_absent_files(tmp_path, function):
    with pytest.raises(MovieNotFoundError, match=r"nothing\.tif not found") as caught:
        function(tmp_path / "nothing.tif")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("suffix", [".xyz", ".gif", ".sima", ""])
def test_formats_without_a_reader(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    path.write_bytes(b"1234")
    with pytest.raises(UnknownFormatError, match=r"Unknown file type.*\.tif"):
        open_movie(path)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(MovieFileError, match="is a folder"):
        open_movie(tmp_path / "a.tif")


def test_absent_data_sets_list_those_that_are_there(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"], file["deep/down"] = FRAMES, FRAMES
    with pytest.raises(DatasetNotFoundError, match=r"no data set 'mov'.*deep/down, raw.*var_name_hdf5"):
        open_movie(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    with pytest.raises(DatasetNotFoundError, match="there are: none"):
        open_movie(tmp_path / "b.h5")


@pytest.mark.parametrize(
    "name",
    ["film.mmap", "film_d1_16_d2_12_order_F_frames_40.mmap", "film_d1_16_d2_12_d3_1_order_Z_frames_40.mmap"],
)
def test_memory_maps_without_a_proper_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"1234")
    for function in (open_movie, load_memmap):
        with pytest.raises(MovieFileError, match=r"_order_<C\|F>_frames_<T>"):
            function(tmp_path / name)
