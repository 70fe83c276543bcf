"""The report of a run: one HTML file that needs nothing else, not even a network."""

from gpucalcium.report.page import CellRow, Page, Picture, render, render_index

__all__ = ["CellRow", "Page", "Picture", "render", "render_index"]
