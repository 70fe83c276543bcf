"""The CUDA wing without a GPU: a strict stand-in for CuPy whose kernels run on the CPU.

`install()` puts it in place of ``cupy`` and ``cupyx``, before anything uses those. It is stricter than CuPy
where CuPy is lenient, and never the other way: what runs here runs there.

Environment variables
---------------------
GPUCALCIUM_EMULATOR_SEEDS
    Orders of threads under which each launch is run, with equal results demanded; default 3, and 1 for launches
    of more than 200,000 threads.
GPUCALCIUM_EMULATOR_SANITIZE
    1: kernels are compiled with AddressSanitizer and UBSan, which must be preloaded (``make sanitize``).
GPUCALCIUM_EMULATOR_DEVICES
    Emulated devices; default 2.
GPUCALCIUM_EMULATOR_CACHE
    Folder of compiled kernels; default ``.cache/emulator``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

VERSION = "14.0.0"


class StandIn(ModuleType):
    """A module that says where to add a name that it lacks."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"the stand-in for {self.__name__} has no {name!r}. If CuPy has it, and means the same as the CPU "
            "wing's, add it to the lists in tests/emulator/"
        )


def installed() -> bool:
    """Whether ``cupy`` is the stand-in."""
    return isinstance(sys.modules.get("cupy"), StandIn)


def install() -> None:
    """Put the stand-in in place of ``cupy`` and ``cupyx``; a real one without a GPU is forgotten."""
    if installed():
        return
    if "gpucalcium.backend.cuda._launch" in sys.modules:
        raise RuntimeError("the CUDA wing is in use already; install the stand-in first")
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupyx", "cupy_backends")
    ]:
        del sys.modules[name]
    from tests.emulator import compiler, cuda, functions, memory, scipy_parts, sparse

    top = functions.table() | {
        "RawModule": compiler.RawModule,
        "__version__": VERSION,
        "get_default_memory_pool": lambda: memory.pool,
        "get_default_pinned_memory_pool": lambda: memory.pinned_pool,
    }
    _module("cupy", top)
    _module("cupy.cuda", cuda.contents())
    _module("cupy.fft", scipy_parts.fft())
    _module("cupy.linalg", scipy_parts.linalg())
    _module("cupyx", scipy_parts.cupyx())
    _module("cupyx.scipy", {})
    _module("cupyx.scipy.fft", scipy_parts.scipy_fft())
    _module("cupyx.scipy.linalg", scipy_parts.scipy_linalg())
    _module("cupyx.scipy.ndimage", scipy_parts.ndimage())
    _module("cupyx.scipy.signal", scipy_parts.signal())
    _module("cupyx.scipy.special", scipy_parts.special())
    _module("cupyx.scipy.sparse", sparse.contents())


def _module(name: str, contents: dict[str, Any]) -> None:
    module = StandIn(name)
    module.__dict__.update(contents)
    module.__path__ = []  # so that `import cupyx.scipy.fft` looks inside
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
