"""Copies between the host and the GPU that run beside the kernels: pinned buffers, streams, events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import device
from gpucalcium.backend.arrays import Array, is_cupy
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import MemoryBudgetError


class Upload:
    """A ring of pinned host buffers, and the stream that copies them to the device.

    Buffers are used in turn: number k by chunks k, k + `buffers`, k + 2 `buffers` ...
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, buffers: int, index: int) -> None:
        self._device = cp.cuda.Device(index)
        with self._device:
            self._stream = cp.cuda.Stream(non_blocking=True)
            self._ring = [pinned(shape, dtype) for _ in range(buffers)]
        self._copied: list[Any] = [None] * buffers

    def buffer(self, turn: int) -> NDArray:
        """The buffer whose turn it is, once the last copy from it is done; may be called in another thread."""
        slot = turn % len(self._ring)
        if self._copied[slot] is not None:
            with self._device:
                self._copied[slot].synchronize()
        return self._ring[slot]

    def send(self, host: NDArray, turn: int) -> tuple[Array, Any]:
        """Start the copy; returns the array on the device, and the event after which it is filled.

        The memory comes from the pool of the caller's stream, where kernels that were started before may
        still use it: the copy waits for these. What is started there afterwards runs beside the copy.
        """
        with self._device:
            array = _room(host)
            self._stream.wait_event(cp.cuda.get_current_stream().record(_event()))
            array.set(host, stream=self._stream)
            copied = self._copied[turn % len(self._ring)] = self._stream.record(_event())
        return array, copied

    def receive(self, array: Array, copied: Any) -> Array:
        """The array, for use on the caller's stream."""
        with self._device:
            cp.cuda.get_current_stream().wait_event(copied)
        return array

    def finish(self) -> None:
        """Wait until no copy is under way."""
        with self._device:
            self._stream.synchronize()


class Download:
    """Copies results into pinned memory, on a stream of its own."""

    def __init__(self) -> None:
        self._stream = cp.cuda.Stream(non_blocking=True)

    def start(self, results: tuple[Array, ...]) -> Callable[[], tuple[NDArray, ...]]:
        """Start the copies; the returned function waits for them and gives the NumPy arrays."""
        results = tuple(cp.ascontiguousarray(x) if is_cupy(x) else np.asarray(x) for x in results)
        self._stream.wait_event(cp.cuda.get_current_stream().record(_event()))
        hosts = tuple(self._fetch(x) if is_cupy(x) else x for x in results)
        copied = self._stream.record(_event())

        def wait() -> tuple[NDArray, ...]:
            copied.synchronize()
            return hosts if results else ()  # naming `results` keeps the device arrays alive until here

        return wait

    def _fetch(self, x: Array) -> NDArray:
        host = pinned(x.shape, x.dtype)
        x.get(out=host, stream=self._stream, blocking=False)
        return host


def pinned(shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """Page-locked host memory, which the GPU reads and writes by itself."""
    items = math.prod(shape)
    memory = cp.cuda.alloc_pinned_memory(max(1, items * dtype.itemsize))
    return np.frombuffer(memory, dtype, items).reshape(shape)


def free() -> None:
    """Give back what the pools keep, and the work areas of FFT plans."""
    cp.fft.config.get_plan_cache().clear()
    device.free_memory()


def free_text() -> str:
    """How much memory there is, for an error message."""
    free_bytes, total = cp.cuda.Device().mem_info
    return f"{size_text(free_bytes)} of {size_text(total)} are free on the GPU"


def is_out_of_memory(err: Exception) -> bool:
    """Whether CuPy or cuFFT ran out of memory."""
    return isinstance(err, MemoryError) or (type(err).__name__ == "CuFFTError" and "ALLOC" in str(err))


def _event() -> Any:
    return cp.cuda.Event(block=True, disable_timing=True)  # a thread that waits for it sleeps


def _room(host: NDArray) -> Array:
    try:
        return cp.empty(host.shape, host.dtype)
    except MemoryError:
        pass  # only outside of the handler does nothing hold the memory of the failed call any more
    free()
    try:
        return cp.empty(host.shape, host.dtype)
    except MemoryError as err:
        raise MemoryBudgetError(
            f"{len(host)} frames, {size_text(host.nbytes)}, do not fit: {err}; {free_text()}. Free what else takes "
            "memory there, or set GPUCALCIUM_MEMORY (backend.limit(memory=...)) to what is left"
        ) from err
