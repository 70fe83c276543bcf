"""The stand-in refuses what CuPy refuses, and gives what CuPy gives."""

from __future__ import annotations

import copy
import operator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

from gpucalcium import backend
from tests import emulator

if not emulator.installed():
    pytest.skip("the emulator is not in use", allow_module_level=True)

import cupy as cp
import cupyx
import cupyx.scipy.fft
import cupyx.scipy.ndimage
import cupyx.scipy.sparse

from tests.emulator.array import WaitsForDevice

HOST = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def x():
    return cp.asarray(HOST)


# ---- the border between the two kinds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert", [np.asarray, np.array, np.mean, np.sum, np.concatenate], ids=lambda f: f.__name__
)
def test_nothing_turns_it_into_a_numpy_array_unasked(x, convert):
    with pytest.raises(TypeError):
        convert(x)


@pytest.mark.parametrize(
    "operation", [operator.add, operator.mul, operator.lt, operator.matmul, operator.iadd]
)
def test_arithmetic_with_numpy_arrays_is_refused(x, operation):
    for other in (HOST, HOST.T, np.array(2.0)):
        with pytest.raises(TypeError, match="Unsupported type"):
            operation(x, other)
        if operation is not operator.iadd:
            with pytest.raises(TypeError, match="Unsupported type"):
                operation(other, x)


@pytest.mark.parametrize(
    "function", [cp.sum, cp.sqrt, cp.maximum, cp.concatenate, cp.where, cp.dot, cp.copyto]
)
def test_functions_of_numpy_arrays_and_lists_are_refused(x, function):
    for given in ((HOST, x), ([1.0, 2.0], x), (x, HOST)):
        if function in (cp.sum, cp.sqrt) and given[0] is x:
            continue
        with pytest.raises(TypeError):
            function(*given)


def test_numpy_scalars_and_functions_with_an_equal_in_cupy_work(x):
    for result in (np.float32(2) * x, x * np.float32(2), x + x, 2 * x):
        assert isinstance(result, cp.ndarray)
        assert_array_equal(result.get(), HOST * 2)
    assert isinstance(np.sqrt(x), cp.ndarray)


def test_there_and_back(x):
    assert_array_equal(x.get(), HOST)
    assert_array_equal(cp.asnumpy(x), HOST)
    assert x.get() is not x.get()
    out = np.empty_like(HOST)
    assert x.get(out=out) is out
    assert_array_equal(out, HOST)
    for wrong, error in ((np.empty((3, 4)), TypeError), (np.empty((4, 3), "f"), ValueError), ([], TypeError)):
        with pytest.raises(error):
            x.get(out=wrong)


def test_set_wants_the_same_dtype_and_shape(x):
    x.set(HOST + 1)
    assert_array_equal(x.get(), HOST + 1)
    for wrong, error in ((HOST.astype("f8"), TypeError), (HOST.T, ValueError), (x, TypeError)):
        with pytest.raises(error):
            x.set(wrong)


def test_assignment_takes_scalars_and_its_own_kind(x):
    x[0] = 5
    x[1] = np.float32(6)
    x[2] = x[0] + 2
    assert_array_equal(x.get(), np.repeat([[5], [6], [7]], 4, 1))
    with pytest.raises(TypeError, match="Unsupported type"):
        x[0] = HOST[0]


def test_host_data_of_either_byte_order_becomes_native():
    assert cp.asarray(HOST.astype(">f4")).dtype == np.dtype("float32")
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.asarray(np.array(["a"]))


# ---- results stay on the device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda x: x[0, 0], lambda x: x.sum(), cp.max, lambda x: x.mean(axis=0)[0], cp.linalg.norm]
)
def test_a_single_number_stays_on_the_device(x, make):
    result = make(x)
    assert isinstance(result, cp.ndarray)
    assert result.ndim == 0
    assert isinstance(float(result), float)
    assert isinstance(result.item(), float)


def test_an_element_is_a_view(x):
    element = x[1, 2]
    element += 100
    assert x.get()[1, 2] == 106


@pytest.mark.parametrize(
    "view", [lambda x: x[1:], lambda x: x.T, lambda x: x.reshape(-1), lambda x: x[:, ::2], cp.ravel]
)
def test_views_share_memory_and_copies_do_not(x, view):
    view(x)[...] = -1
    assert (x.get() == -1).any()
    before = x.get()
    view(x).copy()[...] = 7
    assert_array_equal(x.get(), before)
    assert_array_equal(copy.deepcopy(x).get(), before)


def test_advanced_indices(x):
    rows, mask = cp.asarray([2, 0]), x > 5
    assert_array_equal(x[rows].get(), HOST[[2, 0]])
    assert_array_equal(x[mask].get(), HOST[HOST > 5])
    assert_array_equal(x[np.array([1])].get(), HOST[[1]])
    x[mask] = 0
    assert_array_equal(x.get(), np.where(HOST > 5, 0, HOST))


def test_order_of_memory_is_kept(x):
    assert x.flags.c_contiguous and not x.flags.f_contiguous
    assert x.T.flags["F_CONTIGUOUS"]
    assert (x.T * 2).flags.f_contiguous
    assert cp.ascontiguousarray(x.T).flags.c_contiguous
    assert cp.ascontiguousarray(x) is x
    assert cp.zeros_like(x.T).flags.f_contiguous
    assert x.astype("float32", copy=False) is x


def test_a_name_that_is_not_listed_says_where_to_add_it():
    with pytest.raises(AttributeError, match="tests/emulator"):
        cp.no_such_function  # noqa: B018
    with pytest.raises(AttributeError, match="tests/emulator"):
        cupyx.scipy.ndimage.no_such_filter  # noqa: B018


def test_keywords_that_cupy_lacks_are_refused(x):
    with pytest.raises(TypeError, match="sum takes no where"):
        cp.sum(x, where=x > 1)
    with pytest.raises(TypeError, match="max takes no initial"):
        x.max(initial=1)


def test_division_by_zero_is_silent(x):
    assert np.isinf((1 / x).get()[0, 0])


def test_fourier_transforms_keep_single_precision(x):
    for module in (cp.fft, cupyx.scipy.fft):
        spectrum = module.rfft2(x)
        assert spectrum.dtype == np.complex64
        assert module.irfft2(spectrum, s=x.shape).dtype == np.float32
    assert cp.fft.rfft(x.astype("int16")).dtype == np.complex128


# ---- the device ------------------------------------------------------------------------------------------------


def test_memory_is_counted_and_given_back():
    pool = cp.get_default_memory_pool()
    before = pool.used_bytes()
    x = cp.empty(1000, "float32")
    y = x[10:]
    assert pool.used_bytes() - before == 4096
    del x
    assert pool.used_bytes() - before == 4096
    del y
    assert pool.used_bytes() == before
    pool.free_all_blocks()
    assert pool.total_bytes() == pool.used_bytes()


def test_a_limit_is_kept():
    pool = cp.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    try:
        held = cp.zeros(100_000, "uint8")
        with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory allocating"):
            cp.zeros(1 << 20, "uint8")
        with pytest.raises(MemoryError):
            cp.repeat(held, 11)
    finally:
        pool.set_limit(size=0)
    assert cp.zeros(1 << 20, "uint8").nbytes == 1 << 20


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="invalid device ordinal"):
        cp.cuda.Device(99).use()


def test_pinned_memory_is_a_buffer_and_rounded_up():
    memory = cp.cuda.alloc_pinned_memory(100)
    array = np.frombuffer(memory, np.float32, 25)
    array[:] = 3
    assert len(bytes(memory)) == 512
    assert cupyx.empty_pinned((3, 4), "int16").shape == (3, 4)


def test_arrays_of_another_library_are_adopted(x):
    foreign = SimpleNamespace(__cuda_array_interface__=x.__cuda_array_interface__)
    adopted = cp.asarray(foreign)
    adopted += 1
    assert_array_equal(x.get(), HOST + 1)


def test_the_wing_may_not_wait_for_the_device(x):
    path = str(Path(backend.__file__).parent / "cuda" / "example.py")
    code = compile("def total(x): return float(x.sum())\ndef twice(x): return x * 2", path, "exec")
    wing: dict = {}
    exec(code, wing)  # as a module of the wing would be
    assert wing["twice"](x).shape == x.shape
    with pytest.raises(WaitsForDevice, match=r"example.py:1 waits for the device"):
        wing["total"](x)


# ---- sparse matrices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_sparse_products(form, x):
    host = scipy.sparse.random(3, 3, 0.6, format=form, dtype=np.float32, random_state=1)
    made = getattr(cupyx.scipy.sparse, f"{form}_matrix")(host)
    assert made.shape == (3, 3) and made.nnz == host.nnz
    assert isinstance(made.data, cp.ndarray)
    for result, expected in (
        (made @ x, host @ HOST),
        (made.T @ x, host.T @ HOST),
        (x.T @ made, HOST.T @ host),
        (made.dot(x[:, 0]), host @ HOST[:, 0]),
        ((made @ made).toarray(), (host @ host).toarray()),
        ((made * 2.0).toarray(), host.toarray() * 2),
    ):
        assert isinstance(result, cp.ndarray)
        np.testing.assert_allclose(result.get(), expected, rtol=1e-6)
    made.data *= 2
    assert_array_equal(made.get().toarray(), host.toarray() * 2)


def test_sparse_matrices_do_not_mix_with_numpy():
    made = cupyx.scipy.sparse.csr_matrix(cp.eye(3, dtype="float32"))
    with pytest.raises(TypeError):
        made @ HOST
    with pytest.raises(TypeError):
        cupyx.scipy.sparse.csr_matrix((HOST[0], HOST[0], HOST[0]), shape=(3, 3))
    with pytest.raises(ValueError, match="Only bool"):
        cupyx.scipy.sparse.csr_matrix(scipy.sparse.eye(3, dtype=np.int16, format="csr"))


# ---- streams ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pinned():
    array = np.frombuffer(cp.cuda.alloc_pinned_memory(HOST.nbytes), np.float32, HOST.size).reshape(HOST.shape)
    array[...] = HOST
    return array


def test_an_upload_that_nobody_waits_for_has_not_come(x, pinned):
    stream = cp.cuda.Stream(non_blocking=True)
    x.fill(0)
    x.set(pinned, stream=stream)
    copied = stream.record()
    assert_array_equal((x + 0).get(), 0)
    cp.cuda.get_current_stream().wait_event(copied)
    assert_array_equal((x + 0).get(), HOST)


def test_a_pinned_buffer_that_is_written_too_early_spoils_the_upload(x, pinned):
    stream = cp.cuda.Stream(non_blocking=True)
    x.set(pinned, stream=stream)
    pinned.fill(-1)
    stream.synchronize()
    assert_array_equal(x.get(), -1)


def test_a_pageable_buffer_may_be_written_at_once(x):
    stream = cp.cuda.Stream(non_blocking=True)
    host = HOST + 1
    x.set(host, stream=stream)
    host.fill(-1)
    stream.synchronize()
    assert_array_equal(x.get(), HOST + 1)


def test_work_on_the_same_stream_comes_after_the_copy(x, pinned):
    pinned += 5
    with cp.cuda.Stream(non_blocking=True):
        x.set(pinned)
        doubled = x * 2
    assert_array_equal(doubled.get(), 2 * (HOST + 5))


def test_a_download_is_there_when_its_event_is(x, pinned):
    stream = cp.cuda.Stream(non_blocking=True)
    pinned.fill(0)
    x.get(out=pinned, stream=stream, blocking=False)
    copied = stream.record()
    assert_array_equal(pinned, 0)
    assert not copied.done
    copied.synchronize()
    assert_array_equal(pinned, HOST)


def test_events_wait_for_what_came_before_them_only(x, pinned):
    stream = cp.cuda.Stream(non_blocking=True)
    y = cp.zeros_like(x)
    x.set(pinned + 1, stream=stream)
    first = stream.record()
    y.set(pinned + 2, stream=stream)
    first.synchronize()
    assert_array_equal(x.get(), HOST + 1)
    assert_array_equal(y.get(), 0)
    cp.cuda.Device().synchronize()
    assert_array_equal(y.get(), HOST + 2)
