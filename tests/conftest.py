"""Fixtures of all tests. The stand-in for CuPy goes in place here, before anything imports CuPy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from gpucalcium import backend
from tests import emulator
from tests.wings import Wing, wing_names, wings_present

if "emulated" in wing_names():
    emulator.install()
    backend.probe.cache_clear()

SHARED = Path(__file__).parents[2] / "shared"


def pytest_report_header() -> str:
    return f"wings: {', '.join(wing_names())}" + (
        "" if len(wing_names()) > 1 else " (no GPU, and no Linux with g++ to emulate one)"
    )


@pytest.fixture(autouse=True)
def _on_the_cpu() -> Iterator[None]:
    """The CPU is the active device of a test that does not ask for another."""
    with backend.use("cpu"):
        yield


@pytest.fixture(params=wings_present(), ids=str)
def wing(request: pytest.FixtureRequest, _on_the_cpu: None) -> Iterator[Wing]:
    """Each wing in turn, its device the active one: `wing.name`, `wing.put(numpy_array)`."""
    with request.param.chosen() as chosen:
        yield chosen


@pytest.fixture
def on_gpu(_on_the_cpu: None) -> Iterator[Wing]:
    """The CUDA wing, real or emulated, its device the active one."""
    gpu = [wing for wing in wings_present() if wing.device == "cuda"]
    if not gpu:
        pytest.skip("no GPU, and no Linux with g++ to emulate one")
    with gpu[0].chosen() as chosen:
        yield chosen


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data beside the checkout; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no reference data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def reference(shared: Path) -> ModuleType:
    """Module of stored reference results: `reference.load(name)`, `.inputs(name)`, and `.simulate`."""
    folder = str(shared / "data")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("reference")
