"""The ground floor: devices, arrays of either kind, chunks of frames, and the two wings.

The only place that knows CuPy. Code above says ``backend.wing(frames).filters.gaussian(...)`` and never
asks which device it is on.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from gpucalcium.backend import arrays
from gpucalcium.backend.arrays import (
    Array,
    array_module,
    empty,
    is_cupy,
    like,
    put,
    to_numpy,
    zeros,
)
from gpucalcium.backend.device import (
    Device,
    Probe,
    State,
    active,
    budget,
    chunk_frames,
    free_memory,
    limit,
    probe,
    threads,
    use,
)
from gpucalcium.backend.lanes import lane_count, one_blas_thread, side_by_side
from gpucalcium.backend.stream import FrameSource, hold, pipe, retry_halved, stream


def wing(*given: Array) -> ModuleType:
    """The twin package for where the arrays live: ``gpucalcium.backend.cuda`` if one is on a GPU, else ``.cpu``.

    Without arrays: that of the active device. Both packages hold the same modules, functions and signatures.
    """
    on_gpu = any(map(is_cupy, given)) if given else active().kind == "cuda"
    return importlib.import_module(f"{__name__}.{'cuda' if on_gpu else 'cpu'}")


__all__ = [
    "Array",
    "Device",
    "FrameSource",
    "Probe",
    "State",
    "active",
    "array_module",
    "arrays",
    "budget",
    "chunk_frames",
    "empty",
    "free_memory",
    "hold",
    "is_cupy",
    "lane_count",
    "like",
    "limit",
    "one_blas_thread",
    "pipe",
    "probe",
    "put",
    "retry_halved",
    "side_by_side",
    "stream",
    "threads",
    "to_numpy",
    "use",
    "wing",
    "zeros",
]
