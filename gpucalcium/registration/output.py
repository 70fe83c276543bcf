"""Where registered frames go: a file of any kind that takes frames as they come, whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.backend import Array
from gpucalcium.errors import MovieShapeError, OutputError, ParameterError
from gpucalcium.movies.files import target, unfinished, written_whole
from gpucalcium.movies.memmap import VALUE, MapName
from gpucalcium.movies.save_options import Recording, SaveOptions
from gpucalcium.movies.traces_file import reserve
from gpucalcium.movies.write_chunked import begin_hdf5, begin_zarr, begun_zarr, place_in_hdf5
from gpucalcium.movies.write_frames import ChunkedFrames, FramesFile, RawFrames, TracesFrames
from gpucalcium.movies.write_tiff import begin_tiff, place_in_tiff

DTYPES = ("float32", "float16", "int16", "uint16")
"""What registered frames may be stored as."""


@dataclass(frozen=True)
class Frames:
    """What a file is to hold."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fill: float
    order: str
    about: Recording


class Output:
    """An open file for registered frames.

    Attributes
    ----------
    path : Path
        Its name once it is whole.
    resumed : bool
        Whether the beginning that an earlier attempt left is there; a `Journal` knows how much of it is good.
    """

    def __init__(self, path: Path, file: FramesFile, resumed: bool) -> None:
        self.path, self.resumed = path, resumed
        self._file = file

    def prepare(self, frames: Array) -> Array:
        """Frames (n, d1, d2[, d3]) on a device as they may be written too, (n, pixels), where that is best done there.

        It saves the host the conversion and the transposition, and the bus the bytes of narrow dtypes.
        """
        return self._file.prepare(frames)

    def sink(self, start: int, frames: NDArray) -> None:
        """Write frames, (n, d1, d2[, d3]) of any real dtype or from `prepare`, the first of which is `start`.

        Frames come in order. The first call may begin anywhere if the file was `resumed`.
        """
        self._file.write(start, frames)

    def sync(self) -> int:
        """Wait for the disk; returns how many frames from the first on are there for certain."""
        return self._file.sync()


@contextmanager
def open_output(
    where: str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    dtype: DTypeLike = "float32",
    format: str = "mmap",
    order: str = "F",
    fill: float = 0,
    about: Recording | None = None,
    resume: bool = False,
) -> Iterator[Output]:
    """A file for a registered movie, in a ``with`` statement: it takes its name when the block ends without an error.

    Parameters
    ----------
    where : path
        How its name begins, for a memory map; else its name, to which the extension of the format is added if it is
        not there. Without a folder it lies in that for temporary files. What has that name already is replaced.
    shape : (T, d1, d2[, d3])
    dtype : {'float32', 'float16', 'int16', 'uint16'}
        Integers are rounded half to even and kept within their range.
    format : {'mmap', 'hdf5', 'zarr', 'tiff'}
        Memory maps are float32. HDF5 and Zarr hold the data set 'mov'; HDF5 and TIFF (BigTIFF) in one piece, Zarr in
        chunks of whole frames.
    order : {'F', 'C'}
        Of memory maps: frame after frame, or trace after trace.
    fill : float
        What integers have in place of NaN.
    about : Recording, optional
        Frame rate and the like, which every format but memory maps keeps.
    resume : bool
        Go on with what an earlier attempt left, and leave what there is after an error (see `Journal`).

    Yields
    ------
    Output

    Raises
    ------
    ParameterError, MovieShapeError
        A format, dtype, order, fill or shape that cannot be.
    OutputError
        The folder is not there or cannot be written to, a folder stands in the way, or the disk is full; unless
        `resume`, nothing is left behind then.
    """
    frames = _checked(shape, dtype, format, order, fill, about)
    kind = FORMATS[format]
    path = kind.name(target(where), frames)
    if path.is_dir() and format != "zarr":
        raise OutputError(f"{path} cannot be written: a folder has that name; move it away")
    resumed = resume and unfinished(path).exists()
    with written_whole(path, resume=resume) as temporary:
        file = kind.go_on(temporary, frames) if resumed else None
        resumed = file is not None
        file = file or kind.begin(temporary, frames)
        try:
            yield Output(path, file, resumed)
        finally:
            file.close()


def journal_path(where: str | os.PathLike[str]) -> Path:
    """Where the journal of a run lies whose results begin with `where`: beside them, hidden."""
    beside = target(where)
    return beside.with_name(f".{beside.name}.journal")


def _checked(
    shape: tuple[int, ...], dtype: DTypeLike, format: str, order: str, fill: float, about: Recording | None
) -> Frames:
    stored = np.dtype(dtype)
    if format not in FORMATS:
        raise ParameterError(f"format={format!r}: expected {', '.join(map(repr, FORMATS))}")
    if stored.name not in DTYPES or not stored.isnative:
        raise ParameterError(f"dtype={dtype!r}: registered frames are stored as {', '.join(DTYPES)}")
    if format == "mmap" and stored != VALUE:
        raise ParameterError(
            f"dtype={stored.name!r} with format='mmap': a memory map has no header, and its name no place for a dtype, "
            "so that every program takes it for float32; use 'hdf5', 'zarr' or 'tiff'"
        )
    if order not in ("F", "C"):
        raise ParameterError(f"order={order!r}: expected 'F' (frame after frame) or 'C' (trace after trace)")
    if order == "C" and format != "mmap":
        raise ParameterError(
            f"order='C' with format={format!r}: only memory maps are stored trace after trace"
        )
    if stored.kind in "iu" and not (float(fill).is_integer() and _within(fill, stored)):
        raise ParameterError(
            f"fill={fill}: it stands for NaN in files of {stored.name}, and must be one of its values"
        )
    if len(shape) not in (3, 4) or 0 in shape:
        raise MovieShapeError(
            f"shape={tuple(shape)}: a movie is (T, d1, d2) or (T, d1, d2, d3), and not empty"
        )
    return Frames(tuple(map(int, shape)), stored, fill, order, about or Recording())


def _within(value: float, dtype: np.dtype) -> bool:
    limits: np.iinfo = np.iinfo(dtype)
    return limits.min <= value <= limits.max


# ---------------------------------------------------------------------------- one kind of file each


@dataclass(frozen=True)
class _Format:
    """How files of a kind are named, begun, and gone on with (None where what is there is of no use)."""

    name: Callable[[Path, Frames], Path]
    begin: Callable[[Path, Frames], FramesFile]
    go_on: Callable[[Path, Frames], FramesFile | None]


def _named(*suffixes: str) -> Callable[[Path, Frames], Path]:
    def name(base: Path, frames: Frames) -> Path:
        return base if base.suffix.lower() in suffixes else base.with_name(base.name + suffixes[0])

    return name


def _map_name(base: Path, frames: Frames) -> Path:
    return base.with_name(str(MapName(base.name, frames.shape[1:], frames.order, frames.shape[0])))


def _begin_map(path: Path, frames: Frames) -> FramesFile:
    reserve(path, _size(frames))
    return _map_frames(path, frames)


def _go_on_with_map(path: Path, frames: Frames) -> FramesFile | None:
    return _map_frames(path, frames) if path.stat().st_size == _size(frames) else None


def _map_frames(path: Path, frames: Frames) -> FramesFile:
    if frames.order == "C":
        return TracesFrames(path, frames.shape, frames.dtype)
    return RawFrames(path, 0, frames.shape, frames.dtype, fortran=True)


def _begin_hdf5(path: Path, frames: Frames) -> FramesFile:
    place = begin_hdf5(path, frames.shape, frames.dtype, frames.about, SaveOptions())
    return _raw_frames(path, place, frames)


def _begin_tiff(path: Path, frames: Frames) -> FramesFile:
    return _raw_frames(
        path, begin_tiff(path, frames.shape, frames.dtype, frames.about, SaveOptions()), frames
    )


def _go_on_with_hdf5(path: Path, frames: Frames) -> FramesFile | None:
    place = place_in_hdf5(path, SaveOptions.var_name_hdf5, frames.shape, frames.dtype)
    return None if place is None else _raw_frames(path, place, frames)


def _go_on_with_tiff(path: Path, frames: Frames) -> FramesFile | None:
    place = place_in_tiff(path, frames.shape, frames.dtype)
    return None if place is None else _raw_frames(path, place, frames)


def _raw_frames(path: Path, place: int, frames: Frames) -> FramesFile:
    reserve(path, place + _size(frames), keep=True)
    return RawFrames(path, place, frames.shape, frames.dtype, frames.fill)


def _begin_zarr(path: Path, frames: Frames) -> FramesFile:
    data = begin_zarr(path, frames.shape, frames.dtype, frames.about, SaveOptions())
    return ChunkedFrames(data, frames.dtype, frames.fill, data.chunks[0])


def _go_on_with_zarr(path: Path, frames: Frames) -> FramesFile | None:
    data = begun_zarr(path, SaveOptions.var_name_hdf5, frames.shape, frames.dtype)
    return None if data is None else ChunkedFrames(data, frames.dtype, frames.fill, data.chunks[0])


def _size(frames: Frames) -> int:
    return math.prod(frames.shape) * frames.dtype.itemsize


FORMATS: dict[str, _Format] = {
    "mmap": _Format(_map_name, _begin_map, _go_on_with_map),
    "hdf5": _Format(_named(".h5", ".hdf5"), _begin_hdf5, _go_on_with_hdf5),
    "zarr": _Format(_named(".zarr"), _begin_zarr, _go_on_with_zarr),
    "tiff": _Format(_named(".tif", ".tiff", ".btf"), _begin_tiff, _go_on_with_tiff),
}
