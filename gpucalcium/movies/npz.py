"""Reading of NumPy's .npz archives."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import DatasetNotFoundError, GpuCalciumError, MemoryBudgetError, MovieFileError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.arrays import ArraySource
from gpucalcium.movies.axes import open_arranged
from gpucalcium.movies.chain import OneChannel
from gpucalcium.movies.inflated import InflatedSource
from gpucalcium.movies.npy import open_values, read_header
from gpucalcium.movies.source import Source

SAVED_AS = "input_arr"
_ABOUT = ("fr", "start_time", "meta_data")
_MOVIE_AXES = 3
_LONGEST = 1 << 26  # bytes of a description: more is no description
_LOCAL = struct.Struct("<4s5H3L2H")  # header before each member of a zip archive


@dataclass(frozen=True)
class Member:
    """An array of an archive, by its header."""

    info: zipfile.ZipInfo
    label: str
    """What error messages call it."""
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int
    """Of its values in the unpacked member."""

    @property
    def size(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_npz(path: Path, name: str = SAVED_AS, axes: str | None = None, channel: int | None = None) -> Source:
    """Frames of an array in the archive: the one of that name, that which `movie.save` writes, the only one, or the
    only one with three axes or more.

    Read in place where the archive is not compressed, else forwards from its start; compressed arrays in Fortran order
    or with axes in another order are unpacked whole. Nothing is unpickled. `axes` and `channel` as in `open_hdf5`.

    Raises
    ------
    MovieFileError
        No archive, truncated, or an array of Python objects.
    DatasetNotFoundError
        No such array; lists those that are there.
    MemoryBudgetError
        An array that must be unpacked whole does not fit.
    """
    member, about = find_array(path, name)
    source = _source(path, member, axes, channel)
    source.about = about_recording(about)
    return source


def find_array(path: Path, name: str) -> tuple[Member, Mapping[str, Any]]:
    """The array that is the movie, see `open_npz`, and what is written beside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive, name)
            about = _about(archive)
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, OSError, EOFError, RuntimeError) as err:
        if isinstance(err, GpuCalciumError):
            raise
        raise MovieFileError(
            f"{path} is not a readable .npz archive: {err}. It may be truncated; copy it again from where it was "
            "written"
        ) from err
    if member.dtype.hasobject:
        raise MovieFileError(
            f"{member.label} holds Python objects, which are never unpickled, so never read; save a plain array of "
            "numbers"
        )
    if member.info.file_size != member.offset + member.size:
        raise MovieFileError(
            f"{member.label} is truncated or corrupt: its header promises {member.shape} {member.dtype}, "
            f"{member.size} bytes, but the archive lists {member.info.file_size - member.offset}"
        )
    return member, about


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Member:
    there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    for wanted in (name, SAVED_AS):
        if wanted in there:
            return _read_member(path, archive, there[wanted])
    if len(there) == 1:
        return _read_member(path, archive, next(iter(there.values())))
    members = {key: _read_member(path, archive, info) for key, info in there.items() if info.file_size}
    movies = {
        key: one for key, one in members.items() if len(one.shape) >= _MOVIE_AXES and not one.dtype.hasobject
    }
    if len(movies) == 1:
        return next(iter(movies.values()))
    raise DatasetNotFoundError(
        f"{path} has no array {name!r}; there is {_listed(there)}. It holds {len(movies)} arrays that could be a "
        f"movie; name one of {_listed(movies or there)} with var_name_hdf5=..."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none at all"


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as stream:
        shape, fortran, dtype = read_header(stream)
        return Member(info, f"{path}:{info.filename}", shape, fortran, dtype, stream.tell())


def _source(path: Path, member: Member, axes: str | None, channel: int | None) -> Source:
    shape, dtype, offset = member.shape, member.dtype, member.offset
    if member.info.compress_type == zipfile.ZIP_STORED:
        place = _start(path, member.info) + offset
        return open_values(path, member.label, shape, member.fortran, dtype, place, axes, channel)

    def opened() -> BinaryIO:
        return zipfile.ZipFile(path).open(member.info)  # type: ignore[return-value]

    if axes is not None:
        return open_arranged(_unpacked(member, opened), member.label, axes, channel)
    is_image = len(shape) == 2
    source: Source
    if member.fortran and not is_image:
        source = ArraySource(_unpacked(member, opened), member.label)
    else:
        source = InflatedSource(
            member.label,
            (1, *shape) if is_image else shape,
            dtype,
            opened,
            offset,
            reversed_axes=is_image and member.fortran,
        )
    return source if channel is None else OneChannel(source, channel)


def _unpacked(member: Member, opened: Callable[[], BinaryIO]) -> NDArray:
    """All values of a compressed array."""
    if 2 * member.size > backend.budget():  # as it is unpacked, and in its place
        raise MemoryBudgetError(
            f"{member.label} is compressed with its frames scattered: it must be unpacked whole, which takes "
            f"{2 * member.size} bytes; the budget is {backend.budget()}. Give more with GPUCALCIUM_MEMORY or "
            "backend.limit(memory=...), or write it again with numpy.savez and numpy.ascontiguousarray(movie)"
        )
    shape = (1, member.size // member.dtype.itemsize, 1)
    values = InflatedSource(member.label, shape, member.dtype, opened, member.offset).read(slice(None))
    return values.reshape(member.shape, order="F" if member.fortran else "C")


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
