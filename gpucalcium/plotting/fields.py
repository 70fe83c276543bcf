"""Pictures of the field of view: summary image with outlines, and a mosaic of footprints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.errors import ArrayShapeError
from gpucalcium.plotting import style
from gpucalcium.plotting.contours import Outline, outlines

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERED = 150  # cells above which numbers would cover the picture
BAR_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
NUMBER_SIZE = 5.5  # points


def field_figure(
    image: NDArray,
    A: sparse.spmatrix | NDArray,
    *,
    accepted: Sequence[int] | NDArray | None = None,
    truth: sparse.spmatrix | NDArray | None = None,
    thr: float = 0.2,
    thr_method: str = "max",
    numbers: bool = True,
    um_per_px: float | None = None,
    label: str = "local correlation",
    cmap: str = "gray",
) -> Figure:
    """Summary image with the outline of every cell; rejected components are drawn thin and dashed.

    Parameters
    ----------
    image : (d1, d2)
        What the outlines are drawn on, for instance the correlation image. NaN pixels stay blank.
    A : (d1 * d2, K)
        Footprints, pixels in Fortran order.
    accepted : sequence of int, optional
        Columns that are cells; default: all.
    truth : (d1 * d2, K2), optional
        True footprints of a simulation, drawn dotted.
    thr, thr_method
        Level of the outlines, see `outlines`.
    numbers : bool
        Write each accepted cell's number (from 1) beside it; left out above 150 cells.
    um_per_px : float, optional
        Size of a pixel, for a scale bar in micrometres instead of pixels.
    label, cmap : str
        What `image` shows, beside the colour bar; a Matplotlib colour map.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ArrayShapeError
        Footprints and image of different fields.
    MissingExtraError
        Matplotlib is not installed.
    """
    if image.ndim != 2:
        raise ArrayShapeError(f"image of shape {image.shape}: a field is drawn plane by plane, as (d1, d2)")
    width = 0.75 * style.TWO_COLUMNS
    height = float(np.clip(0.8 * width * image.shape[0] / image.shape[1], 1.5, 8.5)) + 0.4
    figure = style.new_figure(width, height)
    axes = figure.add_subplot()
    _show(axes, image, label, cmap)
    found = outlines(A, image.shape, thr, thr_method)
    cells = list(range(len(found))) if accepted is None else [int(k) for k in accepted]
    rejected = sorted(set(range(len(found))) - set(cells))
    drawn = [
        draw_outlines(axes, [found[k] for k in cells], f"cells ({len(cells)})", style.ORANGE),
    ]
    if rejected:
        aside = [found[k] for k in rejected]
        drawn.append(draw_outlines(axes, aside, f"rejected ({len(rejected)})", style.SKY, 0.6, (0, (3, 2))))
    if truth is not None:
        true = outlines(truth, image.shape, thr, thr_method)
        drawn.append(draw_outlines(axes, true, f"truth ({len(true)})", "white", 0.6, (0, (1, 1.5))))
    if numbers and len(cells) <= MOST_NUMBERED:
        _write_numbers(axes, found, cells)
    scale_bar(axes, image.shape, um_per_px)
    figure.legend(handles=drawn, loc="outside lower left", ncols=3, fontsize=style.TEXT, frameon=False)
    return figure


def draw_outlines(
    axes: Axes,
    found: Iterable[Outline],
    label: str,
    color: str,
    width: float = 1.0,
    dashes: tuple[float, Sequence[float]] | None = None,
) -> Artist:
    """Add the curves of some cells to a picture; returns a line for the legend."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    curves = [path[:, ::-1] for outline in found for path in outline.paths]
    axes.add_collection(
        LineCollection(curves, colors=color, linewidths=width, linestyles=[dashes or "-"]), autolim=False
    )
    return Line2D(
        [],
        [],
        color="black" if color == "white" else color,
        linewidth=width,
        linestyle=dashes or "-",
        label=label,
    )


def footprint_figure(
    A: sparse.spmatrix | NDArray, dims: tuple[int, int], *, order: Sequence[int] | None = None, most: int = 60
) -> Figure:
    """Mosaic of footprints, each scaled to its own maximum, in boxes of one size.

    Parameters
    ----------
    A : (d1 * d2, K)
        Footprints, pixels in Fortran order.
    dims : (d1, d2)
    order : sequence of int, optional
        Columns to show, in this order; default: all.
    most : int
        No more than so many are shown.

    Returns
    -------
    matplotlib.figure.Figure
    """
    A = sparse.csc_matrix(A)
    chosen = list(range(A.shape[1]) if order is None else order)[:most]
    found = outlines(A[:, chosen], dims)
    sizes = [side.stop - side.start for o in found for side in o.box] or [1]
    half = int(np.ceil(np.percentile(sizes, 90) / 2)) + 2
    across = max(1, min(10, len(chosen)))
    down = max(1, -(-len(chosen) // across))
    figure = style.new_figure(style.TWO_COLUMNS, style.TWO_COLUMNS / across * down + 0.1)
    for place, (k, outline) in enumerate(zip(chosen, found, strict=True), 1):
        axes = figure.add_subplot(down, across, place)
        _show_footprint(axes, A[:, [k]].toarray().reshape(dims, order="F"), outline, half)
        number = axes.text(
            0.04, 0.96, str(k + 1), transform=axes.transAxes, va="top", fontsize=NUMBER_SIZE, color="white"
        )
        number.set_path_effects(style.outlined())
    return figure


def _show_footprint(axes: Axes, image: NDArray, outline: Outline, half: int) -> None:
    axes.set_axis_off()
    if not outline.paths:
        return
    axes.imshow(crop(image, outline, half), cmap="cividis", vmin=0, interpolation="nearest")


def crop(image: NDArray, outline: Outline, half: int, fill: float = 0.0) -> NDArray:
    """(2 half + 1, 2 half + 1) pixels around a cell's centre; `fill` where that lies outside the image."""
    row, column = np.rint(outline.center).astype(int)
    padded = np.pad(image, half, constant_values=fill)
    return padded[row : row + 2 * half + 1, column : column + 2 * half + 1]


def _show(axes: Axes, image: NDArray, label: str, cmap: str) -> None:
    low, high = style.limits(image)
    shown = axes.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, shrink=0.5, anchor=(0, 1))
    bar.set_label(label, fontsize=style.TEXT)
    bar.ax.tick_params(labelsize=style.SMALL, width=style.LINE)
    bar.outline.set_linewidth(style.LINE)
    style.bare(axes)


def _write_numbers(axes: Axes, found: list[Outline], cells: list[int]) -> None:
    for k in cells:
        if not found[k].paths:
            continue
        row, column = found[k].center
        number = axes.text(
            column,
            row,
            str(k + 1),
            ha="center",
            va="center_baseline",
            fontsize=NUMBER_SIZE,
            color="white",
            clip_on=True,
        )
        number.set_path_effects(style.outlined())


def scale_bar(axes: Axes, dims: tuple[int, ...], um_per_px: float | None) -> None:
    """A bar of a round length near a fifth of the field, under the picture at its right end."""
    rows, columns = dims
    unit, size = ("px", 1.0) if um_per_px is None else ("µm", um_per_px)
    length = max((n for n in BAR_LENGTHS if n <= 0.25 * columns * size), default=BAR_LENGTHS[0])
    right, left = columns - 0.5, columns - 0.5 - length / size
    below = axes.get_xaxis_transform()  # x in pixels, y in heights of the picture
    axes.plot([left, right], [-0.025, -0.025], transform=below, color="black", linewidth=2, clip_on=False)
    label = f"{length} {unit}   field {rows} × {columns} px"
    axes.text(right, -0.04, label, transform=below, ha="right", va="top", fontsize=style.SMALL)
