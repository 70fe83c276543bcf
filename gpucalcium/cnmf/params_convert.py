"""Parameters as text and back: JSON, HDF5 leaves, and equality of values."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpucalcium.cnmf.params_table import TABLE, Parameter, groups_with
from gpucalcium.errors import ParameterError

_SLICE_TEXT = re.compile(r"slice\((None|-?\d+), (None|-?\d+), (None|-?\d+)\)")

log = logging.getLogger(__name__)


def plain(value: Any) -> Any:
    """`value` in the types JSON knows: arrays and tuples as lists, slices as [start, stop, step]."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist()) if value.ndim else value.item()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        log.warning("the function %r cannot be written to a file; None is written", value)
        return None
    return value


def revive(row: Parameter, value: Any) -> Any:
    """A value read from a file, in the type the parameter has: tuple, list, array, slices, plain scalar or text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, (list, tuple, np.ndarray)):
        return value
    if row.key == "indices":
        return tuple(_slice(item) for item in value)
    if row.form is np.ndarray:
        return np.asarray(value)
    entries = value.tolist() if isinstance(value, np.ndarray) else value
    entries = [item.decode() if isinstance(item, bytes) else item for item in entries]
    return tuple(entries) if row.form is tuple else entries


def _slice(item: Any) -> slice:
    """A slice from [start, stop, step] or from its text."""
    if isinstance(item, slice):
        return item
    if isinstance(item, (list, tuple)) and len(item) == 3:
        return slice(*item)
    text = item.decode() if isinstance(item, bytes) else str(item)
    found = _SLICE_TEXT.fullmatch(text)
    if found is None:
        raise ParameterError(f"motion.indices holds {text!r}: expected a slice such as 'slice(0, 100, None)'")
    return slice(*(None if part == "None" else int(part) for part in found.groups()))


def read_json(path: str | Path) -> dict[str, Any]:
    """What a JSON file asks for, as `CNMFParams.change_params` takes it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ParameterError
        The text is not JSON, or not an object of parameters.
    """
    return from_json(Path(path).read_text(encoding="utf-8"), str(path))


def from_json(text: str, where: str = "the text") -> dict[str, Any]:
    """`read_json` of a text; `where` names it in errors."""
    try:
        content = json.loads(text)
    except ValueError as err:
        raise ParameterError(f"{where} is not JSON: {err}") from err
    if not isinstance(content, dict):
        raise ParameterError(f"{where} holds a {type(content).__name__}; expected {{group: {{key: value}}}}")
    return {
        name: _revive_group(name, value)
        if isinstance(value, dict) and name in TABLE
        else _revive_flat(name, value)
        for name, value in content.items()
    }


def _revive_group(name: str, values: dict[str, Any]) -> dict[str, Any]:
    rows = TABLE[name]
    return {key: revive(rows[key], value) if key in rows else value for key, value in values.items()}


def _revive_flat(key: str, value: Any) -> Any:
    homes = groups_with(key)
    return revive(TABLE[homes[0]][key], value) if homes else value


def same(one: Any, two: Any) -> bool:
    """Whether two parameter values mean the same; lists, tuples and arrays are alike, NaN equals NaN."""
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        one, two = np.asarray(one, dtype=object), np.asarray(two, dtype=object)
        return one.shape == two.shape and all(map(same, one.ravel(), two.ravel()))
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    both_nan = isinstance(one, float) and isinstance(two, float) and one != one and two != two
    return both_nan or bool(one == two)
