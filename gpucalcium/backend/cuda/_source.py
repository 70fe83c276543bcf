"""Find the CUDA kernels and read them: one text a file, its headers pasted in.

CuPy keeps compiled kernels on disk under a key made of source text, options and architecture, but not
of included headers: a header must therefore be part of the text, or a change in it goes unnoticed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from gpucalcium.backend import settings
from gpucalcium.errors import KernelError

MARKER = "KERNELS"  # a file of this name makes a folder one of kernels
_PACKAGE = Path(__file__).parents[2]
_INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


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
