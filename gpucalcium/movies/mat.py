"""Reading of MATLAB's .mat files: version 5 by its own rules, from version 7.3 on as HDF5."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np

from gpucalcium.errors import DatasetNotFoundError, MovieFileError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.hdf5 import open_hdf5
from gpucalcium.movies.inflated import InflatedSource, Inflating
from gpucalcium.movies.npz import SAVED_AS
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source

Order = Literal["<", ">"]
_HEADER = 128  # bytes before the first variable
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"} | {2: "latin-1", 4: "utf-16"}
_CHAR, _FIRST_NUMERIC, _LAST_NUMERIC, _COMPLEX = 4, 6, 15, 0x0800
_MOST_AXES, _LONGEST_NAME, _LONGEST_TEXT = 32, 1 << 10, 1 << 26


@dataclass(frozen=True)
class _Variable:
    """A variable of a version 5 file, and where its values lie."""

    name: str
    shape: tuple[int, ...]
    """As MATLAB has it, in Fortran order."""
    dtype: np.dtype
    """In which the values are stored, which may be narrower than that of the variable."""
    is_numeric: bool
    encoding: str | None
    size: int
    """Bytes of the values."""
    opened: Callable[[], BinaryIO] = field(repr=False)
    """Opens the stream that holds the variable."""
    offset: int
    """Of the values in that stream."""
    is_compressed: bool


def open_mat(path: Path, name: str = SAVED_AS) -> Source:
    """Frames of a variable: the one of that name, that which `movie.save` writes, or the only one.

    Time is the last axis in MATLAB, (d1, d2[, d3], T); (d1, d2) is one frame. HDF5 files that MATLAB did not write
    itself are read as `open_hdf5` does, (T, d1, d2). Values are of the type in which they are stored: MATLAB keeps
    numbers of class double that are small integers as integers.

    Raises
    ------
    MovieFileError
        Neither version 5 nor HDF5, truncated, complex, or not a numeric array.
    DatasetNotFoundError
        No such variable; lists those that are there.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER)
    if h5py.is_hdf5(path):
        return open_hdf5(path, name)
    if len(start) < _HEADER or start[126:128] not in (b"IM", b"MI"):
        raise MovieFileError(
            f"{path} is no .mat file of version 5 or from 7.3 on, or its first {_HEADER} bytes are lost; save it again "
            "in MATLAB with '-v7.3'"
        )
    try:
        variables = {v.name: v for v in _variables(path, "<" if start[126:128] == b"IM" else ">")}
        about: dict[str, Any] = {
            n: _value(variables[n]) for n in ("fr", "start_time", "meta_data") if n in variables
        }
    except (struct.error, EOFError, UnicodeDecodeError, OSError) as err:
        raise MovieFileError(
            f"{path} is truncated or corrupt: {err or type(err).__name__}. Copy it again from where it was written"
        ) from err
    source = _source(path, _chosen(path, variables, name))
    source.about = about_recording(about)
    return source


def _chosen(path: Path, variables: dict[str, _Variable], name: str) -> _Variable:
    for wanted in (name, SAVED_AS):
        if wanted in variables:
            return variables[wanted]
    if len(variables) == 1:
        return next(iter(variables.values()))
    raise DatasetNotFoundError(
        f"{path} has no variable {name!r}; there are: {', '.join(variables) or 'none'}. Name one with var_name_hdf5=..."
    )


def _source(path: Path, variable: _Variable) -> Source:
    label = f"{path}:{variable.name}"
    *field_of_view, frames = (*variable.shape, 1) if len(variable.shape) == 2 else variable.shape
    size = math.prod(variable.shape) * variable.dtype.itemsize
    if not variable.is_numeric:
        raise MovieFileError(f"{label} is no array of real numbers; save the movie as one, (d1, d2, T)")
    if size != variable.size:
        raise MovieFileError(
            f"{label} is corrupt: {variable.shape} {variable.dtype} are {size} bytes, {variable.size} are stored"
        )
    shape = (frames, *field_of_view)
    if not variable.is_compressed:
        return RawSource(path, shape, variable.dtype, variable.offset, reversed_axes=True)
    return InflatedSource(label, shape, variable.dtype, variable.opened, variable.offset, reversed_axes=True)


def _variables(path: Path, order: Order) -> Iterator[_Variable]:
    """The variables of a file, by their headers."""
    size = path.stat().st_size
    place = _HEADER
    while place < size:
        with path.open("rb") as file:
            file.seek(place)
            kind, length = struct.unpack(f"{order}II", _exactly(file, 8))
        end = place + 8 + length
        if end > size:
            raise EOFError(f"the variable at byte {place} ends at byte {end}, the file has {size}")
        if kind in (_MATRIX, _COMPRESSED):
            yield _variable(path, order, place, length, kind == _COMPRESSED)
        place = end


def _variable(path: Path, order: Order, place: int, length: int, is_compressed: bool) -> _Variable:
    def opened() -> BinaryIO:
        if is_compressed:
            return BufferedReader(Inflating(path, place + 8, length))
        return path.open("rb")

    with opened() as stream:
        if not is_compressed:
            stream.seek(place)
        reader = _Reader(stream, order)
        try:
            reader.head()  # of the variable itself
            flags, *_ = struct.unpack(f"{order}II", reader.element(8))
            kind = flags & 0xFF
            axes = reader.element(4 * _MOST_AXES)
            shape = struct.unpack(f"{order}{len(axes) // 4}i", axes)
            name = reader.element(_LONGEST_NAME).decode("latin-1")
            number, size = reader.head()
        except Exception as err:  # zlib's own errors, and numbers that mean nothing
            raise EOFError(f"the variable at byte {place} cannot be read: {err}") from err
        if len(shape) < 2 or min(shape) < 0:
            raise EOFError(f"the variable {name!r} has a shape of {shape}")
        offset = reader.done + (0 if is_compressed else place)
    is_numeric = _FIRST_NUMERIC <= kind <= _LAST_NUMERIC and not flags & _COMPLEX and number in _NUMBERS
    dtype = np.dtype(_NUMBERS.get(number, "u1")).newbyteorder(order)
    encoding = _TEXTS.get(number) if kind == _CHAR else None
    return _Variable(name, shape, dtype, is_numeric, encoding, size, opened, offset, is_compressed)


class _Reader:
    """Data elements of a variable, one after the other."""

    def __init__(self, stream: BinaryIO, order: str) -> None:
        self._stream, self._order, self.done = stream, order, 0

    def head(self) -> tuple[int, int]:
        """Type and length of the next element; those of up to four bytes follow in the same eight."""
        (first,) = struct.unpack(f"{self._order}I", self._take(4))
        if first >> 16:
            return first & 0xFFFF, first >> 16
        (length,) = struct.unpack(f"{self._order}I", self._take(4))
        return first, length

    def element(self, longest: int) -> bytes:
        """The content of the next element."""
        before = self.done
        _, length = self.head()
        if length > longest:
            raise EOFError(f"{length} bytes where at most {longest} were expected")
        content = self._take(length)
        self._take(-(self.done - before) % 8)
        return content

    def _take(self, count: int) -> bytes:
        some = _exactly(self._stream, count)
        self.done += count
        return some


def _exactly(stream: BinaryIO, count: int) -> bytes:
    some = stream.read(count)
    if len(some) < count:
        raise EOFError("it ends inside a header")
    return some


def _value(variable: _Variable) -> Any:
    """A number or a text; None if the variable is anything else."""
    is_text = variable.encoding is not None and variable.size <= _LONGEST_TEXT
    if not is_text and not (variable.is_numeric and math.prod(variable.shape) == 1):
        return None
    if not is_text and variable.size != variable.dtype.itemsize:
        return None
    with variable.opened() as stream:
        if variable.is_compressed:
            _exactly(stream, variable.offset)
        else:
            stream.seek(variable.offset)
        content = _exactly(stream, variable.size)
    if is_text:
        order = "-le" if variable.dtype.newbyteorder("=") == variable.dtype else "-be"
        encoding = str(variable.encoding)
        return content.decode(encoding + order if encoding in ("utf-16", "utf-32") else encoding)
    return np.frombuffer(content, variable.dtype)[0].item()
