"""What a movie's file says of itself, for people."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import tifffile

from gpucalcium.movies.hdf5 import find_dataset
from gpucalcium.movies.n5 import find_n5, n5_codec

_NONE = "none"


def bytes_on_disk(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def compression_of(path: Path, dataset: str | None = None) -> str:
    """How the values of a file that can be read are compressed: "none", "adobe_deflate", "gzip", "ffv1" ..."""
    look = _LOOK.get(path.suffix.lower())
    return look(path, dataset) if look else _NONE


def _of_tiff(path: Path, dataset: str | None) -> str:
    with tifffile.TiffFile(path) as tiff:
        return str(tifffile.COMPRESSION(tiff.pages.first.compression).name).lower()


def _of_hdf5(path: Path, dataset: str | None) -> str:
    if not h5py.is_hdf5(path):  # a .mat file of version 5: said as it is read
        return _NONE
    with h5py.File(path, "r") as file:
        data = find_dataset(file, dataset or "mov")
        return data.compression or (_NONE if data.chunks is None else "none, in chunks")


def _of_npz(path: Path, dataset: str | None) -> str:
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
        return {zipfile.ZIP_STORED: _NONE, zipfile.ZIP_DEFLATED: "zlib"}.get(largest.compress_type, "other")


def _of_video(path: Path, dataset: str | None) -> str:
    import av

    with av.open(str(path)) as container:
        codec = str(container.streams.video[0].codec_context.name)
    return _NONE if codec == "rawvideo" else codec


def _of_zarr(path: Path, dataset: str | None) -> str:
    import zarr

    found: Any = zarr.open(path, mode="r")
    while isinstance(found, zarr.Group):
        named = [name for name in (dataset, "mov") if name and name in found]
        found = found[named[0] if named else next(iter(found))]
    return ", ".join(_codec_name(codec) for codec in found.compressors) or _NONE


def _of_n5(path: Path, dataset: str | None) -> str:
    codec = n5_codec(find_n5(path, dataset or "mov")[1])
    return _NONE if codec == "raw" else codec


def _codec_name(codec: Any) -> str:
    return str(getattr(codec, "codec_id", type(codec).__name__.removesuffix("Codec").lower()))


_LOOK: dict[str, Callable[[Path, str | None], str]] = {
    **dict.fromkeys((".tif", ".tiff", ".btf"), _of_tiff),
    **dict.fromkeys((".h5", ".hdf5", ".nwb", ".mat"), _of_hdf5),
    **dict.fromkeys((".avi", ".mkv", ".mp4"), _of_video),
    ".zarr": _of_zarr,
    ".n5": _of_n5,
    ".npz": _of_npz,
}
