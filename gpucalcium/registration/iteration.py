"""Registration of frames one after the other, against a template that follows them; and a frame moved by one shift."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.movies.chain import Selection
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.movies.template_matching import Template
from gpucalcium.registration.apply import displace
from gpucalcium.registration.binned import bin_median
from gpucalcium.registration.rigid import border_of

FLAT = 1e-7
"""A match that changes by less over the whole window tells nothing of where the frame lies."""


class OnlineResult(NamedTuple):
    """What `motion_correct_online` found."""

    shifts: NDArray[np.float32]
    """(n_iter, T, ndim) displacement applied to each frame, pixels."""
    xcorrs: NDArray[np.float32]
    """(n_iter, T) correlation with the template as it was then, at the best place; 0 where nothing was found."""
    template: NDArray[np.float32]
    """(d1, d2) after the last frame."""


def apply_shift_iteration(
    img: ArrayLike | Array, shift: ArrayLike, border_nan: bool | str = False
) -> NDArray[np.float32]:
    """An image moved by one displacement: ``out[r, c] = img[r - shift[0], c - shift[1]]``.

    Bicubic interpolation, the image reflected at its border, within its own range. (Stored results of other programs
    have the coordinates of the samples rounded to 1/32 pixel; these are exact.)

    Parameters
    ----------
    img : (d1, d2) array, real; or a volume (d1, d2, d3), which moves by Fourier transform
    shift : (2,) or (3,)
        Pixels, axis order.
    border_nan : True, 'min', 'copy' or False
        What pixels get that came in from outside: NaN, the minimum of the image, the nearest line inside, the
        reflection.

    Returns
    -------
    moved : array of the shape of `img`, float32
        CuPy if `img` is CuPy.

    Raises
    ------
    ArrayShapeError, ParameterError
        Not one finite number per axis; an unknown border.
    """
    border = border_of(border_nan)
    frames = backend.put(img)[None]
    move = np.asarray(backend.to_numpy(shift), np.float32)
    if frames.ndim not in (3, 4) or move.shape != (frames.ndim - 1,):
        raise ArrayShapeError(
            f"an image of shape {frames.shape[1:]} cannot be moved by a shift of shape {move.shape}: give one number "
            "per axis of an image or a volume"
        )
    if not np.isfinite(move).all():
        raise ParameterError(f"shift={move}: finite numbers are needed")
    moves = backend.arrays.xp(frames).asarray(move[None])
    return backend.like(img, displace(frames, moves, border=border)[0])


def motion_correct_iteration(
    img: ArrayLike | Array,
    template: ArrayLike | Array,
    frame_num: int,
    max_shift_w: int = 25,
    max_shift_h: int = 25,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64], float]:
    """One frame moved onto the template by template matching, and the template's running mean with it.

    Parameters
    ----------
    img, template : (d1, d2) array, real
        Pixels of the frame that are not finite take the template's value.
    frame_num : int
        Frames that the template is the mean of already, 0 or more.
    max_shift_w, max_shift_h : int
        Largest shift of columns and rows, pixels; the template is cropped by as much on every side.

    Returns
    -------
    moved : (d1, d2) float32
        Bicubic, the image reflected at its border.
    template : (d1, d2) float32
        ``(frame_num template + moved) / (frame_num + 1)``; as it was where nothing was found.
    shift : (2,) float64
        Applied to the frame, rows first; 0 for a frame without anything of the template.
    corr : float
        Normalised correlation at the best whole-pixel place.

    Raises
    ------
    ArrayShapeError, ParameterError, MovieValueError
        Image and template of different shapes; a bound of half of the frame or more; a template without a number.
    """
    if frame_num < 0:
        raise ParameterError(f"frame_num={frame_num}: the number of frames in the template, 0 or more")
    frame, image, bound = _checked(img, template, max_shift_w, max_shift_h)
    moved, shift, corr = _onto(frame, image, bound)
    onto = image if corr == 0 else _running_mean(image, backend.to_numpy(moved), frame_num)
    return backend.like(img, moved), onto, shift, corr


def motion_correct_iteration_fast(
    img: ArrayLike | Array, template: ArrayLike | Array, max_shift_w: int = 10, max_shift_h: int = 10
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """`motion_correct_iteration` that leaves the template alone: the moved frame and its shift."""
    frame, image, bound = _checked(img, template, max_shift_w, max_shift_h)
    moved, shift, _ = _onto(frame, image, bound)
    return backend.like(img, moved), shift


def motion_correct_online(
    movie_iterable: MovieLike,
    add_to_movie: float = 0.0,
    max_shift_w: int = 25,
    max_shift_h: int = 25,
    *,
    init_frames_template: int = 100,
    template: NDArray | None = None,
    n_iter: int = 1,
) -> OnlineResult:
    """Register frame after frame, as they come, to the running mean of those before.

    One template follows the recording from its first frame to its last, so an error is carried on; where all frames
    are there, `MotionCorrect` is more accurate and, since frames do not wait for each other, faster. The moved
    frames are ``RegisteredMovie(source, shifts[-1])``.

    Parameters
    ----------
    movie_iterable : movie, (T, d1, d2), as `open_movie` takes it
        Read in chunks, once for each of `n_iter`.
    add_to_movie : float
        Added to every frame first; the normalised correlation needs values that are not negative.
    max_shift_w, max_shift_h : int
        Largest shift of columns and rows, pixels.
    init_frames_template : int
        The first template is the `bin_median` of so many frames, and weighs as much as they do.
    template : (d1, d2) array, optional
        What to start from instead, with `add_to_movie` in it, and the same weight.
    n_iter : int
        Times to go through the movie; each starts from the template that the one before left.

    Returns
    -------
    OnlineResult
        ``shifts, xcorrs, template``.

    Raises
    ------
    NotSupportedError
        Volumes.
    ParameterError, ArrayShapeError, MovieValueError
        Numbers below 1; else as `motion_correct_iteration`.
    """
    source = open_movie(movie_iterable)
    if len(source.shape) != 3:
        raise NotSupportedError(
            f"motion_correct_online takes (T, d1, d2), not {source.shape}: templates are slid over images. "
            "MotionCorrect registers volumes"
        )
    if init_frames_template < 1 or n_iter < 1:
        raise ParameterError(
            f"init_frames_template={init_frames_template}, n_iter={n_iter}: both must be 1 or more"
        )
    first = template
    if first is None:
        first = bin_median(Selection(source, slice(init_frames_template))) + np.float32(add_to_movie)
    shifts = np.empty((n_iter, len(source), 2), np.float32)
    xcorrs = np.empty((n_iter, len(source)), np.float32)
    image, bound = _checked_template(first, source.shape[1:], max_shift_w, max_shift_h)
    for k in range(n_iter):
        weight = init_frames_template + k * len(source)
        image = _follow(source, image, weight, bound, add_to_movie, shifts[k], xcorrs[k])
    return OnlineResult(shifts, xcorrs, image)


def _follow(
    source: FrameSource,
    image: NDArray[np.float32],
    weight: int,
    bound: tuple[int, int],
    offset: float,
    shifts: NDArray[np.float32],
    xcorrs: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Shifts and correlations of all frames, in order, where the template weighs as much as `weight` frames.

    Returns the template that they leave.
    """
    at = 0
    for chunk in backend.stream(source):
        for frame in chunk:
            moved, shifts[at], corr = _onto(frame.astype(np.float32) + np.float32(offset), image, bound)
            xcorrs[at] = corr
            if corr:
                image = _running_mean(image, backend.to_numpy(moved), weight + at)
            at += 1
    return image


def _onto(
    frame: Array, image: NDArray[np.float32], bound: tuple[int, int]
) -> tuple[Array, NDArray[np.float64], float]:
    """The frame moved onto the template, its shift, and its correlation; 0 and 0 where nothing was found."""
    matcher = Template(image.astype(np.float64), bound, centred=False)
    match = matcher.correlations(frame[None])
    corr, lowest = (float(x) for x in backend.to_numpy(_extremes(match)))
    one = min(bound) == max(bound) == 0
    if corr <= 0 or (corr - lowest < FLAT and not one):
        return frame.astype(np.float32), np.zeros(2), 0.0
    shift = backend.to_numpy(matcher.shifts(match))[0]
    shift = np.clip(shift, np.negative(bound), bound)
    moves = backend.arrays.xp(frame).asarray(shift[None].astype(np.float32))
    return displace(frame[None], moves, border="reflect")[0], shift, corr


def _extremes(match: Array) -> Array:
    return backend.arrays.xp(match).stack([match.max(), match.min()])


def _running_mean(
    template: NDArray[np.float32], moved: NDArray[np.float32], frames: int
) -> NDArray[np.float32]:
    """Mean of `frames` frames and one more, whose pixels that are not finite change nothing."""
    change = np.where(np.isfinite(moved), moved - template, np.float32(0))
    return (template + change / np.float32(frames + 1)).astype(np.float32)


def _checked(
    img: ArrayLike | Array, template: ArrayLike | Array, max_shift_w: int, max_shift_h: int
) -> tuple[Array, NDArray[np.float32], tuple[int, int]]:
    frame = backend.put(img)
    return frame, *_checked_template(template, frame.shape, max_shift_w, max_shift_h)


def _checked_template(
    template: ArrayLike | Array, dims: tuple[int, ...], max_shift_w: int, max_shift_h: int
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    image = np.asarray(backend.to_numpy(template), np.float32)
    if image.shape != dims or len(dims) != 2:
        raise ArrayShapeError(
            f"template has shape {image.shape}, the frame {dims}: two images (d1, d2) of one shape are matched"
        )
    if not np.isfinite(image).any():
        raise MovieValueError("the template holds no finite number")
    bound = (int(max_shift_h), int(max_shift_w))
    if any(m < 0 or 2 * m >= n for m, n in zip(bound, dims, strict=True)):
        raise ParameterError(
            f"max_shift_h={max_shift_h}, max_shift_w={max_shift_w} for frames of {dims}: whole numbers of pixels, each "
            "less than half of its side"
        )
    return np.where(np.isfinite(image), image, image[np.isfinite(image)].min()), bound
