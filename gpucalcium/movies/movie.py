"""`movie`: a recording of images or volumes, with the methods that scripts call on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ParameterError
from gpucalcium.movies import playing as _playing
from gpucalcium.movies.aligning import Aligning
from gpucalcium.movies.blurring import Blurring
from gpucalcium.movies.decomposing import Decomposing
from gpucalcium.movies.levelling import Levelling
from gpucalcium.movies.projecting import Projecting
from gpucalcium.movies.resizing import AREA, resize, resized_length
from gpucalcium.movies.timeseries import timeseries


class movie(Decomposing, Aligning, Blurring, Levelling, Projecting, timeseries):
    """A recording (T, d1, d2[, d3]); see `timeseries` for what it is made from and what it carries."""

    # ------------------------------------------------------------------ shape

    def resize(  # type: ignore[override]
        self, fx: float = 1, fy: float = 1, fz: float = 1, interpolation: int = AREA
    ) -> movie:
        """Change the size of the frames and the frame rate.

        Parameters
        ----------
        fx, fy, fz : float
            Factors of the rows (axis 1), the columns (axis 2) and time; 0.5 halves.
        interpolation : {0, 1, 2, 3, 4}
            Nearest, linear, bicubic, area (averages when shrinking), Lanczos.

        Returns
        -------
        resized : movie, (max(1, int(T fz)), int(d1 fx), int(d2 fy)[, d3])
            Of the same dtype (integers rounded), ``fr`` times `fz`.
        """
        lengths = (
            max(1, int(self.shape[0] * fz)) if fz > 0 else resized_length(self.shape[0], fz),
            resized_length(self.shape[1], fx),
            resized_length(self.shape[2], fy),
        )
        values: NDArray = np.asarray(self)
        for axis in (1, 2, 0):
            if lengths[axis] != values.shape[axis]:
                values = resize(values, axis, lengths[axis], interpolation)
        if self.dtype.kind in "iu" and values.dtype.kind == "f":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        result = self._wrap(np.array(values, dtype=self.dtype))
        result.fr = self.fr * fz
        return result

    def crop(
        self,
        crop_top: int = 0,
        crop_bottom: int = 0,
        crop_left: int = 0,
        crop_right: int = 0,
        crop_begin: int = 0,
        crop_end: int = 0,
    ) -> Self:
        """A view without so many rows, columns and frames at each end."""
        t, rows, columns = self.shape[:3]
        cuts = ((crop_begin, crop_end, t), (crop_top, crop_bottom, rows), (crop_left, crop_right, columns))
        for first, last, length in cuts:
            if first < 0 or last < 0 or first + last >= length:
                raise ParameterError(
                    f"cropping {first} + {last} of {length}: give counts that leave something"
                )
        view: Any = self[tuple(slice(first, length - last) for first, last, length in cuts)]
        return view

    def to2DPixelxTime(self, order: str = "F") -> Self:
        """Matrix (pixels, T). The axes are reversed first: order 'F' gives pixels i·d2 + j, 'C' gives i + d1·j."""
        return self.T.reshape((-1, self.shape[0]), order=order)  # type: ignore[call-overload]

    def to3DFromPixelxTime(self, shape: Sequence[int], order: str = "F") -> Self:
        """The movie of `shape` (T, d1, d2[, d3]) back from what `to2DPixelxTime` made of it."""
        return self.reshape(tuple(shape)[::-1], order=order).T  # type: ignore[call-overload]

    def to_2D(self, order: str = "F") -> Self:
        """Matrix (T, pixels), each frame flattened in `order`."""
        return self.reshape((self.shape[0], -1), order=order)  # type: ignore[call-overload]

    # ------------------------------------------------------------------ showing

    def play(
        self,
        gain: float = 1,
        fr: float | None = None,
        magnification: float = 1,
        offset: float = 0,
        interpolation: int = 1,
        backend: str = "opencv",
        do_loop: bool = False,
        bord_px: int | None = None,
        q_max: float = 99.75,
        q_min: float = 1,
        plot_text: bool = False,
        save_movie: bool = False,
        opencv_codec: str = "H264",
        movie_name: str | os.PathLike[str] = "movie.avi",
    ) -> Any:
        """Show the movie, in grey levels ``(value + offset - black) * gain / (white - black)``.

        Parameters
        ----------
        gain, offset : float
            As in the formula.
        fr : float, optional
            Frames shown per second; default: as recorded.
        magnification : float
            Size on the screen against pixels.
        interpolation : {0, 1, 2, 3, 4}
            Of the magnified frames, as in `resize`.
        backend : {'opencv', 'pyplot', 'pylab', 'notebook', 'embed_opencv'}
            A window of OpenCV (q or closing it ends) or of Matplotlib (q closes it), or a player in the notebook, which
            are the last two.
        do_loop : bool
            Start again at the end.
        bord_px : int, optional
            Pixels left out at every edge.
        q_max, q_min : float
            Percentiles of the first 10 frames that are white and black; 100 and 0: the extremes of the movie.
        plot_text : bool
            Write number and time into each frame.
        save_movie : bool
            Write what is shown into a video file, too, with PyAV.
        opencv_codec : {'H264', 'X264', 'AVC1', 'MJPG', 'MP4V', 'XVID', 'DIVX', 'FFV1'}
            Its encoder; FFV1 keeps every level.
        movie_name : path
            Its name: .avi, .mkv or .mp4.

        Returns
        -------
        shown : NotebookPlayer, matplotlib.animation.Animation or None
            The player, which a notebook shows if it comes last in a cell; the animation, to be kept while it runs;
            None from OpenCV.

        Raises
        ------
        ParameterError
            "Unknown backend!", and values that cannot be.
        ArrayShapeError
            Volumes.
        MissingExtraError, NotSupportedError
            The backend is not installed; there is no display for its window.
        """
        _playing.check_backend(backend)
        view = _playing.View(
            gain=gain,
            fr=fr,
            magnification=magnification,
            offset=offset,
            interpolation=interpolation,
            do_loop=do_loop,
            bord_px=bord_px,
            q_max=q_max,
            q_min=q_min,
            plot_text=plot_text,
        )
        screen = _playing.Screen(self, view)
        if save_movie:
            _playing.write_screen(screen, movie_name, opencv_codec)
        return _playing.show(screen, backend)
