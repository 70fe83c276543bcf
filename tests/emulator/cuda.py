"""The stand-in's `cupy.cuda`: one device of the oldest supported kind, streams on which copies wait."""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.emulator import memory
from tests.emulator.memory import DEVICE_COUNT, DEVICE_MEMORY, Memory, OutOfMemoryError

SHARED_PER_BLOCK = 48 << 10
SHARED_OPT_IN = 64 << 10  # bytes; Turing's, the least of the architectures we build for
_PROPERTIES = {
    "name": b"Emulated GPU",
    "totalGlobalMem": DEVICE_MEMORY,
    "major": 7,
    "minor": 5,
    "multiProcessorCount": 4,
    "warpSize": 32,
    "maxThreadsPerBlock": 1024,
    "maxThreadsPerMultiProcessor": 1024,
    "sharedMemPerBlock": SHARED_PER_BLOCK,
    "sharedMemPerBlockOptin": SHARED_OPT_IN,
    "sharedMemPerMultiprocessor": SHARED_OPT_IN,
    "regsPerBlock": 65536,
    "l2CacheSize": 4 << 20,
    "clockRate": 1_000_000,
    "memoryClockRate": 1_000_000,
    "memoryBusWidth": 64,
    "integrated": 0,
    "asyncEngineCount": 2,
    "concurrentKernels": 1,
    "canMapHostMemory": 1,
    "pciBusID": 0,
    "pciDeviceID": 0,
    "pciDomainID": 0,
}


class CUDARuntimeError(RuntimeError):
    """As CuPy's: carries the number of the error."""

    def __init__(self, status: int) -> None:
        self.status = status
        names = {
            1: "cudaErrorInvalidValue: invalid argument",
            101: "cudaErrorInvalidDevice: invalid device ordinal",
        }
        super().__init__(names.get(status, f"cudaError {status}"))


class CUDADriverError(RuntimeError):
    """As CuPy's."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(
            "CUDA_ERROR_INVALID_VALUE: invalid argument" if status == 1 else f"CUDA_ERROR {status}"
        )


class CompileException(Exception):
    """As CuPy's: the compiler's messages, with the source."""

    def __init__(self, msg: str, source: str, name: str, options: Any, backend: str = "nvrtc") -> None:
        super().__init__(msg)
        self._msg, self.source, self.name, self.options, self.backend = msg, source, name, options, backend

    def __str__(self) -> str:
        return self._msg


# ---- devices --------------------------------------------------------------------------------------------


def set_device(index: int) -> None:
    if not 0 <= index < DEVICE_COUNT:
        raise CUDARuntimeError(101)
    memory.current.device = index


class Device:
    """A device, and a context in which it is the current one."""

    def __init__(self, device: Any = None) -> None:
        self.id = memory.current.device if device is None else int(getattr(device, "id", device))
        self._before: list[int] = []

    def use(self) -> None:
        set_device(self.id)

    def __enter__(self) -> Device:
        self._before.append(memory.current.device)
        set_device(self.id)
        return self

    def __exit__(self, *error: object) -> None:
        memory.current.device = self._before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __int__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        synchronize_device()

    compute_capability = "75"
    pci_bus_id = "0000:00:00.0"

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return mem_get_info()

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MultiProcessorCount": 4,
            "MaxSharedMemoryPerBlock": SHARED_PER_BLOCK,
            "MaxSharedMemoryPerBlockOptin": SHARED_OPT_IN,
        }


def get_properties(index: int) -> dict[str, Any]:
    if not 0 <= index < DEVICE_COUNT:
        raise CUDARuntimeError(101)
    return dict(_PROPERTIES)


def mem_get_info() -> tuple[int, int]:
    return DEVICE_MEMORY - memory.pool.total_bytes(), DEVICE_MEMORY


# ---- streams ----------------------------------------------------------------------------------------------
#
# Kernels and array functions run when they are called. Copies between host and device on a stream that does
# not block wait until something waits for them: that stream, an event recorded later on it, or work on it.
# So an array that is used too early still holds what it held, and a host buffer that is written too early
# arrives with what was written.


class _CurrentStream(threading.local):
    stream: Any = None


_current_stream = _CurrentStream()


class Stream:
    """A stream, and the copies that were put on it and not yet waited for."""

    null: Stream
    ptds: Stream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.non_blocking, self.ptr = non_blocking, 0 if null else id(self)
        self.device_id = memory.current.device
        self._before: list[Any] = []
        self._lock = threading.RLock()
        self._waiting: deque[Callable[[], object]] = deque()
        self.finished = self.submitted = 0  # pieces of work, since it was made
        _streams.add(self)

    def submit(self, work: Callable[[], object]) -> None:
        """Do `work` in its turn; at once where the stream waits for the default stream anyway."""
        with self._lock:
            self._waiting.append(work)
            self.submitted += 1
        if not self.non_blocking:
            self.flush()

    def flush(self, until: int | None = None) -> None:
        """Do what waits, up to piece number `until`."""
        with self._lock:
            while self._waiting and (until is None or self.finished < until):
                self._waiting.popleft()()
                self.finished += 1

    @property
    def done(self) -> bool:
        was_done = not self._waiting
        self.flush()  # so that asking again and again comes to an end
        return was_done

    def use(self) -> Stream:
        _current_stream.stream = self
        return self

    def __enter__(self) -> Stream:
        self._before.append(_current_stream.stream)
        return self.use()

    def __exit__(self, *error: object) -> None:
        _current_stream.stream = self._before.pop()

    def synchronize(self) -> None:
        self.flush()

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if not isinstance(event, Event):
            raise TypeError("an Event is waited for")
        event.synchronize()

    def launch_host_func(self, callback: Any, arg: Any) -> None:
        self.submit(lambda: callback(arg))

    def __del__(self) -> None:
        self.flush()


_streams: weakref.WeakSet[Stream] = weakref.WeakSet()
Stream.null = Stream(null=True)
Stream.ptds = Stream(null=True)


class Event:
    """A point in time on a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.disable_timing, self.ptr = disable_timing, id(self)
        self.time = 0.0
        self._stream: Stream | None = None
        self._after = 0

    def record(self, stream: Stream | None = None) -> None:
        self._stream = stream or get_current_stream()
        self._after, self.time = self._stream.submitted, time.perf_counter()

    @property
    def done(self) -> bool:
        was_done = self._stream is None or self._stream.finished >= self._after
        self.synchronize()
        return was_done

    def synchronize(self) -> None:
        if self._stream is not None:
            self._stream.flush(self._after)


def get_current_stream(device_id: int = -1) -> Stream:
    return _current_stream.stream or Stream.null


def settle() -> None:
    """Do what waits on the current stream: work there comes after it."""
    if _current_stream.stream is not None:
        _current_stream.stream.flush()


def synchronize_device() -> None:
    for stream in list(_streams):
        stream.flush()


def get_elapsed_time(start: Event, end: Event) -> float:
    if start.disable_timing or end.disable_timing:
        raise CUDARuntimeError(400)
    return 1000 * (end.time - start.time)


# ---- memory -----------------------------------------------------------------------------------------------


class MemoryPointer:
    """A place in an allocation."""

    def __init__(self, mem: Memory, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device

    device = property(lambda self: Device(self.device_id))

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def _room(self, size: int) -> None:
        if not self.mem.ptr <= self.ptr <= self.ptr + size <= self.mem.ptr + self.mem.size:
            raise CUDARuntimeError(1)

    def copy_from_host(self, mem: Any, size: int) -> None:
        settle()
        self._room(size)
        ctypes.memmove(self.ptr, _address(mem), size)

    def copy_from_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        (stream or get_current_stream()).submit(lambda: self.copy_from_host(mem, size))

    def copy_to_host(self, mem: Any, size: int) -> None:
        settle()
        self._room(size)
        ctypes.memmove(_address(mem), self.ptr, size)

    def copy_to_host_async(self, mem: Any, size: int, stream: Any = None) -> None:
        (stream or get_current_stream()).submit(lambda: self.copy_to_host(mem, size))

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        src._room(size)
        self.copy_from_host(src.ptr, size)

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        (stream or get_current_stream()).submit(lambda: self.copy_from_device(src, size))

    def memset(self, value: int, size: int) -> None:
        settle()
        self._room(size)
        ctypes.memset(self.ptr, value, size)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        (stream or get_current_stream()).submit(lambda: self.memset(value, size))


def _address(mem: Any) -> int:
    return int(getattr(mem, "value", mem))


def alloc(size: int) -> MemoryPointer:
    block = Memory(size)
    block.poison()
    return MemoryPointer(block, 0)


def contents() -> dict[str, Any]:
    """Names of `cupy.cuda`; `compiler`, `runtime` and so on are namespaces."""
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: DEVICE_COUNT,
        getDeviceProperties=get_properties,
        getDevice=lambda: memory.current.device,
        setDevice=set_device,
        memGetInfo=mem_get_info,
        driverGetVersion=lambda: 12080,
        runtimeGetVersion=lambda: 12080,
        deviceSynchronize=synchronize_device,
        is_hip=False,
    )
    return {
        "Device": Device,
        "Event": Event,
        "MemoryPointer": MemoryPointer,
        "MemoryPool": memory.MemoryPool,
        "PinnedMemoryPool": memory.PinnedMemoryPool,
        "Stream": Stream,
        "alloc": alloc,
        "alloc_pinned_memory": memory.alloc_pinned_memory,
        "compiler": SimpleNamespace(CompileException=CompileException),
        "driver": SimpleNamespace(CUDADriverError=CUDADriverError),
        "get_current_stream": get_current_stream,
        "get_elapsed_time": get_elapsed_time,
        "is_available": lambda: True,
        "memory": SimpleNamespace(OutOfMemoryError=OutOfMemoryError, MemoryPointer=MemoryPointer),
        "nvrtc": SimpleNamespace(getVersion=lambda: (12, 8)),
        "runtime": runtime,
    }
