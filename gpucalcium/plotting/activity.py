"""When cells are active: what a network says, beside traces and spikes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting import style
from gpucalcium.plotting.traces import ROW_HEIGHT, draw_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACTIVE_FROM = 0.5
ROW = 1.0
TRACE_SHARE = 0.72  # of a row's height, above the spikes


def activity_figure(
    traces: NDArray,
    probabilities: NDArray,
    *,
    frame_rate: float,
    spikes: NDArray | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Traces one above the other, each as tall as the next, with the frames marked in which a cell is active.

    Parameters
    ----------
    traces : (n, T)
    probabilities : (n, T)
        Of activity; frames from 0.5 on are marked.
    frame_rate : float
        Hz.
    spikes : (n, T), optional
        Ticks where positive, as long as the spike is large beside the cell's largest.
    names : sequence of str, optional
        Written before each trace; default 1, 2, ...

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArrayShapeError
        The arrays differ in shape.
    MissingExtraError
        Matplotlib is not installed.
    """
    for other in (probabilities, spikes):
        if other is not None and other.shape != traces.shape:
            raise ArrayShapeError(f"traces of shape {traces.shape} beside {other.shape}: all must be (n, T)")
    n, frames = traces.shape
    figure = style.new_figure(style.TWO_COLUMNS, ROW_HEIGHT * max(n, 2) + 0.6)
    axes = figure.add_subplot()
    t = np.arange(frames) / frame_rate
    for row in range(n):
        low, high = np.nanpercentile(traces[row], [1, 99.9]) if frames else (0.0, 1.0)
        scaled = (traces[row] - low) / (high - low if high > low else 1.0) * TRACE_SHARE
        of_row = None if spikes is None else spikes[row]
        draw_trace(axes, t, scaled, None, of_row, base=-row * ROW, tick=0.2 * ROW)
        edges = np.flatnonzero(np.diff(probabilities[row] >= ACTIVE_FROM, prepend=False, append=False))
        spans = [(first / frame_rate, (stop - first) / frame_rate) for first, stop in edges.reshape(-1, 2)]
        axes.broken_barh(spans, (-row * ROW - 0.25, 0.97), color=style.GREEN, alpha=0.3, linewidth=0)
    style.tidy(axes, "time (s)", "cell")
    axes.set_yticks(-ROW * np.arange(n), [str(k + 1) for k in range(n)] if names is None else list(names))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, max(frames, 1) / frame_rate)
    axes.set_ylim(-ROW * max(n - 1, 0) - 0.4, 0.9)
    return figure
