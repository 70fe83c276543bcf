"""Methods of `movie` against motion: template matching, and moving frames by known shifts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.movies.baseline import percentile
from gpucalcium.movies.template_matching import (
    MATCHES,
    ORDERS,
    SUBTRACTED_BELOW,
    TAPS,
    Template,
    find_shifts,
    move,
    move_by_spline,
)
from gpucalcium.movies.timeseries import timeseries

_SAMPLE = 1e8  # values of the frames that a first template is made from
_GIVEN_FLOOR = 8  # percentile that a given template loses


class Aligning(timeseries):
    """What `movie` inherits from this file."""

    if TYPE_CHECKING:

        def bin_median(self, window: int = 10) -> NDArray[np.float32]: ...

    def extract_shifts(
        self,
        max_shift_w: int = 5,
        max_shift_h: int = 5,
        template: ArrayLike | None = None,
        method: str = "opencv",
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shift of every frame against a template, by sliding the template over the frame.

        Parameters
        ----------
        max_shift_w, max_shift_h : int
            Largest shift of columns and rows, pixels; the template is cropped by as much on every side.
        template : (d1, d2) array, optional
            Default: median of the movie.
        method : {'opencv', 'skimage'}
            Correlation of the values, or of their deviations from the mean.

        Returns
        -------
        shifts : (T, 2) float32
            Displacement (rows, columns) to be applied to each frame, see `apply_shifts`.
        xcorrs : (T, 1) float32
            Mean correlation over all displacements tried.

        Raises
        ------
        ArrayShapeError, ParameterError
            No movie of images, a template of another shape, shifts larger than the frame allows, unknown method.
        MovieValueError
            The template has no finite value.
        """
        bound = self._bound(max_shift_w, max_shift_h, method)
        sample = np.asarray(self._sample())
        image = median_image(sample) if template is None else np.asarray(template, np.float32)
        if image.shape != self.shape[1:]:
            raise ArrayShapeError(f"template has shape {image.shape}, the frames {self.shape[1:]}")
        if not np.isfinite(image).any():
            raise MovieValueError("the template holds no finite number")
        image = np.where(np.isfinite(image), image, image[np.isfinite(image)].min())
        is_signed = np.nanmin(sample) < SUBTRACTED_BELOW  # else no percentile can be
        lowest = float(np.nanpercentile(sample, 1)) if is_signed else 0.0
        offset = lowest if lowest < SUBTRACTED_BELOW else 0.0
        shifts, means = find_shifts(
            np.asarray(self),
            Template((image - offset).astype(np.float64), bound, method == "skimage"),
            offset,
        )
        return shifts, means[:, None]

    def apply_shifts(
        self,
        shifts: ArrayLike,
        interpolation: str = "linear",
        method: str = "opencv",
        remove_blanks: bool = False,
    ) -> Self:
        """Move every frame, the image reflected at its border and kept within the frame's own range.

        Parameters
        ----------
        shifts : (T, 2) array, or (T, 3) of volumes
            Displacement of each frame, pixels, in axis order.
        interpolation : {'nearest', 'linear', 'cubic', 'area', 'lanczos4'}
            'area' is 'linear': a shift changes no sizes. Volumes move by Fourier transform whatever is asked for.
        method : {'opencv', 'skimage'}
            Cubic weights with a = -0.75 as in OpenCV, or by scikit-image, whose cubic weights have a = -0.5, and
            which does no 'area' and 'lanczos4' (images only).
        remove_blanks : bool
            Cut off what came in from outside in any frame.

        Returns
        -------
        moved : movie, float32

        Raises
        ------
        ParameterError
            "Interpolation method not available", an unknown method, or nothing left by `remove_blanks`.
        """
        _check_interpolation(interpolation, method)
        given = np.asarray(shifts, np.float32)
        if given.shape != (len(self), self.ndim - 1):
            raise ArrayShapeError(
                f"shifts have shape {given.shape}; {len(self)} frames of {self.ndim - 1} axes need "
                f"{(len(self), self.ndim - 1)}"
            )
        if not np.isfinite(given).all():
            raise ParameterError("shifts hold NaN or infinite values: give 0 for frames that stay")
        moved: Self = self._wrap(
            move_by_spline(np.asarray(self), given, ORDERS[interpolation])
            if method == "skimage" and self.ndim == 3
            else move(np.asarray(self), given, interpolation)
        )
        if remove_blanks:
            rows, columns = (_inside(n, s) for n, s in zip(self.shape[1:3], given.T, strict=False))
            return self._wrap(np.asarray(moved)[:, rows, columns])
        return moved

    def apply_shifts_online(
        self, xy_shifts: Sequence[ArrayLike] | NDArray, save_base_name: str | os.PathLike[str] | None = None
    ) -> Self | str:
        """Move every frame by bicubic interpolation; into a memory map if a name is given.

        Parameters
        ----------
        xy_shifts : (T, 2) array
            Displacement of each frame, pixels, rows first.
        save_base_name : path, optional
            How the name of the memory map (frame after frame) begins.

        Returns
        -------
        moved : movie, float32; or the name of the memory map
        """
        moved = self.apply_shifts(np.asarray(xy_shifts), "cubic")
        if save_base_name is None:
            return moved
        from gpucalcium.movies.memmap_files import save_memmap

        return save_memmap([moved], base_name=os.fspath(save_base_name), order="F")

    def motion_correct(
        self,
        max_shift_w: int = 5,
        max_shift_h: int = 5,
        num_frames_template: int | None = None,
        template: ArrayLike | None = None,
        method: str = "opencv",
        remove_blanks: bool = False,
        interpolation: str = "cubic",
    ) -> tuple[Self, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Rigid motion correction by template matching, see `extract_shifts` and `apply_shifts`.

        Without a template: some frames are registered to their `bin_median`, the whole movie to that of the result,
        and once more to its own.

        Parameters
        ----------
        max_shift_w, max_shift_h : int
            Largest shift of columns and rows, pixels.
        num_frames_template : int, optional
            Every so many frames make the first template; default: so that they are at most 1e8 values.
        template : (d1, d2) array, optional
            What to register to instead, its 8th percentile taken off it and the frames' own off them.
        method, remove_blanks, interpolation
            As in `extract_shifts` and `apply_shifts`.

        Returns
        -------
        moved : movie, float32
        shifts : (T, 2) float32
        xcorrs : (T, 1) float32
        template : (d1, d2) float32
            What the shifts refer to.
        """
        search = (max_shift_w, max_shift_h)
        self._bound(*search, method)
        _check_interpolation(interpolation, method)
        if template is None:
            some = self._sample(num_frames_template)
            shifts, _ = some.extract_shifts(*search, some.bin_median(), method)
            image = some.apply_shifts(shifts, interpolation, method).bin_median()
            shifts, _ = self.extract_shifts(*search, image, method)
            image = self.apply_shifts(shifts, interpolation, method).bin_median()
        else:
            image = np.asarray(template, np.float32)
            image = image - np.float32(np.nanpercentile(image, _GIVEN_FLOOR))
        shifts, xcorrs = self.extract_shifts(*search, image, method)
        return self.apply_shifts(shifts, interpolation, method, remove_blanks), shifts, xcorrs, image

    def motion_correct_3d(
        self,
        max_shift_z: int = 5,
        max_shift_w: int = 5,
        max_shift_h: int = 5,
        num_frames_template: int | None = None,
        template: ArrayLike | None = None,
        method: str = "opencv",
        remove_blanks: bool = False,
        interpolation: str = "cubic",
    ) -> tuple[Self, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Rigid motion correction of volumes, by `gpucalcium.registration.register_rigid`.

        Parameters
        ----------
        max_shift_z, max_shift_w, max_shift_h : int
            Largest shift of planes (axis 3), columns (axis 2) and rows (axis 1), pixels.
        num_frames_template : int, optional
            Not supported: the first template is made from frames spread over the movie.
        template : (d1, d2, d3) array, optional
            What to register to; default: made from the movie.
        method : {'opencv', 'skimage'}
            Two names of one computation.
        remove_blanks : bool
            Cut off rows and columns (not planes) that came in from outside.
        interpolation : {'cubic'}
            Volumes move by Fourier transform; other values raise.

        Returns
        -------
        moved : movie, float32
        shifts : (T, 3) float32
        xcorrs : (T, 1) float32
            Correlation of each frame with the template.
        template : (d1, d2, d3) float32
        """
        from gpucalcium.movies.sources import open_movie
        from gpucalcium.registration import RigidParams, register_rigid

        if self.ndim != 4:
            raise ArrayShapeError(
                f"motion_correct_3d takes (T, d1, d2, d3), not {self.shape}; use motion_correct"
            )
        if num_frames_template is not None or interpolation != "cubic":
            raise ParameterError(
                "num_frames_template and interpolation are not supported for volumes: the first template comes from "
                "frames spread over the movie, and volumes move by Fourier transform"
            )
        _check_method(method)
        params = RigidParams(max_shifts=(max_shift_h, max_shift_w, max_shift_z))
        given = None if template is None else np.asarray(template, np.float32)
        result = register_rigid(open_movie(np.asarray(self)), params, template=given)
        moved = self.apply_shifts(result.shifts, interpolation, method, remove_blanks)
        return moved, result.shifts, result.quality.peak[:, None], result.used_template

    def _sample(self, every: int | None = None) -> Self:
        if every is not None and every < 1:
            raise ParameterError(f"num_frames_template={every}: every so many frames, 1 or more")
        sample: Any = self[:: every or max(1, int(self.size / _SAMPLE))]
        return sample

    def _bound(self, max_shift_w: int, max_shift_h: int, method: str) -> tuple[int, int]:
        _check_method(method)
        if self.ndim != 3:
            raise ArrayShapeError(
                f"template matching takes (T, d1, d2), not {self.shape}; use motion_correct_3d for volumes"
            )
        given = (max_shift_h, max_shift_w)
        if any(m < 0 or m != int(m) or 2 * m >= n for m, n in zip(given, self.shape[1:], strict=True)):
            raise ParameterError(
                f"max_shift_h={max_shift_h}, max_shift_w={max_shift_w} for frames of {self.shape[1:]}: whole numbers "
                "of pixels, each less than half of its side"
            )
        return int(max_shift_h), int(max_shift_w)


def median_image(frames: NDArray) -> NDArray[np.float32]:
    """Median of each pixel over `frames` (n, ...), NaN left out; NaN where there is nothing else."""
    return percentile(frames, 50, skip_nan=True)


def _inside(length: int, shifts: NDArray[np.float32]) -> slice:
    """What is known of an axis after every one of the `shifts`."""
    first = int(np.ceil(max(0.0, float(shifts.max()))))
    last = length - int(np.ceil(max(0.0, -float(shifts.min()))))
    if first >= last:
        raise ParameterError(f"remove_blanks: the shifts leave nothing of an axis of {length} pixels")
    return slice(first, last)


def _check_method(method: str) -> None:
    if method not in MATCHES:
        raise ParameterError(f"Method unknown: {method!r}; expected one of {', '.join(MATCHES)}")


def _check_interpolation(interpolation: str, method: str) -> None:
    _check_method(method)
    offered = ORDERS if method == "skimage" else TAPS
    if interpolation not in offered:
        raise ParameterError(
            f"Interpolation method not available: {interpolation!r}; with method={method!r} expected one of "
            f"{', '.join(offered)}"
        )
