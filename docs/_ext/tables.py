"""Sphinx extension: writes ``docs/generated/*.md`` from the code before each build."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import typer.main
from sphinx.application import Sphinx

import gpucalcium
from gpucalcium.backend.capabilities import CAPABILITIES
from gpucalcium.backend.settings import SETTINGS
from gpucalcium.cli import app as command
from gpucalcium.cnmf.params_table import TABLE

ROOMS = {
    "From movie to cells": "pipeline",
    "Movies": "movies",
    "Registration": "registration",
    "Images": "images",
    "Cells": "cnmf",
    "Deconvolution": "deconvolution",
    "Regions": "rois",
    "Activity and types of cells by networks": "cinac",
    "Networks": "nets",
    "Simulation": "simulate",
    "Figures": "plotting",
    "Reports": "report",
    "Devices": "backend",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the tables now: Sphinx looks for its sources, and for names to document, right after this."""
    write(Path(app.srcdir) / "generated")
    app.connect("autodoc-process-docstring", literal_bars)
    return {"version": gpucalcium.__version__, "parallel_read_safe": True}


def literal_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Take ``|x|`` in docstrings for an absolute value, not for a substitution."""
    lines[:] = [re.sub(r"(?<!\\)\|", r"\\|", line) if "``" not in line else line for line in lines]


def write(folder: Path) -> None:
    """Write every table; files that are the same stay untouched, so that Sphinx does not read them again."""
    folder.mkdir(exist_ok=True)
    pages = {
        "settings.md": settings(),
        "capabilities.md": capabilities(),
        "parameters.md": parameters(),
        "commands.md": commands(),
        "api.rst": names(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def settings() -> str:
    """The environment variables."""
    rows = [
        (
            f"`{s.variable}`" + "".join(f"<br>else `{v}`" for v in s.fallbacks),
            f"`{s.default}`" if s.default else "",
            s.unit,
            s.doc,
        )
        for s in SETTINGS.values()
    ]
    return table(("Variable", "Default", "Values", "Meaning"), rows) + "\n"


def capabilities() -> str:
    """Where each public operation works."""
    tick = {True: "yes", False: "-"}
    rows = [
        (
            f"`{name}`",
            tick[c.cpu],
            tick[c.cuda],
            tick[c.planes],
            tick[c.volumes] if c.movie else "",
            tick[c.streaming] if c.movie else "",
        )
        for name, c in CAPABILITIES.items()
    ]
    return table(("Operation", "CPU", "CUDA", "2-D", "3-D", "any length in bounded memory"), rows) + "\n"


def parameters() -> str:
    """Every CNMF parameter by group."""
    parts = []
    for group, entries in TABLE.items():
        rows = [(f"`{key}`", f"`{entry.default!r}`", entry.meaning) for key, entry in entries.items()]
        parts.append(f"## {group}\n\n" + table(("Name", "Default", "Meaning"), rows))
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """The commands and their options."""
    parts = []
    for name, sub in typer.main.get_command(command).commands.items():  # type: ignore[attr-defined]
        rows = [
            (
                " ".join(f"`{o}`" for o in (*p.opts, *p.secondary_opts)) or p.name,
                getattr(p, "help", None) or "",
            )
            for p in sub.params
            if p.name != "help"
        ]
        parts.append(f"## gpucalcium {name}\n\n{sub.help}\n\n" + table(("Option", "Meaning"), rows))
    return "\n\n".join(parts) + "\n"


def names() -> str:
    """The public names, room by room, for autosummary."""
    parts = ["API\n===\n"]
    for title, room in ROOMS.items():
        module = importlib.import_module(f"gpucalcium.{room}")
        public = getattr(module, "__all__", None) or _own(module)
        if not public:
            public = [n for n in gpucalcium.__all__ if _home(n).startswith(module.__name__ + ".")]
        entries = [f"{module.__name__}.{n}" if hasattr(module, n) else f"gpucalcium.{n}" for n in public]
        listed = "\n".join(f"   {entry}" for entry in entries)
        parts.append(
            f"{title}\n{'-' * len(title)}\n\n.. autosummary::\n   :toctree: .\n   :nosignatures:\n\n{listed}\n"
        )
    return "\n".join(parts)


def _own(module: Any) -> list[str]:
    """Public functions and classes that a module without ``__all__`` defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _home(name: str) -> str:
    return getattr(getattr(gpucalcium, name), "__module__", "")
