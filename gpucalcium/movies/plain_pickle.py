"""Numbers out of a pickle, by looking at its opcodes: nothing is imported, called or built.

A pickle is a program that may run any code, and none is ever run here. suite2p, however, says only in such files how
large the frames of its movies are (``ops.npy``), and where its cells (``stat.npy``). `pickletools.genops` splits the
bytes into opcodes and their arguments without executing any; this module follows what they put into dictionaries,
lists and tuples, keeps plain numbers, texts, NumPy scalars and, where asked to, arrays, and leaves everything else
unmade.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_BYTES, MOST_OPCODES = 1 << 30, 2_000_000
MOST_OPCODES_OF_RECORDS = 40_000_000  # 50,000 cells of 40 entries, of 20 opcodes each
_LONGEST = 256  # bytes of a text or number that is kept; the rest of the file is passed over
_LONGEST_ARRAY = 1 << 24  # bytes likewise, where arrays are wanted
_KNOWN = re.compile(
    r"(numpy(\.\w+)*|datetime|pathlib(\.\w+)*|collections) \w+|_codecs encode|"
    r"(builtins|__builtin__) ((frozen)?set|bytes)"
)
_NUMBER = re.compile(r"[<>=|]?[iufb][1248]")


@dataclass(frozen=True)
class Unmade:
    """What a pickle would make by calling something; kept as what it would call and with what."""

    name: str
    """'module name'; '' for bytes and texts too long to be kept."""
    given: Any = ()
    state: list[Any] = field(default_factory=list)
    """What the object would be told once it is made."""


class _Mark:
    """Where a list of arguments starts on the stack."""


_TOO_LONG = Unmade("")


def read_dictionary(path: Path) -> dict[str, Any]:
    """The plain values of a dictionary that was pickled, alone or as the only item of a .npy file.

    Parameters
    ----------
    path : Path
        At most 1 GiB.

    Returns
    -------
    values : dict
        int, float, bool and str by name, NumPy scalars as Python's; of everything else (arrays, dates, paths, lists)
        there is nothing.

    Raises
    ------
    ValueError
        Not such a file; it refers to anything but NumPy, dates and paths; it is truncated, or far too long.
    """
    found = _only_item(_followed(path, _LONGEST, MOST_OPCODES))
    if not isinstance(found, dict):
        raise ValueError("it holds no dictionary")
    values = {name: _plain(value) for name, value in found.items()}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}


def read_records(path: Path, names: Collection[str]) -> list[dict[str, NDArray]]:
    """Arrays of numbers in dictionaries that were pickled as a list, or as the items of a .npy file.

    Parameters
    ----------
    path : Path
        At most 1 GiB.
    names : collection of str
        Which entries are wanted.

    Returns
    -------
    records : list of dict
        For each dictionary the entries of these names that are arrays, or lists, of numbers; others are left out.

    Raises
    ------
    ValueError
        As `read_dictionary`; or it holds something else than dictionaries.
    """
    made = _followed(path, _LONGEST_ARRAY, MOST_OPCODES_OF_RECORDS)
    items = made if isinstance(made, list) else _items(made)
    if items is None or not all(isinstance(item, dict) for item in items):
        raise ValueError("it holds no list of dictionaries")
    arrays = [{name: _array(item[name]) for name in names if name in item} for item in items]
    return [{name: array for name, array in item.items() if array is not None} for item in arrays]


def _followed(path: Path, longest: int, most: int) -> Any:
    """What the pickle of a file would have made."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has {path.stat().st_size} bytes, more than a description needs")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = _header(content)
        content.seek(start)
        return _Reader(longest, most).follow(content)


def _header(content: mmap.mmap) -> int:
    """Byte where the pickle starts: behind the header of a .npy file, if there is one."""
    if content[:6] != b"\x93NUMPY":
        return 0
    wide = content[6:7] > b"\x01"
    length = int.from_bytes(content[8 : 12 if wide else 10], "little")
    return (12 if wide else 10) + length


def _only_item(made: Any) -> Any:
    """The item of an array that was to hold one Python object."""
    items = _items(made)
    return items[0] if items is not None and len(items) == 1 else made


def _items(made: Any) -> list[Any] | None:
    """The items of an array that was to hold Python objects; None if it is something else."""
    if isinstance(made, Unmade) and made.name.startswith("numpy") and made.state:
        state = made.state[0]
        if isinstance(state, tuple) and state and isinstance(state[-1], list):
            return state[-1]
    return None


def _plain(value: Any) -> Any:
    """The number that a NumPy scalar stands for; other values as they are."""
    if not (isinstance(value, Unmade) and re.fullmatch(r"numpy\._?core\.multiarray scalar", value.name)):
        return value
    match value.given:
        case (Unmade() as kind, bytes(stored)) if (dtype := _dtype(kind)) is not None:
            return np.frombuffer(stored, dtype)[0].item() if len(stored) == dtype.itemsize else None
    return None


def _array(value: Any) -> NDArray | None:
    """The array of numbers that a value stands for, of native byte order; None if it stands for none."""
    if isinstance(value, list | tuple):
        plain = [_plain(item) for item in value]
        return np.array(plain) if all(isinstance(item, bool | int | float) for item in plain) else None
    if not isinstance(value, Unmade):
        return None
    match value:
        case Unmade(state=[(_, tuple(shape), Unmade() as kind, bool(fortran), bytes(stored))]):
            return _filled(shape, kind, "F" if fortran else "C", stored)
        case Unmade(
            given=(bytes() | bytearray() as stored, Unmade() as kind, tuple(shape), ("C" | "F") as order)
        ):
            return _filled(shape, kind, order, bytes(stored))
    return None


def _filled(shape: tuple[Any, ...], kind: Unmade, order: Any, stored: bytes) -> NDArray | None:
    dtype = _dtype(kind)
    lengths = [n for n in shape if isinstance(n, int) and n >= 0]
    if dtype is None or len(lengths) != len(shape) or math.prod(lengths) * dtype.itemsize != len(stored):
        return None
    return np.frombuffer(stored, dtype).reshape(lengths, order=order).astype(dtype.newbyteorder("="))


def _dtype(made: Unmade) -> np.dtype | None:
    """The dtype of numbers that an object stands for; None if it is another."""
    match made:
        case Unmade(name="numpy dtype", given=(str(kind), *_), state=told) if _NUMBER.fullmatch(kind):
            is_swapped = any(isinstance(one, tuple) and one[1:2] == (">",) for one in told)
            return np.dtype(kind).newbyteorder(">" if is_swapped else "<")
    return None


class _Reader:
    """A stack and a memo, as a pickle's opcodes use them."""

    def __init__(self, longest: int, most: int) -> None:
        self._longest, self._most = longest, most
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def follow(self, content: Any) -> Any:
        """What the opcodes would have made."""
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
                if count > self._most:
                    raise ValueError(f"it has more than {self._most} parts")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as err:
            raise ValueError(f"it is garbled: {err!r}") from err
        raise ValueError("it ends early")

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(_VALUES[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _ARGUMENTS:
            is_long = isinstance(argument, str | bytes | bytearray) and len(argument) > self._longest
            is_long = is_long or (isinstance(argument, int) and argument.bit_length() > 8 * _LONGEST)
            self._stack.append(_TOO_LONG if is_long else argument)
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it uses {name}, which plain values never need")

    def _since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        at = len(self._stack) - 1
        while not isinstance(self._stack[at], _Mark):
            at -= 1
            if at < 0:
                raise ValueError("it is garbled: no mark")
        taken = self._stack[at + 1 :]
        del self._stack[at:]
        return taken

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it is garbled: nothing on the stack")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _fill(self, pairs: list[Any]) -> None:
        """Put pairs into the dictionary on top; only texts are kept as names."""
        target = self._stack[-1]
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(target, dict) and isinstance(name, str):
                target[name] = value

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _call(self, count: int) -> None:
        """What would be called with the arguments on top; an `Unmade` stands for its result."""
        called, *given = self._take(count)
        if not isinstance(called, Unmade):
            raise ValueError("it calls something that is no name")
        match called.name, given[0]:
            case "_codecs encode", (str(text), "latin1"):  # bytes, as old protocols write them
                self._stack.append(text.encode("latin-1"))
            case "__builtin__ bytes", ():  # none, as these protocols write them
                self._stack.append(b"")
            case name, arguments:
                self._stack.append(Unmade(name, arguments))

    def _told(self) -> None:
        made, state = self._take(2)
        if isinstance(made, Unmade):
            made.state.append(state)
        self._stack.append(made)

    def _refer(self, name: Any) -> None:
        if not isinstance(name, str) or not _KNOWN.fullmatch(name):
            raise ValueError(
                f"it refers to {name!r:.80}; only numbers, texts, NumPy's, dates and paths belong there"
            )
        self._stack.append(Unmade(re.sub(r"^(numpy)\.(dtype|dtypes) dtype", "numpy dtype", name)))


_VALUES: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": _Mark,
}
_ARGUMENTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})


def _pairs(items: list[Any]) -> dict[str, Any]:
    return {k: v for k, v in zip(items[::2], items[1::2], strict=True) if isinstance(k, str)}


_STEPS: Mapping[str, Callable[[_Reader, Any], object]] = {
    "POP": lambda reader, _: reader._take(1),
    "POP_MARK": lambda reader, _: reader._since_mark(),
    "DUP": lambda reader, _: reader._stack.append(reader._stack[-1]),
    "TUPLE": lambda reader, _: reader._stack.append(tuple(reader._since_mark())),
    "TUPLE1": lambda reader, _: reader._stack.append(tuple(reader._take(1))),
    "TUPLE2": lambda reader, _: reader._stack.append(tuple(reader._take(2))),
    "TUPLE3": lambda reader, _: reader._stack.append(tuple(reader._take(3))),
    "LIST": lambda reader, _: reader._stack.append(reader._since_mark()),
    "FROZENSET": lambda reader, _: reader._stack.append(reader._since_mark()),
    "DICT": lambda reader, _: reader._stack.append(_pairs(reader._since_mark())),
    "APPEND": lambda reader, _: reader._extend(reader._take(1)),
    "APPENDS": lambda reader, _: reader._extend(reader._since_mark()),
    "ADDITEMS": lambda reader, _: reader._since_mark(),
    "SETITEM": lambda reader, _: reader._fill(reader._take(2)),
    "SETITEMS": lambda reader, _: reader._fill(reader._since_mark()),
    "GLOBAL": lambda reader, name: reader._refer(name),
    "STACK_GLOBAL": lambda reader, _: reader._refer(_joined(reader._take(2))),
    "REDUCE": lambda reader, _: reader._call(2),
    "NEWOBJ": lambda reader, _: reader._call(2),
    "NEWOBJ_EX": lambda reader, _: reader._call(3),
    "BUILD": lambda reader, _: reader._told(),
}


def _joined(names: list[Any]) -> Any:
    return " ".join(names) if all(isinstance(name, str) for name in names) else None
