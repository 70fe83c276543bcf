"""What a report says, and how it becomes a page. Knows nothing of how the results were computed."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCREEN_DOTS_PER_INCH = 160
SPARK_POINTS, SPARK_WIDTH, SPARK_HEIGHT = 120, 180, 26


@dataclass(frozen=True)
class Picture:
    """A figure with its heading and caption."""

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class CellRow:
    """One component in the table."""

    number: int
    """From 1, as in the figures."""
    accepted: bool
    snr: float
    r: float
    pixels: int
    row: float
    column: float
    trace: NDArray
    """(T,) drawn as a small curve."""


@dataclass(frozen=True)
class Page:
    """Everything a report shows, in order."""

    title: str
    subtitle: str
    facts: Mapping[str, str]
    """Few numbers that sum up the run, shown large: name -> value."""
    details: Mapping[str, str]
    """Where the movie, the device and the results are: name -> value."""
    timings: Mapping[str, float]
    """Stage -> seconds."""
    pictures: Sequence[Picture]
    cells: Sequence[CellRow] | None
    """None: the report is not about cells."""
    parameters: Mapping[str, Mapping[str, str]]
    """Group -> name -> value, only those that differ from their defaults; with no cells and none of them, not shown."""
    notes: Sequence[str] = field(default=())
    """What the reader should know, such as assumptions made for want of a parameter."""
    version: str = ""


def render(page: Page) -> str:
    """The report as one HTML document; pictures are inside it."""
    return _environment().get_template("report.html").render(page=page, share=_shares(page.timings))


def render_index(title: str, entries: Sequence[tuple[str, str, Mapping[str, str]]], version: str) -> str:
    """A page of links to several reports: (name, address, facts) of each."""
    return _environment().get_template("index.html").render(title=title, entries=entries, version=version)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gpucalcium.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embedded": embedded, "spark": spark, "number": number}
    return environment


def _shares(timings: Mapping[str, float]) -> dict[str, float]:
    """Each stage's part of the longest one, percent."""
    longest = max(timings.values(), default=0.0)
    return {stage: 100 * seconds / longest if longest else 0.0 for stage, seconds in timings.items()}


def embedded(figure: Figure) -> str:
    """A figure as a data address for an <img>."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=SCREEN_DOTS_PER_INCH, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def spark(trace: NDArray) -> Markup:
    """A trace as a small curve without axes: the largest value of each of 120 runs of frames."""
    pieces = np.array_split(np.asarray(trace, float), min(SPARK_POINTS, max(len(trace), 1)))
    heights = np.array([piece.max(initial=-np.inf) for piece in pieces])
    finite = heights[np.isfinite(heights)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    heights[~np.isfinite(heights)] = low
    scaled = (heights - low) / (high - low) if high > low else np.zeros(len(heights))
    x = np.linspace(0, SPARK_WIDTH, len(heights))
    y = SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * scaled
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup(
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" width="{SPARK_WIDTH}" '
        f'height="{SPARK_HEIGHT}" role="img" aria-label="trace"><polyline points="{points}"/></svg>'
    )


def number(value: float, digits: int = 2) -> str:
    """A value with so many decimals; an en dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"
