"""Frames into traces and back, in the memory of the host: files are written and read there, whatever the device."""

from __future__ import annotations

import numba as nb
from numpy.typing import NDArray

TILE = 8  # values a side of what is turned in registers: constant, so that it is unrolled into shuffles


def to_traces(frames: NDArray, rows: slice, columns: slice, traces: NDArray) -> None:
    """Traces of a rectangle of pixels, down its columns: ``traces[x * R + r, t] = frames[t, rows][r, columns][x]``.

    R is the number of rows. Values are converted as assignment does.

    Parameters
    ----------
    frames : (n, lines, pixels of a line), C order, native integers or floats
    rows, columns : slice
        Lines, and a piece of each; with start and stop.
    traces : (pixels or more, n or more), C order, native integers or floats
        Fastest where it stays in the cache, and its traces do not lie a multiple of 2 KiB apart.
    """
    _to_traces(frames, rows.start, rows.stop, columns.start, columns.stop, traces)


def to_frames(traces: NDArray, start: int, rows: slice, columns: slice, frames: NDArray) -> None:
    """The inverse of `to_traces`: fills the rectangle of `frames` with the traces from their value `start` on."""
    _to_frames(traces, start, rows.start, rows.stop, columns.start, columns.stop, frames)


@nb.njit(nogil=True, cache=True)
def _to_traces(frames, row, end_row, column, end_column, traces):  # type: ignore[no-untyped-def]
    n, rows, columns = len(frames), end_row - row, end_column - column
    whole_n, whole_columns = n // TILE * TILE, columns // TILE * TILE
    for t in range(0, whole_n, TILE):
        for r in range(rows):
            for x in range(0, whole_columns, TILE):
                tile = frames[t : t + TILE, row + r, column + x : column + x + TILE]
                turned = traces[x * rows + r :, t : t + TILE]
                for i in range(TILE):
                    for j in range(TILE):
                        turned[i * rows, j] = tile[j, i]
    for t in range(n):
        for r in range(rows):
            for x in range(whole_columns if t < whole_n else 0, columns):
                traces[x * rows + r, t] = frames[t, row + r, column + x]


@nb.njit(nogil=True, cache=True)
def _to_frames(traces, start, row, end_row, column, end_column, frames):  # type: ignore[no-untyped-def]
    n, rows, columns = len(frames), end_row - row, end_column - column
    whole_n, whole_columns = n // TILE * TILE, columns // TILE * TILE
    for t in range(0, whole_n, TILE):
        for r in range(rows):
            for x in range(0, whole_columns, TILE):
                tile = traces[x * rows + r :, start + t : start + t + TILE]
                turned = frames[t : t + TILE, row + r, column + x : column + x + TILE]
                for j in range(TILE):
                    for i in range(TILE):
                        turned[j, i] = tile[i * rows, j]
    for t in range(n):
        for r in range(rows):
            for x in range(whole_columns if t < whole_n else 0, columns):
                frames[t, row + r, column + x] = traces[x * rows + r, start + t]
