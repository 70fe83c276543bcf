"""Every kernel compiles for every architecture: NVRTC called directly, no driver and no GPU needed."""

from __future__ import annotations

import re

import pytest

from gpucalcium.backend.cuda import _source
from tests.kernels.instances import INSTANCES

nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="pip install 'gpucalcium[dev]' brings NVRTC")

ARCHITECTURES = (75, 80, 90, 100, 120)
_GLOBAL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")


def compile_with_nvrtc(text: str, file: str, expressions: list[str], architecture: int) -> str:
    """Compile; the empty string, or what NVRTC has to say against it."""
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), file.encode(), 0, [], [])
    for expression in expressions:
        nvrtc.nvrtcAddNameExpression(program, expression.encode())
    options = [*_source.OPTIONS, "-ftz=true", f"-arch=sm_{architecture}"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * (size + 1)  # is written over: a single byte would be the one that all of Python shares
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    return "" if status == nvrtc.nvrtcResult.NVRTC_SUCCESS else log[:size].decode()


def kernel_files() -> list[str]:
    return sorted(path.name for path in _source.kernel_folder().glob("*.cu"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", sorted(INSTANCES))
def test_compiles(file, architecture):
    expressions = [
        _source.expression(name, template)
        for name, templates in INSTANCES[file].items()
        for template in templates
    ]
    assert compile_with_nvrtc(_source.source(file), file, expressions, architecture) == ""


def test_every_kernel_is_listed():
    there = {file: set(_GLOBAL.findall(_source.source(file))) for file in kernel_files()}
    listed = {
        file: {name for name, templates in kernels.items() if templates}
        for file, kernels in INSTANCES.items()
    }
    assert listed == there


def test_errors_name_the_file_and_line_on_disk(tmp_path, monkeypatch):
    for name in (_source.MARKER, "common.cuh"):
        (tmp_path / name).write_text((_source.kernel_folder() / name).read_text())
    (tmp_path / "wrong.cu").write_text(
        '// wrong\n#include "common.cuh"\n\n__global__ void f() { no_such_name(); }\n'
    )
    monkeypatch.setenv("GPUCALCIUM_KERNELS", str(tmp_path))
    log = compile_with_nvrtc(_source.source("wrong.cu"), "f.cu", ["f"], 80)
    assert 'wrong.cu(4): error: identifier "no_such_name" is undefined' in log
