"""Overlapping patches of a field of view: where they lie, and their pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.cnmf._movie import Cropped
from gpucalcium.errors import ParameterError
from gpucalcium.movies.memmap import TracesSource

Window: TypeAlias = tuple[slice, ...]
"""A slice of step 1 along each axis of the field of view."""

DEFAULT_OVERLAP = 0.2  # of rf


def patch_windows(dims: Sequence[int], rf: Any, stride: Any = None) -> list[Window]:
    """Patches that cover a field of view.

    Parameters
    ----------
    dims : sequence of int
        Field of view.
    rf : number or one per axis
        Half size of a patch, pixels: it reaches so far on both sides of its centre, 2 rf + 1 in all.
    stride : number or one per axis, optional
        Overlap of neighbours, pixels; default: a fifth of `rf`.

    Returns
    -------
    windows : list of tuple of slices
        The first axis outermost. Centres are 2 rf - stride apart; the last patch of an axis ends with the field.
        An axis that is shorter than a patch has one.

    Raises
    ------
    ParameterError
        Not one value or one for each axis, or an overlap that leaves nothing of a patch.
    """
    half = _per_axis(rf, len(dims), "rf")
    overlap = [int(DEFAULT_OVERLAP * r) for r in half]
    if stride is not None:
        overlap = _per_axis(stride, len(dims), "stride")
    per_axis = []
    for n, r, s in zip(dims, half, overlap, strict=True):
        if r < 1 or not 0 <= s < 2 * r:
            raise ParameterError(
                f"rf={rf}, stride={stride}: stride is the overlap of patches of 2 rf + 1 pixels, so it must be from 0 "
                "to 2 rf - 1, and rf 1 or more"
            )
        centres = [*range(r, n - r, 2 * r - s), n - r]
        per_axis.append([slice(max(c - r, 0), min(c + r + 1, n)) for c in centres])
    return list(itertools.product(*per_axis))


def _per_axis(given: Any, axes: int, name: str) -> list[int]:
    values = np.atleast_1d(np.asarray(given)).ravel()
    if len(values) == 1:
        values = np.repeat(values, axes)
    if len(values) != axes:
        raise ParameterError(f"{name}={given!r}: give one number, or {axes}, one for each axis of the image")
    return [int(value) for value in values]


def inside_border(dims: Sequence[int], window: Sequence[slice], border: int) -> Window:
    """`window` without what lies less than `border` pixels from the edge of the field of view.

    Raises
    ------
    ParameterError
        Nothing is left, or `border` is given for a volume.
    """
    if border and len(dims) > 2:
        raise ParameterError(
            f"border_pix={border}: it is for planes, a volume would lose its outer planes as well. Use border_pix=0, "
            "and indices to leave pixels out"
        )
    inside = []
    for n, part in zip(dims, window, strict=True):
        wanted = range(n)[part]
        kept = [i for i in wanted if border <= i < n - border]
        if not kept:
            raise ParameterError(
                f"border_pix={border} leaves nothing of {len(wanted)} pixels of an axis of {n}: use a smaller border"
            )
        inside.append(slice(kept[0], kept[-1] + 1, wanted.step))
    return tuple(inside)


def pixels_of(dims: Sequence[int], window: Window) -> NDArray[np.int64]:
    """Pixels (Fortran order) of the field of view that a window has, in its own Fortran order."""
    axes = [np.arange(n)[part] for n, part in zip(dims, window, strict=True)]
    steps = np.cumprod([1, *dims[:-1]])
    grid = np.ix_(*[axis * step for axis, step in zip(axes, steps, strict=True)])
    total: NDArray[np.int64] = np.sum(np.broadcast_arrays(*grid), axis=0)
    return total.ravel(order="F")


def extract_patch_coordinates(
    dims: Sequence[int],
    rf: Any,
    stride: Any,
    border_pix: int = 0,
    indices: Sequence[slice] | None = None,
) -> tuple[list[NDArray[np.int64]], list[tuple[int, ...]]]:
    """Pixels of every patch, and the patches' shapes.

    Parameters
    ----------
    dims, rf, stride
        See `patch_windows`; `dims` is the whole field of view.
    border_pix : int
        Pixels at each edge that no patch has; planes only.
    indices : sequence of slices, optional
        Part of the field of view; axes that are not named are whole.

    Returns
    -------
    pixels : list of arrays
        Sorted, counted in Fortran order.
    shapes : list of tuples
    """
    given = tuple(indices or ())
    whole = inside_border(dims, given + (slice(None),) * (len(dims) - len(given)), border_pix)
    ranges = [range(n)[part] for n, part in zip(dims, whole, strict=True)]
    windows = patch_windows([len(r) for r in ranges], rf, stride)
    placed = [within(dims, whole, window) for window in windows]
    shapes = [shape_of(window) for window in windows]
    return [np.sort(pixels_of(dims, window)) for window in placed], shapes


def shape_of(window: Window) -> tuple[int, ...]:
    """Size of a window of step 1."""
    return tuple(part.stop - part.start for part in window)


def within(dims: Sequence[int], outer: Sequence[slice], inner: Window) -> Window:
    """A window of a part of a field of view, as a window of the whole field."""
    ranges = [range(n)[a][b] for n, a, b in zip(dims, outer, inner, strict=True)]
    return tuple(slice(r.start, r.stop if r.stop >= 0 else None, r.step) for r in ranges)


# ---------------------------------------------------------------------------- pixels


def reads_windows(source: FrameSource) -> bool:
    """Whether `read_window` is cheap: the movie lies in memory, or trace after trace in a file."""
    base, _ = _base(source, ())
    return getattr(base, "array", None) is not None or isinstance(base, TracesSource)


def read_window(source: FrameSource, window: Window) -> Array:
    """The frames (T, ...) of a window on the active device, in the movie's dtype; of sources with cheap windows.

    Of a file of traces only those of the window's pixels are read.
    """
    base, window = _base(source, window)
    held: Array = getattr(base, "array", None)
    if held is not None:
        return backend.put(held[(slice(None), *window)]).astype(source.dtype, copy=False)
    ranges = [range(n)[part] for n, part in zip(base.shape[1:], window, strict=True)]
    out = np.empty((len(base), *map(len, ranges)), base.dtype)
    rows = range(ranges[0][0], ranges[0][-1] + 1)
    lines = np.empty((len(rows), len(base)), base.stored)  # type: ignore[attr-defined]
    for place in itertools.product(*[range(len(r)) for r in ranges[1:]]):
        first, step = rows[0], base.shape[1]
        for axis, at in enumerate(place, 1):
            first += step * ranges[axis][at]
            step *= base.shape[1 + axis]
        base.traces.read_traces(first, lines)  # type: ignore[attr-defined]
        column: tuple[Any, ...] = (slice(None), slice(None), *place)
        out[column] = lines[:: ranges[0].step].T
    return backend.put(out)


def read_windows(source: FrameSource, windows: Sequence[Window]) -> list[Array]:
    """The frames of several windows, in one pass over the movie."""
    out = [backend.empty((len(source), *shape_of(window)), source.dtype) for window in windows]
    start = 0
    for chunk in backend.stream(source):
        for frames, window in zip(out, windows, strict=True):
            frames[start : start + len(chunk)] = chunk[(slice(None), *window)]
        start += len(chunk)
    return out


def groups_within(source: FrameSource, windows: Sequence[Window], room: int) -> Iterator[list[int]]:
    """Numbers of consecutive windows whose frames fit into `room` bytes together, or one."""
    group: list[int] = []
    taken = 0
    for i, window in enumerate(windows):
        size = window_bytes(source, window)
        if group and taken + size > room:
            yield group
            group, taken = [], 0
        group.append(i)
        taken += size
    if group:
        yield group


def window_bytes(source: FrameSource, window: Window) -> int:
    """Bytes of the frames of a window."""
    return len(source) * math.prod(shape_of(window)) * source.dtype.itemsize


def _base(source: FrameSource, window: Window) -> tuple[FrameSource, Window]:
    """The movie that `source` is a part of, if it is one, and where in that the window lies."""
    while isinstance(source, Cropped):
        if window:
            window = within(source.whole.shape[1:], source.window, window)
        source = source.whole
    return source, window
