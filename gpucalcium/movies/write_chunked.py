"""Writing of movies as a data set of an HDF5 file or of a Zarr group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MissingExtraError
from gpucalcium.movies.save_options import Recording, SaveOptions

_FRAMES_A_CHUNK = 64  # chunks of the stream are longer or shorter by a power of 2
_BYTES_A_CHUNK = 16 << 20
_GZIP, _SHUFFLE = "gzip", True  # bytes of equal weight together: half the size for noisy integers


def write_hdf5(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """Data set `var_name_hdf5`, in one piece unless compressed; what is known of the recording as its attributes."""
    with _created(path) as file:
        data = create_dataset(file, options.var_name_hdf5, source.shape, source.dtype, options.compress)
        data.attrs.update(about.as_attributes())
        for frames, chunk in placed_chunks(source):
            data[frames] = chunk


def begin_hdf5(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, about: Recording, options: SaveOptions
) -> int:
    """The file that `write_hdf5` would write, without its frames; returns the byte where they are to start."""
    with _created(path) as file:
        data = create_dataset(file, options.var_name_hdf5, shape, dtype)
        data.attrs.update(about.as_attributes())
        return int(data.id.get_offset())


def place_in_hdf5(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> int | None:
    """Byte where the frames of a data set that `begin_hdf5` made start; None if the file holds no such thing."""
    try:
        with h5py.File(path, "r") as file:
            data = file[name]
            same = data.shape == shape and data.dtype == dtype
            return data.id.get_offset() if same else None
    except (OSError, KeyError):
        return None


def _created(path: Path) -> h5py.File:
    return h5py.File(path, "w", libver="v108")  # attributes may then be longer than 64 KiB


def create_dataset(
    group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype, compress: int = 0
) -> h5py.Dataset:
    """A data set for a movie: contiguous, its place taken at once; or chunks of whole frames with zlib."""
    if compress and shape:
        chunked: dict[str, Any] = {
            "chunks": chunk_shape(shape, dtype),
            "compression": _GZIP,
            "compression_opts": compress,
            "shuffle": _SHUFFLE,
        }
        return group.create_dataset(name, shape, dtype, **chunked)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return group.create_dataset(name, shape, dtype, dcpl=layout)


def write_zarr(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """A group (format 2, which every program reads) with array `var_name_hdf5`; its chunks are whole frames.

    Raises
    ------
    MissingExtraError
        Zarr is not installed.
    """
    data = begin_zarr(path, source.shape, source.dtype, about, options)
    for frames, chunk in placed_chunks(source):
        data[frames] = chunk


def begin_zarr(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, about: Recording, options: SaveOptions
) -> Any:
    """The group that `write_zarr` would write, without its frames; returns the array that they go to."""
    try:
        import zarr
        from numcodecs import Zlib
    except ImportError as err:
        raise MissingExtraError("Zarr stores need Zarr: pip install 'gpucalcium[zarr]'") from err
    group = zarr.open_group(path, mode="w", zarr_format=2)
    data = group.create_array(
        options.var_name_hdf5,
        shape=shape,
        dtype=dtype,
        chunks=chunk_shape(shape, dtype),
        compressors=Zlib(options.compress) if options.compress else None,
    )
    data.attrs.update(about.as_attributes())
    return data


def begun_zarr(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """The array that `begin_zarr` made; None if the folder holds no such thing."""
    try:
        import zarr

        data: Any = zarr.open_group(path, mode="r+")[name]
    except (ImportError, OSError, ValueError, KeyError):
        return None
    return data if data.shape == shape and data.dtype == dtype else None


def chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Of the pieces of a data set: 64 whole frames, fewer of large frames or where memory is short."""
    frame = max(1, int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize)
    frames, most = _FRAMES_A_CHUNK, min(_BYTES_A_CHUNK, backend.budget() // 16)
    while frames > 1 and frames * frame > most:
        frames //= 2
    return (max(1, min(frames, shape[0])), *shape[1:])


def placed_chunks(source: FrameSource) -> Iterator[tuple[slice, NDArray]]:
    """The movie chunk by chunk, each with the frames it holds."""
    done = 0
    for chunk in backend.stream(source):
        yield slice(done, done + len(chunk)), backend.to_numpy(chunk)
        done += len(chunk)
