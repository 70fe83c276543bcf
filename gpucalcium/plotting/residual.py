"""Motion that registration has left: how much along each principal component, and what the largest looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.plotting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gpucalcium.registration.residual import ResidualMotion

BAR = 0.4  # width, in components


def residual_figure(after: ResidualMotion, before: ResidualMotion | None = None) -> Figure:
    """Displacement between the two ends of each principal component: of the whole field, and of single patches.

    Parameters
    ----------
    after : ResidualMotion
        Of the registered movie.
    before : ResidualMotion, optional
        Of the recording, in grey beside it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = style.new_figure(style.TWO_COLUMNS, 2.0)
    whole, local = figure.subplots(1, 2, sharey=True)
    shown = [("after", after, style.BLUE, 0.5 * BAR)]
    if before is not None:
        shown.insert(0, ("before", before, style.GREY, -0.5 * BAR))
    for name, found, color, aside in shown:
        at = np.arange(1, len(found.variance) + 1) + (aside if before is not None else 0)
        label = f"{name}: largest {found.rigid.max(initial=0):.2f} px"
        whole.bar(at, found.rigid, BAR, color=color, label=label)
        label = f"{name}: largest {found.max_local.max(initial=0):.2f} px"
        local.bar(at, found.mean_local, BAR, color=color, label=label)
        local.vlines(at, found.mean_local, found.max_local, color=color, linewidth=style.LINE)
    style.tidy(whole, "principal component", "motion between\nits ends (px)", "whole field")
    style.tidy(local, "principal component", "", "patches (bar: mean, line: largest)")
    for axes in (whole, local):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=style.SMALL, frameon=False, loc="upper right")
    return figure


def component_ends_figure(found: ResidualMotion, component: int | None = None) -> Figure:
    """One principal component: its image, the means of the frames at its two ends, and these over each other.

    Parameters
    ----------
    found : ResidualMotion
        Of a movie of images; of volumes the middle plane is shown.
    component : int, optional
        From 0; default: that with the largest motion.

    Returns
    -------
    matplotlib.figure.Figure
    """
    k = int(np.argmax(found.rigid + found.mean_local)) if component is None else component
    images = [_plane(stack[k]) for stack in (found.components, found.low, found.high)]
    rows, columns = images[0].shape
    side = style.TWO_COLUMNS / 4
    figure = style.new_figure(style.TWO_COLUMNS, float(np.clip(side * rows / columns, 0.8, 4)) + 0.25)
    panels = figure.subplots(1, 4)
    reach = float(np.percentile(np.abs(images[0]), 99.5)) or 1.0
    _show(
        panels[0],
        images[0],
        f"component {k + 1} ({100 * found.variance[k]:.1f} %)",
        "RdBu_r",
        (-reach, reach),
    )
    limits = style.limits(np.concatenate([images[1], images[2]]))
    _show(panels[1], images[1], "lowest frames", "gray", limits)
    _show(panels[2], images[2], "highest frames", "gray", limits)
    scaled = [np.clip((image - limits[0]) / (limits[1] - limits[0]), 0, 1) for image in images[1:]]
    over = np.stack([scaled[0], scaled[1], scaled[0]], axis=-1)
    panels[3].imshow(over, interpolation="nearest")
    style.bare(panels[3])
    moved = f"{found.rigid[k]:.2f} px, patches to {found.max_local[k]:.2f}"
    panels[3].set_title(f"both: {moved}", fontsize=style.SMALL, loc="left", fontweight="bold")
    return figure


def _show(axes: Axes, image: NDArray, title: str, cmap: str, limits: tuple[float, float]) -> None:
    axes.imshow(image, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    style.bare(axes)
    axes.set_title(title, fontsize=style.SMALL, loc="left", fontweight="bold")


def _plane(image: NDArray) -> NDArray:
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]
