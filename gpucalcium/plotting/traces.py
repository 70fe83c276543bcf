"""Curves over time: traces with spikes, and shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 4000  # points of one curve beyond which no printer shows a difference
ROW_HEIGHT = 0.42  # inches per cell
SMALLEST_TICK = 0.05  # spikes below this fraction of a cell's largest are not drawn


def trace_figure(
    traces: NDArray,
    *,
    frame_rate: float,
    noisy: NDArray | None = None,
    spikes: NDArray | None = None,
    names: Sequence[str] | None = None,
    unit: str = "ΔF/F",
) -> Figure:
    """Traces one above the other, each with its raw course behind it and its spikes below.

    Parameters
    ----------
    traces : (n, T)
        Denoised traces.
    frame_rate : float
        Hz.
    noisy : (n, T), optional
        The same traces with noise, drawn in grey on the same scale.
    spikes : (n, T), optional
        Ticks where positive, as long as the spike is large beside the cell's largest.
    names : sequence of str, optional
        Written before each trace; default 1, 2, ...
    unit : str
        Of the traces, at the scale bar.

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
    for other in (noisy, spikes):
        if other is not None and other.shape != traces.shape:
            raise ArrayShapeError(f"traces of shape {traces.shape} beside {other.shape}: all must be (n, T)")
    n, T = traces.shape
    names = [str(k + 1) for k in range(n)] if names is None else list(names)
    figure = style.new_figure(style.TWO_COLUMNS, ROW_HEIGHT * max(n, 2) + 0.6)
    axes = figure.add_subplot()
    t = np.arange(T) / frame_rate
    step = _step(traces)
    for row in range(n):
        others = [None if rows is None else rows[row] for rows in (noisy, spikes)]
        draw_trace(axes, t, traces[row], *others, base=-row * step, tick=0.22 * step)
    style.tidy(axes, "time (s)")
    axes.set_yticks(-step * np.arange(n), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, max(T / frame_rate, 1 / frame_rate))
    axes.set_ylabel("cell", fontsize=style.TEXT)
    _amplitude_bar(axes, step, unit)
    return figure


def shift_figure(
    shifts: NDArray, *, frame_rate: float, correlation: NDArray | None = None, truth: NDArray | None = None
) -> Figure:
    """Displacement of each frame over time, and how well registered frames agree with the template.

    Parameters
    ----------
    shifts : (T, 2) or (T, 3)
        px, axis order.
    frame_rate : float
        Hz.
    correlation : (T,), optional
        How well each registered frame matches the template.
    truth : (T, 2) or (T, 3), optional
        Shifts of a simulation, drawn dashed.

    Returns
    -------
    matplotlib.figure.Figure
    """
    panels = 1 if correlation is None else 2
    figure = style.new_figure(style.TWO_COLUMNS, 1.3 * panels + 0.7)
    all_axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    t = np.arange(len(shifts)) / frame_rate
    names, colors = ("rows", "columns", "planes"), (style.BLUE, style.VERMILION, style.GREEN)
    for axis, values in enumerate(shifts.T):
        all_axes[0].plot(*envelope(t, values), color=colors[axis], linewidth=style.LINE, label=names[axis])
        if truth is not None:
            moved = truth[:, axis] - np.mean(truth[:, axis] - values)  # known but for the template's position
            label = "truth" if axis == len(shifts.T) - 1 else None
            all_axes[0].plot(
                *envelope(t, moved), color="black", linewidth=0.5, linestyle=(0, (2, 2)), label=label
            )
    style.tidy(all_axes[0], "" if panels == 2 else "time (s)", "shift (px)")
    all_axes[0].legend(fontsize=style.TEXT, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    if correlation is not None:
        all_axes[1].plot(*envelope(t, correlation), color=style.GREEN, linewidth=style.LINE)
        style.tidy(all_axes[1], "time (s)", "match with\ntemplate")
    all_axes[0].set_xlim(0, max(len(shifts), 1) / frame_rate)
    return figure


def draw_trace(
    axes: Axes,
    t: NDArray,
    trace: NDArray,
    noisy: NDArray | None = None,
    spikes: NDArray | None = None,
    *,
    base: float | None = None,
    tick: float | None = None,
) -> None:
    """Add one trace to `axes`: noisy course in grey, denoised in blue, spikes as red ticks below.

    `base` is the height at which the trace's 5th percentile is put (default: where it is), `tick` the length of the
    tick of the largest spike (default: a fifth of the trace's height).
    """
    floor = float(np.nanpercentile(trace, 5)) if len(trace) else 0.0
    lift = 0.0 if base is None else base - floor
    if noisy is not None:
        axes.plot(*envelope(t, noisy + lift), color=style.GREY, alpha=0.5, linewidth=0.4)
    axes.plot(*envelope(t, trace + lift), color=style.BLUE, linewidth=style.LINE)
    largest = np.nanmax(spikes, initial=0) if spikes is not None else 0
    if spikes is None or largest <= 0:
        return
    at = np.flatnonzero(spikes > SMALLEST_TICK * largest)
    length = tick or 0.2 * float(np.nanmax(trace) - floor)
    bottom = floor + lift - 1.15 * length
    axes.vlines(t[at], bottom, bottom + length * spikes[at] / largest, color=style.VERMILION, linewidth=0.6)


def envelope(t: NDArray, values: NDArray, most: int = MOST_POINTS) -> tuple[NDArray, NDArray]:
    """The same curve in at most `most` points: lowest and highest value of each run of frames.

    Nothing that a page could show is lost: a spike of one frame stays as tall as it was.
    """
    if len(values) <= most:
        return t, values
    run = -(-len(values) // (most // 2))
    whole = len(values) // run * run
    starts = np.arange(0, whole, run)
    blocks = values[:whole].reshape(-1, run)
    kept = np.sort(np.concatenate([starts + blocks.argmin(axis=1), starts + blocks.argmax(axis=1)]))
    kept = np.concatenate([kept, np.arange(whole, len(values))])
    return t[kept], values[kept]


def _step(traces: NDArray) -> float:
    """Distance between two rows: most of the traces' height, so that only the tallest peaks reach the next row."""
    if traces.size == 0:
        return 1.0
    heights = np.nanpercentile(traces, 99.8, axis=1) - np.nanpercentile(traces, 5, axis=1)
    step = 0.9 * float(np.nanpercentile(heights, 75))
    return step if np.isfinite(step) and step > 0 else 1.0


def _amplitude_bar(axes: Axes, step: float, unit: str) -> None:
    """A vertical bar of a round height beside the first trace."""
    exponent = np.floor(np.log10(step))
    height = max(m * 10**exponent for m in (1, 2, 5) if m * 10**exponent <= step)
    beside = axes.get_yaxis_transform()  # x in widths of the axes, y in the traces' unit
    axes.plot([1.01, 1.01], [0, height], transform=beside, color="black", linewidth=1.5, clip_on=False)
    axes.text(1.02, height / 2, f"{height:g}\n{unit}", transform=beside, fontsize=style.SMALL, va="center")
