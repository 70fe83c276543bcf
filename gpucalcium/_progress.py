"""Progress bars for work that takes longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

from gpucalcium.backend import settings

T = TypeVar("T")
_PATIENCE_S = 2.0
"""Work that is over sooner shows no bar."""


def track(
    work: Iterable[T] | None = None, *, total: int | None = None, description: str = "", unit: str = "it"
) -> Any:
    """A tqdm bar over `work`, or a bar to be moved by hand with ``update(n)`` if `work` is None.

    Parameters
    ----------
    work : iterable, optional
        What is iterated over.
    total : int, optional
        Number of units; default: ``len(work)``.
    description : str
        Shown before the bar: the name of the stage.
    unit : str
        What is counted: "frames", "cells".
    """
    wanted = settings.get("progress")
    shown = wanted == "on" or (wanted == "auto" and (sys.stderr.isatty() or "ipykernel" in sys.modules))
    return tqdm(
        work,
        total=total,
        desc=description or None,
        unit=f" {unit}",
        disable=not shown,
        delay=0.0 if wanted == "on" else _PATIENCE_S,
        dynamic_ncols=True,
        leave=wanted == "on",
    )


@contextmanager
def stage(description: str, total: int, unit: str = "frames") -> Iterator[Any]:
    """A bar that is moved by hand inside a ``with`` statement and always closed."""
    bar = track(total=total, description=description, unit=unit)
    try:
        yield bar
    finally:
        bar.close()
