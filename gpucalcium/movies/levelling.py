"""Methods of `movie` that take the slow or constant part of its brightness away."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.errors import MovieValueError, ParameterError
from gpucalcium.movies import baseline
from gpucalcium.movies.sources import open_movie
from gpucalcium.movies.timeseries import timeseries


class Levelling(timeseries):
    """What `movie` inherits from this file."""

    def calc_min(self) -> Any:
        """Smallest value of the movie, NaN left out (NaN if there is nothing else); of its dtype."""
        lowest = None
        for frames in backend.stream(open_movie(np.asarray(self))):
            least = backend.to_numpy(backend.arrays.xp(frames).nanmin(frames))[()]
            lowest = least if lowest is None else np.fmin(lowest, least)
        return self.dtype.type(lowest)

    def computeDFF(
        self,
        secsWindow: float = 5,
        quantilMin: float = 8,
        method: str = "only_baseline",
        in_place: bool = False,
        order: str = "F",
        *,
        out: tuple[NDArray | None, NDArray | None] = (None, None),
    ) -> tuple[Self, Self]:
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
        out : (array or None, array or None)
            Where to write the change and the baseline: arrays of floats, e.g. memory maps of files, for movies
            larger than memory. What is held then are a level for each bin and a chunk.

        Returns
        -------
        change, baseline : movie, (T, d1, d2[, d3]) float32 (or as `out`)

        Raises
        ------
        MovieValueError
            The method divides by the baseline, and not all values are positive.
        """
        if method not in baseline.DFF_METHODS:
            raise ParameterError(
                f"Unknown method {method!r}; expected one of {', '.join(baseline.DFF_METHODS)}"
            )
        if order not in ("F", "C"):
            raise ParameterError(f"order={order!r}: expected 'F' or 'C'")
        baseline.check_quantile(quantilMin, "quantilMin")
        if method != "only_baseline" and not self.calc_min() > 0:
            raise MovieValueError(
                f"All pixels must be positive to divide by the baseline; the smallest is {self.calc_min()}. Add a "
                "constant first, or use method='only_baseline'"
            )
        change, level = self._room(in_place, out[0]), self._room(False, out[1], "out[1]")
        found = baseline.binned_baseline(np.asarray(self), int(secsWindow * self.fr), quantilMin, order)
        found.write(np.asarray(level))
        found.subtract_from(np.asarray(self), method, np.asarray(change))
        return change, level

    def removeBL(
        self,
        windowSize: int = 100,
        quantilMin: float = 8,
        in_place: bool = False,
        returnBL: bool = False,
        *,
        out: NDArray | None = None,
    ) -> Self:
        """The movie without a running percentile of each pixel, or that percentile if `returnBL`.

        Parameters
        ----------
        windowSize : int
            Frames a window; a movie of less than two windows has one.
        quantilMin : float
            Percentile, 0 to 100.
        in_place : bool
            Write into this movie, which must be of floats.
        returnBL : bool
            Return the percentile.
        out : array, optional
            Where to write the result, as in `computeDFF`.

        Returns
        -------
        movie : (T, d1, d2[, d3]) float32 (or as `out`)
        """
        if windowSize < 1:
            raise ParameterError(f"windowSize={windowSize}: a window has at least one frame")
        baseline.check_quantile(quantilMin, "quantilMin")
        result = self._room(in_place, out)
        found = baseline.window_baseline(np.asarray(self), windowSize, quantilMin)
        if returnBL:
            found.write(np.asarray(result))
        else:
            found.subtract_from(np.asarray(self), "only_baseline", np.asarray(result))
        return result

    def debleach(self, *, out: NDArray | None = None) -> Self:
        """The movie without the slow fall of its median brightness (exponential, else a line).

        Parameters
        ----------
        out : array, optional
            Where to write the result, as in `computeDFF`; it may be the movie itself.

        Returns
        -------
        movie : (T, d1, d2[, d3]) float32 (or as `out`)

        Raises
        ------
        MovieValueError
            No frame holds a finite number.
        """
        level = baseline.brightness(np.asarray(self))
        fall = baseline.bleaching(level) - np.nanmedian(level)
        result = self._room(False, out)
        baseline.without_fall(np.asarray(self), fall, np.asarray(result))
        return result

    def _room(self, in_place: bool, out: NDArray | None, name: str = "out") -> Self:
        """Where a result of the movie's shape goes: a new movie, this one, or what was given for it."""
        if out is not None:
            if in_place:
                raise ParameterError("in_place=True and out: the result can be written to one of them")
            return self._wrap(baseline.check_out(out, self.shape, name))
        if not in_place:
            return self._wrap(np.empty(self.shape, np.float32))
        if self.dtype not in (np.float32, np.float64):
            raise ParameterError(
                f"in_place=True: {self.dtype} cannot hold the result; use .astype('float32') first"
            )
        baseline.check_out(self, self.shape, "in_place=True: the movie")
        return self
