"""Packages that only this room needs, imported where they are first used."""

from __future__ import annotations

import importlib
from typing import Any

from gpucalcium.errors import MissingExtraError


def optional(module: str, what: str, extra: str = "cinac") -> Any:
    """The package `module`, which `what` needs.

    Raises
    ------
    MissingExtraError
        It is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingExtraError(
            f"{what} needs {module.partition('.')[0]}: pip install 'gpucalcium[{extra}]'"
        ) from err
