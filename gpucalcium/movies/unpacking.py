"""Blocks of bytes unpacked, none becoming larger than its place: packers of N5 and Zarr."""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MissingExtraError

Unpack = Callable[[bytes, int], bytes | NDArray[np.uint8]]
"""Takes packed bytes and how many they may become at most."""
FAILURES = (struct.error, ValueError, RuntimeError, OSError, EOFError, zlib.error, lzma.LZMAError)
"""What unpacking raises on bytes that are damaged."""

_AUTO = zlib.MAX_WBITS | 32  # gzip or zlib, by its first bytes
_ZSTD_MAGIC = 0xFD2FB528
_LZ4_STREAM = b"LZ4Block"  # with which each block of a stream by lz4-java begins;
_LZ4_HEAD = struct.Struct("<8xBiiI")  # method and level, sizes packed and unpacked, checksum
_LZ4_RAW, _LZ4_PACKED = 0x10, 0x20  # methods


def unpack_blosc(packed: bytes, into: NDArray[np.uint8]) -> None:
    """Fill `into`; Blosc itself would read on behind the end of bytes that are cut off."""
    size, length = struct.unpack_from("<4xI4xI", packed)
    if (size, length) != (into.size, len(packed)):
        raise ValueError(
            f"it has {len(packed)} bytes; its header promises {length}, which are {size} of {into.size} unpacked"
        )
    _numcodecs().Blosc().decode(packed, out=into)


def _blosc(packed: bytes, most: int) -> NDArray[np.uint8]:
    values = np.empty(most, np.uint8)
    unpack_blosc(packed, values)
    return values


def _zstd(packed: bytes, most: int) -> NDArray[np.uint8]:
    size = _zstd_size(packed)
    if size not in (
        None,
        most,
    ):  # a frame that is too short would be taken as it is, and leave the rest undefined
        raise ValueError(f"its header promises {size} bytes, {most} were expected")
    values = np.empty(most, np.uint8)
    _numcodecs().Zstd().decode(packed, out=values)
    return values


def _zstd_size(packed: bytes) -> int | None:
    """Bytes that a frame says it becomes, None if it does not say (RFC 8878, section 3.1.1.1)."""
    magic, about = struct.unpack_from("<IB", packed)
    if magic != _ZSTD_MAGIC:
        raise ValueError("it does not begin as a frame of Zstandard does")
    is_single, names_dictionary = about >> 5 & 1, about & 3
    length = (is_single, 2, 4, 8)[about >> 6]
    if length == 0:
        return None
    at = 5 + (1 - is_single) + (0, 1, 2, 4)[names_dictionary]
    if at + length > len(packed):
        raise ValueError("its header is cut off")
    return int.from_bytes(packed[at : at + length], "little") + (256 if length == 2 else 0)


def _lz4(packed: bytes, most: int) -> NDArray[np.uint8]:
    """A stream of blocks as lz4-java writes it, or one block behind its size, as numcodecs does."""
    values = np.empty(most, np.uint8)
    if not packed.startswith(_LZ4_STREAM):
        _fill_lz4(packed, values)
        return values
    at = done = 0
    while done < most:
        if packed[at : at + len(_LZ4_STREAM)] != _LZ4_STREAM:
            raise ValueError(f"no block of LZ4 starts at byte {at}, after {done} of {most} bytes")
        method, size, full, _ = _LZ4_HEAD.unpack_from(packed, at)
        at += _LZ4_HEAD.size
        block, into = packed[at : at + size], values[done : done + max(full, 0)]
        if not 0 < full == into.size or not 0 < size == len(block):
            raise ValueError(f"a block of LZ4 promises {size} bytes, which are {full} unpacked")
        if method & 0xF0 == _LZ4_PACKED:
            _fill_lz4(struct.pack("<I", full) + block, into)
        elif method & 0xF0 == _LZ4_RAW and size == full:
            into[:] = np.frombuffer(block, np.uint8)
        else:
            raise ValueError(f"a block of LZ4 is packed by method {method}, which there is not")
        at, done = at + size, done + full
    return values


def _fill_lz4(packed: bytes, into: NDArray[np.uint8]) -> None:
    (size,) = struct.unpack_from("<I", packed)
    if size != into.size:
        raise ValueError(f"its header promises {size} bytes, {into.size} were expected")
    _numcodecs().LZ4().decode(packed, out=into)


def _numcodecs() -> ModuleType:
    try:
        import numcodecs
    except ImportError as err:
        raise MissingExtraError(
            "blosc, lz4 and zstd need numcodecs, which comes with Zarr: pip install 'gpucalcium[zarr]'"
        ) from err
    return numcodecs


UNPACKERS: Mapping[str, Unpack] = {
    "raw": lambda packed, most: packed,
    "gzip": lambda packed, most: zlib.decompressobj(_AUTO).decompress(packed, most),
    "bzip2": lambda packed, most: bz2.BZ2Decompressor().decompress(packed, most),
    "xz": lambda packed, most: lzma.LZMADecompressor().decompress(packed, most),
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
}
"""By the names that N5 gives them."""
