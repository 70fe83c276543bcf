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
    if len(source.shape) not in _AXES:
        raise ParameterError(
            f"a TIFF file takes an image, a movie or a movie of volumes, not {len(source.shape)} axes"
        )
    stored = np.dtype(np.float32) if options.to32 else source.dtype
    if stored.kind == "b":
        stored = np.dtype(np.uint8)
    _check(source, stored, options)
    tifffile.imwrite(
        path,
        _pages(source, stored),
        shape=source.shape,
        dtype=stored,
        imagej=options.imagej,
        bigtiff=options.bigtiff and not options.imagej,
        photometric="minisblack",
        compression="zlib" if options.compress else None,
        compressionargs={"level": options.compress} if options.compress else None,
        metadata=_description(about, len(source.shape), options.imagej),
    )


def _check(source: FrameSource, stored: np.dtype, options: SaveOptions) -> None:
    compress, size = options.compress, int(np.prod(source.shape, dtype=np.int64)) * stored.itemsize
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
