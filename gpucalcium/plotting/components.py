"""One row per component: where it lies, its footprint, its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.plotting import style
from gpucalcium.plotting.contours import outlines
from gpucalcium.plotting.fields import crop, draw_outlines
from gpucalcium.plotting.traces import draw_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_HEIGHT = 0.85  # inches
MARGIN = 6  # px of surroundings shown beyond a footprint's support


def component_figure(
    A: sparse.spmatrix | NDArray,
    traces: NDArray,
    image: NDArray,
    *,
    frame_rate: float,
    order: Sequence[int] | NDArray | None = None,
    noisy: NDArray | None = None,
    spikes: NDArray | None = None,
    captions: Sequence[str] | None = None,
    most: int = 12,
) -> Figure:
    """Components in detail: the surroundings with the outline, the footprint, the trace on its own scale.

    Parameters
    ----------
    A : (d1 * d2, K)
        Footprints, pixels in Fortran order.
    traces, noisy, spikes : (K, T)
        Denoised traces; with noise, and spikes, if there.
    image : (d1, d2)
        Summary image.
    frame_rate : float
        Hz.
    order : sequence of int, optional
        Components to show, in this order; default: all.
    captions : sequence of str, optional
        (K,) text over each trace, such as its SNR.
    most : int
        No more than so many are shown.

    Returns
    -------
    matplotlib.figure.Figure
    """
    A = sparse.csc_matrix(A)
    chosen = [int(k) for k in (range(A.shape[1]) if order is None else order)][:most]
    found = outlines(A[:, chosen], image.shape)
    sizes = [side.stop - side.start for outline in found for side in outline.box] or [1]
    half = int(np.ceil(np.percentile(sizes, 90) / 2)) + MARGIN
    rows = max(len(chosen), 1)
    height = ROW_HEIGHT * rows + 0.5
    figure = style.new_figure(style.TWO_COLUMNS, height, layout=None)
    grid = figure.subplots(rows, 3, squeeze=False, width_ratios=[1, 1, 8])
    figure.subplots_adjust(0.01, 0.4 / height, 0.99, 1 - 0.2 / height, wspace=0.12, hspace=0.4)
    low, high = style.limits(image)
    for (where, what, when), k, outline in zip(grid, chosen, found, strict=False):
        if outline.paths:
            corner = np.rint(outline.center) - half
            footprint = A[:, [k]].toarray().reshape(image.shape, order="F")
            where.imshow(crop(image, outline, half, low), cmap="gray", vmin=low, vmax=high)
            draw_outlines(where, [outline.moved(-corner)], "", style.ORANGE, 0.7)
            what.imshow(crop(footprint, outline, half), cmap="cividis", vmin=0)
        where.set_axis_off()
        what.set_axis_off()
        where.set_title(str(k + 1), fontsize=style.SMALL, loc="left", pad=2, fontweight="bold")
        others = [None if rows is None else rows[k] for rows in (noisy, spikes)]
        draw_trace(when, np.arange(traces.shape[1]) / frame_rate, traces[k], *others)
        style.tidy(when)
        when.set_title("" if captions is None else captions[k], fontsize=style.SMALL, loc="left", pad=2)
        when.set_xlim(0, traces.shape[1] / frame_rate)
        when.tick_params(labelbottom=k == chosen[-1])
    if not chosen:
        for axes in grid[0]:
            axes.set_axis_off()
    grid[-1, 2].set_xlabel("time (s)", fontsize=style.TEXT)
    return figure
