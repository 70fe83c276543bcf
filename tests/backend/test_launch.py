"""Launching kernels, and the reductions that every kernel file starts from; on a real GPU or the emulator."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.backend.cuda import _source
from gpucalcium.errors import KernelError

FILE = "launch_examples.cu"


@pytest.fixture(autouse=True)
def examples(on_gpu, tmp_path, monkeypatch):
    """A folder of kernels that holds the examples and the real common.cuh."""
    for name in (_source.MARKER, "common.cuh"):
        shutil.copy(_source.kernel_folder() / name, tmp_path)
    shutil.copy(Path(__file__).parent / FILE, tmp_path)
    monkeypatch.setenv("GPUCALCIUM_KERNELS", str(tmp_path))
    return tmp_path


@pytest.fixture
def kernel():
    from gpucalcium.backend.cuda._launch import kernel

    return lambda name: kernel(FILE, name)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("n", [1, 31, 33, 1000])
def test_template_arguments_are_dtypes_and_numbers(on_gpu, kernel, dtype, n):
    x = on_gpu.put(np.arange(n).astype(dtype))
    y = on_gpu.put(np.zeros(n + 2, dtype))
    kernel("scale")((x.dtype, 3), blocks=-(-n // 64), threads=64, args=(x, np.int64(n), y))
    assert_array_equal(y.get()[:n], (np.arange(n) * 3).astype(dtype))
    assert_array_equal(y.get()[n:], 0)


def test_a_kernel_is_compiled_once_per_instance(on_gpu, kernel):
    fill = kernel("fill")
    x = on_gpu.put(np.zeros(5, "float32"))
    for value in (1, 2):
        fill((), blocks=1, threads=32, args=(x, np.int32(5), np.float32(value)))
        assert_array_equal(x.get(), value)
    assert len(fill._compiled) == 1


def test_nothing_is_read_before_the_first_call(kernel):
    from gpucalcium.backend.cuda._launch import kernel as make

    missing = make("no_such_file.cu", "f")
    with pytest.raises(KernelError, match=rf"no kernel file 'no_such_file.cu' .* there are: {FILE}"):
        missing((), blocks=1, threads=1, args=())


def test_a_kernel_that_is_not_in_the_file_is_an_error(kernel):
    with pytest.raises(KernelError, match=rf"kernels/{FILE}: no_such_kernel<short> does not compile"):
        kernel("no_such_kernel")(("int16",), blocks=1, threads=1, args=())


def test_a_grid_without_blocks_is_nothing_to_do(on_gpu, kernel):
    x = on_gpu.put(np.zeros(0, "float32"))
    kernel("fill")((), blocks=0, threads=32, args=(x, np.int32(0), np.float32(1)))


@pytest.mark.parametrize("size", [256, 1024])
def test_shared_memory_of_the_asked_size(on_gpu, kernel, size):
    x = np.arange(4 * size, dtype=np.int32)
    y = on_gpu.put(np.zeros_like(x))
    kernel("reverse")((), blocks=4, threads=size, args=(on_gpu.put(x), y), shared=4 * size)
    assert_array_equal(y.get(), x.reshape(4, size)[:, ::-1].reshape(-1))


def test_shared_memory_beyond_what_a_block_gets_unasked(on_gpu, kernel):
    x, y = (on_gpu.put(np.arange(64, dtype=np.int32)) for _ in range(2))
    kernel("reverse")((), blocks=1, threads=64, args=(x, y), shared=60 << 10)
    assert_array_equal(y.get(), np.arange(64)[::-1])


def test_more_shared_memory_than_there_is_is_refused(on_gpu, kernel):
    x, y = (on_gpu.put(np.arange(64, dtype=np.int32)) for _ in range(2))
    with pytest.raises(KernelError, match=r"1048576 bytes of shared memory a block; this GPU has \d+"):
        kernel("reverse")((), blocks=1, threads=64, args=(x, y), shared=1 << 20)


@pytest.mark.parametrize("value", [1.0, 1, True, "1", None, np.zeros(3, "float32"), [1.0]], ids=repr)
def test_anything_but_arrays_of_the_device_and_sized_scalars_is_refused(on_gpu, kernel, value):
    x = on_gpu.put(np.zeros(5, "float32"))
    with pytest.raises(
        KernelError, match=rf"kernel fill of kernels/{FILE}: argument 2 is a {type(value).__name__}"
    ):
        kernel("fill")((), blocks=1, threads=32, args=(x, np.int32(5), value))


def test_an_array_with_strides_is_refused(on_gpu, kernel):
    x = on_gpu.put(np.zeros((6, 5), "float32"))
    for view in (x.T, x[:, ::2], x[::2]):
        with pytest.raises(KernelError, match=r"argument 0, shape .* is not contiguous in C order"):
            kernel("fill")((), blocks=1, threads=32, args=(view, np.int32(5), np.float32(1)))
    kernel("fill")((), blocks=1, threads=32, args=(x[2:4], np.int32(10), np.float32(1)))
    assert_array_equal(x.get().sum(axis=1), [0, 0, 5, 5, 0, 0])


def test_each_device_has_its_own_kernel_and_arrays(kernel):
    import cupy as cp

    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one GPU only")
    fill, x = kernel("fill"), cp.zeros(5, "float32")
    with cp.cuda.Device(1):
        y = cp.zeros(5, "float32")
        fill((), blocks=1, threads=32, args=(y, np.int32(5), np.float32(1)))
        with pytest.raises(KernelError, match="argument 0 is on device 0, but the current device is 1"):
            fill((), blocks=1, threads=32, args=(x, np.int32(5), np.float32(1)))
    assert (y.device.id, y.get().sum(), len(fill._compiled)) == (1, 5, 1)


@pytest.mark.parametrize(
    ("blocks", "threads"), [(1, 1025), (1, 0), ((1, 70000), 32), (-1, 32), (1, (32, 33))]
)
def test_sizes_that_no_gpu_takes_are_refused(on_gpu, kernel, blocks, threads):
    x = on_gpu.put(np.zeros(5, "float32"))
    with pytest.raises(KernelError, match=r"a (block|grid) of \("):
        kernel("fill")((), blocks=blocks, threads=threads, args=(x, np.int32(5), np.float32(1)))


# ---- common.cuh --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [32, 96, (16, 4), (8, 4, 3), 1024])
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "int64"])
def test_reductions_reach_every_thread(on_gpu, kernel, threads, dtype):
    x = np.random.default_rng(2).integers(-500, 500, 777).astype(dtype)
    n = int(np.prod(threads))
    out = on_gpu.put(np.zeros((n, 3), dtype))
    kernel("reduce")((dtype,), blocks=1, threads=threads, args=(on_gpu.put(x), np.int64(x.size), out))
    assert_array_equal(out.get(), np.tile([x.sum(), x.max(), x.min()], (n, 1)))


@pytest.mark.parametrize("threads", [32, 64, 1024])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peak_is_the_first_of_the_largest(on_gpu, kernel, threads, dtype):
    x = np.random.default_rng(3).integers(0, 9, 500).astype(dtype)
    x[[0, 77]] = np.nan
    value, index = on_gpu.put(np.zeros(threads, dtype)), on_gpu.put(np.zeros(threads, "int64"))
    kernel("find_peak")(
        (dtype,), blocks=1, threads=threads, args=(on_gpu.put(x), np.int64(x.size), value, index)
    )
    assert_array_equal(value.get(), np.nanmax(x))
    assert_array_equal(index.get(), np.nanargmax(x))


def test_infinity_and_nan(on_gpu, kernel):
    out = on_gpu.put(np.zeros(3, "float32"))
    kernel("constants")((), blocks=1, threads=1, args=(out,))
    assert_array_equal(out.get(), [np.inf, -np.inf, np.nan])
