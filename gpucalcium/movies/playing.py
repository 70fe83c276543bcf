"""Showing movies: in a notebook, in a window, and as a video file of what is seen."""

from __future__ import annotations

import base64
import gzip
import html
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import (
    ArrayShapeError,
    GpuCalciumError,
    MissingExtraError,
    NotSupportedError,
    ParameterError,
)
from gpucalcium.movies.files import written_whole
from gpucalcium.movies.resizing import resize, resized_length
from gpucalcium.movies.source import PIECE
from gpucalcium.movies.timeseries import timeseries

BACKENDS = ("opencv", "embed_opencv", "pyplot", "pylab", "notebook")
CODECS = {
    "H264": "libx264",
    "X264": "libx264",
    "AVC1": "libx264",
    "MJPG": "mjpeg",
    "MP4V": "mpeg4",
    "XVID": "mpeg4",
    "DIVX": "mpeg4",
    "FFV1": "ffv1",
}
"""Encoders by the four letters that OpenCV calls them."""
_LEVEL_FRAMES = 10  # that black and white are taken from
_NOTEBOOK_LIMIT = 256 << 20  # bytes of pixels that a page can hold without trouble
_ROOM_BELOW = 60  # CSS pixels for the buttons of the player
_FINEST_RATE = 65535  # denominator of the frame rate that all encoders take


@dataclass(frozen=True, kw_only=True)
class View:
    """How a movie is looked at."""

    gain: float = 1
    """Of the brightness, after the levels."""
    fr: float | None = None
    """Frames shown per second; None: as recorded."""
    magnification: float = 1
    """Size on the screen against pixels."""
    offset: float = 0
    """Added to the values, before the levels."""
    interpolation: int = 1
    """Of the magnified image: 0 nearest, 1 linear, 2 bicubic, 3 area, 4 Lanczos."""
    do_loop: bool = False
    """Start again at the end."""
    bord_px: int | None = None
    """Pixels left out at every edge."""
    q_max: float = 99.75
    """Percentile that is white, of the first 10 frames; 100: the largest value of the movie."""
    q_min: float = 1
    """Percentile that is black, of the first 10 frames; 0: the smallest value of the movie."""
    plot_text: bool = False
    """Write number and time into each frame."""

    def __post_init__(self) -> None:
        if not 0 <= self.q_min < self.q_max <= 100:
            raise ParameterError(
                f"q_min={self.q_min}, q_max={self.q_max}: percentiles from 0 to 100, q_max the larger"
            )
        if self.fr is not None and not self.fr > 0:
            raise ParameterError(f"fr={self.fr}: frames per second, greater than 0")
        if self.bord_px is not None and self.bord_px < 0:
            raise ParameterError(f"bord_px={self.bord_px}: pixels left out, 0 or more")


class Screen:
    """The frames of a movie as grey levels, made when they are asked for.

    Attributes
    ----------
    shape : (int, int, int)
        Frames, rows and columns as shown.
    rate : float
        Frames shown per second.
    """

    def __init__(self, movie: timeseries, view: View) -> None:
        if movie.ndim != 3:
            raise ArrayShapeError(
                f"play shows (T, d1, d2), not {movie.shape}; choose a plane, or project, e.g. movie.max(axis=3)"
            )
        border = view.bord_px or 0
        if 2 * border >= min(movie.shape[1:]):
            raise ParameterError(f"bord_px={border} leaves nothing of frames of {movie.shape[1:]}")
        self.movie, self.view = movie, view
        self._values = np.asarray(movie)[
            :, border : movie.shape[1] - border, border : movie.shape[2] - border
        ]
        sides = tuple(resized_length(n, view.magnification) for n in self._values.shape[1:])
        self.shape = (len(movie), sides[0], sides[1])
        self.rate = float(view.fr or movie.fr)
        self._black, self._white = self._levels()

    def _levels(self) -> tuple[float, float]:
        first = self._values[:_LEVEL_FRAMES].astype(np.float64)
        first = first[np.isfinite(first)]
        if not len(first):
            return 0.0, 1.0
        view = self.view
        black, white = np.percentile(first, (view.q_min, view.q_max))
        if view.q_min == 0 or view.q_max == 100:
            lowest, highest = _extremes(self._values)
            black = lowest if view.q_min == 0 else black
            white = highest if view.q_max == 100 else white
        return float(black), float(white)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.frame(t) for t in range(len(self._values)))

    def frame(self, t: int) -> NDArray[np.uint8]:
        """Grey levels of a frame, (rows, columns): (value + offset - black) * gain / (white - black), NaN black."""
        span = (self._white - self._black) or 1.0
        shown = (self._values[t].astype(np.float32) + self.view.offset - self._black) * (
            self.view.gain / span
        )
        shown = np.nan_to_num(shown, nan=0.0)
        for axis in (0, 1):
            shown = resize(shown, axis, self.shape[1 + axis], self.view.interpolation)
        levels = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        return self._labelled(levels, t) if self.view.plot_text else levels

    def _labelled(self, levels: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageDraw

        image = Image.fromarray(levels)
        ImageDraw.Draw(image).text((2, 1), f"{t}  {self.movie.time[t]:.2f} s", fill=255)
        return np.asarray(image)


def _extremes(movie: NDArray) -> tuple[float, float]:
    """Smallest and largest finite value, some frames at a time; a movie has one at least."""
    lowest, highest = np.inf, -np.inf
    step = max(1, PIECE // max(1, movie[:1].nbytes))
    for at in range(0, len(movie), step):
        part = movie[at : at + step]
        part = part[np.isfinite(part)] if part.dtype.kind == "f" else part
        if part.size:
            lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
    return lowest, highest


class NotebookPlayer:
    """A movie with buttons, as one piece of HTML that needs nothing else: Jupyter shows it, `save` writes it.

    Parameters
    ----------
    screen : Screen

    Raises
    ------
    ParameterError
        More pixels than a page can hold.
    """

    def __init__(self, screen: Screen) -> None:
        size = int(np.prod(screen.shape))
        if size > _NOTEBOOK_LIMIT:
            raise ParameterError(
                f"{screen.shape} are {size >> 20} MiB of pixels, a page holds {_NOTEBOOK_LIMIT >> 20}: play some "
                "frames (movie[:1000]), every other one (movie.resize(fz=0.5)), or smaller ones (magnification=0.5)"
            )
        self._frames, self._rows, self._columns = screen.shape
        levels = gzip.compress(b"".join(frame.tobytes() for frame in screen), 6, mtime=0)
        movie = screen.movie
        self._about: dict[str, Any] = {
            "frames": self._frames,
            "rows": self._rows,
            "columns": self._columns,
            "rate": screen.rate,
            "recorded": movie.fr,
            "start": movie.start_time,
            "loop": bool(screen.view.do_loop),
            "levels": base64.b64encode(levels).decode(),
        }

    def __repr__(self) -> str:
        return (
            f"<NotebookPlayer: {self._frames} frames of {self._rows} x {self._columns}; a notebook shows it>"
        )

    def page(self) -> str:
        """The whole page."""
        page = resources.files("gpucalcium.movies").joinpath("player.html").read_text("utf-8")
        return page.replace("/*MOVIE*/null", json.dumps(self._about), 1)

    def save(self, file_name: str | os.PathLike[str]) -> None:
        """Write the page, for any browser."""
        Path(file_name).write_text(self.page(), encoding="utf-8")

    def _repr_html_(self) -> str:
        # in a frame of its own: scripts and styles of the notebook and of several players do not meet
        return (
            f'<iframe srcdoc="{html.escape(self.page())}" sandbox="allow-scripts" '
            f'style="border:0;width:100%;height:{self._rows + _ROOM_BELOW}px"></iframe>'
        )


def show(screen: Screen, backend: str) -> Any:
    """Show on one of `BACKENDS`; see `movie.play` for what comes back."""
    if backend in ("notebook", "embed_opencv"):
        return NotebookPlayer(screen)
    return _in_matplotlib(screen) if backend in ("pyplot", "pylab") else _in_opencv(screen)


def check_backend(backend: str) -> None:
    """Refuse what cannot show anything here, before any work."""
    if backend not in BACKENDS:
        raise ParameterError(f"Unknown backend! {backend!r}; expected one of {', '.join(BACKENDS)}")
    if backend == "opencv":
        _opencv()
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
            raise NotSupportedError(
                "backend='opencv' opens a window, and there is no display (DISPLAY is not set): use backend='notebook'"
            )
    if backend in ("pyplot", "pylab"):
        _pyplot()


def _opencv() -> Any:
    try:
        return import_module("cv2")
    except ImportError as err:
        raise MissingExtraError(
            "backend='opencv' needs OpenCV: pip install opencv-python; or use backend='notebook' or 'pyplot'"
        ) from err


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as err:
        raise MissingExtraError(
            "backend='pyplot' needs Matplotlib: pip install 'gpucalcium[plot]'; or use backend='notebook'"
        ) from err
    return pyplot


def _in_opencv(screen: Screen) -> None:
    """A window; q ends it, or closing it."""
    cv2, title = _opencv(), "frame"
    try:
        running = True
        while running:
            for frame in screen:
                due = time.monotonic() + 1 / screen.rate
                cv2.imshow(title, frame)
                left = max(1, int(1000 * (due - time.monotonic())))
                is_quit = cv2.waitKey(left) & 0xFF == ord("q")
                if (
                    is_quit or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1
                ):  # else it would open again
                    running = False
                    break
            running = running and screen.view.do_loop
    finally:
        cv2.destroyAllWindows()


def _in_matplotlib(screen: Screen) -> Any:
    """An animation in a window, q closes it; shown only where Matplotlib can open windows."""
    pyplot = _pyplot()
    from matplotlib import backend_bases
    from matplotlib.animation import FuncAnimation

    figure, axes = pyplot.subplots()
    axes.set_axis_off()
    image = axes.imshow(screen.frame(0), cmap="gray", vmin=0, vmax=255)

    def draw(t: int) -> tuple[Any]:
        image.set_data(screen.frame(t))
        return (image,)

    animation = FuncAnimation(
        figure,
        draw,
        frames=screen.shape[0],
        interval=1000 / screen.rate,
        repeat=screen.view.do_loop,
        blit=True,
    )
    figure.canvas.mpl_connect(
        "key_press_event", lambda event: pyplot.close(figure) if event.key == "q" else None
    )
    if type(figure.canvas).start_event_loop is not backend_bases.FigureCanvasBase.start_event_loop:
        pyplot.show(block=False)
    return animation


def write_screen(screen: Screen, file_name: str | os.PathLike[str], codec: str) -> None:
    """Video file of what is shown, in the format of its extension; it appears only once it is complete.

    Raises
    ------
    ParameterError
        A codec or an extension that PyAV does not have, or that do not go together.
    MissingExtraError
        PyAV is not installed.
    """
    encoder = CODECS.get(codec.upper())
    if encoder is None:
        raise ParameterError(f"opencv_codec={codec!r}: expected one of {', '.join(CODECS)}")
    try:
        import av
    except ImportError as err:
        raise MissingExtraError("save_movie needs PyAV: pip install 'gpucalcium[video]'") from err
    path = Path(file_name)
    try:
        with written_whole(path) as temporary:
            _encode(av, screen, temporary, encoder, path.suffix)
    except (av.error.FFmpegError, ValueError) as err:
        if isinstance(err, GpuCalciumError):
            raise
        raise ParameterError(
            f"{path} cannot be written with opencv_codec={codec!r}: {err}. Use an .avi, .mkv or .mp4 "
            "file, or another codec"
        ) from err


def _encode(av: Any, screen: Screen, path: Path, encoder: str, suffix: str) -> None:
    container_format = {".mkv": "matroska"}.get(suffix.lower(), suffix.lstrip(".").lower())
    with av.open(str(path), "w", format=container_format) as container:
        video = container.add_stream(encoder, rate=Fraction(screen.rate).limit_denominator(_FINEST_RATE))
        exact = encoder == "ffv1"
        rows, columns = screen.shape[1:] if exact else (n + n % 2 for n in screen.shape[1:])
        video.height, video.width = rows, columns
        video.pix_fmt = "gray" if exact else "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        for frame in screen:  # colours are stored for every other pixel: sides are even
            padded = np.pad(frame, ((0, rows - frame.shape[0]), (0, columns - frame.shape[1])), mode="edge")
            picture = av.VideoFrame.from_ndarray(padded, format="gray")
            container.mux(video.encode(picture.reformat(format=video.pix_fmt)))
        container.mux(video.encode())
