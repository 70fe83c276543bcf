"""Kernels on fibers: what must be caught is caught, what must work works."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import emulator

if not emulator.installed():
    pytest.skip("the emulator is not in use", allow_module_level=True)

import cupy as cp

from tests.emulator.compiler import KernelFault

TEXT = (Path(__file__).parent / "faults.cu").read_text()
KERNELS = """blocks_race claim count_up crash deep different_barriers divide early_return indices missing_barrier
outside_mask past_the_end reads_past_the_end scalars shared_as_found subnormal vectors warp_operations""".split()
sanitizing = os.environ.get("GPUCALCIUM_EMULATOR_SANITIZE") == "1"
crashes = pytest.mark.skipif(sanitizing, reason="the sanitizers end the process")


@pytest.fixture(autouse=True)
def _three_seeds(monkeypatch):
    monkeypatch.delenv("GPUCALCIUM_EMULATOR_SEEDS", raising=False)


def get(name):
    module = cp.RawModule(code=TEXT, options=("-std=c++17",), name_expressions=KERNELS)
    return module.get_function(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("early_return", "of 64, 40 wait at __syncthreads, 0 at a warp operation, 24 have returned; .*:5"),
        ("different_barriers", "of 64, 64 wait at __syncthreads, .*:10 and .*:12"),
    ],
)
def test_divergent_barrier_is_an_error(name, text):
    x = cp.zeros(64, "float32")
    args = (x, np.int32(40)) if name == "early_return" else (x,)
    with pytest.raises(KernelFault, match=text):
        get(name)((1,), (64,), args)


def test_race_in_a_block_is_caught():
    x, y = cp.arange(64, dtype="float32"), cp.zeros(64, "float32")
    with pytest.raises(KernelFault, match="missing_barrier: the order of threads changes the result"):
        get("missing_barrier")((1,), (64,), (x, y))


def test_race_between_blocks_is_caught():
    with pytest.raises(KernelFault, match="order of threads"):
        get("blocks_race")((5,), (32,), (cp.zeros(1, "float32"),))


def test_one_seed_runs_once(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_EMULATOR_SEEDS", "1")
    x = cp.zeros(1, "float32")
    get("blocks_race")((3,), (32,), (x,))
    assert x.item() == (0 * 3 + 1) * 3 + 2


def test_shuffle_outside_its_mask_is_an_error():
    with pytest.raises(KernelFault, match="mask 0000ffff leaves it out"):
        get("outside_mask")((1,), (32,), (cp.zeros(32, "int32"),))


@crashes
def test_invalid_address_is_an_error_that_names_the_thread():
    with pytest.raises(KernelFault, match=r"invalid address \(0x8\) in thread \(7, 0, 0\)"):
        get("crash")((1,), (32,), (cp.zeros(1, "float32"),))


@crashes
def test_division_by_zero_is_an_error():
    with pytest.raises(KernelFault, match="integer division by zero"):
        get("divide")((1,), (32,), (cp.ones(32, "int32"), np.int32(0)))


@crashes
def test_stack_overflow_is_an_error():
    out = cp.zeros(32, "int32")
    get("deep")((1,), (32,), (out, np.int32(50)))
    assert_array_equal(out.get(), 50)
    with pytest.raises(KernelFault, match="invalid address"):
        get("deep")((1,), (32,), (out, np.int32(5000)))


def test_assertion_is_an_error_and_the_next_launch_works():
    get("claim")((1,), (32,), (np.int32(3),))
    with pytest.raises(KernelFault, match=r"assertion failed at .*n == 3"):
        get("claim")((1,), (32,), (np.int32(4),))
    get("claim")((1,), (32,), (np.int32(3),))


@crashes
def test_write_past_the_end_is_caught():
    with pytest.raises(KernelFault, match="wrote 8 bytes past the end of an array of 40 bytes"):
        get("past_the_end")((1,), (32,), (cp.zeros(10, "float32"), np.int32(12)))


@crashes
def test_read_past_the_end_is_caught():
    x, y = cp.zeros(10, "float32"), cp.zeros(4, "float32")
    with pytest.raises(KernelFault, match="a read outside the arrays"):
        get("reads_past_the_end")((1,), (4,), (x, y, np.int32(8)))


def test_shared_memory_is_poisoned_for_every_block():
    out = cp.zeros(2, "uint32")
    get("shared_as_found")((4,), (1,), (out,), shared_mem=64)
    assert_array_equal(out.get(), 0xCCCCCCCC)


def test_fresh_arrays_are_poisoned():
    assert_array_equal(cp.empty(5, "uint8").get(), 0xCC)


def test_scalars_arrive():
    out = cp.zeros(1, "float64")
    args = (np.int64(1), np.int32(2), np.uint8(3), np.float32(4), np.float64(5), np.bool_(True), out)
    get("scalars")((1,), (1,), args)
    assert out.item() == 1 + 20 + 300 + 4000 + 50000 + 100000


@pytest.mark.parametrize("wrong", [np.float64(4), 4.0, np.int32(4), 4, np.float16(4)], ids=repr)
def test_scalar_of_another_size_or_kind_is_refused(wrong):
    args = (
        np.int64(1),
        np.int32(2),
        np.uint8(3),
        wrong,
        np.float64(5),
        np.bool_(True),
        cp.zeros(1, "float64"),
    )
    with pytest.raises(TypeError, match="argument 3"):
        get("scalars")((1,), (1,), args)


def test_array_of_another_dtype_is_refused():
    x = cp.zeros(64, "float32")
    for wrong in (x.astype("float64"), x.astype("int32"), np.zeros(64, "float32"), np.int64(0)):
        with pytest.raises(TypeError, match="argument 1"):
            get("missing_barrier")((1,), (64,), (x, wrong))
    with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
        get("missing_barrier")((1,), (64,), (x,))


def test_vector_types_take_complex_and_aligned_float_arrays():
    z, x, out = cp.asarray([1j, 2j], "complex64"), cp.arange(8, dtype="float32"), cp.zeros(2, "float32")
    get("vectors")((1,), (1,), (z, x, out))
    assert out.tolist() == [2.0, 7.0]
    with pytest.raises(TypeError, match="multiple"):
        get("vectors")((1,), (1,), (z, x[1:], out))


def test_sizes_that_cuda_refuses_are_refused():
    x = cp.zeros(2048, "float32")
    for grid, block, shared in (
        ((0,), (32,), 0),
        ((1,), (2048,), 0),
        ((1, 70000), (1,), 0),
        ((1,), (1,), 50 << 10),
    ):
        with pytest.raises(cp.cuda.driver.CUDADriverError):
            get("subnormal")(grid, block, (x, x), shared_mem=shared)


def test_more_shared_memory_by_request():
    kernel = get("shared_as_found")
    kernel.max_dynamic_shared_size_bytes = 60 << 10
    kernel((1,), (1,), (cp.zeros(2, "uint32"),), shared_mem=60 << 10)
    with pytest.raises(cp.cuda.driver.CUDADriverError):
        kernel.max_dynamic_shared_size_bytes = 100 << 10


def test_subnormals_count_as_zero_in_kernels_and_not_after():
    x, y = cp.full(1, 1e-40, "float32"), cp.ones(1, "float32")
    get("subnormal")((1,), (1,), (x, y))
    assert y.item() == 0
    assert np.float32(1e-40) * np.float32(0.5) > 0


def test_warp_operations():
    out = cp.full((64, 8), -1, "int32")
    get("warp_operations")((1,), (64,), (out,))
    got, t = out.get(), np.arange(64)
    lane, warp = t % 32, t // 32 * 32
    assert_array_equal(got[:, 0], np.where(lane < 3, t, t - 3))
    assert_array_equal(got[:, 1], np.where(lane % 16 + 5 < 16, t + 5, t))
    assert_array_equal(got[:, 2], t ^ 9)
    assert_array_equal(got[:, 3], warp + 8)
    assert_array_equal(got[:, 4].view(np.uint32), sum(1 << i for i in range(0, 32, 3)))
    assert_array_equal(got[:, 5], np.where(warp == 0, 1, 2))
    assert_array_equal(got[lane < 4, 6], t[lane < 4] ^ 1)
    assert_array_equal(got[lane >= 4, 6], -1)
    assert_array_equal(got[:, 7], 11)


def test_atomics():
    counters, big, total = cp.zeros(6, "int32"), cp.zeros(1, "uint64"), cp.zeros(1, "float32")
    get("count_up")((3,), (64,), (counters, big, total))
    assert counters.tolist() == [66, 63, 63, 191, 0, 1]
    assert (big.item(), total.item()) == (192 << 33, 48.0)


@pytest.mark.parametrize(("grid", "block"), [((7,), (33,)), ((2, 3), (5, 4)), ((2, 3, 4), (3, 5, 2))])
def test_grids_and_blocks_of_any_shape(grid, block):
    n, threads = int(np.prod(grid)), int(np.prod(block))
    out = cp.full((n, threads), -1, "int32")
    get("indices")(grid, block, (out,))
    assert_array_equal(out.get(), 1000 * np.arange(n)[:, None] + np.arange(threads))


def test_what_does_not_compile_says_why():
    module = cp.RawModule(
        code="__global__ void f() { nothing(); }", options=("-std=c++17",), name_expressions=["f"]
    )
    with pytest.raises(cp.cuda.compiler.CompileException, match="nothing"):
        module.get_function("f")


def test_threads_launch_at_the_same_time():
    outs = [cp.zeros((4, 96), "int32") for _ in range(4)]
    expected = 1000 * np.arange(4)[:, None] + np.arange(96)
    workers = [threading.Thread(target=get("indices"), args=((4,), (96,), (out,))) for out in outs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for out in outs:
        assert_array_equal(out.get(), expected)


def test_threads_that_end_leave_no_stacks_behind():
    """A process may only map so many pieces of memory, and a long test run starts thousands of threads."""
    kernel, out = get("indices"), cp.zeros((1, 64), "int32")

    def maps():
        return len(Path("/proc/self/maps").read_text().splitlines())

    def launch():
        thread = threading.Thread(target=kernel, args=((1,), (64,), (out,)))
        thread.start()
        thread.join()

    launch()
    before = maps()
    for _ in range(20):
        launch()
    assert maps() < before + 20
