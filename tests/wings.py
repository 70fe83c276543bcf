"""The wings that tests run: cpu; and cuda, on a real GPU where there is one, else on the emulator."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpucalcium import backend
from tests import emulator

REAL_DTYPES = "bool uint8 int8 uint16 int16 int32 uint32 int64 uint64 float16 float32 float64".split()
"""Every real type that a movie may come in."""


@dataclass(frozen=True)
class Wing:
    """One wing, and how to get arrays to it."""

    name: str
    """'cpu', 'emulated' or 'cuda'."""

    @property
    def device(self) -> str:
        """What `backend.use` calls it."""
        return "cpu" if self.name == "cpu" else "cuda"

    @contextmanager
    def chosen(self) -> Iterator[Wing]:
        """Its device as the active one, for a while."""
        with backend.use(self.device):
            yield self

    def put(self, array: Any) -> Any:
        """A NumPy array as the kind of array this wing works on, C-contiguous."""
        with backend.use(self.device):
            return backend.put(np.asarray(array))

    def __str__(self) -> str:
        return self.name


@cache
def gpu_present() -> bool:
    """Whether a real GPU answers."""
    if emulator.installed() or importlib.util.find_spec("cupy") is None:
        return False
    return backend.probe().state is backend.State.READY


@cache
def wing_names() -> tuple[str, ...]:
    """Wings that can run here."""
    if gpu_present():
        return ("cpu", "cuda")
    can_emulate = sys.platform == "linux" and shutil.which("g++")
    return ("cpu", "emulated") if can_emulate else ("cpu",)


def wings_present() -> list[Wing]:
    """Every wing that can run here, the CPU first."""
    return [Wing(name) for name in wing_names()]
