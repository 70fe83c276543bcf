"""Writing of movies as grey video."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MissingExtraError, ParameterError
from gpucalcium.movies.save_options import Recording, SaveOptions

log = logging.getLogger(__name__)

_LEVEL_FRAMES = 100  # spread over the movie, that the grey levels are taken from
_LEVEL_VALUES = 1 << 22  # pixels of them all that are sorted
_CONTAINERS = {".avi": "avi", ".mkv": "matroska", ".mp4": "mp4"}
_AS_THEY_ARE = 0.0, 255.0  # black and white where values are grey levels already
_FINEST_RATE = 100_000  # denominator of the frame rate


@dataclass(frozen=True)
class _Codec:
    """How frames are encoded."""

    name: str
    pixels: str
    tag: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    is_full_range: bool = False
    """Whether the file must say that grey levels are 0 to 255, not 16 to 235."""


_PLAIN = _Codec("rawvideo", "yuv420p", tag="IYUV")
_FFV1 = _Codec("ffv1", "gray")
# quantiser 0 is lossless; a key frame every 50 frames, so that any frame is found fast
_H264 = _Codec("libx264", "gray", options={"qp": "0", "preset": "veryfast", "g": "50"}, is_full_range=True)
_FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG


def write_video(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """8-bit grey: uncompressed (IYUV) or, with `compress`, lossless FFV1; in .mp4 always lossless H.264.

    Black and white are the percentiles `q_min` and `q_max` of about 100 frames; if either is None, values are rounded
    and kept between 0 and 255. NaN is black. IYUV stores 219 levels, so that a grey may come back off by one. Black and
    white are noted in the file, see `Source.about`: what is read back are grey levels, as any player shows them.

    Raises
    ------
    ParameterError
        Not a movie of images.
    MissingExtraError
        PyAV is not installed, or without an encoder of H.264.
    """
    try:
        import av
    except ImportError as err:
        raise MissingExtraError(f"{path.suffix} files need PyAV: pip install 'gpucalcium[video]'") from err
    if len(source.shape) != 3:
        raise ParameterError(
            f"a video shows (T, rows, columns), not {source.shape}: save its planes one by one"
        )
    black, white = levels(source, options.q_min, options.q_max)
    if (black, white) != _AS_THEY_ARE:
        log.info("%s: %g is black, %g is white; q_min=None keeps grey levels as they are", path, black, white)
    with av.open(str(path), "w", format=_CONTAINERS[path.suffix.lower()]) as container:
        container.metadata["comment"] = json.dumps(about.as_attributes() | {"levels": [black, white]})
        rate = Fraction(about.fr).limit_denominator(_FINEST_RATE)
        codec = _H264 if path.suffix.lower() == ".mp4" else _FFV1 if options.compress else _PLAIN
        try:
            video: Any = container.add_stream(codec.name, rate=rate, options=codec.options)
        except av.codec.codec.UnknownCodecError as err:
            raise MissingExtraError(
                f"{path.suffix} files need {codec.name}, which this PyAV is built without: save as .mkv or .avi with "
                "compress=1, which is lossless too"
            ) from err
        video.height, video.width = source.shape[1:]
        video.pix_fmt = codec.pixels
        if codec.tag is not None:
            video.codec_context.codec_tag = codec.tag
        if codec.is_full_range:
            video.codec_context.color_range = _FULL_RANGE
        for chunk in backend.stream(source):
            for frame in backend.to_numpy(chunk):
                picture = av.VideoFrame.from_ndarray(grey(frame, black, white), format="gray")
                container.mux(video.encode(picture.reformat(format=video.pix_fmt)))
        container.mux(video.encode())


def levels(source: FrameSource, q_min: float | None, q_max: float | None) -> tuple[float, float]:
    """Values that become black and white: percentiles over frames spread evenly; (0, 255) if either is None."""
    if q_min is None or q_max is None:
        return _AS_THEY_ARE
    frames, pixels = len(source), int(np.prod(source.shape[1:]))
    every = max(1, frames // _LEVEL_FRAMES)
    thin = max(1, pixels * min(frames, _LEVEL_FRAMES) // _LEVEL_VALUES)
    sample: list[NDArray[Any]] = [
        source.read(slice(t, t + 1)).reshape(-1)[::thin].copy() for t in range(0, frames, every)
    ]
    values = np.concatenate(sample).astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return _AS_THEY_ARE
    black, white = np.percentile(values, [q_min, q_max])
    return float(black), float(white)


def grey(frame: NDArray, black: float, white: float) -> NDArray[np.uint8]:
    """Grey levels 0 to 255 of a frame."""
    span = (white - black) or 1.0
    scaled = (frame.astype(np.float64) - black) * (255 / span)
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255)).astype(np.uint8)
