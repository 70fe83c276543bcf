"""What the stand-in offers is there in CuPy itself (where that is installed; it needs no GPU to be asked)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import importlib, inspect, sys
try:
    import cupy
except ImportError:
    sys.exit("no CuPy")
from tests.emulator import cuda, functions, scipy_parts, sparse
parts = {
    "cupy": functions.table(),
    "cupy.cuda": cuda.contents(),
    "cupy.cuda.runtime": vars(cuda.contents()["runtime"]),
    "cupy.fft": scipy_parts.fft(),
    "cupy.linalg": scipy_parts.linalg(),
    "cupyx": scipy_parts.cupyx(),
    "cupyx.scipy.fft": scipy_parts.scipy_fft(),
    "cupyx.scipy.linalg": scipy_parts.scipy_linalg(),
    "cupyx.scipy.ndimage": scipy_parts.ndimage(),
    "cupyx.scipy.signal": scipy_parts.signal(),
    "cupyx.scipy.sparse": sparse.contents(),
    "cupyx.scipy.special": scipy_parts.special(),
}
for name, listed in parts.items():
    try:
        module = importlib.import_module(name)
    except ImportError:  # a CUDA library that is not installed
        continue
    for lacking in [entry for entry in listed if not hasattr(module, entry)]:
        print(f"{name} has no {lacking}")
for name, keywords in functions.KEYWORDS.items():
    function = getattr(cupy, name, None)
    if function is None or isinstance(function, cupy.ufunc):
        continue  # a method only, or a function whose keywords cannot be asked for
    parameters = inspect.signature(function).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for lacking in keywords - set(parameters):
            print(f"cupy.{name} takes no {lacking}")
for name in [name for name in dir(functions.ndarray) if not name.startswith("_")]:
    if not hasattr(cupy.ndarray, name):
        print(f"cupy.ndarray has no {name}")
"""


def test_nothing_is_listed_that_cupy_lacks():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode and "no CuPy" in done.stderr:
        pytest.skip("CuPy is not installed")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
