"""Reading of NumPy's .npy files."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import IO, Literal

import numpy as np

from gpucalcium.errors import MovieFileError, MovieShapeError
from gpucalcium.movies.axes import open_arranged
from gpucalcium.movies.chain import OneChannel
from gpucalcium.movies.memmap import TracesSource
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source

_SIZE = 4  # bytes that say how long a header is, from version 2 of the format on
_LONGEST_HEADER = 1 << 16


def open_npy(
    path: Path,
    frame_shape: tuple[int, int] | None = None,
    axes: str | None = None,
    channel: int | None = None,
) -> Source:
    """Frames of a .npy file; an array of two axes is one frame or, if a shape of the frames is given, a matrix
    (pixels, T) with pixels in Fortran order. `axes` and `channel` as in `open_hdf5`.

    Raises
    ------
    MovieFileError
        No .npy file, truncated, or one that holds Python objects (these are never unpickled).
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = read_header(file)
            offset = file.tell()
    except (ValueError, OSError, EOFError) as err:
        raise MovieFileError(
            f"{path} is not a readable .npy file: {err}. Write it again with numpy.save"
        ) from err
    if dtype.hasobject:
        raise MovieFileError(
            f"{path} holds Python objects, which are never unpickled; save a plain array of numbers"
        )
    if offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise MovieFileError(
            f"{path} is truncated: its header promises {shape} {dtype}, more than its {path.stat().st_size} "
            "bytes. Copy it again from where it was written"
        )
    if frame_shape is not None:
        return _matrix(path, shape, fortran, dtype, offset, frame_shape)
    return open_values(path, str(path), shape, fortran, dtype, offset, axes, channel)


def open_values(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype,
    offset: int,
    axes: str | None = None,
    channel: int | None = None,
) -> Source:
    """Frames of an array of `shape` and `dtype` that lies in a file from `offset` on, in C or Fortran order."""
    source: Source
    if axes is not None:
        order: Literal["C", "F"] = "F" if fortran else "C"
        return open_arranged(np.memmap(path, dtype, "r", offset, shape, order), name, axes, channel)
    if len(shape) == 2:
        source = RawSource(path, (1, *shape), dtype, offset, reversed_axes=fortran)
    elif fortran and len(shape) > 2:
        source = TracesSource(path, shape, dtype, offset)
    else:
        source = RawSource(path, shape, dtype, offset)
    source.name = name
    return source if channel is None else OneChannel(source, channel)


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype; the stream is left where the values start.

    Raises
    ------
    ValueError, EOFError
        No header of the .npy format.
    """
    try:
        if np.lib.format.read_magic(stream) == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        size = stream.read(_SIZE)
        if (length := int.from_bytes(size, "little")) > _LONGEST_HEADER:
            raise ValueError(f"its header is to have {length} bytes")  # NumPy would make room for them
        return np.lib.format.read_array_header_2_0(BytesIO(size + stream.read(length)))
    except TokenError as err:
        raise ValueError(f"its header is garbled: {err}") from err


def _matrix(
    path: Path,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype,
    offset: int,
    frame_shape: tuple[int, int],
) -> Source:
    if len(shape) != 2 or shape[0] != math.prod(frame_shape):
        raise MovieShapeError(
            f"{path} is {shape}; with shape={frame_shape} a matrix ({math.prod(frame_shape)} pixels, T) is expected"
        )
    movie_shape = (shape[1], *frame_shape)
    if fortran:
        return RawSource(path, movie_shape, dtype, offset, reversed_axes=True)
    return TracesSource(path, movie_shape, dtype, offset)
