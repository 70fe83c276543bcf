"""Finding kernels, and pasting their headers in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpucalcium.backend.cuda import _source
from gpucalcium.errors import KernelError

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of kernels with one file and two headers, the one that is looked at."""
    (tmp_path / _source.MARKER).write_text("kernels\n")
    (tmp_path / "common.cuh").write_text("// common\ntypedef long long index_t;\n")
    (tmp_path / "other.cuh").write_text('#include "common.cuh"\nint other;\n')
    (tmp_path / "a.cu").write_text(
        '// a\n#include "common.cuh"\n#include "other.cuh"\n#include <system>\nint a;\n'
    )
    monkeypatch.setenv("GPUCALCIUM_KERNELS", str(tmp_path))
    return tmp_path


def test_the_checkout_s_kernels_are_found(monkeypatch):
    monkeypatch.delenv("GPUCALCIUM_KERNELS", raising=False)
    if not (CHECKOUT / "gpucalcium/_kernels").exists():
        assert _source.kernel_folder() == CHECKOUT / "kernels"


def test_kernels_in_the_package_come_before_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUCALCIUM_KERNELS", raising=False)
    monkeypatch.setattr(_source, "_PACKAGE", tmp_path / "package")
    beside, inside = tmp_path / "kernels", tmp_path / "package" / "_kernels"
    for place in (beside, inside):
        place.mkdir(parents=True)
    (beside / _source.MARKER).touch()
    assert _source.kernel_folder() == beside
    (inside / _source.MARKER).touch()
    assert _source.kernel_folder() == inside


def test_a_folder_beside_the_package_without_the_marker_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUCALCIUM_KERNELS", raising=False)
    monkeypatch.setattr(_source, "_PACKAGE", tmp_path / "package")
    (tmp_path / "kernels").mkdir()
    with pytest.raises(KernelError, match=re.escape(str(tmp_path / "kernels"))) as caught:
        _source.kernel_folder()
    assert str(tmp_path / "package" / "_kernels") in str(caught.value)
    assert "GPUCALCIUM_KERNELS" in str(caught.value)


def test_a_wrong_setting_is_an_error_not_a_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_KERNELS", str(tmp_path))
    with pytest.raises(
        KernelError, match=re.escape(f"GPUCALCIUM_KERNELS={tmp_path} is no folder of CUDA kernels")
    ):
        _source.kernel_folder()


def test_a_file_that_is_not_there_names_those_that_are(folder):
    with pytest.raises(KernelError, match=r"no kernel file 'b.cu' in .*; there are: a.cu"):
        _source.source("b.cu")


def test_headers_are_pasted_once_and_lines_keep_their_places(folder):
    assert _source.source("a.cu").splitlines() == [
        '#line 1 "a.cu"',
        "// a",
        '#line 1 "common.cuh"',
        "// common",
        "typedef long long index_t;",
        '#line 3 "a.cu"',
        '#line 1 "other.cuh"',
        '#line 2 "other.cuh"',
        "int other;",
        '#line 4 "a.cu"',
        "#include <system>",
        "int a;",
    ]


@pytest.mark.parametrize("file", sorted(path.name for path in _source.kernel_folder().glob("*.cu")))
def test_our_kernels_include_nothing_that_stays_outside(file):
    assert "#include" not in _source.source(file)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ((), "f"),
        (("int16", 3), "f<short, 3>"),
        (("uint8", "float64", True, -1), "f<unsigned char, double, true, -1>"),
        (("complex64", "bool", "int64"), "f<float2, bool, long long>"),
    ],
)
def test_instantiations_in_the_words_of_cpp(template, text):
    assert _source.expression("f", template) == text


@pytest.mark.parametrize("dtype", ["float16", "S3", "object", ">f4"])
def test_a_dtype_that_kernels_do_not_know_is_refused(dtype):
    with pytest.raises(KernelError, match="no kernel works on dtype"):
        _source.expression("f", (dtype,))
