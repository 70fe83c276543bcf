"""Compile a CUDA kernel when it is first called, check what goes in, and launch it."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._source import OPTIONS, expression, source
from gpucalcium.errors import KernelError

STATIC_SHARED = 48 << 10  # bytes of shared memory a block gets without asking for more
MAX_THREADS = 1024  # a block, on every architecture
MAX_BLOCKS = (2**31 - 1, 65535, 65535)

Extent = int | tuple[int, ...]


def kernel(file: str, name: str) -> Kernel:
    """The kernel `name` of ``kernels/<file>``; nothing is read or compiled before it is first called."""
    return Kernel(file, name)


class Kernel:
    """A ``__global__`` function, compiled once per device and tuple of template arguments."""

    def __init__(self, file: str, name: str) -> None:
        self.file, self.name = file, name
        self._compiled: dict[tuple[int, tuple[Any, ...]], Any] = {}

    def __call__(
        self,
        template: tuple[Any, ...],
        *,
        blocks: Extent,
        threads: Extent,
        args: tuple[Any, ...],
        shared: int = 0,
    ) -> None:
        """Launch on the current stream of the current device. A grid without blocks is nothing to do.

        Parameters
        ----------
        template : tuple of dtypes, ints and bools
            Template arguments in order: dtypes become C types, numbers constants; () for a plain function.
        blocks, threads : int or tuple of up to three
            Size of the grid, in blocks, and of a block, in threads.
        args : tuple of CuPy arrays and NumPy scalars
            Arrays C-contiguous and on the current device; scalars sized (``np.int32(n)``).
        shared : int
            Bytes of dynamic shared memory a block.

        Raises
        ------
        KernelError
            The kernel is not found or does not compile, or an argument or size is not as said above.
        """
        grid, block = _extent(blocks), _extent(threads)
        self._check(grid, block, args)
        if 0 in grid:
            return
        function = self._function(template)
        if shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
            self._allow_shared(function, shared)
        function(grid, block, args, shared_mem=shared)

    def _function(self, template: tuple[Any, ...]) -> Any:
        key = cp.cuda.runtime.getDevice(), template
        function = self._compiled.get(key)
        if function is None:
            function = self._compiled[key] = self._compile(expression(self.name, template))
        return function

    def _compile(self, instance: str) -> Any:
        module = cp.RawModule(code=source(self.file), options=OPTIONS, name_expressions=(instance,))
        try:
            return module.get_function(instance)
        except cp.cuda.compiler.CompileException as err:
            raise KernelError(f"kernels/{self.file}: {instance} does not compile:\n{err}") from err

    def _allow_shared(self, function: Any, shared: int) -> None:
        try:
            function.max_dynamic_shared_size_bytes = shared
        except cp.cuda.driver.CUDADriverError as err:
            most = cp.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
            raise self._refusal(f"{shared} bytes of shared memory a block; this GPU has {most}") from err

    def _check(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        if not 0 < block[0] * block[1] * block[2] <= MAX_THREADS:
            raise self._refusal(f"a block of {block} threads; there may be 1 to {MAX_THREADS}")
        if any(not 0 <= have <= most for have, most in zip(grid, MAX_BLOCKS, strict=True)):
            raise self._refusal(f"a grid of {grid} blocks; the most is {MAX_BLOCKS}")
        device = cp.cuda.runtime.getDevice()
        for position, value in enumerate(args):
            if isinstance(value, cp.ndarray):
                self._check_array(position, value, device)
            elif not isinstance(value, np.generic):
                raise self._refusal(
                    f"argument {position} is a {type(value).__name__}; give CuPy arrays, and scalars with a "
                    "size (np.int32(n)): a bare Python number goes in as 8 bytes, whatever the kernel reads"
                )

    def _check_array(self, position: int, array: Any, device: int) -> None:
        if not array.flags.c_contiguous:
            raise self._refusal(
                f"argument {position}, shape {array.shape} with strides {array.strides}, is not contiguous in C "
                "order; a kernel ignores strides, so make it so first (cp.ascontiguousarray)"
            )
        if array.size and array.device.id != device:
            raise self._refusal(
                f"argument {position} is on device {array.device.id}, but the current device is {device}"
            )

    def _refusal(self, why: str) -> KernelError:
        return KernelError(f"kernel {self.name} of kernels/{self.file}: {why}")


def _extent(size: Extent) -> tuple[int, int, int]:
    given = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    x, y, z = (*map(int, given), 1, 1, 1)[:3]
    return x, y, z
