"""Find the CUDA kernels and read them: one text a file, its headers pasted in.

CuPy keeps compiled kernels on disk under a key made of source text, options and architecture, but not
of included headers: a header must therefore be part of the text, or a change in it goes unnoticed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpucalcium.backend import settings
from gpucalcium.errors import KernelError

OPTIONS = ("-std=c++17",)  # CuPy itself adds -ftz=true: float32 subnormals count as zero
MARKER = "KERNELS"  # a file of this name makes a folder one of kernels
_PACKAGE = Path(__file__).parents[2]
_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


C_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
    "complex64": "float2",
    "complex128": "double2",
}
"""NumPy's names of the types that kernels work on, and what CUDA C++ calls them."""


def places() -> list[Path]:
    """Folders that are searched, in order: the setting, inside the package, beside it."""
    chosen = settings.get("kernels")
    built_in = [_PACKAGE / "_kernels", _PACKAGE.parent / "kernels"]
    return built_in if chosen is None else [Path(chosen)]


def kernel_folder() -> Path:
    """Folder that holds the kernels.

    Where GPUCALCIUM_KERNELS is set, that one and no other; else ``_kernels`` in an installed package, or
    ``kernels`` beside the package in a checkout.

    Raises
    ------
    KernelError
        None of the places is a folder of kernels; the message names them.
    """
    for place in places():
        if (place / MARKER).is_file():
            return place.resolve()
    searched = ", ".join(map(str, places()))
    if settings.get("kernels") is not None:
        raise KernelError(
            f"GPUCALCIUM_KERNELS={searched} is no folder of CUDA kernels (it holds no file {MARKER}); "
            "correct it, or unset it to use the kernels that came with the package"
        )
    raise KernelError(
        f"the CUDA kernels of gpucalcium were found nowhere (searched: {searched}); reinstall the package, "
        "or set GPUCALCIUM_KERNELS to the folder"
    )


def source(file: str) -> str:
    """Text of a kernel file, its headers pasted in.

    ``#line`` directives keep the compiler's messages about the files as they are on disk. A header that
    is not in the folder of kernels is left to the compiler.

    Parameters
    ----------
    file : str
        Name in the folder of kernels, such as "correlation.cu".

    Raises
    ------
    KernelError
        No kernels, or none of that name; the message names the folder and the files that are there.
    """
    return _pasted(kernel_folder(), file)


@cache
def _pasted(place: Path, file: str) -> str:
    if not (place / file).is_file():
        there = ", ".join(sorted(path.name for path in place.glob("*.cu"))) or "none"
        raise KernelError(f"no kernel file {file!r} in {place}; there are: {there}")
    return "\n".join(_lines(place, file, set())) + "\n"


def _lines(place: Path, file: str, pasted: set[str]) -> list[str]:
    """Lines of one file, each header in place of its first ``#include`` and nothing in place of the others."""
    pasted.add(file)
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate((place / file).read_text(encoding="utf-8").splitlines(), start=1):
        included = _INCLUDE.match(line)
        if included is None or not (place / included[1]).is_file():
            lines.append(line)
            continue
        if included[1] not in pasted:
            lines += _lines(place, included[1], pasted)
        lines.append(f'#line {number + 1} "{file}"')
    return lines


def expression(name: str, template: tuple[Any, ...]) -> str:
    """An instantiation as C++ writes it: ``add_change<short, 3>``; of a plain function, its name.

    Parameters
    ----------
    name : str
        Function in a kernel file.
    template : tuple of dtypes, ints and bools
        Its template arguments in order.

    Raises
    ------
    KernelError
        A dtype that kernels do not work on.
    """
    return f"{name}<{', '.join(map(_c_name, template))}>" if template else name


def _c_name(argument: Any) -> str:
    """A template argument in C++: the type of a dtype, or a number as it is."""
    if isinstance(argument, (bool, np.bool_)):
        return str(bool(argument)).lower()
    if isinstance(argument, (int, np.integer)):
        return str(int(argument))
    dtype = np.dtype(argument)
    if dtype.name not in C_TYPES or not dtype.isnative:
        raise KernelError(f"no kernel works on dtype {dtype}; there are {', '.join(C_TYPES)}")
    return C_TYPES[dtype.name]
