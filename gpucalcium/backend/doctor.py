"""What this installation finds on this machine: the text behind ``gpucalcium doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gpucalcium.backend import device, settings
from gpucalcium.errors import GpuCalciumError

OPTIONAL = {
    "cupy": ("cuda12 or cuda13", "work on NVIDIA GPUs"),
    "torch": ("nets", "ring networks and classifiers"),
    "pynwb": ("nwb", "NWB files"),
    "av": ("video", "AVI, MKV and MP4 movies"),
    "zarr": ("zarr", "Zarr movies"),
    "imagecodecs": ("tiff", "compressed TIFF"),
    "matplotlib": ("plot", "figures and reports"),
    "dask": ("cluster", "clusters"),
    "cvxpy": ("cvx", "the convex solvers of constrained_foopsi"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    text: str
    good: bool | None = None
    """True: works; False: needs a mend; None: just a fact."""


def examine() -> list[Finding]:
    """Look at the machine, the GPU, the kernels, the settings and the optional packages."""
    return [*_machine(), *_gpu(), *_kernels(), *_settings(), *_packages()]


def report() -> str:
    """The findings as text, one a line: ``ok``, ``--`` or ``!!``, topic, what was found."""
    marks = {True: "ok", False: "!!", None: "--"}
    return "\n".join(f"{marks[f.good]}  {f.topic:<22}{f.text}" for f in examine())


def _machine() -> list[Finding]:
    cpu = device.cpu()
    temp = settings.get("temp") or Path(tempfile.gettempdir())
    free = shutil.disk_usage(temp).free if Path(temp).is_dir() else 0
    return [
        Finding("gpucalcium", importlib.metadata.version("gpucalcium")),
        Finding("Python", f"{platform.python_version()} on {platform.platform()}"),
        Finding("CPU", str(cpu)),
        Finding("memory budget", f"{device.budget(cpu) / 2**30:.1f} GiB of host memory"),
        Finding("temporary folder", f"{temp}, {free / 2**30:.1f} GiB free", free > 2**30),
    ]


def _gpu() -> list[Finding]:
    found = device.probe()
    ready = found.state is device.State.READY
    lines = [Finding("GPU", f"{found.state.value}: {found.message}", ready or None)]
    if found.state in (device.State.BROKEN, device.State.TOO_OLD):
        lines = [Finding("GPU", f"{found.state.value}: {found.message}", False)]
    for gpu in found.devices:
        lines.append(Finding("", f"{gpu}; budget {device.budget(gpu) / 2**30:.1f} GiB", True))
    try:
        lines.append(Finding("work is done on", str(device.active()), True))
    except GpuCalciumError as err:
        lines.append(Finding("work is done on", str(err), False))
    return lines


def _kernels() -> list[Finding]:
    from gpucalcium.backend.cuda import _source

    try:
        folder = _source.kernel_folder()
    except GpuCalciumError as err:
        return [Finding("CUDA kernels", str(err), False)]
    files = sorted(path.name for path in folder.glob("*.cu"))
    lines = [Finding("CUDA kernels", f"{len(files)} files in {folder}", bool(files))]
    if device.probe().state is device.State.READY:
        lines.append(_kernel_runs())
    return lines


def _kernel_runs() -> Finding:
    """Compile one kernel and hold its result against NumPy's, on the GPU itself."""
    import numpy as np

    from gpucalcium.backend import arrays, wing

    frames = np.arange(5 * 16 * 16, dtype=np.uint16).reshape(5, 16, 16)
    try:
        with device.use("cuda"):
            there = arrays.put(frames)
            blurred = wing(there).filters.gaussian(there, (1.0, 1.0), (2, 2), "replicate")
            here = wing(frames).filters.gaussian(frames, (1.0, 1.0), (2, 2), "replicate")
    except Exception as err:  # noqa: BLE001 - whatever goes wrong is the finding
        return Finding("", f"a kernel does not run: {type(err).__name__}: {err}", False)
    same = np.allclose(arrays.to_numpy(blurred), here, rtol=1e-5)
    return Finding(
        "", "a kernel compiled and agrees with the CPU" if same else "a kernel gives wrong values", same
    )


def _settings() -> list[Finding]:
    lines = []
    for name, setting in settings.SETTINGS.items():
        where = next((v for v in (setting.variable, *setting.fallbacks) if os.environ.get(v)), None)
        try:
            settings.get(name)
        except GpuCalciumError as err:
            lines.append(Finding(setting.variable, str(err), False))
            continue
        shown = (
            "not set"
            if where is None and setting.default is None
            else os.environ.get(where or "", setting.default)
        )
        lines.append(Finding(setting.variable, f"{shown}{'' if where else ' (default)'}"))
    return lines


def _packages() -> list[Finding]:
    lines = []
    for package, (extra, use) in OPTIONAL.items():
        version = _version(package)
        text = (
            f"{version}" if version else f"not installed; needed for {use}: pip install 'gpucalcium[{extra}]'"
        )
        lines.append(Finding(package, text, True if version else None))
    return lines


def _version(package: str) -> str | None:
    names = ("cupy-cuda12x", "cupy-cuda13x", "cupy") if package == "cupy" else (package,)
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
