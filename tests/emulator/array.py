"""The stand-in's ndarray: NumPy's arithmetic on emulated device memory, with CuPy's refusals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.emulator import cuda
from tests.emulator.memory import AdoptedMemory, Memory, is_pinned

WING = str(Path(__file__).parents[2] / "gpucalcium" / "backend" / "cuda")
SCALARS = (bool, int, float, complex, np.generic)


class WaitsForDevice(RuntimeError):
    """A function of the CUDA wing needs a value on the host: the device would run dry."""


def _forbid_waiting() -> None:
    """Refuse what waits for the device where a function of the CUDA wing asks for it."""
    frame = sys._getframe(2)
    if frame.f_code.co_filename.startswith(WING):
        raise WaitsForDevice(
            f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} waits for the device; wing functions never do"
        )


class ndarray:
    """An array on the emulated device. Nothing turns it into a NumPy array but `get()` and `item()`."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        dtype = checked_dtype(dtype)
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if memptr is None:
            self._memory = Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
            self._memory.poison()
            offset = 0
        else:
            self._memory, offset = memptr.mem, memptr.ptr - memptr.mem.ptr
        self._array: np.ndarray = np.ndarray(shape, dtype, self._memory.bytes, offset, strides, order)  # type: ignore[call-overload]

    @classmethod
    def _of(cls, array: np.ndarray, memory: Memory) -> ndarray:
        made = cls.__new__(cls)
        made._array, made._memory = array, memory
        return made

    @property
    def _a(self) -> np.ndarray:
        """The NumPy array that does the work, once the copies before it on the current stream are done."""
        cuda.settle()
        return self._array

    # ---- leaving the device -------------------------------------------------------------------------------

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        if blocking:
            _forbid_waiting()
        if out is None:
            out = np.empty(self.shape, self.dtype, "C" if order == "A" else order)  # type: ignore[call-overload]
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out.dtype != self.dtype:
            raise TypeError(f"out dtype mismatch. Expected: {self.dtype}, got: {out.dtype}")
        if out.shape != self.shape:
            raise ValueError(f"out shape mismatch. Expected: {self.shape}, got: {out.shape}")
        if not (out.flags.c_contiguous or out.flags.f_contiguous):
            raise RuntimeError("`out` cannot be specified when copying to non-contiguous ndarray")
        source, stream = self._array, stream or cuda.get_current_stream()
        stream.submit(lambda: np.copyto(out, source))
        if blocking or not is_pinned(out):
            stream.flush()
        return out

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not (self._a.flags.c_contiguous or self._a.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        if not is_pinned(arr):
            arr = arr.copy()  # as the driver does before it returns
        target = self._array
        (stream or cuda.get_current_stream()).submit(lambda: np.copyto(target, arr))

    def item(self, *args: int) -> Any:
        _forbid_waiting()
        return self._a.item(*args)

    def tolist(self) -> Any:
        _forbid_waiting()
        return self._a.tolist()

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} of a CuPy array: call CuPy's own")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        return compute(ufunc, *inputs, **kwargs)

    def __bool__(self) -> bool:
        _forbid_waiting()
        return bool(self._a)

    def __int__(self) -> int:
        _forbid_waiting()
        return int(self._a.item())

    def __float__(self) -> float:
        _forbid_waiting()
        return float(self._a.item())

    def __complex__(self) -> complex:
        _forbid_waiting()
        return complex(self._a.item())

    def __index__(self) -> int:
        _forbid_waiting()
        return self._a.__index__()

    def __repr__(self) -> str:
        return repr(self._a)

    def __str__(self) -> str:
        return str(self._a)

    def __format__(self, spec: str) -> str:
        return format(self._a if self.ndim else self._a.item(), spec)

    # ---- what it is ---------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self._a.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._array = view_as(self._array, shape)

    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    device = property(lambda self: cuda.Device(self._memory.device))
    T = property(lambda self: view(self, self._a.T))
    imag = property(lambda self: wrap(self._a.imag, self))
    real = property(lambda self: wrap(self._a.real, self))

    @real.setter
    def real(self, value: Any) -> None:
        self._a.real = unwrap(value)

    @imag.setter
    def imag(self, value: Any) -> None:
        self._a.imag = unwrap(value)

    @property
    def flags(self) -> Any:
        return Flags(self._a.flags, self._a.nbytes == self._memory.size)

    @property
    def data(self) -> cuda.MemoryPointer:
        start = self._a.ctypes.data if self._a.size else self._memory.ptr
        return cuda.MemoryPointer(self._memory, start - self._memory.ptr)

    @property
    def base(self) -> Any:
        return None if self._a.nbytes == self._memory.size else SimpleNamespace(memory=self._memory)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "descr": self.dtype.descr,
            "stream": 1,
            "version": 3,
            "strides": None if self._a.flags.c_contiguous else self.strides,
            "data": (self.data.ptr, False),
        }

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # ---- parts --------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> ndarray:
        index = unwrap_index(index)
        if not any(part is Ellipsis for part in index):
            index = (*index, Ellipsis)  # an element stays an array, as CuPy's
        return wrap(self._a[index], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, (ndarray, *SCALARS)):
            raise unsupported(value)
        with np.errstate(all="ignore"):
            self._a[unwrap_index(index)] = unwrap(value)

    # ---- copies -------------------------------------------------------------------------------------------

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        dtype = checked_dtype(dtype)
        if not copy and dtype == self.dtype and (order in ("K", "A") or self.flags[f"{order}_contiguous"]):
            return self
        with np.errstate(all="ignore"):
            return fresh(self._a.astype(dtype, order, casting or "unsafe"))  # type: ignore[call-overload]

    def copy(self, order: str = "C") -> ndarray:
        return fresh(self._a.copy(order))  # type: ignore[arg-type]

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    def fill(self, value: Any) -> None:
        if not isinstance(value, SCALARS) and not (isinstance(value, ndarray) and value.ndim == 0):
            raise unsupported(value)
        self._a.fill(unwrap(value))

    def view(self, dtype: Any = None) -> ndarray:
        return view(self, self._a.view() if dtype is None else self._a.view(checked_dtype(dtype)))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        self._a.sort(axis)

    def argsort(self, axis: int = -1, kind: Any = None) -> ndarray:
        return compute(np.argsort, self, axis=axis, kind="stable")  # CuPy's only kind


class Flags:
    """`array.flags`, by attribute and by key."""

    def __init__(self, flags: Any, owndata: bool) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata, self.forc, self.fnc = owndata, flags.forc, flags.fnc

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


# ---- between the two kinds ------------------------------------------------------------------------------


def unsupported(value: Any) -> TypeError:
    return TypeError(f"Unsupported type {type(value)}")


def checked_dtype(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype.kind not in "?biufc" or not dtype.isnative or dtype.name in ("longdouble", "clongdouble"):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def unwrap(value: Any) -> Any:
    """The NumPy array inside; refuses NumPy arrays, as CuPy refuses to mix."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, np.ndarray):
        raise unsupported(value)
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(part) for part in value)
    return value


def unwrap_index(index: Any) -> tuple[Any, ...]:
    """An index for NumPy; lists and NumPy arrays may be indices, as in CuPy."""
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(part._a if isinstance(part, ndarray) else part for part in parts)


def fresh(array: Any) -> ndarray:
    """A result of NumPy as a new array on the device, in the same memory order."""
    array = np.asarray(array)
    checked_dtype(array.dtype)
    memory = Memory(array.nbytes)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    made: np.ndarray = np.ndarray(array.shape, array.dtype, memory.bytes, order=order)  # type: ignore[call-overload]
    made[...] = array
    return ndarray._of(made, memory)


def view(owner: ndarray, array: np.ndarray) -> ndarray:
    return ndarray._of(array, owner._memory)


def view_as(array: np.ndarray, shape: Any) -> np.ndarray:
    reshaped = array.view()
    reshaped.shape = shape
    return reshaped


def wrap(result: Any, *inputs: Any) -> Any:
    """A result of NumPy on the device: a view where it is one of an input, else new memory."""
    if isinstance(result, (tuple, list)):
        return type(result)(wrap(part, *inputs) for part in result)
    if result is None:
        return None
    if isinstance(result, np.ndarray):
        for given in inputs:
            if isinstance(given, ndarray):
                if result is given._a:
                    return given
                if given._memory.holds(result):
                    return view(given, result)
    return fresh(result)


def compute(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of NumPy on arrays of the device."""
    given = [*args, *kwargs.values()]
    inputs = [part for arg in given for part in (arg if isinstance(arg, (tuple, list)) else (arg,))]
    with np.errstate(all="ignore"):
        result = function(*map(unwrap, args), **{key: unwrap(value) for key, value in kwargs.items()})
    return wrap(result, *inputs)


def adopt(source: Any) -> ndarray:
    """An array of another library that lives on the (emulated) device, by its interface."""
    about = source.__cuda_array_interface__
    host = SimpleNamespace(__array_interface__={**about, "version": 3})
    shown = np.asarray(host)
    return ndarray._of(shown, AdoptedMemory(shown, source))


# ---- operators and methods --------------------------------------------------------------------------------

_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
_COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
_UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
_METHODS = """all any argmax argmin clip conj cumprod cumsum diagonal dot flatten max mean min nonzero
prod ravel repeat reshape round squeeze std sum swapaxes take trace transpose var""".split()


def _mixed(other: Any) -> bool:
    """Whether `other` has its own idea of the operation (a sparse matrix)."""
    return not isinstance(other, (ndarray, *SCALARS, np.ndarray)) and hasattr(other, "__array_priority__")


def _operator(function: Any, swapped: bool = False) -> Any:
    def operator(self: ndarray, other: Any) -> Any:
        if _mixed(other):
            return NotImplemented
        if not isinstance(other, (ndarray, *SCALARS)):
            raise unsupported(other)
        return compute(function, other, self) if swapped else compute(function, self, other)

    return operator


def _in_place(function: Any) -> Any:
    def operator(self: ndarray, other: Any) -> ndarray:
        if not isinstance(other, (ndarray, *SCALARS)):
            raise unsupported(other)
        with np.errstate(all="ignore"):
            function(self._a, unwrap(other), out=self._a)
        return self

    return operator


def _unary(function: Any) -> Any:
    return lambda self: compute(function, self)


def _method(name: str) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        from tests.emulator import functions  # it stands on this module

        functions.check_keywords(name, kwargs)
        return compute(lambda array, *a, **k: getattr(array, name)(*a, **k), self, *args, **kwargs)

    return method


for _name, _function in _BINARY.items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
    setattr(ndarray, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_function))
for _name, _function in _COMPARE.items():
    setattr(ndarray, f"__{_name}__", _operator(_function))
for _name, _function in _UNARY.items():
    setattr(ndarray, f"__{_name}__", _unary(_function))
for _name in _METHODS:
    setattr(ndarray, _name, _method(_name))
ndarray.conjugate = ndarray.conj  # type: ignore[attr-defined]
