"""Which device does the work: the probe of the GPU, the choice, and how much memory it may use."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from gpucalcium.backend import settings
from gpucalcium.errors import GpuUnavailable, ParameterError

log = logging.getLogger(__name__)

OLDEST_COMPUTE_CAPABILITY = (7, 5)  # Turing: the oldest that CUDA 13 and our kernels are compiled for
_INSUFFICIENT_DRIVER = 35  # cudaErrorInsufficientDriver
_NO_DEVICE = 100  # cudaErrorNoDevice


@dataclass(frozen=True)
class Device:
    """A place where work is done."""

    kind: str
    """'cpu' or 'cuda'."""
    index: int
    """Number of the GPU; 0 for the CPU."""
    name: str
    """What the maker calls it."""
    total_memory: int
    """Bytes of memory it has (the host's for the CPU)."""

    def __str__(self) -> str:
        place = f"cuda:{self.index}" if self.kind == "cuda" else "cpu"
        return f"{place} ({self.name}, {self.total_memory / 2**30:.1f} GiB)"


class State(Enum):
    """What the probe found; all but READY mean that no GPU can be used."""

    READY = "ready"
    NOT_INSTALLED = "not installed"
    BROKEN = "broken"
    NO_DRIVER = "no driver"
    NO_DEVICE = "no device"
    TOO_OLD = "too old"


@dataclass(frozen=True)
class Probe:
    """State of the GPU side, with the message that names the mend."""

    state: State
    message: str
    devices: tuple[Device, ...] = field(default=())


@cache
def probe() -> Probe:
    """Look once for a GPU that works: CuPy, its compiler, the driver, a device, its age."""
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return Probe(
            State.NOT_INSTALLED,
            "CuPy is not installed. On a machine with an NVIDIA GPU: pip install 'gpucalcium[cuda12]' "
            "(or cuda13, as the driver allows)",
        )
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.nvrtc.getVersion()
    except Exception as err:  # noqa: BLE001 - a broken CuPy fails in many ways; all mean the same here
        return Probe(
            State.BROKEN,
            f"CuPy is installed but does not load ({type(err).__name__}: {err}). Reinstall it with its CUDA "
            "libraries: pip install --force-reinstall 'gpucalcium[cuda12]', and keep one CuPy only",
        )
    return _probe_runtime(cupy)


def _probe_runtime(cupy: Any) -> Probe:
    runtime, version = cupy.cuda.runtime, cupy.__version__
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as err:
        return _probe_failed(runtime, version, err)
    if count == 0:
        return Probe(State.NO_DEVICE, f"CuPy {version} and a driver are there, but no NVIDIA GPU is visible")
    found: list[Device] = []
    old: list[Device] = []
    for index in range(count):
        about = runtime.getDeviceProperties(index)
        name = about["name"].decode() if isinstance(about["name"], bytes) else str(about["name"])
        device = Device("cuda", index, name, int(about["totalGlobalMem"]))
        new_enough = (about["major"], about["minor"]) >= OLDEST_COMPUTE_CAPABILITY
        (found if new_enough else old).append(device)
    if not found:
        oldest = ".".join(map(str, OLDEST_COMPUTE_CAPABILITY))
        return Probe(
            State.TOO_OLD,
            f"{old[0].name} is older than compute capability {oldest} (Turing, 2018), the oldest that the kernels "
            "run on. Use a newer GPU, or device='cpu'",
        )
    return Probe(State.READY, f"CuPy {version}, {len(found)} GPU(s)", tuple(found))


def _probe_failed(runtime: Any, version: str, err: Exception) -> Probe:
    status = getattr(err, "status", None)
    if status == _NO_DEVICE:
        return Probe(
            State.NO_DEVICE,
            f"CuPy {version} and a driver are there, but no NVIDIA GPU is visible (cudaErrorNoDevice). Check "
            "nvidia-smi and CUDA_VISIBLE_DEVICES, or use device='cpu'",
        )
    driver = runtime.driverGetVersion() if status == _INSUFFICIENT_DRIVER else 0
    if driver:
        return Probe(
            State.TOO_OLD,
            f"the NVIDIA driver is for CUDA {driver // 1000}.{driver % 1000 // 10}, older than CuPy {version} needs. "
            "Update the driver, or install the extra for its CUDA version ('gpucalcium[cuda12]')",
        )
    return Probe(
        State.NO_DRIVER,
        f"CuPy {version} is installed, but no NVIDIA driver answers ({err}). Install a driver, or use device='cpu'",
    )


class _Choice:
    """What the caller asked for with `use` and `limit`; the only state of the backend."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.device: str | None = None
        self.memory: settings.Memory | None = None
        self.chunk_frames: int | None = None
        self.told: set[str] = set()

    def tell_once(self, level: int, text: str) -> None:
        with self.lock:
            if text in self.told:
                return
            self.told.add(text)
        log.log(level, text)


_choice = _Choice()


class use:
    """Choose where work is done: "auto", "cpu", "cuda" or "cuda:1".

    Holds for the whole process until the next call; in a ``with`` statement, until its end. Arrays that
    are on a GPU already are worked on there whatever is chosen.

    Raises
    ------
    ParameterError
        A name that is none of these.
    GpuUnavailable
        A GPU was asked for and cannot be used; the message says which of the five states it is, and the mend.
    """

    def __init__(self, device: str) -> None:
        settings._parse_device(device)
        _resolve(device)
        self._before = _choice.device
        _choice.device = device

    def __enter__(self) -> Device:
        return active()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        _choice.device = self._before


def active() -> Device:
    """Device on which work is done that no input pins to a GPU.

    The order: `use`, then GPUCALCIUM_DEVICE, then auto: a GPU that works, else the CPU; the fallback is
    logged once with its reason.
    """
    return _resolve(_choice.device or settings.get("device"))


def _resolve(wanted: str) -> Device:
    if wanted == "cpu":
        return cpu()
    found = probe()
    if found.state is State.READY:
        return _gpu(wanted, found)
    if wanted == "auto":
        level = logging.INFO if found.state is State.NOT_INSTALLED else logging.WARNING
        _choice.tell_once(level, f"working on the CPU: {found.message}")
        return cpu()
    raise GpuUnavailable(f"device={wanted!r} was asked for ({found.state.value}): {found.message}")


def _gpu(wanted: str, found: Probe) -> Device:
    if ":" not in wanted:
        device = found.devices[0]
        if wanted == "auto":
            _choice.tell_once(logging.INFO, f"working on {device}")
        return device
    index = int(wanted.split(":")[1])
    for device in found.devices:
        if device.index == index:
            return device
    there = ", ".join(f"cuda:{device.index}" for device in found.devices)
    raise GpuUnavailable(f"device={wanted!r} was asked for (no device): this machine has {there}")


@cache
def cpu() -> Device:
    """The CPU as a device, with the memory this process may have."""
    return Device("cpu", 0, _cpu_name(), _host_memory())


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {threads()} threads" if names else "CPU"


def _host_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or "max": no limit
    return total


def threads() -> int:
    """Worker threads of the CPU wing (GPUCALCIUM_THREADS, else every core this process may use)."""
    wanted = settings.get("threads")
    if wanted is not None:
        return wanted
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def limit(memory: str | int | None = None, chunk_frames: int | None = None) -> Iterator[None]:
    """Bound what functions may use, inside a ``with`` statement.

    Parameters
    ----------
    memory : str or int, optional
        Bytes, or an amount such as "1GiB" or "25%"; in place of GPUCALCIUM_MEMORY.
    chunk_frames : int, optional
        Frames a chunk, in place of what the budget allows. It never changes a result, only speed and memory.
    """
    if chunk_frames is not None and chunk_frames < 1:
        raise ParameterError(f"chunk_frames={chunk_frames}: a chunk holds at least one frame")
    amount = None if memory is None else settings.parse_memory(memory)
    before = _choice.memory, _choice.chunk_frames
    _choice.memory = amount or _choice.memory
    _choice.chunk_frames = chunk_frames or _choice.chunk_frames
    try:
        yield
    finally:
        _choice.memory, _choice.chunk_frames = before


def chunk_frames() -> int | None:
    """Frames a chunk, if `limit` fixed them."""
    return _choice.chunk_frames


def budget(device: Device | None = None) -> int:
    """Bytes that a function may use on `device` (default: the active one)."""
    allowed = _choice.memory or settings.get("memory")
    return allowed.of((device or active()).total_memory)


def free_memory() -> None:
    """Hand memory that CuPy's pools keep for later back to the device."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and probe().state is State.READY:
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()
