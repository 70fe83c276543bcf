"""What files say of a recording beside its values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def about_recording(found: Mapping[str, Any]) -> dict[str, Any]:
    """Frame rate, start and metadata among all that a file says; what makes no sense is left out.

    Parameters
    ----------
    found : mapping
        fr (Hz), start_time (s), meta_data (JSON as `movie.save` writes it, or another text); levels, the values that a
        video shows as black and white.

    Returns
    -------
    about : dict
        fr and start_time as float, meta_data as a list, levels as two float; those that are there.
    """
    kept: dict[str, Any] = {
        name: float(found[name]) for name in ("fr", "start_time") if _is_number(found.get(name))
    }
    if kept.get("fr", 1) <= 0:
        del kept["fr"]
    if isinstance(text := found.get("meta_data"), str):
        value = from_json(text)
        kept["meta_data"] = value if isinstance(value, list) else [value]
    levels = found.get("levels")
    if isinstance(levels, Sequence) and len(levels) == 2 and all(map(_is_number, levels)):
        kept["levels"] = float(levels[0]), float(levels[1])
    return kept


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of recordings that follow each other: the rate they share, the first's start, all metadata.

    Where rates differ, there is none.
    """
    known: dict[str, Any] = {}
    rates = {about["fr"] for about in parts if "fr" in about}
    if len(rates) == 1:
        known["fr"] = rates.pop()
    if parts and "start_time" in parts[0]:
        known["start_time"] = parts[0]["start_time"]
    if any("meta_data" in about for about in parts):
        known["meta_data"] = [one for about in parts for one in about.get("meta_data", [None])]
    return known


def from_json(text: Any) -> Any:
    """The value that a text of JSON stands for; the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
