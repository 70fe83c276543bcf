"""Reading of the binary files in which suite2p keeps registered movies: int16 frames without a header."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from gpucalcium.errors import MovieFileError, ParameterError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.raw import RawSource

_SAMPLE = np.dtype("<i2")


def open_bin(path: Path, shape: tuple[int, int] | None = None) -> RawSource:
    """Frames of a ``data.bin``.

    Parameters
    ----------
    path : Path
    shape : (int, int), optional
        Rows and columns, Ly and Lx. Else they are read from ``ops.json`` or ``ops.npz`` beside the file (Ly, Lx and,
        if known, nframes and fs). suite2p's own ``ops.npy`` is a pickle, which may run any code, and is not read.

    Raises
    ------
    MovieFileError
        Nothing says how large a frame is; or the size of the file does not fit.
    """
    about = {"Ly": shape[0], "Lx": shape[1]} if shape is not None else _sidecar(path)
    try:
        rows, columns = int(about["Ly"]), int(about["Lx"])
    except (KeyError, TypeError, ValueError) as err:
        raise MovieFileError(
            f"what describes {path} must say Ly and Lx, the rows and columns: {err!r}"
        ) from err
    if min(rows, columns) < 1:
        raise ParameterError(f"{path}: frames of {rows} x {columns} pixels; one row and one column at least")
    size, frame = path.stat().st_size, rows * columns * _SAMPLE.itemsize
    frames = size // frame
    expected = int(about.get("nframes", max(1, frames)))
    if frames * frame != size or frames != expected:
        raise MovieFileError(
            f"{path} is truncated, or its frames are not {rows} x {columns}: it has {size} bytes, which are "
            f"{size / frame:.2f} frames of int16; {expected if 'nframes' in about else 'a whole number'} expected"
        )
    source = RawSource(path, (frames, rows, columns), _SAMPLE)
    source.about = about_recording({"fr": about.get("fs")})
    return source


def _sidecar(path: Path) -> dict[str, Any]:
    as_json, as_npz, pickled = (path.with_name(f"ops.{kind}") for kind in ("json", "npz", "npy"))
    try:
        if as_json.exists():
            return dict(json.loads(as_json.read_text()))
        if as_npz.exists():
            with np.load(as_npz, allow_pickle=False) as archive:
                known = [name for name in ("Ly", "Lx", "nframes", "fs") if name in archive]
                return {name: archive[name].item() for name in known if math.prod(archive[name].shape) == 1}
    except (ValueError, TypeError, OSError, EOFError) as err:
        raise MovieFileError(f"{as_json if as_json.exists() else as_npz} cannot be read: {err}") from err
    there = f" {pickled} is a pickle, which may run any code, and is not read." if pickled.exists() else ""
    raise MovieFileError(
        f"{path} has no header: give shape=(Ly, Lx), or write {as_json} with Ly, Lx and nframes, e.g. "
        f'{{"Ly": 512, "Lx": 512, "nframes": 1000, "fs": 30}}.{there}'
    )
