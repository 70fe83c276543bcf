"""What was asked for, sorted into groups: nested and flat keys, older keywords, names that nothing knows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from gpucalcium.cnmf.params_group import ParameterGroup, nearest
from gpucalcium.cnmf.params_table import GROUP_ALIASES, KEY_ALIASES, KEYWORDS, TABLE, groups_with
from gpucalcium.errors import UnknownParameterError

log = logging.getLogger(__name__)


def sorted_out(
    groups: Mapping[str, ParameterGroup],
    params_dict: Mapping[str, Any],
    allow_legacy: bool,
    warn_unused: bool,
) -> dict[str, dict[str, Any]]:
    """`params_dict` as ``{group: {key: value}}`` of known keys; the rest is warned of."""
    changes: dict[str, dict[str, Any]] = {name: {} for name in TABLE}
    unused: list[str] = []
    for name, value in params_dict.items():
        group, key = GROUP_ALIASES.get(name, name), KEY_ALIASES.get(name, name)
        if group in TABLE and isinstance(value, Mapping):
            unused += _take_nested(groups[group], value, changes[group])
        elif allow_legacy and groups_with(key):
            for home in groups_with(key):
                changes[home][key] = value
        else:
            known = [*TABLE, *(key for rows in TABLE.values() for key in rows)]
            reason = nearest(name, known) if not groups_with(name) else ": flat keys are not allowed here"
            unused.append(f"there is no parameter {name!r}{reason}; it is left out")
    nb = changes["init"].get("nb", groups["init"]["nb"])
    for group in ("spatial", "temporal"):
        if changes[group].pop("nb", nb) != nb:
            unused.append(f"{group}.nb follows init.nb, which is {nb}; set that one")
    for text in unused if warn_unused else ():
        warn(text)
    return changes


def by_group(keywords: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Older keyword arguments as ``{group: {key: value}}``."""
    changes: dict[str, dict[str, Any]] = {name: {} for name in TABLE}
    for keyword, value in keywords.items():
        key = KEYWORDS.get(keyword, keyword)
        homes = groups_with(key)
        if not homes:
            known = [*KEYWORDS, *(key for rows in TABLE.values() for key in rows)]
            raise UnknownParameterError(f"there is no parameter {keyword!r}{nearest(keyword, known)}")
        for home in homes:
            changes[home][key] = value
    return changes


def _take_nested(group: ParameterGroup, values: Mapping[str, Any], taken: dict[str, Any]) -> Iterable[str]:
    """Move what `group` knows into `taken`; say what is left out."""
    for key, value in values.items():
        if key in group:
            taken[group.canonical(key)] = value
        else:
            yield f"group {group.name!r} has no parameter {key!r}{nearest(key, group)}; it is left out"


def report(changes: Mapping[str, Mapping[str, Any]], groups: Mapping[str, ParameterGroup]) -> None:
    """Log each value that is about to change."""
    for name, values in changes.items():
        for key, value in values.items():
            log.info("%s.%s: %r -> %r", name, key, groups[name][key], value)


def warn(text: str, level: int = 4) -> None:
    """Warn at the line that called the public method, `level` calls up."""
    warnings.warn(text, stacklevel=level)
