"""Figures for papers and reports; needs the extra ``gpucalcium[plot]``.

Every function returns a `matplotlib.figure.Figure` that belongs to no window: show it in a notebook, or write it
with `save_figure`. No display is needed and no state of pyplot is touched.
"""

from gpucalcium.plotting.activity import activity_figure
from gpucalcium.plotting.components import component_figure
from gpucalcium.plotting.contours import Outline, get_contours, outlines
from gpucalcium.plotting.fields import draw_outlines, field_figure, footprint_figure
from gpucalcium.plotting.motion import (
    agreement_figure,
    displacement_figure,
    motion_figure,
    template_figure,
)
from gpucalcium.plotting.residual import component_ends_figure, residual_figure
from gpucalcium.plotting.style import save_figure
from gpucalcium.plotting.traces import shift_figure, trace_figure

__all__ = [
    "Outline",
    "activity_figure",
    "agreement_figure",
    "component_ends_figure",
    "component_figure",
    "displacement_figure",
    "draw_outlines",
    "field_figure",
    "footprint_figure",
    "get_contours",
    "motion_figure",
    "outlines",
    "residual_figure",
    "save_figure",
    "shift_figure",
    "template_figure",
    "trace_figure",
]
