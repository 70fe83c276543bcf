"""The stand-in's `cupyx.scipy.sparse`: CSR, CSC and COO matrices over device arrays, computed by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from tests.emulator.array import ndarray, unsupported, unwrap, wrap
from tests.emulator.functions import array

_DTYPES = "?fdFD"


class spmatrix:
    """What the formats share. `*` is the matrix product, as in CuPy."""

    __array_priority__ = 101
    __array_ufunc__ = None
    format = ""

    def __init__(self, arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> None:
        if isinstance(arg1, spmatrix):
            made = arg1._host().asformat(self.format)
        elif scipy.sparse.issparse(arg1):
            made = arg1.asformat(self.format)
        elif isinstance(arg1, ndarray):
            made = self._scipy(arg1._a)
        elif isinstance(arg1, tuple) and all(isinstance(part, (int, np.integer)) for part in arg1):
            made = self._scipy(arg1, dtype=dtype or "d")
        elif isinstance(arg1, tuple):
            made = self._scipy(_on_device(arg1), shape=shape)
        else:
            raise unsupported(arg1)
        made = made.astype(made.dtype if dtype is None else dtype)
        if made.dtype.char not in _DTYPES:
            raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
        self._store(made)

    _scipy: Any = None
    _parts: tuple[str, ...] = ()

    def _store(self, made: Any) -> None:
        self.shape: tuple[int, int] = made.shape
        for part in self._parts:
            values = getattr(made, part)
            setattr(self, part, array(values if part == "data" else values.astype(np.int32)))

    def _host(self) -> Any:
        raise NotImplementedError

    @classmethod
    def _of(cls, made: Any) -> Any:
        return _FORMATS[made.format](made)

    dtype = property(lambda self: self.data.dtype)
    nnz = property(lambda self: int(self.data.size))
    size = nnz
    ndim = 2
    T = property(lambda self: self.transpose())

    def get(self, stream: Any = None) -> Any:
        return self._host().copy()

    def transpose(self, axes: Any = None, copy: bool = False) -> Any:
        return self._of(self._host().T)

    def toarray(self, order: str | None = None, out: Any = None) -> ndarray:
        return wrap(self._host().toarray(order=order))

    todense = toarray

    def tocsr(self, copy: bool = False) -> Any:
        return self._of(self._host().tocsr())

    def tocsc(self, copy: bool = False) -> Any:
        return self._of(self._host().tocsc())

    def tocoo(self, copy: bool = False) -> Any:
        return self._of(self._host().tocoo())

    def asformat(self, format: str | None) -> Any:
        return self._of(self._host().asformat(format))

    def astype(self, t: Any) -> Any:
        return self._of(self._host().astype(t))

    def copy(self) -> Any:
        return self._of(self._host().copy())

    def sum(self, axis: int | None = None, dtype: Any = None, out: Any = None) -> ndarray:
        return wrap(np.asarray(self._host().sum(axis, dtype)))  # two axes kept, as CuPy's

    def diagonal(self, k: int = 0) -> ndarray:
        return wrap(self._host().diagonal(k))

    def multiply(self, other: Any) -> Any:
        return self._result(self._host().multiply(_operand(other)))

    def power(self, n: float, dtype: Any = None) -> Any:
        return self._of(self._host().power(n, dtype))

    def dot(self, other: Any) -> Any:
        return self @ other if not np.isscalar(other) else self * other

    def __matmul__(self, other: Any) -> Any:
        return self._result(self._host() @ _operand(other))

    def __rmatmul__(self, other: Any) -> Any:
        return self._result((self._host().T @ _operand(other).T).T)

    def __mul__(self, other: Any) -> Any:
        return self._result(self._host() * other) if np.isscalar(other) else self @ other

    def __rmul__(self, other: Any) -> Any:
        return self._result(self._host() * other) if np.isscalar(other) else other @ self

    def __truediv__(self, other: Any) -> Any:
        return self._result(self._host() / _operand(other))

    def __add__(self, other: Any) -> Any:
        return self._result(self._host() + _operand(other))

    def __sub__(self, other: Any) -> Any:
        return self._result(self._host() - _operand(other))

    def __neg__(self) -> Any:
        return self._of(-self._host())

    def __abs__(self) -> Any:
        return self._of(abs(self._host()))

    def __len__(self) -> int:
        raise TypeError("sparse matrix length is ambiguous; use getnnz()")

    def getnnz(self, axis: int | None = None) -> Any:
        return self.nnz if axis is None else wrap(self._host().getnnz(axis))

    def _result(self, made: Any) -> Any:
        return self._of(made) if scipy.sparse.issparse(made) else wrap(np.asarray(made))


class _compressed(spmatrix):
    _parts = ("data", "indices", "indptr")
    data: ndarray
    indices: ndarray
    indptr: ndarray

    def _host(self) -> Any:
        return self._scipy((self.data._a, self.indices._a, self.indptr._a), shape=self.shape)

    def __getitem__(self, index: Any) -> Any:
        index = index if isinstance(index, tuple) else (index,)
        return self._result(self._host()[tuple(map(unwrap, index))])

    @property
    def has_sorted_indices(self) -> bool:
        return bool(self._host().has_sorted_indices)

    def sort_indices(self) -> None:
        made = self._host().copy()
        made.sort_indices()
        self._store(made)

    def sum_duplicates(self) -> None:
        made = self._host().copy()
        made.sum_duplicates()
        self._store(made)

    def eliminate_zeros(self) -> None:
        made = self._host().copy()
        made.eliminate_zeros()
        self._store(made)


class csr_matrix(_compressed):
    format = "csr"
    _scipy = scipy.sparse.csr_matrix


class csc_matrix(_compressed):
    format = "csc"
    _scipy = scipy.sparse.csc_matrix


class coo_matrix(spmatrix):
    format = "coo"
    _scipy = scipy.sparse.coo_matrix
    _parts = ("data", "row", "col")
    data: ndarray
    row: ndarray
    col: ndarray

    def _host(self) -> Any:
        return self._scipy((self.data._a, (self.row._a, self.col._a)), shape=self.shape)


_FORMATS = {"csr": csr_matrix, "csc": csc_matrix, "coo": coo_matrix}


def _on_device(parts: Any) -> Any:
    if isinstance(parts, tuple):
        return tuple(map(_on_device, parts))
    if not isinstance(parts, ndarray):
        raise unsupported(parts)
    return parts._a


def _operand(value: Any) -> Any:
    if isinstance(value, spmatrix):
        return value._host()
    if scipy.sparse.issparse(value):
        raise unsupported(value)
    return unwrap(value)


def _joined(function: Any) -> Any:
    def call(blocks: Any, format: str | None = None, dtype: Any = None) -> Any:
        return spmatrix._of(function([block._host() for block in blocks], format or "csr", dtype))

    return call


def _identity(m: int, n: int | None = None, k: int = 0, dtype: Any = "d", format: str | None = None) -> Any:
    return spmatrix._of(scipy.sparse.eye(m, n, k, dtype, format or "csr"))


def contents() -> dict[str, Any]:
    return {f"{kind}_matrix": made for kind, made in _FORMATS.items()} | {
        "spmatrix": spmatrix,
        "eye": _identity,
        "hstack": _joined(scipy.sparse.hstack),
        "vstack": _joined(scipy.sparse.vstack),
        "issparse": lambda x: isinstance(x, spmatrix),
        "isspmatrix_csr": lambda x: isinstance(x, csr_matrix),
        "isspmatrix_csc": lambda x: isinstance(x, csc_matrix),
    }
