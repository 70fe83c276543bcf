"""How figures look: sizes of a printed page, colours that everyone can tell apart, and how they are saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)  # Okabe & Ito (2008), told apart with any colour vision
GREY = "#8A8A8A"
ONE_COLUMN, TWO_COLUMNS = 3.5, 7.2  # inches: 89 and 183 mm, the columns of most journals
TEXT, SMALL = 8, 6.5  # points
LINE = 0.8  # points
DOTS_PER_INCH = 300


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of so many inches that belongs to no window and no global list.

    Its parts are laid out so that no text is cut off; with ``layout=None`` whoever fills it does that.

    Raises
    ------
    MissingExtraError
        Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise MissingExtraError("figures need Matplotlib: pip install 'gpucalcium[plot]'") from err
    return Figure((width, height), dpi=DOTS_PER_INCH, layout=layout)


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Thin left and bottom spines, small ticks, the labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_linewidth(LINE)
    axes.tick_params(labelsize=SMALL, width=LINE, length=3)
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.set_title(title, fontsize=TEXT, loc="left", fontweight="bold")


def bare(axes: Axes) -> None:
    """No ticks and no frame, for a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def outlined(width: float = 1.5, color: str = BLACK) -> list[Any]:
    """Path effect that keeps text and lines readable on any picture."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground=color)]


def limits(image: NDArray, low: float = 1.0, high: float = 99.8) -> tuple[float, float]:
    """Grey levels between two percentiles of the finite pixels; (0, 1) where there is no contrast."""
    finite = image[np.isfinite(image)]
    if finite.size == 0 or finite.min() == finite.max():
        return 0.0, 1.0
    bottom, top = np.percentile(finite, [low, high])
    return (float(bottom), float(top)) if bottom < top else (float(finite.min()), float(finite.max()))


def save_figure(figure: Figure, stem: Path, formats: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Write `figure` as ``stem.png``, ``stem.pdf`` ...; returns the paths.

    Text in PDF and SVG stays text. The file holds no date, so that the same figure is the same file.
    """
    from matplotlib import rc_context

    if figure.get_layout_engine() is not None:  # work the layout out once, not once per format
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "gpucalcium"}):
        for path, kind in zip(paths, formats, strict=True):
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata=undated.get(kind))
    return paths
