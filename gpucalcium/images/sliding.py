"""Correlation images of windows that move along a movie, without working out any window anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource, stencils
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import MemoryBudgetError
from gpucalcium.images.neighbours import NeighbourCorrelations, Steps, images_of, step_offsets

BATCH = 8  # images that are worked out at once: few launches, and a bounded number of sums
SHORTEST_RUN = 128  # frames from one start of the sums to the next, at least: each sums a window once more

Transform = Callable[[Array], Array]
"""Frames in, frames of the same shape out, on their device."""
TRANSFORM_WORKING = 32  # bytes a pixel of each frame that a transform may take


def window_images(
    source: FrameSource,
    starts: range,
    window: int,
    steps: Steps,
    order: int = 1,
    transform: Transform | None = None,
) -> Iterator[Array]:
    """Correlation image of each window of `window` frames, from one pass over the movie.

    A frame that enters is added to the sums, one that leaves is subtracted. Sums start anew, at zero, once a window
    has passed (128 frames, if it is shorter): rounding does not pile up. Where they start depends on `starts` and
    `window` alone, so chunks, threads and device do not change a bit.

    Parameters
    ----------
    source : FrameSource
    starts : range
        First frame of each window; at least one.
    window : int
        Frames; no window may end beyond the movie.
    steps : sequence of tuples
        To the forward neighbours.
    order : int
        As `local_correlations` has it.
    transform : callable, optional
        Applied to each chunk of frames; gives float32.

    Yields
    ------
    images : (n, d1, d2[, d3]) float32
        Of the next windows, on the device.

    Raises
    ------
    MemoryBudgetError
        The frames of two windows do not fit the memory budget.
    """
    per_run = -(-max(window, SHORTEST_RUN) // starts.step)
    length = (min(per_run, len(starts)) - 1) * starts.step + window
    frames = slice(starts[0], starts[-1] + window)
    working = BATCH * (4 + len(steps)) * 8 * math.prod(source.shape[1:])  # sums of a batch, and their scales
    for run in _runs(source, frames, length, per_run * starts.step, window, working, transform):
        yield from _slide(run, window, starts.step, steps, order)


def cumulative_images(source: FrameSource, ends: range, steps: Steps) -> Iterator[Array]:
    """Correlation image of all frames before each of `ends`; as `window_images` yields."""
    sums = NeighbourCorrelations(source.shape[1:], steps)
    at = 0
    for chunk in backend.stream(source, frames=slice(ends[-1]), working=sums.working(source.dtype)):
        for piece in _cut(chunk, at, ends):
            sums.add(piece)
            at += len(piece)
            if at in ends:
                yield sums.device_image()[None]


def fading_images(source: FrameSource, ends: range, window: int, steps: Steps) -> Iterator[Array]:
    """Correlation image before each of `ends` in which a frame weighs less the older it is.

    The first is that of the first `window` frames, which weigh alike; each later frame enters with the weight
    1 / window, and all before it keep 1 - 1 / window of theirs. As `window_images` yields.
    """
    start = NeighbourCorrelations(source.shape[1:], steps)
    for chunk in backend.stream(source, frames=slice(window), working=start.working(source.dtype)):
        start.add(chunk)
    yield start.device_image()[None]
    pilot, offsets, mean, moments = start.moments()
    at = window
    working = start.working(source.dtype) + 8 * mean.size  # departures from the mean
    for chunk in backend.stream(source, frames=slice(window, ends[-1]), working=working):
        for piece in _cut(chunk, at, ends):
            backend.wing(piece).sliding.fade(piece, 1.0 / window, pilot, offsets, mean, moments)
            at += len(piece)
            if at in ends:
                yield images_of(moments[None], 1.0, source.shape[1:], steps)


def assembled(source: FrameSource, images: Iterator[Array], shape: tuple[int, ...]) -> Array:
    """All images in one array of `shape`: on the GPU where the movie lies there, else on the host."""
    on_gpu = backend.is_cupy(getattr(source, "array", None))
    result, done = None, 0
    for some in images:
        if result is None:
            result = (backend.array_module(some) if on_gpu else np).empty(shape, "float32")
        result[done : done + len(some)] = some if on_gpu else backend.to_numpy(some)
        done += len(some)
    return result


def _cut(chunk: Array, at: int, ends: range) -> Iterator[Array]:
    """The chunk that starts at frame `at`, cut after each of `ends`."""
    inside = []
    for end in ends[max(0, (at - ends.start) // ends.step + 1) :]:
        if end >= at + len(chunk):
            break
        inside.append(end - at)
    for a, b in zip([0, *inside], [*inside, len(chunk)], strict=True):
        yield chunk[a:b]


def _slide(run: Array, window: int, stride: int, steps: Steps, order: int) -> Iterator[Array]:
    """Images of all windows of the frames of a run that start every `stride` frames."""
    module, dims = backend.array_module(run), run.shape[1:]
    pixels, rows = math.prod(dims), 2 + len(steps)
    offsets = module.asarray(step_offsets(steps, dims))
    sums, last = module.zeros((rows, pixels), "float64"), module.full(pixels, np.nan, "float32")
    counts = module.zeros((2, pixels), "int32")
    first, number = 0, (len(run) - window) // stride + 1
    for done in range(0, number, BATCH):
        count = min(BATCH, number - done)
        at = window - 1 + done * stride
        snapshots = module.empty((count, rows, pixels), "float64")
        backend.wing(run).sliding.slide(
            run, first, window, run[0], offsets, sums, last, counts, at, stride, snapshots
        )
        first = at + (count - 1) * stride + 1
        yield images_of(snapshots, window, dims, steps, order)


def _runs(
    source: FrameSource,
    frames: slice,
    length: int,
    step: int,
    shortest: int,
    working: int,
    transform: Transform | None,
) -> Iterator[Array]:
    """Runs of `length` frames, one every `step` frames, from one reading; the last may be as short as `shortest`.

    `working`: bytes that are taken beside the frames.
    """
    dtype = np.dtype("float32") if transform else stencils.compiled_dtype(source.dtype, wide="f8")
    frame = math.prod(source.shape[1:]) * dtype.itemsize
    need = 2 * length * frame + working
    if need > backend.budget() // 2:
        raise MemoryBudgetError(
            f"windows of {shortest} frames of {source.shape[1:]} are held {length} frames at a time, which "
            f"takes {size_text(need)}; half of the memory budget is {size_text(backend.budget() // 2)}. Use shorter "
            "windows, a stride of at least a window, or give more with GPUCALCIUM_MEMORY or backend.limit(memory=...)"
        )
    transforming = TRANSFORM_WORKING * math.prod(source.shape[1:]) if transform else 0
    with backend.limit(memory=backend.budget() - need):
        chunks = backend.stream(source, frames=frames, working=transforming)
    run: Array = None
    held = 0
    for chunk in chunks:
        chunk = transform(chunk) if transform else chunk
        if run is None:
            run = backend.array_module(chunk).empty((length, *source.shape[1:]), dtype)
        done = 0
        while done < len(chunk):
            more = min(len(chunk) - done, length - held)
            run[held : held + more] = chunk[done : done + more]
            held, done = held + more, done + more
            if held == length:
                yield run
                held = max(0, length - step)
                run[:held] = run[length - held :].copy()
    if held >= shortest:
        yield run[:held]
