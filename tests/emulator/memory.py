"""Memory of the emulated GPU: counted, limited, and fenced in so that writes beside an array show."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref

import numpy as np

GUARD = 256  # bytes on each side of an allocation that nobody may write
UNIT = 512  # bytes: CuPy rounds allocations up to this, and aligns them so
POISON = 0xCC  # what fresh memory holds
DEVICE_COUNT = int(os.environ.get("GPUCALCIUM_EMULATOR_DEVICES", "2"))
DEVICE_MEMORY = 8 << 30  # bytes that each emulated device claims to have


def sanitizing() -> bool:
    """Whether kernels are compiled with AddressSanitizer, which then watches the guards."""
    return os.environ.get("GPUCALCIUM_EMULATOR_SANITIZE", "0") == "1"


def _forbid(guard: np.ndarray) -> None:
    forbid = ctypes.CDLL(None).__asan_poison_memory_region  # of the library that is preloaded
    forbid(ctypes.c_void_p(guard.ctypes.data), ctypes.c_size_t(guard.size))


class OutOfMemoryError(MemoryError):
    """As CuPy's: the pool's limit, or the device's memory, does not hold what is asked for."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


class _Current(threading.local):
    device = 0


current = _Current()


class MemoryPool:
    """Counts what is allocated on each device; keeps the count of freed blocks until told to free them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # arrays may be collected while memory is counted
        self._used = [0] * DEVICE_COUNT
        self._total = [0] * DEVICE_COUNT
        self._limit = [0] * DEVICE_COUNT
        self.peak_bytes = 0  # of the stand-in alone: the most that was used at once

    def charge(self, size: int, device: int) -> None:
        limit = self._limit[device] or DEVICE_MEMORY
        with self._lock:
            if self._used[device] + size > limit:
                raise OutOfMemoryError(size, self._used[device], self._limit[device])
            self._used[device] += size
            self._total[device] = min(max(self._total[device], self._used[device]), limit)
            self.peak_bytes = max(self.peak_bytes, self._used[device])

    def release(self, size: int, device: int) -> None:
        with self._lock:
            self._used[device] -= size

    def used_bytes(self) -> int:
        return self._used[current.device]

    def total_bytes(self) -> int:
        return self._total[current.device]

    def free_bytes(self) -> int:
        return self.total_bytes() - self.used_bytes()

    def n_free_blocks(self) -> int:
        return int(self.free_bytes() > 0)

    def free_all_blocks(self, stream: object = None) -> None:
        with self._lock:
            self._total[current.device] = self._used[current.device]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if (size is None) == (fraction is None):
            raise ValueError("size and fraction cannot be specified at one time")
        chosen = int(size) if size is not None else int((fraction or 0.0) * DEVICE_MEMORY)
        self._limit[current.device] = chosen

    def get_limit(self) -> int:
        return self._limit[current.device]


class PinnedMemoryPool:
    """Host memory needs no pool here; the calls are there."""

    def n_free_blocks(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        pass


class PinnedMemory(bytearray):
    """Host memory as `cupy.cuda.alloc_pinned_memory` gives it: a buffer, rounded up in size."""

    def size(self) -> int:
        return len(self)


_pinned: dict[int, int] = {}  # where the pinned buffers in use start, and end


def alloc_pinned_memory(size: int) -> PinnedMemory:
    made = PinnedMemory(np.full(-(-max(size, 1) // UNIT) * UNIT, POISON, np.uint8).tobytes())
    start = np.frombuffer(made, np.uint8).ctypes.data
    _pinned[start] = start + len(made)
    weakref.finalize(made, _pinned.pop, start, None)
    return made


def is_pinned(array: np.ndarray) -> bool:
    """Whether a host array lies in pinned memory, from which copies are made later."""
    at = array.ctypes.data
    return any(start <= at < end for start, end in list(_pinned.items()))


pool = MemoryPool()
pinned_pool = PinnedMemoryPool()


class Memory:
    """One allocation on a device, between two guards."""

    def __init__(self, nbytes: int) -> None:
        self.size, self.device = nbytes, current.device
        self._charged = 0
        rounded = -(-nbytes // UNIT) * UNIT
        pool.charge(rounded, self.device)
        self._charged = rounded
        room = np.empty(nbytes + 2 * GUARD + UNIT, np.uint8)
        first = GUARD + (-(room.ctypes.data + GUARD)) % UNIT
        self._before = room[first - GUARD : first]
        self._after = room[first + nbytes : first + nbytes + GUARD]
        self.bytes = room[first : first + nbytes]
        self.ptr = self.bytes.ctypes.data if nbytes else 0
        if sanitizing():
            for guard in (self._before, self._after):
                _forbid(guard)

    def __del__(self) -> None:
        if getattr(self, "_charged", 0):
            pool.release(self._charged, self.device)

    def poison(self) -> None:
        self.bytes.fill(POISON)

    def arm(self, value: int) -> None:
        """Fill the guards; a kernel that reads them gets another answer with another value."""
        if sanitizing():
            return
        self._before.fill(value)
        self._after.fill(value)

    def trespassed(self, value: int) -> str | None:
        """Which guard was written since `arm(value)`, with the distance in bytes."""
        if sanitizing():
            return None
        if (hit := np.flatnonzero(self._after != value)).size:
            return f"{hit[0]} bytes past the end"
        if (hit := np.flatnonzero(self._before != value)).size:
            return f"{GUARD - hit[-1]} bytes before the start"
        return None

    def holds(self, array: np.ndarray) -> bool:
        """Whether `array` is a view of this memory."""
        return bool(self.size) and self.ptr <= array.ctypes.data < self.ptr + self.size


class AdoptedMemory(Memory):
    """Memory of another library, handed over by ``__cuda_array_interface__``; neither counted nor fenced."""

    def __init__(self, view: np.ndarray, owner: object) -> None:
        self.size, self.device, self.owner = view.nbytes, current.device, owner
        self.bytes = view.reshape(-1).view(np.uint8) if view.flags.c_contiguous else np.empty(0, np.uint8)
        self._before = self._after = np.empty(0, np.uint8)
        self.ptr = view.ctypes.data
