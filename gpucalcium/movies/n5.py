"""Reading of movies in N5 folders: blocks of whole numbers of pixels, each a file of its own."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import DatasetNotFoundError, MovieFileError, UnknownFormatError
from gpucalcium.movies.blocks import BlocksSource, Memory, Place
from gpucalcium.movies.unpacking import FAILURES, UNPACKERS

_ATTRIBUTES = "attributes.json"
_TYPES = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)] + ["float32", "float64"]


class N5Source(BlocksSource):
    """Frames of an N5 data set; its axes are stored in reverse, so that time is its last."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        try:
            dims = tuple(int(n) for n in about["dimensions"])
            blocks = tuple(int(n) for n in about["blockSize"])
            kind = str(about["dataType"])
            codec = n5_codec(about)
        except (KeyError, TypeError, ValueError) as err:
            raise MovieFileError(f"{folder / _ATTRIBUTES} does not describe a data set: {err!r}") from err
        if kind not in _TYPES or len(blocks) != len(dims) or min(blocks, default=0) < 1:
            raise MovieFileError(
                f"{folder / _ATTRIBUTES}: {kind} in blocks of {blocks} is no description of {dims} numbers"
            )
        if codec not in UNPACKERS:
            raise UnknownFormatError(
                f"{folder} is compressed with {codec!r}; of N5, {', '.join(UNPACKERS)} are read. Write it again with "
                "one of these, or as Zarr"
            )
        self._is_image = len(dims) == 2
        if self._is_image:
            dims, blocks = (*dims, 1), (*blocks, 1)
        super().__init__(dims[::-1], np.dtype(kind).newbyteorder(">"), str(folder), blocks[::-1])
        self._folder, self._unpack = folder, UNPACKERS[codec]

    def _fill_from(self, place: Place, frames: slice, into: NDArray, memory: Memory) -> None:
        into[...] = self._block(place, into.shape[1:])[frames]

    def _block(self, place: tuple[int, ...], field: tuple[int, ...]) -> NDArray:
        """A block, (frames, ...); one that is not there is zero."""
        names = place[::-1][:-1] if self._is_image else place[::-1]
        path = self._folder.joinpath(*map(str, names))
        frames = min(self.block[0], len(self) - place[0] * self.block[0])
        expected = (frames, *field)
        if not path.exists():
            return np.zeros(expected, self.dtype)
        content = path.read_bytes()
        try:
            mode, axes = struct.unpack_from(">HH", content)
            stored = struct.unpack_from(f">{axes}I", content, 4)[::-1]
            shape = (1, *stored) if self._is_image else stored
            start = 4 + 4 * axes + (4 if mode == 1 else 0)
            size = math.prod(expected) * self.stored.itemsize
            if mode > 1 or any(n < e for n, e in zip(shape, expected, strict=True)):
                raise ValueError(f"it holds {shape} numbers (mode {mode}), {expected} were expected")
            most = math.prod(max(n, b) for n, b in zip(expected, self.block, strict=True))
            if math.prod(shape) > most:
                raise ValueError(f"it promises {shape} numbers, more than a block of {self.block}")
            size = math.prod(shape) * self.stored.itemsize
            values = np.frombuffer(self._unpack(content[start:], size), self.stored).reshape(shape)
        except FAILURES as err:
            raise self._damaged(place, err) from err
        return values[tuple(slice(n) for n in expected)]


def n5_codec(about: Mapping[str, Any]) -> str:
    """How blocks are packed, by a description of this or an early version of the format."""
    return str(about.get("compression", {"type": about.get("compressionType", "raw")})["type"])


def open_n5(path: Path, name: str = "mov") -> N5Source:
    """Frames of an N5 data set: the folder itself, the data set of that name in it, or the only one.

    Blocks uncompressed or packed with gzip, bzip2, xz, blosc, lz4 or zstd. Axes are reversed, as N5 stores
    them: (columns, rows, T) becomes (T, rows, columns). Blocks that are not there are zero.

    Raises
    ------
    MovieFileError
        No N5 data set, or one whose description cannot be read.
    UnknownFormatError
        Another compression.
    MissingExtraError
        On reading blosc, lz4 or zstd: numcodecs, which comes with Zarr, is not installed.
    DatasetNotFoundError
        No such data set; lists those that are there.
    """
    return N5Source(*find_n5(path, name))


def find_n5(path: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the data set meant by `name`, and its description; see `open_n5`."""
    candidates = [path, path / name, path / name / "data"]
    there = [folder.parent for folder in sorted(path.glob(f"*/{_ATTRIBUTES}"))]
    candidates += there if len(there) == 1 else []
    for folder in candidates:
        about = _read(folder / _ATTRIBUTES)
        if "dimensions" in about:
            return folder, about
    listed = ", ".join(folder.name for folder in there)
    raise DatasetNotFoundError(
        f"{path} has no data set {name!r}; there are: {listed or 'none'}. Name one with var_name_hdf5=..."
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError, OSError) as err:
        raise MovieFileError(f"{path} cannot be read: {err}. Copy the whole folder again") from err
