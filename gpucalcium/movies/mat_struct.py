"""Small structures in MATLAB's .mat files of version 5, as recorders write their settings.

Nothing is allocated because a header promises it: a damaged file cannot ask for more memory than it has bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

_MOST = 64 << 20  # bytes of a file, and of a variable unpacked
_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_STRUCT, _CHAR, _NUMERIC = 2, 4, range(6, 16)
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_DEEPEST = 8

Order = Literal["<", ">"]
Element = tuple[int, bytes]
"""Type and content."""


def read_struct(path: Path, name: str) -> dict[str, Any]:
    """The fields of a structure: numbers, texts, arrays of numbers (one axis where there is but one), structures.

    Fields of other kinds (cells, functions, arrays of structures), and empty ones, are left out.

    Raises
    ------
    ValueError
        No .mat file of version 5, damaged, or without such a structure.
    """
    if path.stat().st_size > _MOST:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than settings need")
    content = path.read_bytes()
    if content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no .mat file of version 5")
    order: Order = "<" if content[126:128] == b"IM" else ">"
    try:
        for kind, body in _elements(content[_HEADER:], order):
            if kind == _COMPRESSED:
                kind, body = next(_elements(zlib.decompressobj().decompress(body, _MOST), order))
            found, value = _matrix(body, order) if kind == _MATRIX else ("", None)
            if found == name and isinstance(value, dict):
                return value
    except (struct.error, zlib.error, StopIteration, OverflowError) as err:
        raise ValueError(f"it is truncated or corrupt: {err or 'it ends early'}") from err
    raise ValueError(f"it holds no structure {name!r}")


def _elements(content: bytes, order: Order) -> Iterator[Element]:
    """Data elements one after the other; those of up to four bytes lie in their own tag."""
    at = 0
    while at < len(content):
        first, length = struct.unpack_from(f"{order}II", content, at)
        if first >> 16:
            kind, length, start, end = first & 0xFFFF, first >> 16, at + 4, at + 8
        else:
            kind, start = first, at + 8
            end = start + length + (0 if kind == _COMPRESSED else -length % 8)
        if start + length > len(content):
            raise ValueError(f"an element of {length} bytes goes beyond its end")
        yield kind, content[start : start + length]
        at = end


def _matrix(body: bytes, order: Order, depth: int = 0) -> tuple[str, Any]:
    """Name and value of an array; None for a value of a kind that is left out."""
    if not body or depth > _DEEPEST:
        return "", None
    parts = _elements(body, order)
    (flags,) = struct.unpack_from(f"{order}I", next(parts)[1])
    sizes = next(parts)[1]
    count = math.prod(struct.unpack(f"{order}{len(sizes) // 4}i", sizes))
    name = next(parts)[1].decode("latin-1")
    kind = flags & 0xFF
    if kind == _STRUCT and count == 1:
        return name, _fields(parts, order, depth)
    if kind == _CHAR and count > 0:
        return name, _text(*next(parts), order)
    if kind in _NUMERIC and count > 0:
        return name, _numbers(*next(parts), order)
    return name, None


def _fields(parts: Iterator[Element], order: Order, depth: int) -> dict[str, Any]:
    (length,) = struct.unpack_from(f"{order}i", next(parts)[1])
    names = next(parts)[1]
    if length < 1:
        raise ValueError(f"names of {length} bytes")
    values: dict[str, Any] = {}
    for at in range(0, len(names), length):
        name = names[at : at + length].split(b"\0")[0].decode("latin-1")
        _, value = _matrix(next(parts)[1], order, depth + 1)
        if value is not None:
            values[name] = value
    return values


def _text(kind: int, content: bytes, order: Order) -> str | None:
    encoding = _ENCODINGS.get(kind)
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return content.decode(encoding) if encoding else None


def _numbers(kind: int, content: bytes, order: Order) -> Any:
    if kind not in _TYPES:
        return None
    values = np.frombuffer(content, np.dtype(_TYPES[kind]).newbyteorder(order))
    return values[0].item() if len(values) == 1 else values if len(values) else None
