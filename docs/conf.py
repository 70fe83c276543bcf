"""How the documentation is built; the tables of settings, capabilities and parameters are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import gpucalcium  # noqa: E402

project = "gpucalcium"
author = "The gpucalcium developers"
copyright = author
version = release = gpucalcium.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "tables",
]
exclude_patterns = ["_build", "_ext", "_templates", "generated/*.md"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings state types with shapes and units
numpydoc_show_class_members = False
nitpicky = False

html_theme = "furo"
html_title = "gpucalcium"
html_static_path: list[str] = []
templates_path = ["_templates"]
