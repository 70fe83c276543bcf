"""The CPU wing: NumPy and numba, on threads. The twin of the CUDA wing, file by file."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Import ``wing.name`` when it is first used, so that one operation does not load all of them."""
    path = f"{__name__}.{name}"
    if name.startswith("__") or importlib.util.find_spec(path) is None:
        raise AttributeError(f"{__name__} has no {name!r}")
    return importlib.import_module(path)
