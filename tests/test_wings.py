"""The two wings side by side: the same files, functions, signatures and first lines of documentation."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from gpucalcium.backend import cpu
from tests.wings import wing_names

BACKEND = Path(cpu.__file__).parents[1]


def files(wing: str) -> list[str]:
    return sorted(path.stem for path in (BACKEND / wing).glob("[a-z]*.py"))


def functions(wing: str, file: str) -> dict[str, object]:
    module = importlib.import_module(f"gpucalcium.backend.{wing}.{file}")
    return {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == module.__name__
    }


def signature(function: object) -> list[tuple]:
    """Names, kinds and defaults; annotations differ, as the arrays do."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [(p.name, p.kind.name, p.default) for p in parameters]


def first_line(function: object) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


needs_both = pytest.mark.skipif(
    len(wing_names()) < 2, reason="the CUDA wing needs CuPy, or g++ to emulate it"
)


def test_wings_hold_the_same_files():
    assert files("cpu") == files("cuda")


@needs_both
@pytest.mark.parametrize("file", files("cpu"))
def test_twins_have_the_same_functions(file):
    here, there = functions("cpu", file), functions("cuda", file)
    assert here, f"{file} offers nothing"
    assert sorted(here) == sorted(there)
    for name in here:
        assert signature(here[name]) == signature(there[name]), name
        assert first_line(here[name]), f"{name} does not say what it does"
        assert first_line(here[name]) == first_line(there[name]), name


def test_a_wing_imports_only_what_is_used():
    from gpucalcium.backend import cpu as wing

    assert wing.filters.__name__ == "gpucalcium.backend.cpu.filters"
    with pytest.raises(AttributeError, match=r"gpucalcium.backend.cpu has no 'no_such_file'"):
        wing.no_such_file  # noqa: B018
