"""Methods of `movie` that smooth its frames, in place."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.movies.sources import open_movie
from gpucalcium.movies.timeseries import timeseries

_BORDERS = {0: "constant", 1: "replicate", 2: "reflect", 4: "reflect101"}
_WORKING = 16  # bytes per pixel that a filter needs beside the frames


class Blurring(timeseries):
    """What `movie` inherits from this file."""

    def gaussian_blur_2D(
        self,
        kernel_size_x: int = 5,
        kernel_size_y: int = 5,
        kernel_std_x: float = 1,
        kernel_std_y: float = 1,
        borderType: int | str = "replicate",
    ) -> Self:
        """Blur each frame (of volumes each plane), in place.

        Parameters
        ----------
        kernel_size_x, kernel_size_y : int, odd
            Pixels of the kernel along the columns (x) and the rows (y).
        kernel_std_x, kernel_std_y : float
            Its standard deviation in pixels; 0 or less: as the size suggests, 0.3 ((size − 1) / 2 − 1) + 0.8.
        borderType : {'replicate', 'reflect', 'reflect101', 'constant'} or OpenCV's number
            What lies beyond the border.

        Returns
        -------
        self : movie
        """
        border = _BORDERS.get(borderType) if isinstance(borderType, int) else borderType
        if border not in _BORDERS.values():
            raise ParameterError(f"borderType={borderType!r}: expected one of {', '.join(_BORDERS.values())}")
        planes = self.ndim - 3
        sizes = (kernel_size_y, kernel_size_x, *(1,) * planes)
        stds = (kernel_std_y, kernel_std_x, *(1,) * planes)
        if any(size < 1 or size % 2 == 0 for size in sizes):
            raise ParameterError(f"kernel sizes {sizes}: they must be odd, so that the kernel has a centre")
        sigma = tuple(s if s > 0 else 0.3 * ((n - 1) / 2 - 1) + 0.8 for s, n in zip(stds, sizes, strict=True))
        radius = tuple(n // 2 for n in sizes)
        return self._replace(lambda frames: _filters(frames).gaussian(frames, sigma, radius, border))

    def median_blur_2D(self, kernel_size: int = 3) -> Self:
        """Replace each pixel by the median of the square of `kernel_size` around it, in place; edges repeat."""
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ParameterError(
                f"kernel_size={kernel_size}: it must be odd, so that the square has a centre"
            )
        size = (kernel_size, kernel_size, *(1,) * (self.ndim - 3))
        return self._replace(lambda frames: _filters(frames).median(frames, size))

    def bilateral_blur_2D(self, diameter: int = 5, sigmaColor: float = 10000, sigmaSpace: float = 0) -> Self:
        """Blur each frame (of volumes each plane) but for its edges, in place.

        Parameters
        ----------
        diameter : int
            Of the disc around each pixel, pixels; 0 or less: three times `sigmaSpace`.
        sigmaColor, sigmaSpace : float
            Standard deviations of the weights, in units of the movie and in pixels; 0 or less: 1.

        Returns
        -------
        self : movie

        References
        ----------
        Tomasi & Manduchi (1998), ICCV 839.
        """
        sigma_value, sigma_space = (sigma if sigma > 0 else 1.0 for sigma in (sigmaColor, sigmaSpace))
        radius = max(1, diameter // 2 if diameter > 0 else round(1.5 * sigma_space))

        def smooth(frames: Array) -> Array:
            planes = _planes(frames)
            blurred = _filters(frames).bilateral(planes, radius, sigma_value, sigma_space)
            return _volumes(blurred, frames.shape)

        return self._replace(smooth)

    def guided_filter_blur_2D(self, guide_filter: ArrayLike, radius: int = 5, eps: float = 0) -> Self:
        """Blur each frame but for the edges of another image, in place.

        Parameters
        ----------
        guide_filter : (d1, d2) array
            The image whose edges stay, e.g. the mean of the movie.
        radius : int
            Of the square window, pixels: its side is ``2 radius + 1``; mirrored at the border.
        eps : float
            Variance of the guide, in its units squared, below which frames are smoothed.

        Returns
        -------
        self : movie

        References
        ----------
        He, Sun & Tang (2013), IEEE Trans. PAMI 35:1397, equations 5, 6 and 8.
        """
        if self.ndim != 3:
            raise NotSupportedError(
                f"guided_filter_blur_2D of {self.shape}: not supported because a guide is one image; filter plane by "
                "plane, movie[..., k]"
            )
        guide = np.asarray(guide_filter, np.float64)
        if guide.shape != self.shape[1:]:
            raise ArrayShapeError(f"the guide has shape {guide.shape}, the frames {self.shape[1:]}")
        if not np.isfinite(guide).all():
            raise MovieValueError("the guide holds NaN or infinite values: replace them first")
        if radius < 0 or eps < 0:
            raise ParameterError(f"radius={radius}, eps={eps}: neither can be negative")
        return self._replace(GuidedFilter(guide, radius, eps))

    def _replace(self, smooth: Callable[[Array], Array]) -> Self:
        """Every frame by what `smooth` makes of it, chunk by chunk; integers are rounded and clipped to their range."""
        values = np.asarray(self)
        if not values.flags.writeable:
            raise ParameterError(
                "the movie is blurred in place but cannot be written to: copy it, or map its file with mode='r+'"
            )

        def step(frames: Array) -> Array:
            smoothed = smooth(frames)
            if self.dtype.kind not in "iu" or smoothed.dtype.kind != "f":
                return smoothed
            xp, limits = backend.arrays.xp(smoothed), np.iinfo(self.dtype)
            whole = xp.clip(xp.round(smoothed), limits.min, limits.max)
            return whole.astype(self.dtype) if self.dtype.itemsize <= 2 else whole

        def sink(start: int, smoothed: NDArray) -> None:
            values[start : start + len(smoothed)] = smoothed

        backend.pipe(open_movie(values), step, sink, working=_WORKING * int(np.prod(self.shape[1:])))
        return self


def _planes(frames: Array) -> Array:
    """Frames (n, d1, d2[, d3]) as images (n d3, d1, d2), C order."""
    if frames.ndim == 3:
        return frames
    xp = backend.arrays.xp(frames)
    return xp.ascontiguousarray(xp.moveaxis(frames, 3, 1)).reshape(-1, *frames.shape[1:3])


def _volumes(planes: Array, shape: tuple[int, ...]) -> Array:
    """What `_planes` was given, of `shape`."""
    if len(shape) == 3:
        return planes
    return backend.arrays.xp(planes).moveaxis(planes.reshape(shape[0], shape[3], *shape[1:3]), 1, 3)


def _filters(frames: Array) -> ModuleType:
    """Filters of the wing on which `frames` lie."""
    filters: ModuleType = backend.wing(frames).filters
    return filters


class GuidedFilter:
    """Frames as locally linear functions of a guide."""

    def __init__(self, guide: NDArray[np.float64], radius: int, eps: float) -> None:
        self._size = (2 * radius + 1,) * 2
        centred = guide - guide.mean()  # its variance is a difference of squares: no large offset
        self._mean = ndimage.uniform_filter(centred, self._size, mode="reflect")
        variance = ndimage.uniform_filter(centred**2, self._size, mode="reflect") - self._mean**2
        flat = variance <= 1e-12 * max((centred**2).max(), np.finfo(np.float64).tiny)
        divisor = np.where(flat, eps, variance + eps)
        self._gain = np.where(flat, 0.0, 1.0 / np.where(divisor > 0, divisor, 1.0))
        self._guide = centred

    def __call__(self, frames: Array) -> Array:
        """a I + b, the means of a = cov(I, p) / (var I + eps) and b = mean p - a mean I over each pixel's windows."""
        xp, box = backend.arrays.xp(frames), _filters(frames).box
        guide, mean, gain = (xp.asarray(x.astype(np.float32)) for x in (self._guide, self._mean, self._gain))
        level = frames.astype(np.float64).mean(axis=(1, 2), keepdims=True).astype(np.float32)
        values = frames.astype(np.float32) - level
        means = box(values, self._size, "reflect")
        slope = (box(values * guide, self._size, "reflect") - means * mean) * gain
        offset = box(means - slope * mean, self._size, "reflect")
        return box(slope, self._size, "reflect") * guide + offset + level
