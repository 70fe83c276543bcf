"""Methods of `movie` that make one image of it, or traces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend.stencils import compiled_dtype
from gpucalcium.errors import ArrayShapeError, MissingExtraError, ParameterError
from gpucalcium.movies.baseline import percentile
from gpucalcium.movies.binned import median_of_bins
from gpucalcium.movies.sources import open_movie
from gpucalcium.movies.timeseries import timeseries

_PROJECTIONS: dict[str, Any] = {
    "mean": lambda movie: moments(movie)[0],
    "median": lambda movie: percentile(movie, 50),
    "std": lambda movie: moments(movie)[1],
}
_WHOLE_FRAMES = 3000  # frames up to which `local_correlations` takes the movie in one


class Projecting(timeseries):
    """What `movie` inherits from this file."""

    def bin_median(self, window: int = 10) -> NDArray[np.float32]:
        """Median over bins of the mean of `window` consecutive frames: a template that ignores activity.

        Frames that fill no bin are left out; a movie shorter than `window` is one bin. NaN and infinite values are
        ignored. What is held beside a chunk are the means of the bins, of as many rows at a time as the memory budget
        allows. The same as `gpucalcium.registration.bin_median`, which takes files and CuPy arrays, too.

        Returns
        -------
        image : (d1, d2[, d3]) float32
        """
        return median_of_bins(open_movie(np.asarray(self)), window)

    def bin_median_3d(self, window: int = 10) -> NDArray[np.float32]:
        """`bin_median` of a movie of volumes."""
        if self.ndim != 4:
            raise ArrayShapeError(
                f"bin_median_3d takes (T, d1, d2, d3), not {self.shape}; use bin_median for images"
            )
        return self.bin_median(window)

    def zproject(
        self, method: str = "mean", cmap: str = "gray", aspect: str | float = "auto"
    ) -> NDArray[np.float32]:
        """Mean, median or standard deviation over time, drawn with Matplotlib and returned; NaN where a frame is."""
        if method not in _PROJECTIONS:
            raise ParameterError(
                f"Method not implemented: {method!r}; expected one of {', '.join(_PROJECTIONS)}"
            )
        try:
            from matplotlib import pyplot
        except ImportError as err:
            raise MissingExtraError("zproject draws with Matplotlib: pip install 'gpucalcium[plot]'") from err
        self._check_drawable("zproject")
        image = _PROJECTIONS[method](np.asarray(self))
        pyplot.imshow(image, cmap=cmap, aspect=aspect)  # type: ignore[arg-type]
        return image

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

        if do_plot:
            self._check_drawable("do_plot")
        values = np.moveaxis(np.asarray(self), -1, 0) if swap_dim else np.asarray(self)
        if frames_per_chunk < 2:
            raise ParameterError(
                f"frames_per_chunk={frames_per_chunk}: a correlation needs at least 2 frames"
            )
        chunks = max(1, len(values) // frames_per_chunk) if len(values) > _WHOLE_FRAMES else 1
        ends = [frames_per_chunk * (k + 1) for k in range(chunks - 1)]
        image = np.full(values.shape[1:], -np.inf, np.float32)
        for part in np.split(values, ends):
            found = local_correlations(part, eight_neighbours, swap_dim=False, order_mean=order_mean)
            np.maximum(image, found, out=image)
        if do_plot:
            self._wrap(image[None]).zproject()
        return image

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
        shares = csc_matrix((given.reshape(len(given), -1) / sums[:, None]).T)
        traces = np.empty((len(self), len(given)))
        matrix = tuple(
            backend.put(x.astype(kind))
            for x, kind in zip(
                (shares.indptr, shares.indices, shares.data), ("int64", "int64", "float32"), strict=True
            )
        )
        at = 0
        for frames in backend.stream(open_movie(np.asarray(self)), working=8 * len(given)):
            flat = frames.reshape(len(frames), -1)
            flat = flat.astype(compiled_dtype(flat.dtype, wide="f8"), copy=False)
            seen = backend.empty((len(frames), len(given)), "float64")
            backend.wing(flat).products.project(flat, *matrix, seen)
            traces[at : at + len(frames)] = backend.to_numpy(seen)
            at += len(frames)
        result = traces.astype(np.float32).view(timeseries)
        result.__array_finalize__(self)
        return result

    def _check_drawable(self, what: str) -> None:
        if self.ndim != 3:
            raise ArrayShapeError(
                f"{what} draws images of (T, d1, d2), not of {self.shape}; project the volumes first, e.g. "
                "movie.max(axis=3)"
            )


def moments(movie: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each pixel over time, in one pass; sums are float64, above the first frame."""
    sums = pilot = None
    for frames in backend.stream(open_movie(movie)):
        if sums is None:
            sums, pilot = backend.zeros((2, frames[0].size), "float64"), frames[0].copy()
        backend.wing(frames).correlation.add_products(frames, pilot, backend.put(np.empty(0, np.int64)), sums)
    total, squares = backend.to_numpy(sums).reshape(2, *movie.shape[1:]) / len(movie)
    variance = np.maximum(squares - total**2, 0)
    return (backend.to_numpy(pilot) + total).astype(np.float32), np.sqrt(variance).astype(np.float32)
