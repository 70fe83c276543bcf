"""`movie`: a recording of images or volumes, with the methods that scripts call on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend as _backend
from gpucalcium.errors import ArrayShapeError, MissingExtraError, MovieValueError, ParameterError
from gpucalcium.movies import baseline as _baseline
from gpucalcium.movies import playing as _playing
from gpucalcium.movies.aligning import Aligning
from gpucalcium.movies.blurring import Blurring
from gpucalcium.movies.decomposing import Decomposing
from gpucalcium.movies.resizing import AREA, resize, resized_length
from gpucalcium.movies.sources import open_movie
from gpucalcium.movies.timeseries import timeseries

_PROJECTIONS: dict[str, Any] = {"mean": np.mean, "median": np.median, "std": np.std}
_WHOLE_FRAMES = 3000  # frames up to which `local_correlations` takes the movie in one


class movie(Decomposing, Aligning, Blurring, timeseries):
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

    # ------------------------------------------------------------------ images

    def bin_median(self, window: int = 10) -> NDArray[np.float32]:
        """Median over bins of the mean of `window` consecutive frames: a template that ignores activity.

        Frames that fill no bin are left out; a movie shorter than `window` is one bin. NaN are ignored.

        Returns
        -------
        image : (d1, d2[, d3]) float32
        """
        if window < 1:
            raise ParameterError(f"window={window}: a bin has at least one frame")
        window = min(window, len(self))
        bins = len(self) // window
        means = np.empty((bins, *self.shape[1:]), np.float32)
        for k in range(bins):
            means[k] = np.nanmean(
                np.asarray(self[k * window : (k + 1) * window], np.float32), axis=0, dtype=np.float64
            )
        return np.nanmedian(means, axis=0).astype(np.float32)

    def bin_median_3d(self, window: int = 10) -> NDArray[np.float32]:
        """`bin_median` of a movie of volumes."""
        if self.ndim != 4:
            raise ArrayShapeError(
                f"bin_median_3d takes (T, d1, d2, d3), not {self.shape}; use bin_median for images"
            )
        return self.bin_median(window)

    def zproject(
        self, method: str = "mean", cmap: str = "gray", aspect: str | float = "auto"
    ) -> NDArray[np.float64]:
        """Mean, median or standard deviation over time, drawn with Matplotlib and returned."""
        if method not in _PROJECTIONS:
            raise ParameterError(
                f"Method not implemented: {method!r}; expected one of {', '.join(_PROJECTIONS)}"
            )
        try:
            from matplotlib import pyplot
        except ImportError as err:
            raise MissingExtraError("zproject draws with Matplotlib: pip install 'gpucalcium[plot]'") from err
        image = _PROJECTIONS[method](np.asarray(self), axis=0)
        pyplot.imshow(image, cmap=cmap, aspect=aspect)  # type: ignore[arg-type]
        return image

    def calc_min(self) -> Any:
        """Smallest value of the movie, NaN left out; of its dtype."""
        return min(np.nanmin(np.asarray(self[part])) for part in _baseline.pieces(self))

    def local_correlations(
        self,
        eight_neighbours: bool = False,
        swap_dim: bool = False,
        frames_per_chunk: int = 1500,
        do_plot: bool = False,
        order_mean: int = 1,
    ) -> NDArray[np.float32]:
        """Correlation of each pixel with its neighbours, see `gpucalcium.images.local_correlations`.

        Of more than 3000 frames: the maximum over chunks of `frames_per_chunk`, the last of which takes the rest.
        `do_plot` draws it with Matplotlib.
        """
        from gpucalcium.images import local_correlations

        values = np.moveaxis(np.asarray(self), -1, 0) if swap_dim else np.asarray(self)
        if frames_per_chunk < 2:
            raise ParameterError(
                f"frames_per_chunk={frames_per_chunk}: a correlation needs at least 2 frames"
            )
        chunks = max(1, len(values) // frames_per_chunk) if len(values) > _WHOLE_FRAMES else 1
        ends = [frames_per_chunk * (k + 1) for k in range(chunks - 1)]
        parts = np.split(values, ends)
        images = [
            local_correlations(p, eight_neighbours, swap_dim=False, order_mean=order_mean) for p in parts
        ]
        image = np.maximum.reduce(images)
        if do_plot:
            movie(image[None]).zproject()
        return image

    # ------------------------------------------------------------------ baselines

    def computeDFF(
        self,
        secsWindow: float = 5,
        quantilMin: float = 8,
        method: str = "only_baseline",
        in_place: bool = False,
        order: str = "F",
    ) -> tuple[movie, movie]:
        """Change of fluorescence against a baseline: a percentile in bins, linear in between.

        Parameters
        ----------
        secsWindow : float
            Length of a bin, in s.
        quantilMin : float
            Percentile, 0 to 100.
        method : {'only_baseline', 'delta_f_over_f', 'delta_f_over_sqrt_f'}
            F − F0, (F − F0) / F0 or (F − F0) / √F0.
        in_place : bool
            Write into this movie, which must be of floats.
        order : {'F', 'C'}
            Whether a bin takes frames in a row, or every N-th of N bins.

        Returns
        -------
        change, baseline : movie, (T, d1, d2[, d3]) float32

        Raises
        ------
        MovieValueError
            The method divides by the baseline, and not all values are positive.
        """
        if method not in _baseline.DFF_METHODS:
            raise ParameterError(
                f"Unknown method {method!r}; expected one of {', '.join(_baseline.DFF_METHODS)}"
            )
        if order not in ("F", "C"):
            raise ParameterError(f"order={order!r}: expected 'F' or 'C'")
        _baseline.check_quantile(quantilMin, "quantilMin")
        if method != "only_baseline" and not self.calc_min() > 0:
            raise MovieValueError(
                f"All pixels must be positive to divide by the baseline; the smallest is {self.calc_min()}. Add a "
                "constant first, or use method='only_baseline'"
            )
        values = np.asarray(self)
        level = _baseline.binned_baseline(values, int(secsWindow * self.fr), quantilMin, order)
        change = self._place_for_result(in_place)
        _baseline.without_baseline(values, level, method, np.asarray(change))
        return change, self._wrap(level)

    def removeBL(
        self,
        windowSize: int = 100,
        quantilMin: float = 8,
        in_place: bool = False,
        returnBL: bool = False,
    ) -> movie:
        """The movie without a running percentile of each pixel, or that percentile if `returnBL`.

        Parameters
        ----------
        windowSize : int
            Frames a window; a movie of less than two windows has one.
        quantilMin : float
            Percentile, 0 to 100.
        in_place : bool
            Write into this movie, which must be of floats.

        Returns
        -------
        movie : (T, d1, d2[, d3]) float32
        """
        if windowSize < 1:
            raise ParameterError(f"windowSize={windowSize}: a window has at least one frame")
        _baseline.check_quantile(quantilMin, "quantilMin")
        values = np.asarray(self)
        level = _baseline.window_baseline(values, windowSize, quantilMin)
        if returnBL:
            return self._wrap(level)
        change = self._place_for_result(in_place)
        _baseline.without_baseline(values, level, "only_baseline", np.asarray(change))
        return change

    def debleach(self) -> movie:
        """The movie without the slow fall of its median brightness (exponential, else a line); float32."""
        values = np.asarray(self)
        level = np.array([np.median(frame) for frame in values], np.float64)
        fall = (_baseline.bleaching(level) - np.median(level)).astype(np.float32)
        return self._wrap(values.astype(np.float32) - fall.reshape(-1, *(1,) * (self.ndim - 1)))

    def _place_for_result(self, in_place: bool) -> movie:
        if not in_place:
            return self._wrap(np.empty(self.shape, np.float32))
        if self.dtype.kind != "f":
            raise ParameterError(
                f"in_place=True: {self.dtype} cannot hold the result; use .astype('float32') first"
            )
        return self

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
            A window of OpenCV (q ends it) or of Matplotlib (q closes it), or a player in the notebook, which are the
            last two.
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

    # ------------------------------------------------------------------ traces

    def extract_traces_from_masks(self, masks: ArrayLike) -> timeseries:
        """Mean of the movie in each mask, weighted by the mask.

        Parameters
        ----------
        masks : (N, d1, d2[, d3]) or (d1, d2[, d3]) array
            Weights; each mask is scaled to a sum of 1.

        Returns
        -------
        traces : timeseries, (T, N) float32
        """
        given = np.asarray(masks, np.float64)
        given = given[None] if given.ndim == self.ndim - 1 else given
        if given.shape[1:] != self.shape[1:]:
            raise ArrayShapeError(f"masks of shape {given.shape[1:]} do not fit frames of {self.shape[1:]}")
        sums = given.reshape(len(given), -1).sum(axis=1)
        if not (sums != 0).all():
            raise ParameterError(f"mask {int(np.argmin(sums != 0))} sums to 0: it weights no pixel")
        shares = (given.reshape(len(given), -1) / sums[:, None]).T
        parts = []
        for frames in _backend.stream(open_movie(np.asarray(self)), working=8 * len(shares)):
            xp = _backend.arrays.xp(frames)
            flat = frames.reshape(len(frames), -1).astype(np.float64)
            parts.append(_backend.to_numpy(flat @ xp.asarray(shares)))
        traces = np.concatenate(parts)
        result = traces.astype(np.float32).view(timeseries)
        result.__array_finalize__(self)
        return result
