"""Documented names that this library claims, with their documented parameters and defaults.

``documented.json`` maps each name to ``{parameter: default as documented}`` (null: no default), or to null where no
signature is documented. A name is added when it stands; none is ever taken out.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from gpucalcium import accel

DOCUMENTED = json.loads((Path(__file__).parent / "documented.json").read_text())


def find(path):
    """The object of a dotted name: its longest importable prefix, then attributes."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise LookupError(path)


def documented_value(text):
    """The value of a documented default, or `inspect.Parameter.empty` for what is not a literal."""
    try:
        return ast.literal_eval(text.replace("inf", "1e999"))
    except (ValueError, SyntaxError):
        return inspect.Parameter.empty


@pytest.fixture(autouse=True)
def served():
    accel.install()
    yield
    accel.uninstall()


@pytest.mark.parametrize("path", DOCUMENTED)
def test_name_parameters_and_defaults(path):
    found = find(path)
    if DOCUMENTED[path] is None:
        return
    parameters = inspect.signature(found).parameters
    for name, text in DOCUMENTED[path].items():
        assert name in parameters, f"{path} has no parameter {name}"
        expected = inspect.Parameter.empty if text is None else documented_value(text)
        if expected is not inspect.Parameter.empty:
            default = parameters[name].default
            alike = isinstance(default, (list, tuple)) and isinstance(expected, (list, tuple))
            assert list(default) == list(expected) if alike else default == expected, f"{path}: {name}"
            assert isinstance(default, bool) == isinstance(expected, bool)


def test_documented_slices_are_whole():
    fit = inspect.signature(find("caiman.source_extraction.cnmf.cnmf.CNMF.fit"))
    assert tuple(fit.parameters["indices"].default) == (slice(None), slice(None))


def test_no_default_can_be_changed_by_a_caller():
    """A default that is a list or an array would be shared between calls."""
    for path, parameters in DOCUMENTED.items():
        if parameters is not None:
            for name, parameter in inspect.signature(find(path)).parameters.items():
                assert not isinstance(parameter.default, (list, dict, set, np.ndarray)), f"{path}: {name}"
