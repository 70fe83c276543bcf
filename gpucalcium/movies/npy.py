"""Reading of NumPy's .npy files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from gpucalcium.errors import MovieFileError
from gpucalcium.movies.arrays import ArraySource
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source


def open_npy(path: Path) -> Source:
    """Frames of a .npy file; an array of two axes is one frame.

    Raises
    ------
    MovieFileError
        No .npy file, truncated, or one that holds Python objects (these are never unpickled).
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (ValueError, OSError, EOFError) as err:
        raise MovieFileError(
            f"{path} is not a readable .npy file: {err}. Write it again with numpy.save"
        ) from err
    if dtype.hasobject:
        raise MovieFileError(
            f"{path} holds Python objects, which are never unpickled; save a plain array of numbers"
        )
    if len(shape) == 2:
        shape = (1, *shape)
        if fortran:
            return ArraySource(np.asfortranarray(np.load(path, mmap_mode="r"))[None], str(path))
    if not fortran:
        return RawSource(path, shape, dtype, offset)
    if offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
        raise MovieFileError(f"{path} is truncated: {shape} {dtype} needs more bytes than the file has")
    return ArraySource(np.memmap(path, dtype, "r", offset, shape, order="F"), str(path))
