"""Listed parts of `cupy.fft`, `cupy.linalg`, `cupyx` and `cupyx.scipy`."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.special

from tests.emulator.array import compute, fresh, ndarray, unwrap
from tests.emulator.functions import _generated
from tests.emulator.memory import alloc_pinned_memory

_COMPLEX_IN = "fft ifft fft2 ifft2 fftn ifftn"
_REAL_IN = "rfft rfft2 rfftn"
_REAL_OUT = "irfft irfft2 irfftn"
_KEYWORDS = {1: "n axis norm", 2: "s axes norm"}
_NDIMAGE = """affine_transform binary_closing binary_dilation binary_erosion binary_fill_holes binary_opening
black_tophat center_of_mass convolve convolve1d correlate correlate1d distance_transform_edt fourier_shift
gaussian_filter gaussian_filter1d gaussian_laplace generate_binary_structure grey_closing grey_dilation
grey_erosion grey_opening label laplace map_coordinates maximum maximum_filter maximum_filter1d maximum_position
mean median_filter minimum minimum_filter minimum_filter1d percentile_filter rank_filter rotate shift sobel
spline_filter standard_deviation sum_labels uniform_filter uniform_filter1d variance white_tophat zoom"""
_LINALG = "cholesky det eigh eigvalsh inv lstsq matrix_power norm pinv qr slogdet solve svd"


def listed(function: Any, keywords: str | None = None) -> Any:
    """`function` on arrays of the device; `keywords` the ones that CuPy takes (None: SciPy's)."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if keywords is not None and (wrong := sorted(set(kwargs) - set(keywords.split()))):
            raise TypeError(f"the stand-in's {function.__name__} takes no {', '.join(wrong)}")
        if not any(isinstance(arg, ndarray) for arg in (*args, *kwargs.values())):
            raise TypeError(f"{function.__name__} takes CuPy arrays")
        return compute(function, *args, **kwargs)

    call.__name__ = function.__name__
    return call


def _transforms(extra: str) -> dict[str, Any]:
    """Fourier transforms; float32 gives complex64, as cuFFT and SciPy do."""
    names: dict[str, Any] = {}
    for name in f"{_COMPLEX_IN} {_REAL_IN} {_REAL_OUT}".split():
        axes = 1 if name.endswith("fft") else 2
        names[name] = listed(getattr(scipy.fft, name), f"{_KEYWORDS[axes]} {extra}")
    shifts = {name: listed(getattr(scipy.fft, name), "axes") for name in ("fftshift", "ifftshift")}
    return names | shifts | {name: _generated(getattr(scipy.fft, name)) for name in ("fftfreq", "rfftfreq")}


class PlanCache:
    """The cache of FFT plans: its calls, no plans."""

    def __init__(self) -> None:
        self._size, self._memory = 16, -1

    def clear(self) -> None:
        pass

    def get_size(self) -> int:
        return self._size

    def set_size(self, size: int) -> None:
        self._size = size

    def get_memsize(self) -> int:
        return self._memory

    def set_memsize(self, size: int) -> None:
        self._memory = size

    def get_curr_size(self) -> int:
        return 0

    def get_curr_memsize(self) -> int:
        return 0


_plans = PlanCache()


def fft() -> dict[str, Any]:
    config = SimpleNamespace(get_plan_cache=lambda: _plans, clear_plan_cache=_plans.clear)
    return _transforms("") | {"config": config}


def scipy_fft() -> dict[str, Any]:
    return _transforms("overwrite_x plan") | {"next_fast_len": scipy.fft.next_fast_len}


def linalg() -> dict[str, Any]:
    return {name: listed(getattr(np.linalg, name)) for name in _LINALG.split()}


def scipy_linalg() -> dict[str, Any]:
    return {
        name: listed(getattr(scipy.linalg, name)) for name in ("solve_triangular", "lu_factor", "lu_solve")
    }


def ndimage() -> dict[str, Any]:
    return {name: listed(getattr(scipy.ndimage, name)) for name in _NDIMAGE.split()}


def special() -> dict[str, Any]:
    return {
        name: listed(getattr(scipy.special, name)) for name in "erf erfc erfinv gammaln ndtr ndtri".split()
    }


def signal() -> dict[str, Any]:
    names = "convolve fftconvolve lfilter sosfilt filtfilt sosfiltfilt".split()
    return {name: listed(getattr(scipy.signal, name)) for name in names}


# ---- cupyx itself --------------------------------------------------------------------------------------------


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    items = math.prod(shape)
    buffer = alloc_pinned_memory(items * np.dtype(dtype).itemsize)
    return np.frombuffer(buffer, dtype, items).reshape(shape, order=order)  # type: ignore[call-overload]


def zeros_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    made = empty_pinned(shape, dtype, order)
    made.fill(0)
    return made


def scatter_add(a: ndarray, slices: Any, value: Any) -> None:
    np.add.at(unwrap(a), unwrap(slices), unwrap(value))


def rsqrt(x: ndarray) -> ndarray:
    return fresh(1 / np.sqrt(unwrap(x)))


def cupyx() -> dict[str, Any]:
    names = (empty_pinned, zeros_pinned, scatter_add, rsqrt)
    return {function.__name__: function for function in names}


__all__ = ["cupyx", "fft", "linalg", "ndimage", "scipy_fft", "scipy_linalg", "signal", "special"]
