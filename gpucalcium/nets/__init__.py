"""Neural networks: what they are made of, how they are kept in files, and how they run (with PyTorch, an extra).

Importing this imports no PyTorch; making or loading a network does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpucalcium.errors import MissingExtraError
from gpucalcium.nets.network_file import load_network, save_network
from gpucalcium.nets.plan import Layer, Plan
from gpucalcium.nets.spec import NetworkSpec

if TYPE_CHECKING:
    from gpucalcium.nets._torch_state import cpu_threads
    from gpucalcium.nets.cinac_network import Network, build_network

_WITH_TORCH = {"Network": "cinac_network", "build_network": "cinac_network", "cpu_threads": "_torch_state"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    except ModuleNotFoundError as err:
        if err.name != "torch":
            raise
        raise MissingExtraError("networks run on PyTorch: pip install 'gpucalcium[nets]'") from err


__all__ = [
    "Layer",
    "Network",
    "NetworkSpec",
    "Plan",
    "build_network",
    "cpu_threads",
    "load_network",
    "save_network",
]
