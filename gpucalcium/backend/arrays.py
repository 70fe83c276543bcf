"""Arrays of either device, and the array functions that are known to mean the same on both.

A function is used through a namespace of this module, ``arrays.fft(frames).rfft2(...)``, and only if
it stands on the list: each listed function has a test that holds NumPy/SciPy and CuPy side by side.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np

from gpucalcium.backend import device as _device
from gpucalcium.errors import ArrayTypeError

Array = Any
"""A NumPy or CuPy array: the two share no base class."""

_ALLOWED: dict[str, frozenset[str]] = {
    "xp": frozenset(
        """abs all any arange argmax argsort asarray ascontiguousarray clip concatenate copyto cos cumsum
        divide dot einsum empty empty_like exp eye float32 float64 full isfinite isnan log matmul max
        maximum mean median min minimum moveaxis multiply nan nan_to_num nanmax nanmean nanmedian nanmin
        newaxis nonzero ones outer pi ravel reshape round sin sort sqrt square stack std subtract sum
        take tensordot transpose where zeros zeros_like""".split()
    ),
    "fft": frozenset(
        "fft fftfreq fftn fftshift ifft ifftn irfft irfft2 irfftn rfft rfft2 rfftfreq rfftn".split()
    ),
    "ndimage": frozenset("convolve1d correlate1d gaussian_filter uniform_filter".split()),
    "linalg": frozenset("cholesky norm solve".split()),
    "sparse": frozenset("csc_matrix csr_matrix".split()),
}
_MODULES = {
    "xp": ("numpy", "cupy"),
    "fft": ("scipy.fft", "cupyx.scipy.fft"),
    "ndimage": ("scipy.ndimage", "cupyx.scipy.ndimage"),
    "linalg": ("numpy.linalg", "cupy.linalg"),
    "sparse": ("scipy.sparse", "cupyx.scipy.sparse"),
}
_THREADED_FFTS = _ALLOWED["fft"] - {"fftfreq", "rfftfreq", "fftshift"}


class Namespace:
    """The listed functions of one library, and no others."""

    def __init__(self, kind: str, module: ModuleType) -> None:
        self._kind, self._module = kind, module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _ALLOWED[self._kind]:
            raise AttributeError(
                f"{self._kind}.{name} is not on the list of functions proven equal on CPU and CUDA; "
                "add it to gpucalcium/backend/arrays.py together with its test"
            )
        function = getattr(self._module, name)
        if self._module.__name__ == "scipy.fft" and name in _THREADED_FFTS:
            return partial(function, workers=_device.threads())
        return function


@cache
def _namespace(kind: str, on_gpu: bool) -> Namespace:
    return Namespace(kind, importlib.import_module(_MODULES[kind][on_gpu]))


def xp(x: Array) -> Namespace:
    """Listed functions of NumPy or CuPy, by where `x` lives."""
    return _namespace("xp", is_cupy(x))


def fft(x: Array) -> Namespace:
    """Listed Fourier transforms for `x`: SciPy's (all threads) or CuPy's; both keep float32."""
    return _namespace("fft", is_cupy(x))


def ndimage(x: Array) -> Namespace:
    """Listed image filters for `x`."""
    return _namespace("ndimage", is_cupy(x))


def linalg(x: Array) -> Namespace:
    """Listed linear algebra for `x`."""
    return _namespace("linalg", is_cupy(x))


def sparse(x: Array) -> Namespace:
    """Listed sparse matrix classes for `x`."""
    return _namespace("sparse", is_cupy(x))


def is_cupy(x: object) -> bool:
    """Whether `x` is a CuPy array; never imports CuPy (its arrays cannot exist before it is loaded)."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(x: Array) -> ModuleType:
    """The library `x` belongs to: cupy or numpy."""
    return sys.modules["cupy"] if is_cupy(x) else np


def to_numpy(x: Array) -> np.ndarray:
    """`x` in host memory; NumPy arrays pass through uncopied."""
    if is_cupy(x):
        return x.get()
    if hasattr(x, "__cuda_array_interface__"):
        return _adopt(x).get()
    return np.asarray(x)


def put(x: Array) -> Array:
    """`x` as a C-contiguous array on the device where work on it is done.

    What is on a GPU stays there (CuPy, or anything with ``__cuda_array_interface__``); everything else
    goes to the active device.
    """
    if is_cupy(x) or hasattr(x, "__cuda_array_interface__"):
        x = _adopt(x)
        return array_module(x).ascontiguousarray(x)
    host = np.asarray(x)
    if host.dtype.hasobject:
        raise ArrayTypeError(f"an array of dtype {host.dtype} holds Python objects; give numbers")
    place = _device.active()
    if place.kind == "cpu":
        return np.ascontiguousarray(host)
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(place.index):
        return cupy.asarray(np.ascontiguousarray(host))


def _adopt(x: Array) -> Array:
    if is_cupy(x):
        return x
    _device.use("cuda").__exit__(None, None, None)  # raises, with the mend, where no GPU can be used
    return importlib.import_module("cupy").asarray(x)


def like(reference: object, result: Array) -> Array:
    """`result` as the kind of array that was given: CuPy for CuPy, else NumPy."""
    if is_cupy(reference):
        return result if is_cupy(result) else sys.modules["cupy"].asarray(result)
    return to_numpy(result)


def zeros(shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
    """Array of zeros on the active device."""
    return _active_module().zeros(shape, dtype)


def empty(shape: int | tuple[int, ...], dtype: Any = "float32") -> Array:
    """Array without defined content on the active device."""
    return _active_module().empty(shape, dtype)


def _active_module() -> ModuleType:
    return np if _device.active().kind == "cpu" else importlib.import_module("cupy")
