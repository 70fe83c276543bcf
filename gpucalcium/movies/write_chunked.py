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
    with h5py.File(path, "w", libver="v108") as file:  # attributes may then be longer than 64 KiB
        data = create_dataset(file, options.var_name_hdf5, source, options.compress)
        for frames, chunk in placed_chunks(source):
            data[frames] = chunk
        data.attrs.update(about.as_attributes())


def create_dataset(group: h5py.Group, name: str, source: FrameSource, compress: int) -> h5py.Dataset:
    """A data set for the movie: contiguous, or chunks of whole frames with zlib at level `compress`."""
    chunked: dict[str, Any] = {}
    if compress and source.shape:
        chunked = {
            "chunks": chunk_shape(source),
            "compression": _GZIP,
            "compression_opts": compress,
            "shuffle": _SHUFFLE,
        }
    return group.create_dataset(name, source.shape, source.dtype, **chunked)


def write_zarr(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """A group (format 2, which every program reads) with array `var_name_hdf5`; its chunks are whole frames.

    Raises
    ------
    MissingExtraError
        Zarr is not installed.
    """
    try:
        import zarr
        from numcodecs import Zlib
    except ImportError as err:
        raise MissingExtraError(f"{path.suffix} files need Zarr: pip install 'gpucalcium[zarr]'") from err
    group = zarr.open_group(path, mode="w", zarr_format=2)
    data = group.create_array(
        options.var_name_hdf5,
        shape=source.shape,
        dtype=source.dtype,
        chunks=chunk_shape(source),
        compressors=Zlib(options.compress) if options.compress else None,
    )
    for frames, chunk in placed_chunks(source):
        data[frames] = chunk
    data.attrs.update(about.as_attributes())


def chunk_shape(source: FrameSource) -> tuple[int, ...]:
    """Of the pieces of a data set: 64 whole frames, fewer of large frames or where memory is short."""
    frame = max(1, int(np.prod(source.shape[1:], dtype=np.int64)) * source.dtype.itemsize)
    frames, most = _FRAMES_A_CHUNK, min(_BYTES_A_CHUNK, backend.budget() // 16)
    while frames > 1 and frames * frame > most:
        frames //= 2
    return (max(1, min(frames, source.shape[0])), *source.shape[1:])


def placed_chunks(source: FrameSource) -> Iterator[tuple[slice, NDArray]]:
    """The movie chunk by chunk, each with the frames it holds."""
    done = 0
    for chunk in backend.stream(source):
        yield slice(done, done + len(chunk)), backend.to_numpy(chunk)
        done += len(chunk)
