"""Reading of video files: any frame, exactly, whatever the header says."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MissingExtraError, MovieFileError
from gpucalcium.movies.about import about_recording, from_json
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.source import Source

_ONLY = {
    "format_whitelist": "avi,matroska,webm,mov",
    "protocol_whitelist": "file",
}  # no play lists, no network
_WORTH_SEEKING = 8  # frames: fewer are decoded and dropped faster than a key frame is found
_SLACK = 0.5  # frames by which the duration that a header gives may be wrong


def open_video(path: Path) -> Source:
    """Frames of the first video stream of an .avi, .mkv or .mp4 file, as grey levels.

    Of colours the first channel (red) is read, of luminance and chrominance the luminance, stretched to the full
    range as players do. Values that a movie had before it became a video are gone, but for its black and white in
    `Source.about`, if it was written here. Uncompressed grey frames are read straight from the file, whatever comes
    behind each.

    Raises
    ------
    MissingExtraError
        PyAV is not installed.
    MovieFileError
        No video, or fewer frames than its header promises.
    """
    with _said_of(path), _opened(path) as container:
        stream = _stream(path, container)
        raw = _uncompressed(path, container, stream)
        source = raw if raw is not None else VideoSource(path, container, stream)
        source.about = about_recording(_about(container, stream))
        return source


class VideoSource(Source):
    """Frames decoded one after the other, from the key frame before those that are wanted."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._path = path
        frames = _frames_in_index(path, stream)
        first = next(container.decode(stream), None)
        if first is None:
            raise MovieFileError(f"{path} holds no frame that can be decoded")
        self._format = (first.format.name, first.height, first.width)
        # AVI has no times of its own: those made up for it are wrong where frames are stored out of order
        self._is_timed = container.format.name != "avi" or not stream.codec_context.has_b_frames
        values = _grey(first)
        if frames is None:
            frames = len(self._packets)
        super().__init__((frames, *values.shape), values.dtype, str(path))
        self._idle: _Decoder | None = None
        self._lock = Lock()

    def _fill(self, wanted: range, out: NDArray) -> None:
        idle = self._left_off(None)
        with _said_of(self._path):
            decoder = idle or _Decoder(self._path, self._numbers, self._keys)
            try:
                for at, number in enumerate(wanted):
                    out[at] = self._values(number, decoder.frame(number))
            except BaseException:
                decoder.close()
                raise
        if spare := self._left_off(decoder):
            spare.close()

    def _left_off(self, decoder: _Decoder | None) -> _Decoder | None:
        """Leave a decoder for the next reader, and take what the last has left."""
        with self._lock:
            before, self._idle = self._idle, decoder
        return before

    def _values(self, number: int, frame: Any) -> NDArray:
        if frame is None or frame.is_corrupt:
            raise MovieFileError(
                f"{self.name}: frame {number} of {len(self)} cannot be decoded; leave it out with subindices, or copy "
                "the file again from where it was recorded"
            )
        if (found := (frame.format.name, frame.height, frame.width)) != self._format:
            raise MovieFileError(
                f"{self.name}: frame {number} is {found} (format, rows, columns), where {self._format} was expected"
            )
        return _grey(frame)

    @cached_property
    def _packets(self) -> list[tuple[int | None, bool]]:
        """Time and whether it is a key frame, of each packet in the file; read, not decoded."""
        with _opened(self._path) as container:
            stream = _stream(self._path, container)
            packets = [packet for packet in container.demux(stream) if packet.size]
            _check_promised(self._path, container, stream, packets)
            return [(packet.pts, packet.is_keyframe) for packet in packets]

    @cached_property
    def _numbers(self) -> dict[int, int] | None:
        """Number of the frame shown at a time; None if the file does not say when its frames are shown."""
        times = [time for time, _ in self._packets]
        known = [time for time in times if time is not None]
        if not self._is_timed or len(set(known)) != len(times):
            return None
        return {time: number for number, time in enumerate(sorted(known))}

    @cached_property
    def _keys(self) -> list[tuple[int, int]]:
        """Number and time of each key frame."""
        numbers = self._numbers or {}
        return sorted((numbers[t], t) for t, is_key in self._packets if is_key and t in numbers)


class _Decoder:
    """An open file, and where in it decoding has come to.

    Attributes
    ----------
    next : int
        Number of the frame that comes next.
    """

    def __init__(self, path: Path, numbers: dict[int, int] | None, keys: list[tuple[int, int]]) -> None:
        self._path, self._numbers, self._keys = path, numbers, keys
        self._open()

    def _open(self) -> None:
        self._container = _opened(self._path)
        self._stream = _stream(self._path, self._container)
        self._frames = self._decoded()
        self.next = 0

    def close(self) -> None:
        self._container.close()

    def frame(self, number: int) -> Any:
        """The frame of that number, decoded forwards or after a seek; None if it cannot be decoded."""
        behind = bisect_right(self._keys, number, key=lambda key: key[0])
        key, time = self._keys[behind - 1] if behind else (0, None)
        sought = time is not None and (number < self.next or key >= self.next + _WORTH_SEEKING)
        if sought:
            self._container.seek(time, stream=self._stream)
            self._frames = self._decoded()
            self.next = key
        elif number < self.next:
            self._reopen()
        found, frame = self._forward(number)
        if sought and found > number:  # the seek ended behind its aim: the file's index is wrong
            self._reopen()
            found, frame = self._forward(number)
        return frame if found == number else None

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _forward(self, number: int) -> tuple[int, Any]:
        """The first frame of that number or a higher one."""
        for found, frame in self._frames:
            self.next = found + 1
            if found >= number:
                return found, frame
        return -1, None

    def _decoded(self) -> Iterator[tuple[int, Any]]:
        """Frames as they come, with their numbers; packets that cannot be decoded are passed over."""
        failed = _av().error.FFmpegError
        count = 0
        for packet in self._container.demux(self._stream):
            if not packet.size and packet.dts is not None:
                continue  # no frame, and the decoder would take it for the end of the file
            try:
                frames = packet.decode()
            except failed:
                count += 1
                continue
            for frame in frames:
                number = count if self._numbers is None else self._numbers.get(frame.pts, -1)
                count += 1
                yield number, frame


def _av() -> ModuleType:
    try:
        import av
    except ImportError as err:
        raise MissingExtraError("video files need PyAV: pip install 'gpucalcium[video]'") from err
    return av


def _opened(path: Path) -> Any:
    return _av().open(str(path), options=_ONLY, metadata_errors="replace")


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """FFmpeg's errors as ours."""
    try:
        yield
    except (_av().error.FFmpegError, OverflowError) as err:
        raise MovieFileError(
            f"{path} cannot be read as video: {err}. It may be truncated; copy it again from where it was recorded"
        ) from err


def _stream(path: Path, container: Any) -> Any:
    if not container.streams.video:
        raise MovieFileError(f"{path} holds no video stream; it has {len(container.streams)} others")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MovieFileError(f"{path} holds video of an unknown kind, or its header is truncated")
    return stream


def _about(container: Any, stream: Any) -> dict[str, Any]:
    """The frame rate of the stream, and what `movie.save` writes as its comment."""
    found = {"fr": float(stream.average_rate)} if stream.average_rate else {}
    comment = next((text for key, text in container.metadata.items() if key.lower() == "comment"), None)
    said = from_json(comment)
    return found | said if isinstance(said, dict) else found


def _uncompressed(path: Path, container: Any, stream: Any) -> RawSource | None:
    """The frames where they lie, if they are grey values one row behind the other."""
    about = stream.codec_context
    if about.name != "rawvideo" or about.pix_fmt != "gray":
        return None
    pixels = about.width * about.height
    first = next((packet for packet in container.demux(stream) if packet.size), None)
    # 3/2: chrominance behind the grey values; anything else may be rows with padding, which the decoder knows
    if first is None or first.pos is None or first.size not in (pixels, pixels * 3 // 2):
        return None
    places = _places(path, stream, first)
    return RawSource(
        path, (len(places), about.height, about.width), np.uint8, lambda frames: [places[k] for k in frames]
    )


def _places(path: Path, stream: Any, first: Any) -> list[int]:
    """Byte at which each uncompressed frame starts: from the file's index or, without a good one, by going through."""
    entries = list(stream.index_entries)
    if entries and len(entries) == stream.frames and all(entry.size == first.size for entry in entries):
        ahead = first.pos - entries[0].pos  # some indices point at a frame, some at the name before it
        return [entry.pos + ahead for entry in entries]
    with _opened(path) as container:
        again = _stream(path, container)
        packets = [packet for packet in container.demux(again) if packet.size]
        _check_promised(path, container, again, packets)
    broken = [number for number, packet in enumerate(packets) if packet.size != first.size]
    if broken:
        raise MovieFileError(
            f"{path}: frame {broken[0]} of {len(packets)} has {packets[broken[0]].size} bytes, where {first.size} were "
            "expected. The file may be truncated; copy it again from where it was recorded"
        )
    return [packet.pos for packet in packets]


def _frames_in_index(path: Path, stream: Any) -> int | None:
    """Number of frames by the file's index, where that agrees with the header and ends inside the file."""
    entries = [entry for entry in stream.index_entries if not entry.is_discard]
    if not entries or len(entries) != stream.frames:
        return None
    if max(entry.pos + entry.size for entry in entries) > path.stat().st_size:
        return None
    return len(entries)


def _check_promised(path: Path, container: Any, stream: Any, packets: list[Any]) -> None:
    """Refuse a file with fewer frames than it promises; more than promised are all read."""
    promised = stream.frames
    alone = len(container.streams) == 1  # another stream, as of sound, may last longer
    if (
        not promised and alone and container.duration and stream.average_rate
    ):  # Matroska gives a duration only
        ends = max(((p.pts or 0) + (p.duration or 0) for p in packets), default=0) * stream.time_base
        lacking = (container.duration / 1e6 - float(ends)) * float(stream.average_rate)
        promised = len(packets) + round(lacking) if lacking > _SLACK else 0
    if len(packets) < promised:
        raise MovieFileError(
            f"{path} is truncated: its header promises {promised} frames, {len(packets)} are there. Copy it again from "
            f"where it was recorded or, to keep these, write a new header: ffmpeg -i {path.name} -c copy mended"
            f"{path.suffix}"
        )


def _grey(frame: Any) -> NDArray:
    """Grey levels of a decoded frame, (rows, columns), uint8 or uint16."""
    pixels = frame.format
    deep = max(component.bits for component in pixels.components) > 8
    if pixels.name.startswith("gray"):
        return frame.to_ndarray()
    if pixels.is_rgb or pixels.has_palette:
        return frame.to_ndarray(format="rgb48le" if deep else "rgb24")[..., 0]
    return frame.to_ndarray(format="gray16le" if deep else "gray")
