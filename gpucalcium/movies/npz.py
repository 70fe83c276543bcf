"""Reading of NumPy's .npz archives."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpucalcium.errors import DatasetNotFoundError, MovieFileError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.inflated import InflatedSource
from gpucalcium.movies.npy import read_header
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source

SAVED_AS = "input_arr"
_ABOUT = ("fr", "start_time", "meta_data")
_LONGEST = 1 << 26  # bytes of a description: more is no description
_LOCAL = struct.Struct("<4s5H3L2H")  # header before each member of a zip archive


def open_npz(path: Path, name: str = SAVED_AS) -> Source:
    """Frames of an array in the archive: the one of that name, that which `movie.save` writes, or the only one.

    Read in place where the archive is not compressed, else forwards from its start. Nothing is unpickled.

    Raises
    ------
    MovieFileError
        No archive, truncated, or an array of Python objects.
    DatasetNotFoundError
        No such array; lists those that are there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive, name)
            with archive.open(member) as stream:
                shape, fortran, dtype = read_header(stream)
                header = member.file_size - math.prod(shape) * dtype.itemsize
                offset = stream.tell()
            about = _about(archive)
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, OSError, EOFError, RuntimeError) as err:
        if isinstance(err, MovieFileError):
            raise
        raise MovieFileError(
            f"{path} is not a readable .npz archive: {err}. It may be truncated; copy it again from where it was "
            "written"
        ) from err
    label = f"{path}:{member.filename}"
    if dtype.hasobject:
        raise MovieFileError(
            f"{label} holds Python objects, which are never unpickled; save a plain array of numbers"
        )
    if header != offset:
        raise MovieFileError(
            f"{label} is truncated or corrupt: its header promises {shape} {dtype}, "
            f"{math.prod(shape) * dtype.itemsize} bytes, but the archive lists {member.file_size - offset}"
        )
    source = _source(path, label, member, shape, fortran, dtype, offset)
    source.about = about_recording(about)
    return source


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for wanted in (name, SAVED_AS):
        if wanted in there:
            return there[wanted]
    if len(there) == 1:
        return next(iter(there.values()))
    raise DatasetNotFoundError(
        f"{path} has no array {name!r}; there are: {', '.join(there) or 'none'}. Name one with var_name_hdf5=..."
    )


def _source(
    path: Path,
    label: str,
    member: zipfile.ZipInfo,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype,
    offset: int,
) -> Source:
    if len(shape) == 2 and not fortran:
        shape, turned = (1, *shape), False
    elif len(shape) == 2:
        shape, turned = (1, *shape), True  # one frame, column by column
    elif not fortran:
        turned = False
    else:
        raise MovieFileError(
            f"{label} is stored in Fortran order, in which frames are scattered over the archive. Write it again with "
            "numpy.savez(..., numpy.ascontiguousarray(movie))"
        )
    if member.compress_type == zipfile.ZIP_STORED:
        return RawSource(path, shape, dtype, _start(path, member) + offset, reversed_axes=turned)

    def opened() -> BinaryIO:
        return zipfile.ZipFile(path).open(member)  # type: ignore[return-value]

    return InflatedSource(label, shape, dtype, opened, offset, reversed_axes=turned)


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Byte of the file where the content of a member starts."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        *_, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    return member.header_offset + _LOCAL.size + name + extra


def _about(archive: zipfile.ZipFile) -> Mapping[str, Any]:
    """What `movie.save` writes beside the movie; what was pickled by other programs is left alone."""
    found = {}
    for name in _ABOUT:
        member = f"{name}.npy"
        if member not in archive.namelist() or archive.getinfo(member).file_size > _LONGEST:
            continue
        with archive.open(member) as stream:
            shape, _, dtype = read_header(stream)
            rest = stream.read()
        if math.prod(shape) == 1 and not dtype.hasobject and len(rest) == dtype.itemsize:
            found[name] = np.frombuffer(rest, dtype)[0].item()
    return found
