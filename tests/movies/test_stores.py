"""Damage and lies in folders of Zarr and N5."""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
    DatasetNotFoundError,
    MissingExtraError,
    MovieFileError,
    UnknownFormatError,
)
from gpucalcium.movies import open_movie
from gpucalcium.movies.zarr_store import BloscBlocks
from tests.movies import recordings
from tests.movies.recordings import FRAMES


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "gzip n5"])
def test_damaged_blocks_are_named(tmp_path, kind):
    path = recordings.WRITERS[kind](tmp_path)
    blocks = [
        f for f in path.rglob("*") if f.is_file() and f.suffix != ".json" and not f.name.startswith(".z")
    ]
    for block in blocks:
        block.write_bytes(block.read_bytes()[: block.stat().st_size // 2])
    with pytest.raises(MovieFileError, match=rf"{path.name}.*of 41.*cannot be read"):
        open_movie(path).read(slice(None))


@pytest.mark.parametrize("suffix", ["zarr", "n5"])
def test_folders_without_or_with_wrong_descriptions(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.mkdir()
    with pytest.raises((MovieFileError, DatasetNotFoundError), match=f"a.{suffix}"):
        open_movie(path)
    (path / ("zarr.json" if suffix == "zarr" else "attributes.json")).write_text("{")
    with pytest.raises(MovieFileError, match=f"a.{suffix}"):
        open_movie(path)
    (tmp_path / f"b.{suffix}").write_bytes(b"1234")
    with pytest.raises(MovieFileError, match="folder was expected"):
        open_movie(tmp_path / f"b.{suffix}")


def test_n5_that_promises_too_much(tmp_path):
    path = recordings.n5(tmp_path / "a.n5")
    (path / "0/0/0").write_bytes(struct.pack(">HH3I", 0, 3, 10**9, 10**9, 10**9))
    with pytest.raises(MovieFileError, match="more than a block"):
        open_movie(path).read(slice(0, 1))
    about = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(about | {"compression": {"type": "jpeg"}}))
    with pytest.raises(UnknownFormatError, match=r"'jpeg'.*gzip.*zstd"):
        open_movie(path)
    (path / "attributes.json").write_text(json.dumps(about | {"blockSize": [0, 1, 1]}))
    with pytest.raises(MovieFileError, match="no description"):
        open_movie(path)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("codec", list(recordings.N5_PACKERS))
def test_n5_packed_in_every_way(tmp_path, codec, dtype):
    frames = (FRAMES * np.float64(37.5) - 1000).astype(dtype)
    source = open_movie(recordings.n5(tmp_path / "a.n5", frames, codec=codec))
    assert source.dtype == dtype
    assert_array_equal(source.read(slice(None)), frames)
    assert_array_equal(source.read(slice(3, 38, 5)), frames[3:38:5])


@pytest.mark.parametrize("codec", ["blosc", "lz4", "zstd"])
def test_damage_of_packed_n5_blocks_is_named(tmp_path, codec):
    source = open_movie(recordings.n5(tmp_path / "a.n5", codec=codec))
    block = tmp_path / "a.n5" / "0" / "0" / "1"
    whole, pack = block.read_bytes(), recordings.N5_PACKERS[codec]
    head, packed = whole[:16], whole[16:]
    right = 8 * 5 * 6
    wrong = [packed[: len(packed) // 2], packed[:9], packed[:3], b"", b"\xff" * 90, pack(bytes(right - 1))]
    for content in [*wrong, pack(bytes(right + 1)), pack(bytes(10**6))]:
        block.write_bytes(head + content)
        with pytest.raises(MovieFileError, match=r"a\.n5: of 41 frames, 8 to 15 cannot be read"):
            source.read(slice(None))
        assert_array_equal(source.read(slice(0, 8)), FRAMES[:8])
    block.write_bytes(head + pack(bytes(right)))
    assert not source.read(slice(8, 16))[:, :5, :6].any()


def test_packers_that_are_not_installed(tmp_path, monkeypatch):
    source = open_movie(recordings.n5(tmp_path / "a.n5", codec="zstd"))
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    with pytest.raises(MissingExtraError, match=r"gpucalcium\[zarr\]"):
        source.read(slice(None))


def test_n5_frames_of_other_writers(tmp_path):
    """LZ4 as numcodecs writes it, Zstandard without a size in its head; and a method of LZ4 that there is not."""
    numcodecs = pytest.importorskip("numcodecs")
    values = FRAMES[8:16, :5, :6].tobytes()
    source = open_movie(recordings.n5(tmp_path / "a.n5", codec="lz4"))
    block = tmp_path / "a.n5" / "0" / "0" / "1"
    head = block.read_bytes()[:16]
    block.write_bytes(head + bytes(numcodecs.LZ4().encode(values)))
    assert_array_equal(source.read(slice(None)), FRAMES)
    block.write_bytes(head + recordings.java_lz4(values).replace(b"LZ4Block\x10", b"LZ4Block\x30"))
    with pytest.raises(MovieFileError, match="method 48"):
        source.read(slice(None))
    source = open_movie(recordings.n5(tmp_path / "b.n5", codec="zstd"))
    block = tmp_path / "b.n5" / "0" / "0" / "1"
    # one raw block (RFC 8878, 3.1.1.2) in a frame of no single segment, whose window is the smallest
    for size, fits in ((len(values), True), (len(values) - 1, False)):
        last_raw = (1 | size << 3).to_bytes(3, "little")
        block.write_bytes(head + b"\x28\xb5\x2f\xfd\x00\x00" + last_raw + values[:size])
        if fits:
            assert_array_equal(source.read(slice(None)), FRAMES)
        else:
            with pytest.raises(MovieFileError, match="8 to 15"):
                source.read(slice(None))


@pytest.mark.parametrize("codec", ["Zlib", "GZip", "BZ2", "LZMA", "Zstd", "LZ4", "Blosc"])
def test_damage_that_any_codec_finds_is_named(tmp_path, codec):
    zarr, numcodecs = pytest.importorskip("zarr"), pytest.importorskip("numcodecs")
    path = tmp_path / "a.zarr"
    compressor = getattr(numcodecs, codec)()
    recordings.zarred(path, chunks=(8, 18, 14), compressors=compressor)
    assert_array_equal(open_movie(path).read(slice(None)), zarr.open(path)[:])
    for content in (b"", b"\xff" * 100, (path / "2.0.0").read_bytes()[:50]):
        (path / "2.0.0").write_bytes(content)
        with pytest.raises(MovieFileError, match=r"a\.zarr.*of 41 frames.*cannot be read"):
            open_movie(path).read(slice(None))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_chunks_packed_by_blosc(tmp_path, version, dtype):
    zarr, numcodecs = pytest.importorskip("zarr"), pytest.importorskip("numcodecs")
    frames = FRAMES.astype(dtype)
    packer = numcodecs.Blosc("lz4") if version == 2 else zarr.codecs.BloscCodec(cname="zstd")
    path = recordings.zarred(
        tmp_path / "a.zarr", frames, version=version, chunks=(8, 5, 6), compressors=packer
    )
    source = open_movie(path)
    assert isinstance(source, BloscBlocks)
    assert_array_equal(source.read(slice(None)), frames)
    assert_array_equal(source.read(slice(3, 38, 5)), frames[3:38:5])
    chunk = path / ("1.0.0" if version == 2 else "c/1/0/0")
    whole = chunk.read_bytes()
    longer = numcodecs.Blosc("lz4").encode(np.zeros(10_000, np.uint8))
    for content in (whole[:-1], whole[:16], whole[:5], whole + b"x", longer, b""):
        chunk.write_bytes(content)
        with pytest.raises(MovieFileError, match=r"of 41 frames, 8 to 15 cannot be read"):
            source.read(slice(None))
        assert_array_equal(source.read(slice(0, 8)), frames[:8])
    chunk.unlink()
    assert not source.read(slice(8, 16))[:, :5, :6].any()
