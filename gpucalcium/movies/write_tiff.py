"""Writing of movies as TIFF: a page per frame, or per plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.movies.save_options import Recording, SaveOptions

_AXES = {2: "YX", 3: "TYX", 4: "TZYX"}
_CLASSIC_LIMIT = 2**32 - 2**25  # bytes that 32-bit offsets reach, less the directories


def write_tiff(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """A stack in one piece (or compressed pages), the attributes as JSON in its description.

    Raises
    ------
    ParameterError
        Shape, dtype or size that the format does not have.
    """
    stored = np.dtype(np.float32) if options.to32 else source.dtype
    if stored.kind == "b":
        stored = np.dtype(np.uint8)
    _write(path, _pages(source, stored), source.shape, stored, about, options)


def begin_tiff(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, about: Recording, options: SaveOptions
) -> int:
    """The file that `write_tiff` would write, uncompressed, without its frames; returns the byte where they start."""
    return _write(path, None, shape, dtype, about, options)[0]


def place_in_tiff(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> int | None:
    """Byte where the frames of a stack that `begin_tiff` made start; None if the file holds no such thing."""
    try:
        with tifffile.TiffFile(path) as file:
            stack = file.series[0]
            return stack.dataoffset if stack.shape == shape and stack.dtype == dtype else None
    except (OSError, ValueError, IndexError):  # what tifffile raises for files that are none
        return None


def _write(
    path: Path,
    pages: Iterator[NDArray] | None,
    shape: tuple[int, ...],
    stored: np.dtype,
    about: Recording,
    options: SaveOptions,
) -> Any:
    """Write the file; returns the place and the number of bytes of a stack in one piece."""
    if len(shape) not in _AXES:
        raise ParameterError(
            f"a TIFF file takes an image, a movie or a movie of volumes, not {len(shape)} axes"
        )
    _check(shape, stored, options)
    return tifffile.imwrite(
        path,
        pages,
        shape=shape,
        dtype=stored,
        imagej=options.imagej,
        bigtiff=options.bigtiff and not options.imagej,
        photometric="minisblack",
        compression="zlib" if options.compress else None,
        compressionargs={"level": options.compress} if options.compress else None,
        metadata=_description(about, len(shape), options.imagej),
        returnoffset=True,
    )


def _check(shape: tuple[int, ...], stored: np.dtype, options: SaveOptions) -> None:
    compress, size = options.compress, int(np.prod(shape, dtype=np.int64)) * stored.itemsize
    if options.imagej and (compress or stored not in (np.uint8, np.uint16, np.float32)):
        raise ParameterError(
            f"imagej=True: ImageJ's format is uncompressed uint8, uint16 or float32; compress={compress} and {stored} "
            "were asked for. Use to32=True, compress=0, or imagej=False"
        )
    if not (options.imagej or options.bigtiff or compress) and size > _CLASSIC_LIMIT:
        raise ParameterError(
            f"bigtiff=False: {size} bytes are more than a classic TIFF file holds (4 GiB); use bigtiff=True, or "
            "imagej=True, whose stacks may be longer"
        )


def _description(about: Recording, axes: int, imagej: bool) -> dict[str, Any]:
    known = about.as_attributes()
    if imagej:
        return {"axes": _AXES[axes], "fps": about.fr, "Info": json.dumps(known)}
    return {"axes": _AXES[axes], **known}


def _pages(source: FrameSource, stored: np.dtype) -> Iterator[NDArray]:
    for chunk in backend.stream(source):
        frames = backend.to_numpy(chunk)
        for frame in frames.reshape(-1, *frames.shape[-2:]) if frames.ndim > 2 else frames[None]:
            yield frame.astype(stored, copy=False)
