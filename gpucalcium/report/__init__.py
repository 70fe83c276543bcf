"""The report of a run: one HTML file that needs nothing else, not even a network."""

from gpucalcium.report.page import CellRow, Page, Picture, render, render_index
from gpucalcium.report.registration import (
    registration_page,
    registration_pictures,
    write_registration_report,
)

__all__ = [
    "CellRow",
    "Page",
    "Picture",
    "registration_page",
    "registration_pictures",
    "render",
    "render_index",
    "write_registration_report",
]
