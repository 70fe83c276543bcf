"""Reading of movies in Zarr stores, format 2 and 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import DatasetNotFoundError, GpuCalciumError, MissingExtraError, MovieFileError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.arrays import SlicedSource
from gpucalcium.movies.axes import axes_by_name, open_arranged
from gpucalcium.movies.blocks import Memory, Place, RawBlocks, Stored
from gpucalcium.movies.chain import OneChannel
from gpucalcium.movies.source import Source
from gpucalcium.movies.unpacking import FAILURES, unpack_blosc


def open_zarr(path: Path, name: str = "mov", axes: str | None = None, channel: int | None = None) -> Source:
    """Frames of an array in a Zarr folder: the folder itself, the array of that name in it, or the only one.

    An array of two axes is one frame. Chunks that are not there hold the fill value, as Zarr defines. `axes` and
    `channel` as in `open_hdf5`; the names of dimensions are those of format 3.

    Raises
    ------
    MissingExtraError
        Zarr is not installed.
    MovieFileError
        No Zarr store, or one whose metadata cannot be read.
    DatasetNotFoundError
        No such array; lists those that are there.
    """
    try:
        import zarr
    except ImportError as err:
        raise MissingExtraError("Zarr stores need Zarr: pip install 'gpucalcium[zarr]'") from err
    try:
        store = zarr.open(str(path), mode="r")
        data = store if isinstance(store, zarr.Array) else _array(path, store, name)
        source = _source(path, data, axes or _labels(data), channel)
        source.about = about_recording(dict(data.attrs))
    except (OSError, ValueError, TypeError, KeyError) as err:
        if isinstance(err, GpuCalciumError):
            raise
        raise MovieFileError(
            f"{path} cannot be read as Zarr: {type(err).__name__}: {err}. Its metadata (.zarray or zarr.json) may be "
            "missing or corrupt; copy the whole folder again"
        ) from err
    return source


def _source(path: Path, data: Any, axes: str | None, channel: int | None) -> Source:
    label = f"{path}:{data.path}"
    if axes is not None:
        return open_arranged(data, label, axes, channel)
    whole = _straight_from_files(path, data) or SlicedSource(data, label)
    return whole if channel is None else OneChannel(whole, channel)


def _labels(data: Any) -> str | None:
    """The axes of an array with channels, by the names of its dimensions; None if they do not tell."""
    names = getattr(data.metadata, "dimension_names", None) or ()
    return axes_by_name([str(name or "") for name in names], data.ndim)


def _straight_from_files(path: Path, data: Any) -> RawBlocks | None:
    """Frames read past Zarr, which copies them several times, and lets Blosc read beyond a chunk that is cut off.

    None where Zarr must decode or look into chunks.
    """
    from zarr.codecs import BytesCodec

    about, stored = data.metadata, data.dtype
    if data.ndim not in (3, 4) or 0 in data.shape or data.filters or stored.kind not in "biuf":
        return None
    codecs = [type(codec).__name__ for codec in data.compressors]
    if codecs not in ([], ["Blosc"], ["BloscCodec"]):
        return None
    if about.zarr_format == 2:
        is_plain = about.order == "C"
    else:
        is_plain = isinstance(data.serializer, BytesCodec)
    if not is_plain:
        return None
    if about.zarr_format == 3 and data.serializer.endian is not None:
        stored = stored.newbyteorder(data.serializer.endian.value)
    folder = path / data.path

    def find(place: Place) -> Stored | None:
        file = folder / about.encode_chunk_key(place)
        try:
            return Stored(file, 0, file.stat().st_size)
        except FileNotFoundError:
            return None

    fill = 0 if data.fill_value is None else data.fill_value
    kind = BloscBlocks if codecs else RawBlocks
    return kind(data.shape, stored, f"{path}:{data.path}", data.chunks, find, fill)


class BloscBlocks(RawBlocks):
    """Chunks packed by Blosc, each into a file of its own."""

    def _fill_from(self, place: Place, frames: slice, into: NDArray, memory: Memory) -> None:
        try:
            found = self._find(place)
            if found is None:
                into[...] = self._value
                return
            values = memory.array(self.block, self.stored)
            unpack_blosc(found.path.read_bytes(), values.reshape(-1).view(np.uint8))
        except FAILURES as err:
            raise self._damaged(place, err) from err
        into[...] = values[(frames, *map(slice, into.shape[1:]))]


def _array(path: Path, group: Any, name: str) -> Any:
    import zarr

    for wanted in (name, f"{name}/data", f"acquisition/{name}/data"):
        if wanted in group and isinstance(found := group[wanted], zarr.Array):
            return found
    arrays = dict(group.arrays())
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    listed = ", ".join(sorted([*arrays, *(f"{one}/" for one in group.group_keys())]))
    raise DatasetNotFoundError(
        f"{path} has no array {name!r}; there are: {listed or 'none'}. Name one with var_name_hdf5=..."
    )
