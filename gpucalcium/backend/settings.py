"""Every environment variable that gpucalcium reads, in one table.

Nothing is read at import: a value is looked up when it is first needed, and again when its text has
changed. The library itself never writes an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpucalcium.errors import ParameterError, UnknownParameterError

_UNITS = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


@dataclass(frozen=True)
class Memory:
    """An amount of memory: so many bytes, or a share of what a device has."""

    bytes: int | None = None
    share: float | None = None

    def of(self, total: int) -> int:
        """Bytes this amounts to on a device with `total` bytes; never more than `total`."""
        amount = self.bytes if self.bytes is not None else int((self.share or 0.0) * total)
        return min(amount, total)


def parse_memory(text: str | int) -> Memory:
    """Read "8GiB", "500 MB", "60%" or a number of bytes.

    Raises
    ------
    ParameterError
        Anything else, zero or less, or a share above 100 %.
    """
    if isinstance(text, int):
        match = re.fullmatch(r"(\d+)", str(text))
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[kmgt]?i?b?)\s*", text, re.IGNORECASE)
    if match:
        number = float(match[1])
        unit = match[2].lower() if match.lastindex == 2 else ""
        if unit == "%" and 0 < number <= 100:
            return Memory(share=number / 100)
        size = _UNITS.get(unit.removesuffix("b"))
        if unit != "%" and size is not None and number * size >= 1:
            return Memory(bytes=int(number * size))
    raise ParameterError(f"memory {text!r}: expected an amount such as '8GiB', '500MB' or '60%'")


def _parse_device(text: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        return text
    raise ParameterError(f"device {text!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:1'")


def _parse_threads(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise ParameterError(f"threads {text!r}: expected a whole number, 1 or more")


def _parse_switch(text: str) -> str:
    if text in ("auto", "on", "off"):
        return text
    raise ParameterError(f"{text!r}: expected 'auto', 'on' or 'off'")


@dataclass(frozen=True)
class Setting:
    """One environment variable: how it is called, read and explained."""

    variable: str
    default: str | None
    unit: str
    parse: Callable[[str], Any]
    doc: str
    fallbacks: tuple[str, ...] = ()
    """Variables of other programs that are honoured when this one is not set."""


SETTINGS: dict[str, Setting] = {
    "device": Setting(
        "GPUCALCIUM_DEVICE",
        "auto",
        "auto | cpu | cuda | cuda:N",
        _parse_device,
        "Where work is done when neither the data nor backend.use() say so; auto takes a GPU that works.",
    ),
    "memory": Setting(
        "GPUCALCIUM_MEMORY",
        "60%",
        "bytes (GiB, MB, ...) or %",
        parse_memory,
        "Memory that one function may use on the device where it works; a share counts from what the device has.",
    ),
    "threads": Setting(
        "GPUCALCIUM_THREADS",
        None,
        "threads",
        _parse_threads,
        "Worker threads of the CPU wing; default: every core this process may use.",
    ),
    "kernels": Setting(
        "GPUCALCIUM_KERNELS",
        None,
        "folder",
        Path,
        "Folder with the CUDA kernels; default: the ones that came with the package.",
    ),
    "temp": Setting(
        "GPUCALCIUM_TEMP",
        None,
        "folder",
        Path,
        "Folder for temporary files and for results named without a folder; default: the system's.",
        fallbacks=("CAIMAN_TEMP",),
    ),
    "progress": Setting(
        "GPUCALCIUM_PROGRESS",
        "auto",
        "auto | on | off",
        _parse_switch,
        "Progress bars; auto shows them after two seconds when the output is a terminal or notebook.",
    ),
}


def get(name: str) -> Any:
    """Value of setting `name`, parsed; None where it has neither value nor default.

    Raises
    ------
    UnknownParameterError
        No setting of that name.
    ParameterError
        The variable's text cannot be read; the message names the variable.
    """
    if name not in SETTINGS:
        raise UnknownParameterError(f"no setting {name!r}; there are {', '.join(SETTINGS)}")
    setting = SETTINGS[name]
    for variable in (setting.variable, *setting.fallbacks):
        if text := os.environ.get(variable):
            return _parsed(name, variable, text)
    return None if setting.default is None else _parsed(name, setting.variable, setting.default)


@cache
def _parsed(name: str, variable: str, text: str) -> Any:
    try:
        return SETTINGS[name].parse(text)
    except ParameterError as err:
        raise ParameterError(f"environment variable {variable}: {err}") from err
