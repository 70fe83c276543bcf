"""The table of parameters to read: in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from gpucalcium.cnmf.params_convert import same
from gpucalcium.cnmf.params_table import TABLE

HEADINGS = ("parameter", "value", "default", "meaning")
WIDEST = 24  # characters of a value


class Line(NamedTuple):
    """One parameter as it is shown."""

    group: str
    key: str
    value: str
    default: str
    meaning: str
    changed: bool
    """Whether the value in force is not the default."""


class Description(str):
    """A table of parameters: a text, and in notebooks an HTML table of the same."""

    lines: tuple[Line, ...]

    def __new__(cls, lines: Sequence[Line]) -> Description:
        made = super().__new__(cls, _text(lines))
        made.lines = tuple(lines)
        return made

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """What a notebook shows; bold: not the default."""
        head = "".join(f"<th>{heading}</th>" for heading in ("group", *HEADINGS))
        rows = "".join(map(_html_row, self.lines))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def describe(groups: Mapping[str, Mapping[str, Any]]) -> Description:
    """All parameters of some groups: value in force, default, and meaning with its unit."""
    return Description(
        [
            Line(
                name,
                key,
                _short(group[key]),
                _short(row.default),
                row.meaning,
                not same(group[key], row.default),
            )
            for name, group in groups.items()
            for key, row in TABLE[name].items()
        ]
    )


def _text(lines: Sequence[Line]) -> str:
    """A heading for each group; ``*`` marks what is not the default."""
    name, value, default, meaning = HEADINGS
    texts = [f"   {name:<28} {value:<{WIDEST}} {default:<{WIDEST}} {meaning}"]
    group = None
    for line in lines:
        if line.group != group:
            group = line.group
            texts += ["", group]
        mark = "*" if line.changed else " "
        texts.append(f" {mark} {line.key:<28} {line.value:<{WIDEST}} {line.default:<{WIDEST}} {line.meaning}")
    return "\n".join(texts)


def _html_row(line: Line) -> str:
    cells = [line.group, line.key, line.value, line.default, line.meaning]
    tags = ["b" if line.changed and 1 <= n <= 2 else "span" for n in range(len(cells))]
    return (
        "<tr>"
        + "".join(f"<td><{tag}>{escape(cell)}</{tag}></td>" for tag, cell in zip(tags, cells, strict=True))
        + "</tr>"
    )


def _short(value: Any) -> str:
    text = f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."
