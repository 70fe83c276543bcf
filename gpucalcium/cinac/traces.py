"""Traces of cells: the mean of the raw movie over their pixels, smoothed, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource, arrays
from gpucalcium.backend.stencils import compiled_dtype

SMOOTHING_WINDOW = 7  # frames
CONSTANT = 1e-12  # of its largest value: a trace that varies less does not vary
DISPLAY_OFFSET = 2.0  # deviations by which a normalised smooth trace is drawn below its raw one


def mean_traces(source: FrameSource, pixels: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(N, T) mean of each frame over the pixels of each cell, in the units of the movie; one pass, in chunks.

    Parameters
    ----------
    source : FrameSource, (T, d1, d2[, d3])
    pixels : sequence of (n,) int64
        For each cell its pixels, in C order.

    Returns
    -------
    traces : (N, T) float64
        Pixels that are NaN are left out; NaN where there is no other, and for a cell without pixels.
    """
    rows = np.concatenate([np.empty(0, np.int64), *pixels])
    ends = np.cumsum([0, *map(len, pixels)]).astype(np.int64)
    columns = ends, rows, np.ones(len(rows), np.float32)
    traces, done = np.empty((len(pixels), source.shape[0])), 0
    frame_bytes = int(np.prod(source.shape[1:])) * source.dtype.itemsize
    for chunk in backend.stream(source, working=16 * len(pixels) + 2 * frame_bytes):
        columns = tuple(backend.like(chunk, x) for x in columns)  # stay there from the first chunk on
        for means in backend.retry_halved(partial(_means, columns=columns, sizes=np.diff(ends)), chunk):
            traces[:, done : done + len(means)] = means.T
            done += len(means)
    return traces


def _means(frames: Array, columns: tuple[Array, ...], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, N) means of frames over the pixels of each cell, on the host."""
    flat = frames.reshape(len(frames), -1)
    flat = flat.astype(compiled_dtype(flat.dtype, wide="f8"), copy=False)
    sums = _sums(flat, columns)
    counts: NDArray = np.broadcast_to(sizes, sums.shape)
    if np.isnan(sums).any():
        xp = arrays.xp(flat)
        present = ~xp.isnan(flat)
        sums = _sums(xp.where(present, flat, xp.zeros_like(flat)), columns)
        counts = _sums(present.astype("float32"), columns)
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _sums(flat: Array, columns: tuple[Array, ...]) -> NDArray[np.float64]:
    """(n, N) sums of frames (n, d) over the pixels of each cell, on the host."""
    out = backend.array_module(flat).empty((len(flat), len(columns[0]) - 1), "float64")
    backend.wing(flat).products.project(flat, *columns, out)
    return backend.to_numpy(out)


def smoothed(traces: NDArray, window: int = SMOOTHING_WINDOW) -> NDArray[np.float64]:
    """Traces (..., T) convolved with a Hamming window of unit sum; ends are reflected, without repeating the last."""
    weights = np.hamming(window) / np.hamming(window).sum()
    reach = window // 2
    ends = [(0, 0)] * (np.ndim(traces) - 1) + [(reach, reach)]
    padded = np.pad(np.asarray(traces, np.float64), ends, mode="reflect")
    n = np.shape(traces)[-1]
    total = np.zeros(np.shape(traces))
    for k, weight in enumerate(weights):  # in this order for any number of traces
        total += weight * padded[..., k : k + n]
    return total


def z_scored(traces: NDArray) -> NDArray[np.float64]:
    """Each trace (..., T) less its mean, in standard deviations; zeros where it is constant or NaN."""
    traces = np.asarray(traces, np.float64)
    present = ~np.isnan(traces)
    counts = np.maximum(present.sum(axis=-1, keepdims=True), 1)
    mean = np.where(present, traces, 0).sum(axis=-1, keepdims=True) / counts
    centred = np.where(present, traces - mean, 0)
    std = np.sqrt((centred**2).sum(axis=-1, keepdims=True) / counts)
    size = np.where(present, np.abs(traces), 0).max(axis=-1, keepdims=True, initial=0)
    moves = std > CONSTANT * size  # the mean of equal numbers is off by rounding
    return np.divide(centred, std, out=np.zeros_like(centred), where=moves)
