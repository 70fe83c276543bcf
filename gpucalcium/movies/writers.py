"""Writing of movies to files; a file appears under its name only once it is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from gpucalcium.errors import ParameterError, UnknownFormatError
from gpucalcium.movies.files import target, written_whole
from gpucalcium.movies.memmap_write import write_map
from gpucalcium.movies.source import PIECE

if TYPE_CHECKING:
    from gpucalcium.movies.timeseries import timeseries

TIFF, HDF5 = (".tif", ".tiff", ".btf"), (".h5", ".hdf5")
_AXES = {2: "YX", 3: "TYX", 4: "TZYX"}
_FRAMES_A_CHUNK = 64  # of an HDF5 data set that is compressed


def save(
    series: timeseries,
    file_name: str | os.PathLike[str],
    *,
    to32: bool,
    order: str,
    imagej: bool,
    bigtiff: bool,
    compress: int,
    var_name_hdf5: str,
) -> str:
    """See `timeseries.save`."""
    path = target(file_name)
    suffix = path.suffix.lower()
    if compress not in range(10):
        raise ParameterError(f"compress={compress}: a level of zlib, 0 (none) to 9")
    if suffix == ".mmap":
        return str(write_map(series, path.with_suffix(""), order))
    if suffix not in (*TIFF, *HDF5, ".npy"):
        written = " ".join((*TIFF, *HDF5, ".npy", ".mmap"))
        raise UnknownFormatError(
            f"Extension Unknown: {path.suffix!r} of {path}; movies are written to {written}"
        )
    with written_whole(path) as temporary:
        if suffix in TIFF:
            _write_tiff(series, temporary, to32, imagej, bigtiff, compress)
        elif suffix in HDF5:
            _write_hdf5(series, temporary, var_name_hdf5, compress)
        else:
            np.save(temporary, np.asarray(series), allow_pickle=False)
    return str(path)


def attributes(series: timeseries) -> dict[str, Any]:
    """What is stored of a recording beside its values; what JSON cannot hold becomes text."""
    return {
        "fr": series.fr,
        "start_time": series.start_time,
        "file_name": json.dumps(series.file_name, default=str),
        "meta_data": json.dumps(series.meta_data, default=str),
    }


def _write_tiff(
    series: timeseries, path: Path, to32: bool, imagej: bool, bigtiff: bool, compress: int
) -> None:
    values = np.asarray(series)
    if values.ndim not in _AXES:
        raise ParameterError(
            f"a TIFF file takes an image, a movie or a movie of volumes, not {values.ndim} axes"
        )
    stored = np.dtype(np.float32) if to32 else values.dtype
    if stored.kind == "b":
        stored = np.dtype(np.uint8)
    if imagej and (compress or stored not in (np.uint8, np.uint16, np.float32)):
        raise ParameterError(
            f"imagej=True: ImageJ's format is uncompressed uint8, uint16 or float32; compress={compress} and {stored} "
            "were asked for. Use to32=True, compress=0, or imagej=False"
        )
    axes = _AXES[values.ndim]
    tifffile.imwrite(
        path,
        (page.astype(stored) for page in values.reshape(-1, *values.shape[-2:])),
        shape=values.shape,
        dtype=stored,
        imagej=imagej,
        bigtiff=bigtiff and not imagej,
        photometric="minisblack",
        compression="zlib" if compress else None,
        compressionargs={"level": compress} if compress else None,
        metadata={"axes": axes, "fps": series.fr} if imagej else {"axes": axes} | attributes(series),
    )


def _write_hdf5(series: timeseries, path: Path, name: str, compress: int) -> None:
    values = np.asarray(series)
    with h5py.File(path, "w") as file:
        chunked: dict[str, Any] = {}
        if compress:
            frames = (min(_FRAMES_A_CHUNK, len(values)), *values.shape[1:])
            chunked = {"chunks": frames, "compression": "gzip", "compression_opts": compress}
        data = file.create_dataset(name, values.shape, values.dtype, **chunked)
        for part in _in_pieces(values):
            data[part] = values[part]
        data.attrs.update(attributes(series))


def _in_pieces(values: NDArray) -> Iterator[slice]:
    """Frames in pieces, so that a memory-mapped movie is not read whole."""
    step = max(1, PIECE // max(1, values[:1].nbytes)) // _FRAMES_A_CHUNK * _FRAMES_A_CHUNK or _FRAMES_A_CHUNK
    for start in range(0, len(values), step):
        yield slice(start, start + step)
