"""Reading of TIFF stacks."""

from __future__ import annotations

import logging
import math
import struct
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gpucalcium.errors import MissingExtraError, MovieFileError, ParameterError
from gpucalcium.movies.about import about_recording, from_json
from gpucalcium.movies.chain import OneChannel, OneColour, PickedImages
from gpucalcium.movies.raw import RawSource
from gpucalcium.movies.read_ahead import read_ahead
from gpucalcium.movies.source import Source

log = logging.getLogger(__name__)

_CHANNELS = "CS"  # axes of channels, and of colours stored one plane after the other
_SECONDS = {
    "sec": 1.0,
    "s": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "min": 60.0,
}  # of ImageJ
_DIRECTORY = 8 << 10  # bytes that hold the directory of a page, from those before it on: places are guessed
_FAR_APART = (
    64 << 10
)  # bytes between two directories: of those closer than that the system fetches several at once


def open_tiff(path: Path, channel: int | None = None) -> Source:
    """Frames of the first series of a TIFF file: classic or Big, ImageJ, OME, ScanImage, compressed or not.

    Four axes are (T, planes, rows, columns); axes of length 1 before the rows are dropped; a single page is one
    frame. Stacks stored in one piece are read straight from the file, others page by page. `channel` picks one of the
    channels that the file names, or of the colours, or else of its second axis.

    Raises
    ------
    MovieFileError
        Not a TIFF file, truncated, or without pages.
    ParameterError
        No such channel.
    """
    with ExitStack() as opened:  # closed unless it goes into a source
        try:
            tiff = opened.enter_context(tifffile.TiffFile(path))
            _fetch_directories(path, tiff)
            series = tiff.series[0]
            _check_directories(tiff, series)
        except MovieFileError:
            raise
        except Exception as err:  # tifffile fails in many ways, all of which mean the same here
            raise MovieFileError(
                f"{path} cannot be read as TIFF: {type(err).__name__}: {err}. It may be truncated or empty; copy it "
                "again from where it was recorded"
            ) from err
        pages, shape = _frames_of(path, tiff)
        _check_time_leads(path, series, channel)
        numbers = None if channel is None else _pages_of_channel(path, series, channel)
        has_colours = numbers is None and channel is not None and _has_colours(series.shape, series.axes)
        whole = shape
        if numbers is not None:
            shape = (math.prod(shape[:-2]), *shape[-2:])
        elif has_colours:
            shape = (math.prod(shape[:-3]), *shape[-3:])
        stored = series.dtype.newbyteorder(tiff.byteorder)
        source: Source
        if pages is series and series.dataoffset is not None:
            source = RawSource(path, shape, stored, series.dataoffset)
        else:
            source = PagesSource(path, shape, tiff, pages, series)
        about = about_recording(_about(tiff))
        if isinstance(source, PagesSource):
            opened.pop_all()
    if numbers is not None:
        source = PickedImages(source, numbers)
    elif has_colours and channel is not None:
        source = OneColour(source, channel, whole[:-1])
    elif channel is not None:
        source = OneChannel(source, channel)
    source.about = about
    return source


def _pages_of_channel(path: Path, series: Any, channel: int) -> NDArray[np.int64] | None:
    """Numbers of the images of a channel, (T[, planes]); None if the series names no channels before its rows."""
    axes, shape = str(series.axes), series.shape
    found = next(
        (letter for letter in _CHANNELS if letter in axes[:-2] and shape[axes.index(letter)] > 1), None
    )
    if not axes.endswith("YX") or found is None:
        return None
    channels = shape[axes.index(found)]
    if not -channels <= channel < channels:
        raise ParameterError(f"channel={channel}: {path} has {channels} channels, counted from 0")
    numbers = np.arange(math.prod(shape[:-2])).reshape(shape[:-2]).take(channel, axis=axes.index(found))
    kept = tuple(n for n in numbers.shape if n != 1) or (1,)
    return numbers.reshape(kept)


def _check_time_leads(path: Path, series: Any, channel: int | None) -> None:
    """Refuse a movie of one channel after the other until one is chosen: else channels would be taken for time."""
    size = dict(zip(series.axes, series.shape, strict=True))
    before, _, _ = series.axes.partition("T")
    if channel is None and size.get("T", 1) > 1 and "C" in before and size["C"] > 1:
        raise ParameterError(
            f"{path} has {size['C']} channels, one after the other ({series.axes}): say which with channel=0, 1 ..."
        )


def _about(tiff: tifffile.TiffFile) -> dict[str, Any]:
    """The frame rate as ImageJ writes it (fps, finterval), and what `movie.save` writes."""
    found: dict[str, Any] = {}
    if tiff.is_imagej:
        said = tiff.imagej_metadata or {}
        info = from_json(said.get("Info"))
        found |= info if isinstance(info, dict) else {}
        if rate := _rate_of_imagej(said):
            found["fr"] = rate
    return found | (tiff.shaped_metadata or ({},))[0]


def _rate_of_imagej(said: Mapping[str, Any]) -> float | None:
    """Frames per second: said as such or, where frames were timed, by their interval; None if neither is."""
    if fps := said.get("fps"):
        return float(fps) if isinstance(fps, int | float) else None
    interval, unit = said.get("finterval"), _SECONDS.get(str(said.get("tunit", "sec")).lower())
    is_known = isinstance(interval, int | float) and interval > 0 and unit is not None
    return 1 / (interval * unit) if is_known else None  # type: ignore[operator]


def _frames_of(path: Path, tiff: tifffile.TiffFile) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Pages that make the frames, and the shape of the movie: the first series, or all if a frame is a series."""
    series = tiff.series[0]
    shape = movie_shape(series.shape, series.axes)
    if len(tiff.series) == 1:
        return series, shape
    if _is_written_frame_by_frame(tiff):
        return [one[0] for one in tiff.series], (len(tiff.series), *(shape[1:] if shape[0] == 1 else shape))
    log.warning("%s: %d series of different images; the first is read: %s", path, len(tiff.series), shape)
    return series, shape


def _fetch_directories(path: Path, tiff: tifffile.TiffFile) -> None:
    """Have the directories of a stack of equal pages read at once; following their chain, each waits for the disk."""
    try:
        first, second = (tiff.pages[number].offset for number in range(2))
    except IndexError:
        return
    if second - first >= _FAR_APART:
        ahead = range(second - _DIRECTORY // 2, tiff.filehandle.size, second - first)
        read_ahead(path, ahead, _DIRECTORY)


def _check_directories(tiff: tifffile.TiffFile, series: Any) -> None:
    """Refuse a file whose chain of page directories leads beyond its end: frames would be missing unseen."""
    if series.dataoffset is not None and series.kind in ("shaped", "imagej"):
        return  # one directory says how many frames there are; whether the file is long enough is checked later
    pages = len(tiff.pages)
    tiff.filehandle.seek(tiff.pages.next_page_offset or 0)
    (following,) = struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))
    if following:
        raise MovieFileError(
            f"{tiff.filehandle.path} is truncated: after {pages} pages its directory continues at byte {following}, "
            f"where there is none; the file has {tiff.filehandle.size} bytes. Copy it again from where it was recorded"
        )


def _is_written_frame_by_frame(tiff: tifffile.TiffFile) -> bool:
    """Whether every page of the file is a series of its own, and all are alike."""
    first = tiff.series[0]
    return all(len(s) == 1 and s.shape == first.shape and s.dtype == first.dtype for s in tiff.series)


def movie_shape(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Shape of the movie in a series: at least (1, rows, columns), other axes of length 1 dropped.

    Colours stay with their image, (T, rows, columns, colours) or, stored one plane after the other, (T, colours, rows,
    columns).
    """
    if axes.endswith("S") and shape[-1] == 1:
        shape, axes = shape[:-1], axes[:-1]
    is_coloured = _has_colours(shape, axes) or (axes.endswith("SYX") and shape[-3] > 1)
    field = 3 if is_coloured else 2
    kept = tuple(n for n in shape[:-field] if n != 1)
    return (*(kept or (1,)), *shape[-field:])


def _has_colours(shape: tuple[int, ...], axes: str) -> bool:
    """Whether the values of a pixel's colours lie side by side."""
    return axes.endswith("YXS") and shape[-1] > 1


@contextmanager
def _opened(file: tifffile.FileHandle) -> Iterator[None]:
    """One of the files of an OME series: tifffile keeps all but the first closed."""
    was_closed = file.closed
    if was_closed:
        file.open()
    try:
        yield
    finally:
        if was_closed:
            file.close()


class PagesSource(Source):
    """Frames made of one page, of several, or part of one; read straight where pages are uncompressed frames."""

    def __init__(
        self, path: Path, shape: tuple[int, ...], tiff: tifffile.TiffFile, pages: Sequence[Any], series: Any
    ) -> None:
        keyframe = series.keyframe
        super().__init__(shape, keyframe.dtype, str(path))
        self._pages, self._page_shape = pages, keyframe.shape
        self._lock = Lock()  # around page directories; pixels are decoded by several threads at once
        weakref.finalize(self, tiff.close)
        tiff.filehandle.set_lock(True)
        frame_size, page_size = math.prod(self.shape[1:]), math.prod(keyframe.shape)
        self._per_frame, self._per_page = max(1, frame_size // page_size), max(1, page_size // frame_size)
        if len(pages) * page_size != frame_size * len(self):
            raise MovieFileError(
                f"{path}: {len(pages)} pages of {keyframe.shape} do not make {len(self)} frames of {self.shape[1:]}"
            )
        self._raw: RawSource | None = None
        self._in_one_file = not series.is_multifile
        if keyframe.is_contiguous and self._per_frame == self._per_page == 1 and self._in_one_file:
            self._raw = RawSource(path, shape, keyframe.dtype.newbyteorder(tiff.byteorder), self._places)

    def _fill(self, wanted: range, out: NDArray) -> None:
        if self._raw is not None:
            self._raw.read(slice(wanted.start, wanted.stop, wanted.step), out)
        elif self._per_page > 1:
            self._fill_from_parts(wanted, out)
        else:
            for at, frame in enumerate(wanted):
                pages = out[at].reshape(self._per_frame, *self._page_shape)
                for number, into in enumerate(pages, frame * self._per_frame):
                    into[...] = self._decoded(frame, number)

    def _fill_from_parts(self, wanted: range, out: NDArray) -> None:
        number, parts = -1, out
        for at, frame in enumerate(wanted):
            if frame // self._per_page != number:
                number = frame // self._per_page
                parts = self._decoded(frame, number).reshape(self._per_page, *self.shape[1:])
            out[at] = parts[frame % self._per_page]

    def _decoded(self, frame: int, number: int) -> NDArray:
        try:
            page = self._page(number)
            if self._in_one_file:
                return self._values(page)
            with self._lock, _opened(page.parent.filehandle):
                return self._values(page)
        except Exception as err:
            if "imagecodecs" in str(err):
                raise MissingExtraError(f"{self.name}: {err}: pip install 'gpucalcium[tiff]'") from err
            raise MovieFileError(
                f"{self.name}: frame {frame} (page {number}) cannot be decoded: {type(err).__name__}: {err}. The file "
                "may be truncated; copy it again from where it was recorded"
            ) from err

    def _values(self, page: Any) -> NDArray:
        """What a page holds; a directory that lies is refused before anything is allocated because of it."""
        if page.shape != self._page_shape:
            raise ValueError(f"it is {page.shape}, where {self._page_shape} was expected")
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > page.parent.filehandle.size:
            raise ValueError("its values go beyond the end of the file")
        values = page.asarray(maxworkers=1)
        if values.shape != self._page_shape:
            raise ValueError(f"it holds {values.shape}, where {self._page_shape} was expected")
        return values

    def _page(self, number: int) -> Any:
        with self._lock:
            page = self._pages[number]
        if page is None:
            raise MovieFileError(f"page {number} is not in the file")
        return page

    def _places(self, frames: range) -> list[int]:
        """Byte at which each of the frames starts."""
        places = [self._page(frame).dataoffsets for frame in frames]
        for frame, place in zip(frames, places, strict=True):
            if not place:
                raise MovieFileError(
                    f"{self.name}: frame {frame} of {len(self)} cannot be read: its directory does not say where it "
                    "lies. The file may be corrupt; copy it again from where it was recorded"
                )
        return [place[0] for place in places]
