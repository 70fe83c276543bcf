"""Reading of the binary files in which suite2p keeps registered movies: int16 frames without a header."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpucalcium.errors import MovieFileError, ParameterError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.plain_pickle import read_dictionary
from gpucalcium.movies.raw import RawSource

_SAMPLE = np.dtype("<i2")


def open_bin(path: Path, shape: tuple[int, int] | None = None) -> RawSource:
    """Frames of a ``data.bin``.

    Parameters
    ----------
    path : Path
    shape : (int, int), optional
        Rows and columns, Ly and Lx. Else they are read from ``ops.json``, ``ops.npz`` or suite2p's own ``ops.npy``
        beside the file (Ly, Lx and, if known, nframes and fs). The last is a pickle, which might run any code: its
        numbers are taken from its bytes, and nothing of it is run, see `plain_pickle`.

    Raises
    ------
    MovieFileError
        Nothing says how large a frame is; or the size of the file does not fit.
    """
    about = {"Ly": shape[0], "Lx": shape[1]} if shape is not None else _sidecar(path)
    try:
        rows, columns = int(about["Ly"]), int(about["Lx"])
        promised = int(about["nframes"]) if "nframes" in about else None
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise MovieFileError(
            f"what describes {path} must say Ly and Lx, the rows and columns, and nframes only as a number: {err!r}"
        ) from err
    if min(rows, columns) < 1:
        raise ParameterError(f"{path}: frames of {rows} x {columns} pixels; one row and one column at least")
    size, frame = path.stat().st_size, rows * columns * _SAMPLE.itemsize
    frames = size // frame
    if frames * frame != size or frames != (promised or max(1, frames)):
        raise MovieFileError(
            f"{path} is truncated, or its frames are not {rows} x {columns}: it has {size} bytes, which are "
            f"{size / frame:.2f} frames of int16; {promised or 'a whole number'} expected"
        )
    source = RawSource(path, (frames, rows, columns), _SAMPLE)
    source.about = about_recording({"fr": about.get("fs")})
    return source


def _sidecar(path: Path) -> dict[str, Any]:
    """What the file beside a movie says of it."""
    for name, read in _SIDECARS.items():
        beside = path.with_name(name)
        if not beside.exists():
            continue
        try:
            return dict(read(beside))
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, RecursionError) as err:
            raise MovieFileError(
                f"{beside}, which describes {path.name}, cannot be used: {err}. Give shape=(Ly, Lx), or write "
                f"{path.with_name('ops.json')} in its place"
            ) from err
    raise MovieFileError(
        f"{path} has no header: give shape=(Ly, Lx), or write {path.with_name('ops.json')} with Ly, Lx and nframes, "
        'e.g. {"Ly": 512, "Lx": 512, "nframes": 1000, "fs": 30}'
    )


def _of_archive(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        known = [name for name in ("Ly", "Lx", "nframes", "fs") if name in archive]
        return {name: archive[name].item() for name in known if archive[name].size == 1}


_SIDECARS: dict[str, Callable[[Path], Any]] = {
    "ops.json": lambda path: json.loads(path.read_text()),
    "ops.npz": _of_archive,
    "ops.npy": read_dictionary,
}
