"""The variant with AddressSanitizer and UBSan reports what a kernel does beside its arrays (`make sanitize`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import emulator

HERE = Path(__file__).parent
SCRIPT = """
import numpy as np
from tests import emulator
emulator.install()
import cupy as cp
text = open("tests/emulator/faults.cu").read()
kernel = cp.RawModule(code=text, options=("-std=c++17",), name_expressions=["{name}"]).get_function("{name}")
kernel((1,), (32,), {args})
print("no complaint")
"""


def library(name):
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def run(name, args):
    """Run a kernel in a process of its own, sanitized; what was said."""
    preload = [library("libasan.so"), library("libubsan.so")]
    if not all(Path(path).is_absolute() for path in preload):
        pytest.skip("g++ comes without the sanitizers")
    settings = {
        "GPUCALCIUM_EMULATOR_SANITIZE": "1",
        "LD_PRELOAD": ":".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name, args=args)],
        env=os.environ | settings,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(not emulator.installed(), reason="the emulator is not in use")
@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("past_the_end", "(cp.zeros(10, 'float32'), np.int32(12))", "AddressSanitizer: use-after-poison"),
        (
            "beside_fixed_tile",
            "(cp.zeros(1, 'int32'), np.int32(32))",
            "index 32 out of bounds for type 'int [32]'",
        ),
        ("divide", "(cp.zeros(32, 'int32'), np.int32(0))", "division by zero"),
        ("divide", "(cp.zeros(32, 'int32'), np.int32(2))", "no complaint"),
    ],
)
def test_what_the_sanitizers_see(name, args, text):
    assert text in run(name, args)
