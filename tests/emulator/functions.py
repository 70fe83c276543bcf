"""Functions of the stand-in: NumPy's, by a list of those that CuPy has, with the keywords that CuPy takes.

A name or keyword that is not listed raises. Before adding one, look it up in CuPy's documentation:
the list is what keeps code that runs here running there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.emulator.array import (
    SCALARS,
    adopt,
    checked_dtype,
    compute,
    fresh,
    ndarray,
    unsupported,
    unwrap,
    wrap,
)

_UFUNCS = """abs absolute add arccos arcsin arctan arctan2 bitwise_and bitwise_or bitwise_xor cbrt ceil conj
conjugate copysign cos cosh deg2rad divide equal exp exp2 expm1 fabs floor floor_divide fmax fmin fmod greater
greater_equal hypot invert isfinite isinf isnan ldexp left_shift less less_equal log log10 log1p log2 logical_and
logical_not logical_or logical_xor maximum minimum mod multiply negative not_equal power rad2deg remainder
right_shift rint sign signbit sin sinh sqrt square subtract tan tanh true_divide trunc"""

# keywords, then the functions that take them (and no others)
_GROUPS = {
    "out dtype casting": _UFUNCS,
    "axis dtype out keepdims": "sum prod nansum nanprod mean nanmean",
    "axis out keepdims": "max min amax amin nanmax nanmin all any argmax argmin nanargmax nanargmin",
    "axis dtype out keepdims ddof": "std var nanstd nanvar",
    "axis dtype out": "cumsum cumprod",
    "offset axis1 axis2 dtype out": "trace",
    "deg": "angle",
    "axis out overwrite_input keepdims": "median nanmedian",
    "axis out overwrite_input method keepdims": "percentile quantile",
    "axis out dtype casting": "concatenate stack",
    "axis": """sort argsort expand_dims squeeze roll flip count_nonzero
        repeat delete append take_along_axis cross""",
    "axis kth": "partition argpartition",
    "axis out": "take",
    "axis n prepend append": "diff",
    "axis weights returned": "average",
    "a_min a_max out": "clip",
    "decimals out": "round around",
    "copy nan posinf neginf": "nan_to_num",
    "order": "reshape ravel flatten",
    "axes": "transpose tensordot rot90",
    "axis1 axis2": "swapaxes",
    "out": "dot matmul outer choose compress",
    "k": "diag tril triu",
    "offset axis1 axis2": "diagonal",
    "mode constant_values end_values": "pad",
    "side sorter": "searchsorted",
    "right": "digitize",
    "left right period": "interp",
    "weights minlength": "bincount",
    "bins range weights density": "histogram",
    "return_index return_inverse return_counts": "unique",
    "indexing": "meshgrid",
    "rtol atol equal_nan": "allclose isclose",
    "equal_nan": "array_equal",
    "wrap": "fill_diagonal",
    "rowvar bias ddof": "cov",
    "optimize": "einsum",
    "casting where": "copyto",
    "": """argwhere atleast_1d atleast_2d atleast_3d broadcast_arrays broadcast_to column_stack dstack fliplr
        flipud flatnonzero hstack imag inner iscomplexobj isrealobj kron moveaxis nonzero
        ravel_multi_index real rollaxis split array_split tile unravel_index vdot vstack where""",
}
KEYWORDS: dict[str, frozenset[str]] = {
    name: frozenset(keywords.split()) for keywords, names in _GROUPS.items() for name in names.split()
}
_TAKES_SEQUENCES = frozenset(
    "concatenate stack hstack vstack dstack column_stack lexsort unravel_index".split()
)
_PLAIN = """bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp float16 float32 float64 complex64
complex128 dtype finfo iinfo newaxis pi e inf nan result_type can_cast promote_types ndim shape size isscalar
issubdtype floating integer complexfloating signedinteger unsignedinteger number inexact generic s_ ix_""".split()


def check_keywords(name: str, given: Any) -> None:
    allowed = KEYWORDS.get(name, frozenset())
    if wrong := sorted(set(given) - allowed):
        raise TypeError(f"the stand-in's {name} takes no {', '.join(wrong)} (keywords: {sorted(allowed)})")


def listed(name: str, function: Any) -> Any:
    """`function` of NumPy as one of CuPy: arrays of the device in and out, NumPy arrays refused."""

    elementwise = name in _UFUNCS.split()

    def call(*args: Any, **kwargs: Any) -> Any:
        check_keywords(name, kwargs)
        if args and isinstance(args[0], (list, tuple)):
            if name not in _TAKES_SEQUENCES:
                raise unsupported(args[0])
            if any(not isinstance(part, ndarray) for part in args[0]):
                raise TypeError(f"{name} joins CuPy arrays only")
        for arg in args if elementwise else args[:1]:
            if isinstance(arg, np.ndarray) or (elementwise and isinstance(arg, (list, tuple))):
                raise unsupported(arg)
        return compute(function, *args, **kwargs)

    call.__name__ = name
    return call


# ---- arrays from elsewhere ----------------------------------------------------------------------------------


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    if isinstance(obj, ndarray):
        made = obj.astype(obj.dtype if dtype is None else dtype, order=order, copy=copy)
        if order in "CF" and not made.flags[f"{order}_contiguous"]:
            made = made.copy(order)
        return made[(None,) * (ndmin - made.ndim)] if made.ndim < ndmin else made
    if hasattr(obj, "__cuda_array_interface__"):
        return array(adopt(obj), dtype, copy, order, ndmin=ndmin)
    if isinstance(obj, (list, tuple)) and _holds_arrays(obj):
        obj = np.stack([part.get() if isinstance(part, ndarray) else part for part in obj])
    host = np.array(obj, dtype=dtype, order="K" if order == "A" else order, ndmin=ndmin)  # type: ignore[call-overload]
    return fresh(host.astype(host.dtype.newbyteorder("="), copy=False))


def _holds_arrays(obj: Any) -> bool:
    return any(isinstance(part, ndarray) for part in obj)


def asarray(a: Any, dtype: Any = None, order: str | None = None, *, blocking: bool = False) -> ndarray:
    return array(a, dtype, copy=False, order=order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, copy=False, order="C", ndmin=1)


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    return array(a, dtype, copy=False, order="F", ndmin=1)


def copy(a: ndarray, order: str = "K") -> ndarray:
    return fresh(unwrap(a).copy(order))


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    if isinstance(a, ndarray):
        return a.get(stream, order, out)
    if out is None:
        return np.asarray(a, order=order)  # type: ignore[call-overload]
    out[...] = a
    return out


# ---- new arrays -----------------------------------------------------------------------------------------------


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    if isinstance(fill_value, np.ndarray):
        raise unsupported(fill_value)
    made = empty(shape, np.result_type(unwrap(fill_value)) if dtype is None else dtype, order)
    made[...] = fill_value
    return made


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def _like(make: Any) -> Any:
    def function(
        a: ndarray, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None
    ) -> ndarray:
        host = unwrap(a)
        if order in "KA":
            order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
        return make(host.shape if shape is None else shape, dtype or host.dtype, order)

    return function


def full_like(a: ndarray, fill_value: Any, dtype: Any = None, order: str = "K") -> ndarray:
    made = _like(empty)(a, dtype, order)
    made[...] = fill_value
    return made


def _generated(function: Any) -> Any:
    def generate(*args: Any, **kwargs: Any) -> ndarray:
        if any(isinstance(arg, (np.ndarray, ndarray)) and arg.ndim for arg in args):
            raise unsupported(args[0])
        return fresh(function(*map(_as_number, args), **kwargs))

    return generate


def _as_number(value: Any) -> Any:
    return value.item() if isinstance(value, ndarray) else value


# ---- functions that NumPy words otherwise ------------------------------------------------------------------


def einsum(subscripts: str, *operands: ndarray, **kwargs: Any) -> ndarray:
    check_keywords("einsum", kwargs)
    return wrap(np.einsum(subscripts, *map(unwrap, operands), **kwargs), *operands)


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    extra = {} if where is None else {"where": unwrap(where)}
    np.copyto(unwrap(dst), unwrap(src), casting=casting, **extra)


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: int) -> None:
    np.put_along_axis(unwrap(arr), unwrap(indices), unwrap(values), axis)


def where(condition: ndarray, *choices: Any) -> Any:
    for part in (condition, *choices):
        if not isinstance(part, (ndarray, *SCALARS)):
            raise unsupported(part)
    return compute(np.where, condition, *choices)


def argsort(a: ndarray, axis: int | None = -1, kind: Any = None) -> ndarray:
    return compute(np.argsort, a, axis=axis, kind="stable")  # CuPy's only kind


def lexsort(keys: ndarray) -> ndarray:
    if not isinstance(keys, ndarray):
        raise TypeError("lexsort takes one CuPy array, its rows the keys")
    return compute(np.lexsort, keys)


def get_array_module(*args: Any) -> Any:
    import sys

    on_device = any(isinstance(arg, ndarray) for arg in args)
    return sys.modules["cupy"] if on_device else np


def may_share_memory(a: Any, b: Any) -> bool:
    return bool(np.may_share_memory(unwrap(a), unwrap(b)))


def table() -> dict[str, Any]:
    """Everything that the stand-in's top level offers, by name."""
    names: dict[str, Any] = {name: listed(name, _numpys(name)) for name in KEYWORDS if name != "flatten"}
    names |= {name: getattr(np, name) for name in _PLAIN}
    generated = ("arange", "linspace", "logspace", "eye", "identity", "tri", "hanning", "hamming", "indices")
    names |= {name: _generated(getattr(np, name)) for name in generated}
    own = (
        array, asarray, ascontiguousarray, asfortranarray, copy, asnumpy, empty, full, zeros, ones, full_like,
        einsum, copyto, put_along_axis, where, argsort, lexsort, get_array_module, may_share_memory,
    )  # fmt: skip
    names |= {function.__name__: function for function in own}
    names |= {f"{make.__name__}_like": _like(make) for make in (empty, zeros, ones)}
    return names | {"ndarray": ndarray, "asanyarray": asarray, "bool": np.bool_} | {
        "int_": np.int64,
        "float_": np.float64,
    }  # fmt: skip


def _numpys(name: str) -> Any:
    return getattr(np, name)


__all__ = ["KEYWORDS", "check_keywords", "checked_dtype", "listed", "table"]
