"""Reading of Scanbox recordings: raw samples in .sbx, their description in the .mat file beside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MovieFileError, ParameterError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.mat_struct import read_struct
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import PIECE, Source

log = logging.getLogger(__name__)

_FIELD = (512, 796)  # rows and columns where the description does not say
_VERSIONS = (2, 3)
_SAMPLE = np.dtype("<u2")


@dataclass(frozen=True)
class Scan:
    """What the description says of the samples, which are stored in Fortran order as (channel, column, row, plane,
    frame)."""

    rows: int
    columns: int
    channels: int
    planes: int
    fr: float | None
    """Frames, or volumes, per second."""
    promised: int | None
    """Planes that were recorded, if it says."""

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane, all channels."""
        return self.rows * self.columns * self.channels * _SAMPLE.itemsize


class SbxSource(Source):
    """One channel of a Scanbox recording, (T, rows, columns[, planes]) uint16; bright is high (stored inverted)."""

    def __init__(self, path: Path, scan: Scan, channel: int) -> None:
        size = path.stat().st_size
        stored = size // scan.plane_bytes if scan.plane_bytes else 0
        if stored * scan.plane_bytes != size or stored < (scan.promised or 1):
            raise MovieFileError(
                f"{path} is truncated: it has {size} bytes, {size / max(1, scan.plane_bytes):.2f} planes of "
                f"{scan.rows} x {scan.columns} pixels and {scan.channels} channels; "
                f"{scan.promised or 'a whole number of them'} were expected. Copy it again from where it was recorded, "
                "with its .mat file"
            )
        frames, over = divmod(stored, scan.planes)
        if not frames:
            raise MovieFileError(f"{path} holds {stored} planes, less than one volume of {scan.planes}")
        if over:
            log.warning("%s: the last %d planes make no whole volume and are left out", path, over)
        field = (scan.rows, scan.columns) if scan.planes == 1 else (scan.rows, scan.columns, scan.planes)
        super().__init__((frames, *field), _SAMPLE, str(path))
        self._scan, self._channel = scan, channel
        self._raw = RawSource(path, (frames, scan.planes * scan.rows, scan.columns * scan.channels), _SAMPLE)
        self.about = about_recording({"fr": scan.fr})

    def _fill(self, wanted: range, out: NDArray) -> None:
        scan = self._scan
        some = max(1, PIECE // (scan.plane_bytes * scan.planes))
        for at in range(0, len(wanted), some):
            part = wanted[at : at + some]
            samples = self._raw.read(slice(part.start, part.stop, part.step))
            frames = samples.reshape(len(part), scan.planes, scan.rows, scan.columns, scan.channels)
            planes = frames[..., self._channel]
            volumes = planes[:, 0] if scan.planes == 1 else np.moveaxis(planes, 1, -1)
            np.invert(volumes, out=out[at : at + some])  # 65535 - sample


def open_sbx(path: Path, channel: int | None = None) -> SbxSource:
    """Frames of a Scanbox recording, version 2 or 3.

    Raises
    ------
    MovieFileError
        No readable description beside it, another version, or truncated.
    ParameterError
        Several channels and none, or one that is not there, was asked for.
    """
    scan = read_scan(path)
    if channel is None and scan.channels > 1:
        raise ParameterError(f"{path} has {scan.channels} channels: say which with channel=0, 1 ...")
    if channel is not None and not -scan.channels <= channel < scan.channels:
        raise ParameterError(f"channel={channel}: {path} has {scan.channels} channels, counted from 0")
    return SbxSource(path, scan, channel or 0)


def read_scan(path: Path) -> Scan:
    """What the .mat file beside a .sbx file says."""
    about = path.with_suffix(".mat")
    if not about.exists():
        raise MovieFileError(
            f"{path} has no header of its own: its description is expected in {about}, which is not there"
        )
    try:
        return _scan(read_struct(about, "info"))
    except (ValueError, TypeError, OverflowError, IndexError, OSError) as err:
        raise MovieFileError(
            f"{about}, which describes {path.name}, cannot be used: {type(err).__name__}: {err}. It must hold the "
            "variable 'info' as Scanbox writes it"
        ) from err


def _scan(info: Mapping[str, Any]) -> Scan:
    version = int(info.get("scanbox_version", _VERSIONS[0]))
    if version not in _VERSIONS:
        raise ValueError(f"scanbox_version is {version}; versions {_VERSIONS} are known")
    rows, columns = (int(n) for n in info.get("sz", _FIELD))
    chan = info.get("chan")
    if isinstance(chan, Mapping) and "nchan" in chan:
        channels = int(chan["nchan"])
    else:
        channels = 2 if info.get("channels") == 1 else 1
    planes = int(np.atleast_1d(info["otparam"])[2]) if info.get("volscan") else 1
    if min(rows, columns, channels, planes) < 1:
        raise ValueError(f"{rows} rows, {columns} columns, {channels} channels, {planes} planes")
    promised = int(info["max_idx"]) + 1 if "max_idx" in info else None
    return Scan(rows, columns, channels, planes, _rate(info, rows, planes), promised)


def _rate(info: Mapping[str, Any], rows: int, planes: int) -> float | None:
    """Volumes a second: a resonant mirror draws one line a period or, there and back (scanmode 0), two."""
    lines = float(info.get("resfreq", math.nan)) * (2 if info.get("scanmode", 1) == 0 else 1)
    return lines / rows / planes if lines > 0 else None
