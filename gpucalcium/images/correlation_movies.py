"""Movies of correlation images: what is active when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import MemoryBudgetError, ParameterError
from gpucalcium.images.correlations import (
    checked_frames,
    checked_order,
    checked_rate,
    checked_whole,
    correlations,
    planar_steps,
)
from gpucalcium.images.neighbours import Steps
from gpucalcium.images.sliding import Transform, assembled, cumulative_images, fading_images, window_images
from gpucalcium.images.time_axis import open_with_time
from gpucalcium.images.variants import colour_shape, colour_steps, colours
from gpucalcium.movies import baseline, movie, open_movie
from gpucalcium.movies.sources import MovieLike

MODES = ("simple", "exponential", "cumulative")
BLUR_SIGMA, BLUR_RADIUS = 1.0, 2  # pixels: the defaults of movie.gaussian_blur_2D


def local_correlations_movie(
    file_name: MovieLike,
    tot_frames: int | None = None,
    fr: float = 30,
    window: int = 30,
    stride: int = 1,
    swap_dim: bool = True,
    eight_neighbours: bool = True,
    mode: str = "simple",
) -> Array:
    """Local correlations in a window that moves along the movie.

    One pass: frames enter and leave the sums of the window, no window is worked out anew.

    Parameters
    ----------
    file_name : array-like or path, (d1, d2[, d3], T) if `swap_dim`, else (T, d1, d2[, d3]), any real dtype
        As `local_correlations` takes it.
    tot_frames : int, optional
        Only the first so many frames.
    fr : float, Hz
        Frame rate of the movie.
    window : int
        Frames, 1 to T.
    stride : int
        Frames from one image to the next, 1 or more.
    swap_dim, eight_neighbours
        As in `local_correlations`.
    mode : {"simple", "exponential", "cumulative"}
        "simple": image k is that of frames ``k stride`` to ``k stride + window - 1``. "cumulative": of all frames up to
        there. "exponential": of all frames up to there, the first `window` with equal weights, each later one entering
        with the weight 1 / window while all before keep 1 - 1 / window of theirs.

    Returns
    -------
    rho : movie, ((T - window) // stride + 1, d1, d2[, d3]) float32
        With the frame rate ``fr / stride``; a CuPy array if the movie is CuPy. As `local_correlations`; a pixel that
        is not finite is NaN in the images in which that frame has weight.

    Raises
    ------
    ParameterError
        Unknown `mode`; `tot_frames`, `fr`, `window` or `stride` out of range.
    MemoryBudgetError
        "simple": the frames of two windows do not fit half of the memory budget.

    Notes
    -----
    "simple": sums are float64, exact on integers, and start anew every 128 frames or every window, whichever is
    longer; on floats what an extremely bright frame leaves behind by rounding lasts no longer.
    """
    if mode not in MODES:
        raise ParameterError(f"mode={mode!r}: expected one of {', '.join(MODES)}")
    rate = checked_rate(fr)
    source = open_with_time(file_name, swap_dim)
    n = checked_frames(source, tot_frames, "tot_frames")
    window, stride = checked_whole(window, "window"), checked_whole(stride, "stride")
    if window > n:
        raise ParameterError(f"window={window}: the movie has {n} frames; give 1 to {n}")
    starts = range(0, n - window + 1, stride)
    ends = range(window, n + 1, stride)
    steps = planar_steps(source.shape[1:], eight_neighbours)
    match mode:
        case "simple" if stride >= window:
            images = _each(source, starts, window, steps)
        case "simple":
            images = window_images(source, starts, window, steps)
        case "cumulative":
            images = cumulative_images(source, ends, steps)
        case _:
            images = fading_images(source, ends, window, steps)
    result = backend.like(file_name, assembled(source, images, (len(starts), *source.shape[1:])))
    return result if backend.is_cupy(result) else movie(result, fr=rate / stride)


def local_correlations_movie_offline(
    file_name: MovieLike,
    Tot_frames: int | None = None,
    fr: float = 10,
    window: int = 100,
    stride: int = 100,
    swap_dim: bool = True,
    eight_neighbours: bool = True,
    order_mean: int = 1,
    ismulticolor: bool = False,
    dview: object = None,
    remove_baseline: bool = False,
    winSize_baseline: int = 50,
    quantil_min_baseline: float = 8,
    gaussian_blur: bool = False,
) -> Array:
    """Local correlations of windows of a movie, one image per window, the last aligned to the end.

    Windows that overlap are not worked out anew: frames enter and leave sums, as in `local_correlations_movie`. With
    `remove_baseline` or `ismulticolor` each window is read and summed by itself.

    Parameters
    ----------
    file_name, swap_dim, eight_neighbours, order_mean
        As `Y` and the same of `local_correlations`.
    Tot_frames : int, optional
        Only the first so many frames.
    fr : float, Hz
        Frame rate of the movie.
    window : int
        Frames; a shorter movie is one window.
    stride : int
        Frames from one window to the next, 1 or more.
    ismulticolor : bool
        Images of `local_correlations_multicolor`, for which `eight_neighbours` and `order_mean` mean nothing.
    dview
        Taken for the sake of callers, who name workers with it: windows are worked on here, by all threads.
    remove_baseline : bool
        Subtract from each window the running percentile of each pixel in it, see ``movie.removeBL``.
    winSize_baseline : int
        Its window, frames.
    quantil_min_baseline : float
        The percentile, 0 to 100.
    gaussian_blur : bool
        Then blur each frame (of volumes each plane) with a Gaussian of 1 pixel, see ``movie.gaussian_blur_2D``. It
        spreads noise to neighbours, too: correlations of 0.7 to 0.8 then mean nothing.

    Returns
    -------
    rho : movie, (N, d1, d2[, d3]) float32, or (N, d1 - 1, d2 - 1[, d3], 3) if `ismulticolor`
        With the frame rate ``fr / stride``, N = 1 + ceil((T - window) / stride); a CuPy array if the movie is CuPy.

    Raises
    ------
    ParameterError
        `Tot_frames`, `fr`, `window`, `stride`, `order_mean`, `winSize_baseline` or `quantil_min_baseline` out of range.
    MemoryBudgetError
        Windows that overlap, or of which the baseline is removed, are held in memory, and do not fit.
    """
    order, rate = checked_order(order_mean), checked_rate(fr)
    source = open_with_time(file_name, swap_dim)
    n = checked_frames(source, Tot_frames, "Tot_frames")
    window, stride = checked_whole(window, "window"), checked_whole(stride, "stride")
    winSize_baseline = checked_whole(winSize_baseline, "winSize_baseline")
    baseline.check_quantile(quantil_min_baseline, "quantil_min_baseline")
    window = min(window, n)
    starts = range(0, n - window + 1, stride)
    rest = [] if starts[-1] == n - window else [n - window]
    transform = _blur if gaussian_blur else None
    level = (winSize_baseline, quantil_min_baseline) if remove_baseline else None
    dims = source.shape[1:]
    steps = colour_steps(dims) if ismulticolor else planar_steps(dims, eight_neighbours)

    def images() -> Iterator[Array]:
        if stride < window and not (remove_baseline or ismulticolor):
            yield from window_images(source, starts, window, steps, order, transform)
            yield from _each(source, rest, window, steps, order, transform)
        else:
            yield from _each(source, [*starts, *rest], window, steps, order, transform, level, ismulticolor)

    shape = (len(starts) + len(rest), *(colour_shape(dims) if ismulticolor else dims))
    result = backend.like(file_name, assembled(source, images(), shape))
    return result if backend.is_cupy(result) else movie(result, fr=rate / stride)


def _each(
    source: FrameSource,
    starts: Iterable[int],
    window: int,
    steps: Steps,
    order: int = 1,
    transform: Transform | None = None,
    level: tuple[int, float] | None = None,
    in_colour: bool = False,
) -> Iterator[Array]:
    """The image of each window from sums of its own."""
    for start in starts:
        part, frames = source, slice(start, start + window)
        if level is not None:
            part, frames = open_movie(_levelled(source, frames, *level)), slice(None)
        sums = correlations(part, steps, frames, transform)
        yield colours(sums)[None] if in_colour else sums.device_image(order)[None]


def _levelled(source: FrameSource, frames: slice, window: int, percentile: float) -> NDArray[np.float32]:
    """Frames of a movie without the running percentile of each pixel in them; on the host."""
    dtype = np.result_type(source.dtype, np.float32)
    shape = (frames.stop - frames.start, *source.shape[1:])
    need = math.prod(shape) * (dtype.itemsize + 4)
    if need > backend.budget() // 2:
        allowed = size_text(backend.budget() // 2)
        raise MemoryBudgetError(
            f"remove_baseline holds {shape[0]} frames of {shape[1:]} at a time, which takes {size_text(need)}; half of "
            f"the memory budget is {allowed}. Use shorter windows, or give more with GPUCALCIUM_MEMORY or "
            "backend.limit(memory=...)"
        )
    held, done = np.empty(shape, dtype), 0
    with backend.limit(memory=backend.budget() - need):
        for chunk in backend.stream(source, frames=frames):
            held[done : done + len(chunk)] = backend.to_numpy(chunk)
            done += len(chunk)
    result = np.empty(shape, np.float32)
    baseline.window_baseline(held, window, percentile).subtract_from(held, "only_baseline", result)
    return result


def _blur(frames: Array) -> Array:
    along_planes = (0,) * (frames.ndim - 3)
    sigma, radius = (BLUR_SIGMA, BLUR_SIGMA, *along_planes), (BLUR_RADIUS, BLUR_RADIUS, *along_planes)
    return backend.wing(frames).filters.gaussian(frames, sigma, radius, "replicate")
