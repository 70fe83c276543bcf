"""The stand-in's `RawModule`: kernels compiled by g++ and run on fibers, with everything checked on the way in."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock, current_thread, main_thread
from typing import Any

import numpy as np

from tests.emulator.array import ndarray
from tests.emulator.cuda import SHARED_OPT_IN, SHARED_PER_BLOCK, CompileException, CUDADriverError
from tests.emulator.memory import POISON, Memory, sanitizing

HERE = Path(__file__).parent
FLAGS = (
    "-std=c++20 -O1 -fPIC -shared -fvisibility=hidden -fno-gnu-unique -ffp-contract=off "
    "-ftrivial-auto-var-init=pattern -Wno-unknown-pragmas -fmax-errors=5"
).split()
SANITIZE_FLAGS = "-g -fsanitize=address,undefined -fno-sanitize-recover=undefined".split()
MANY_THREADS = 200_000  # a launch of more is run under one seed
SEEDS = 3
_one_at_a_time = Lock()  # guards are for one launch


@cache
def _other_thread(process: int) -> ThreadPoolExecutor:
    """Launches what is not launched by the main thread: stacks of fibers stay with the thread that ran them."""
    return ThreadPoolExecutor(1, thread_name_prefix="emulator")


class KernelFault(RuntimeError):
    """A kernel did what CUDA leaves undefined, or what a race makes depend on chance."""


class Parameter(ctypes.Structure):
    """What a kernel wants in one place, as launcher.h writes it."""

    _fields_ = (
        ("kind", ctypes.c_char),
        ("pointee", ctypes.c_char),
        ("writes", ctypes.c_bool),
        ("size", ctypes.c_uint),
        ("pointee_size", ctypes.c_uint),
    )


# ---- compiling --------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    chosen = os.environ.get("GPUCALCIUM_EMULATOR_CACHE")
    return Path(chosen) if chosen else HERE.parents[1] / ".cache" / "emulator"


def flags() -> list[str]:
    return FLAGS + (SANITIZE_FLAGS if sanitizing() else [])


@cache
def _headers() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(HERE.glob("*.h")))


@cache
def library(code: str, expressions: tuple[str, ...], sanitize: bool) -> ctypes.CDLL:
    """The shared library of some instantiations, compiled unless an equal one is on disk."""
    launchers = "\n".join(f"GC_LAUNCHER({n}, {name})" for n, name in enumerate(expressions))
    text = f'{code}\n#line 1 "launchers"\n#include "launcher.h"\n{launchers}\n'
    key = hashlib.sha256("\0".join([text, *flags()]).encode() + _headers()).hexdigest()[:32]
    path = cache_folder() / f"{key}.so"
    if not path.exists():
        _compile(text, path)
    return ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)


def _compile(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernel.so"
        command = [
            "g++",
            *flags(),
            f"-I{HERE}",
            "-include",
            "cuda_on_host.h",
            "-x",
            "c++",
            "-",
            "-o",
            str(made),
        ]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileException(done.stderr, text, path.name, flags())
        made.replace(path)  # in one step: another process may be doing the same


class RawModule:
    """As `cupy.RawModule`, of source text."""

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: bool = False,
    ) -> None:
        if code is None or path is not None or backend != "nvrtc":
            raise TypeError("the stand-in compiles source text only: RawModule(code=...)")
        if name_expressions and not any(
            re.match(r"--?std=c\+\+(11|14|17|20)$", option) for option in options
        ):
            raise ValueError("need to specify C++ standard in options for name expressions (-std=c++17)")
        self.code, self.options = code, tuple(options)
        self.name_expressions = tuple(name_expressions or ())

    def compile(self, log_stream: Any = None) -> None:
        library(self.code, self.name_expressions, sanitizing())

    def get_function(self, name: str) -> RawKernel:
        expressions = self.name_expressions or (name,)
        if name not in expressions:
            raise CUDADriverError(500)
        return RawKernel(library(self.code, expressions, sanitizing()), expressions.index(name), name)


# ---- launching --------------------------------------------------------------------------------------------


class RawKernel:
    """A kernel that can be launched: `kernel(grid, block, args, shared_mem=0)`."""

    def __init__(self, compiled: ctypes.CDLL, number: int, name: str) -> None:
        self.name = name
        count = getattr(compiled, f"gc_count_{number}")()
        describe = getattr(compiled, f"gc_parameters_{number}")
        describe.restype = ctypes.POINTER(Parameter)
        self.parameters: list[Parameter] = describe()[:count]
        self._launch = getattr(compiled, f"gc_launch_{number}")
        self._launch.argtypes = (
            [ctypes.c_uint] * 6
            + [ctypes.c_size_t, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)]
            + [ctypes.c_char_p, ctypes.c_size_t]
        )
        self._max_dynamic_shared = SHARED_PER_BLOCK

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._max_dynamic_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > SHARED_OPT_IN:
            raise CUDADriverError(1)
        self._max_dynamic_shared = size

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        grid, block = ((*map(int, size), 1, 1)[:3] for size in (grid, block))
        threads = int(np.prod(block))
        if min(*grid, *block) < 1 or threads > 1024 or max(grid[1:]) > 65535 or block[2] > 64:
            raise CUDADriverError(1)
        if shared_mem > self._max_dynamic_shared:
            raise CUDADriverError(1)
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        arrays: list[tuple[ndarray, bool]] = []
        packed = []
        for place, (value, wants) in enumerate(zip(args, self.parameters, strict=True)):
            packed.append(_packed(f"{self.name}, argument {place}", value, wants))
            if isinstance(value, ndarray):
                arrays.append((value, wants.writes))
        values = (ctypes.c_void_p * max(1, len(packed)))(*[ctypes.addressof(value) for value in packed])
        launch = (arrays, seeds(threads * int(np.prod(grid))), (*grid, *block, int(shared_mem)), values)
        with _one_at_a_time:
            if current_thread() is main_thread():
                self._under_seeds(*launch)
            else:
                _other_thread(os.getpid()).submit(self._under_seeds, *launch).result()

    def _under_seeds(self, arrays: list[tuple[ndarray, bool]], seeds: int, extents: Any, values: Any) -> None:
        """Run from the same start once per seed; the last run's results stay."""
        memories = list({id(array._memory): array._memory for array, _ in arrays}.values())
        written = [array._a for array, writes in arrays if writes and array.size]
        start = [array.copy() for array in written] if seeds > 1 else []
        first: list[np.ndarray] = []
        for seed in range(seeds):
            for array, before in zip(written, start, strict=True) if seed else ():
                array[...] = before
            self._run(memories, seed, extents, values)
            if seed == 0 and seeds > 1:
                first = [array.copy() for array in written]
            for number, (array, before) in enumerate(zip(written, first, strict=True) if seed else ()):
                self._compare(number, array, before, seed)

    def _run(self, memories: list[Memory], seed: int, extents: Any, values: Any) -> None:
        guard = (POISON + 73 * seed) % 256
        for memory in memories:
            memory.arm(guard)
        error = ctypes.create_string_buffer(1024)
        if self._launch(*extents, seed, values, error, len(error)):
            raise KernelFault(f"{self.name}: {error.value.decode(errors='replace')}")
        for memory in memories:
            if where := memory.trespassed(guard):
                raise KernelFault(f"{self.name} wrote {where} of an array of {memory.size} bytes")

    def _compare(self, number: int, array: np.ndarray, first: np.ndarray, seed: int) -> None:
        after = np.ascontiguousarray(array).view(np.uint8)
        before = np.ascontiguousarray(first).view(np.uint8)
        if not np.array_equal(after, before):
            at = np.flatnonzero((after != before).reshape(-1))[0] // array.itemsize
            raise KernelFault(
                f"{self.name}: the order of threads changes the result (written array {number} differs at flat "
                f"index {at}: {first.reshape(-1)[at]} under seed 0, {array.reshape(-1)[at]} under seed {seed}): "
                "a race, or a read outside the arrays or of what was never written"
            )


def seeds(threads: int) -> int:
    """Under how many orders of threads a launch of so many is run."""
    chosen = os.environ.get("GPUCALCIUM_EMULATOR_SEEDS")
    if chosen:
        return int(chosen)
    return SEEDS if threads <= MANY_THREADS else 1


def _packed(where: str, value: Any, wants: Parameter) -> Any:
    """`value` in memory as CuPy would pass it, if that is what the kernel reads."""
    if isinstance(value, ndarray):
        _check_pointer(where, value, wants)
        return ctypes.c_void_p(value.data.ptr)
    if isinstance(value, (bool, int, float)):  # as CuPy passes them, whatever the kernel reads
        value = np.bool_(value) if isinstance(value, bool) else np.asarray(value)[()]
    if not isinstance(value, np.generic):
        raise TypeError(f"{where}: unsupported type {type(value)}")
    kind = wants.kind.decode()
    fits = value.dtype.itemsize == wants.size and kind in (value.dtype.kind, "s")
    if not fits:
        raise TypeError(
            f"{where}: a scalar of type {value.dtype} ({value.dtype.itemsize} bytes) where the kernel reads "
            f"{wants.size} bytes of kind {kind!r}"
        )
    return ctypes.create_string_buffer(value.tobytes(), wants.size)


def _check_pointer(where: str, array: ndarray, wants: Parameter) -> None:
    if wants.kind != b"p":
        raise TypeError(f"{where}: an array where the kernel reads a scalar")
    pointee, size = wants.pointee.decode(), wants.pointee_size
    dtype = array.dtype
    if pointee == "s":  # float2 of complex64, float4 of float32
        fits = size % dtype.itemsize == 0 and dtype.kind in "iufc"
    else:
        fits = pointee == "v" or (pointee == dtype.kind and size == dtype.itemsize)
    if not fits:
        raise TypeError(
            f"{where}: an array of {dtype} where the kernel reads elements of {size} bytes of kind {pointee!r}"
        )
    if pointee == "s" and array.size and array.data.ptr % min(size, 16):
        raise TypeError(
            f"{where}: a vector type of {size} bytes needs an array that starts at a multiple of it"
        )
