"""One group of parameters: a dict that knows its keys and keeps derived values apart from asked ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from gpucalcium.cnmf.params_table import KEY_ALIASES, TABLE
from gpucalcium.errors import ParameterError, UnknownParameterError


def nearest(name: object, known: Iterable[str]) -> str:
    """``: did you mean 'x'?``, or nothing if no known name is near."""
    by_lower = {key.lower(): key for key in known}
    found = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1)
    return f": did you mean {by_lower[found[0]]!r}?" if found else ""


class ParameterGroup(dict[str, Any]):
    """The values in force of one group, e.g. ``params.init``.

    Reading gives the value in force: what was asked for, or what was derived from it (``gSiz`` from ``gSig``).
    Writing asks for a value; it is checked. Keys are those of the table and cannot be added or removed.
    """

    __slots__ = ("asked", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: dict[str, Any] = {key: deepcopy(row.default) for key, row in TABLE[name].items()}
        super().__init__(self.asked)

    @classmethod
    def _rebuild(cls, name: str, asked: dict[str, Any], in_force: dict[str, Any]) -> ParameterGroup:
        group = cls(name)
        group.restore((asked, in_force))
        return group

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._rebuild, (self.name, dict(self.asked), dict(self))

    def canonical(self, key: str) -> str:
        """The key's name in this group, or UnknownParameterError with the nearest one."""
        key = KEY_ALIASES.get(key, key)
        if key not in TABLE[self.name]:
            raise UnknownParameterError(
                f"group {self.name!r} has no parameter {key!r}{nearest(key, TABLE[self.name])}"
            )
        return key

    def check(self, key: str, value: Any) -> str:
        """The key's canonical name, if `value` may be asked for; else ParameterError."""
        key = self.canonical(key)
        row = TABLE[self.name][key]
        if not row.check.passes(value):
            raise ParameterError(
                f"{self.name}.{key}={value!r}: {row.meaning.split(';')[0]}; must be {row.check.words}"
            )
        return key

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(self.canonical(key))

    def __contains__(self, key: object) -> bool:
        return super().__contains__(KEY_ALIASES.get(key, key) if isinstance(key, str) else key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value in force, or `default` for a key that this group does not have."""
        return super().get(KEY_ALIASES.get(key, key), default)

    def __setitem__(self, key: str, value: Any) -> None:
        self.load(self.check(key, value), value)

    def load(self, key: str, value: Any) -> None:
        """Take a value as it is, unchecked (it was checked when it was first asked for)."""
        super().__setitem__(key, value)
        self.asked[key] = value

    def derive(self, key: str, value: Any) -> None:
        """Put a derived value in force; what was asked for stays on record."""
        super().__setitem__(key, value)

    def reset(self) -> None:
        """Put what was asked for in force again, before deriving anew."""
        super().update(self.asked)

    def snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was asked for and what is in force, for `restore`."""
        return dict(self.asked), dict(self)

    def restore(self, snapshot: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Return to a snapshot."""
        self.asked.update(snapshot[0])
        super().update(snapshot[1])

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Ask for several values; all are checked before the first is taken."""
        values: dict[str, Any] = dict(*args, **kwargs)
        keys = [self.check(key, value) for key, value in values.items()]
        for key, value in zip(keys, values.values(), strict=True):
            self.load(key, value)

    def __ior__(self, values: Mapping[str, Any]) -> ParameterGroup:  # type: ignore[override,misc]
        self.update(values)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value in force; nothing is ever added."""
        return self[key]

    def _refuse(self, *args: Any) -> Any:
        raise ParameterError(
            f"parameters of group {self.name!r} cannot be removed; set them to another value"
        )

    __delitem__ = pop = popitem = clear = _refuse
