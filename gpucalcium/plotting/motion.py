"""Motion and its correction: shifts, flags, templates, agreement, what is left, and the field of one frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting import style
from gpucalcium.plotting.fields import scale_bar
from gpucalcium.plotting.traces import MOST_POINTS, envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = ("rows", "columns", "planes")
COLORS = (style.BLUE, style.VERMILION, style.GREEN)
FLAG_COLORS = (style.VERMILION, style.PURPLE, style.BLACK, style.SKY)
PANEL, FLAG_ROW = 1.2, 0.17  # inches


def motion_figure(
    shifts: NDArray,
    *,
    frame_rate: float,
    field: NDArray | None = None,
    flags: Mapping[str, NDArray] | None = None,
    truth: NDArray | None = None,
) -> Figure:
    """Displacement of each frame over time, the range over its patches, and which frames are flagged.

    Parameters
    ----------
    shifts : (T, 2) or (T, 3)
        px, axis order.
    frame_rate : float
        Hz.
    field : (T, ..., 2 or 3), optional
        Displacement of every patch; the band behind the trace reaches from the smallest to the largest.
    flags : mapping of str to (T,) bool, optional
        A row of marks for each, below; rows without a mark stay empty.
    truth : (T, 2 or 3), optional
        Shifts of a simulation, drawn dashed, up to a constant.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArrayShapeError
        Arrays of different numbers of frames or axes.
    """
    flags = flags or {}
    for name, other in {"field": field, "truth": truth, **flags}.items():
        if other is not None and len(other) != len(shifts):
            raise ArrayShapeError(f"{name} of {len(other)} frames beside shifts of {len(shifts)}")
    ndim, rows = shifts.shape[1], len(flags)
    heights = [PANEL] * ndim + ([FLAG_ROW * rows + 0.05] if rows else [])
    figure = style.new_figure(style.TWO_COLUMNS, sum(heights) + 0.55)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    t = np.arange(len(shifts)) / frame_rate
    for axis, axes in enumerate(panels[:ndim]):
        if field is not None:
            apart = field[..., axis].reshape(len(field), -1)
            axes.fill_between(
                *_band(t, apart.min(axis=1), apart.max(axis=1)), color=COLORS[axis], alpha=0.25, linewidth=0
            )
        axes.plot(*envelope(t, shifts[:, axis]), color=COLORS[axis], linewidth=style.LINE)
        if truth is not None:
            moved = truth[:, axis] - np.mean(truth[:, axis] - shifts[:, axis])
            axes.plot(*envelope(t, moved), color="black", linewidth=0.5, linestyle=(0, (2, 2)), label="truth")
        style.tidy(axes, "", f"{AXES[axis]} (px)")
        axes.margins(y=0.08)
    if truth is not None:
        panels[0].legend(fontsize=style.SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.97))
    if rows:
        _draw_flags(panels[-1], t, flags)
    panels[-1].set_xlabel("time (s)", fontsize=style.TEXT)
    panels[0].set_xlim(0, max(len(shifts), 1) / frame_rate)
    figure.align_ylabels(panels[:ndim])
    return figure


def template_figure(
    before: NDArray,
    after: NDArray,
    *,
    crispness: Sequence[float] | None = None,
    um_per_px: float | None = None,
) -> Figure:
    """Mean image before and after registration in the same grey levels, and a detail of both.

    Parameters
    ----------
    before, after : (d1, d2)
    crispness : (before, after), optional
        Written above the images.
    um_per_px : float, optional
        Size of a pixel, for a scale bar in micrometres.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if before.shape != after.shape or before.ndim != 2:
        raise ArrayShapeError(
            f"images of shapes {before.shape} and {after.shape}: two of one field (d1, d2) are shown"
        )
    rows, columns = before.shape
    part = _detail(after)
    side = 0.5 * style.TWO_COLUMNS
    height = float(np.clip(side * rows / columns, 1.0, 4.5))
    shape = (part[0].stop - part[0].start, part[1].stop - part[1].start)
    figure = style.new_figure(style.TWO_COLUMNS, height + side * shape[0] / shape[1] + 0.6)
    grid = figure.subplots(2, 2, height_ratios=[height, side * shape[0] / shape[1]])
    low, high = style.limits(after)
    names = [f"{name}" for name in ("before", "after")]
    if crispness is not None:
        names = [f"{name}   crispness {value:,.4g}" for name, value in zip(names, crispness, strict=True)]
    for column, (name, image) in enumerate(zip(names, (before, after), strict=True)):
        for axes, shown in ((grid[0, column], image), (grid[1, column], image[part])):
            axes.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            style.bare(axes)
        grid[0, column].set_title(name, fontsize=style.TEXT, loc="left", fontweight="bold")
        _frame(grid[0, column], part)
        for spine in grid[1, column].spines.values():
            spine.set(visible=True, color=style.ORANGE, linewidth=1)
    scale_bar(grid[0, 1], before.shape, um_per_px)
    return figure


def agreement_figure(before: NDArray, after: NDArray, *, frame_rate: float) -> Figure:
    """Correlation of each frame with the mean image, before and after registration, over time and as distributions.

    Parameters
    ----------
    before, after : (T,)
        Pearson's r.
    frame_rate : float
        Hz.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = style.new_figure(style.TWO_COLUMNS, 1.9)
    course, spread = figure.subplots(1, 2, sharey=True, width_ratios=[4, 1])
    t = np.arange(len(after)) / frame_rate
    both = np.concatenate([before, after])
    bins = np.linspace(both.min(initial=1), both.max(initial=0) + 1e-9, 40) if len(both) else 10
    for values, color, name in ((before, style.GREY, "before"), (after, style.GREEN, "after")):
        label = f"{name}: mean {np.mean(values):.3f}" if len(values) else name
        course.plot(*envelope(t, values), color=color, linewidth=0.6, label=label)
        spread.hist(values, bins=bins, orientation="horizontal", color=color, alpha=0.6)
    style.tidy(course, "time (s)", "correlation\nwith mean")
    style.tidy(spread, "frames")
    course.set_xlim(0, max(len(after), 1) / frame_rate)
    course.legend(fontsize=style.TEXT, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.98))
    return figure


def displacement_figure(
    image: NDArray,
    displacement: NDArray,
    centres: Sequence[NDArray],
    *,
    title: str = "",
    um_per_px: float | None = None,
) -> Figure:
    """How the patches of a frame are displaced, as arrows over an image.

    Parameters
    ----------
    image : (d1, d2)
    displacement : (n1, n2, 2)
        px, axis order; that which all patches share is best taken off. Arrows are enlarged; one of a round length
        stands below the picture.
    centres : (n1,) and (n2,)
        Rows and columns of the patches' centres, px.
    title : str
    um_per_px : float, optional
        For a scale bar in micrometres.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if displacement.shape != (len(centres[0]), len(centres[1]), 2) or image.ndim != 2:
        raise ArrayShapeError(
            f"displacement of shape {displacement.shape} does not fit a grid of {len(centres[0])}x{len(centres[1])} "
            "patches on an image (d1, d2)"
        )
    width = 0.62 * style.TWO_COLUMNS
    height = float(np.clip(width * image.shape[0] / image.shape[1], 1.5, 7))
    figure = style.new_figure(width, height + 0.5)
    axes = figure.add_subplot()
    low, high = style.limits(image)
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    style.bare(axes)
    x, y = np.meshgrid(centres[1], centres[0])
    largest = float(np.sqrt((displacement**2).sum(-1)).max(initial=0))
    spacing = min(_spacing(c, n) for c, n in zip(centres, image.shape, strict=True))
    unit = _round_below(largest) if largest > 0 else 1.0
    enlarged = 0.8 * spacing / max(largest, 1e-9)
    arrows = axes.quiver(
        x, y, displacement[..., 1], displacement[..., 0], color=style.ORANGE, angles="xy", scale_units="xy",
        scale=1 / enlarged, width=0.006, headwidth=3.5, pivot="mid",
    )  # fmt: skip
    arrows.set_path_effects(style.outlined(1.0))
    axes.plot(x.ravel(), y.ravel(), ".", color=style.ORANGE, markersize=1.5)
    length = unit * enlarged / image.shape[1] if largest > 0 else 0.0  # the key stands to the left of its tip
    axes.quiverkey(
        arrows, 0.01 + length, -0.045, unit, f" {unit:g} px", labelpos="E", coordinates="axes",
        fontproperties={"size": style.SMALL},
    )  # fmt: skip
    axes.set_title(title, fontsize=style.TEXT, loc="left", fontweight="bold")
    scale_bar(axes, image.shape, um_per_px)
    return figure


def _draw_flags(axes: Axes, t: NDArray, flags: Mapping[str, NDArray]) -> None:
    names = [f"{name} ({int(np.count_nonzero(marks)):,})" for name, marks in flags.items()]
    for row, marks in enumerate(flags.values()):
        at = t[np.asarray(marks, bool)]
        color = FLAG_COLORS[row % len(FLAG_COLORS)]
        axes.vlines(at, row - 0.35, row + 0.35, color=color, linewidth=0.8)
    style.tidy(axes)
    axes.set_yticks(range(len(names)), names, fontsize=style.SMALL)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _band(t: NDArray, low: NDArray, high: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The same band in few points: runs of frames from their lowest to their highest."""
    if len(t) <= MOST_POINTS // 2:
        return t, low, high
    starts = np.arange(0, len(t), -(-len(t) // (MOST_POINTS // 2)))
    return t[starts], np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)


def _detail(image: NDArray) -> tuple[slice, slice]:
    """The part of the field, a quarter of its rows and half of its columns, with the most edges."""
    sizes = [max(min(n, 12), n // share) for n, share in zip(image.shape, (4, 2), strict=True)]
    shown = np.clip(np.nan_to_num(image.astype(np.float64)), *style.limits(image, 1, 97))
    slopes = np.gradient(shown) if min(image.shape) > 1 else [shown * 0]
    power = np.pad(np.sum([s**2 for s in slopes], axis=0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    a, b = sizes
    sums = power[a:, b:] - power[:-a, b:] - power[a:, :-b] + power[:-a, :-b]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return slice(int(row), int(row) + a), slice(int(column), int(column) + b)


def _frame(axes: Axes, part: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    rows, columns = part
    axes.add_patch(
        Rectangle(
            (columns.start - 0.5, rows.start - 0.5), columns.stop - columns.start, rows.stop - rows.start,
            fill=False, edgecolor=style.ORANGE, linewidth=1,
        )
    )  # fmt: skip


def _spacing(centres: NDArray, length: int) -> float:
    return float(np.median(np.diff(centres))) if len(centres) > 1 else length / 2


def _round_below(value: float) -> float:
    exponent = 10 ** np.floor(np.log10(value))
    return float(max(m * exponent for m in (1, 2, 5) if m * exponent <= value))
