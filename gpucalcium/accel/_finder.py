"""The import hook: documented module names from the table, their attributes looked up when first used."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Sequence
from functools import cached_property, partial
from importlib import resources
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class DocumentedNames(MetaPathFinder, Loader):
    """Finds and fills the modules of ``modules.toml``."""

    @cached_property
    def table(self) -> dict[str, dict[str, str]]:
        """``{served module: {name: "module of ours:object"}}``."""
        text = resources.files("gpucalcium.accel").joinpath("modules.toml").read_text(encoding="utf-8")
        return tomllib.loads(text)

    @cached_property
    def modules(self) -> frozenset[str]:
        """All served modules, with the packages they are in."""
        parts = [name.split(".") for name in self.table]
        return frozenset(".".join(part[:n]) for part in parts for n in range(1, len(part) + 1))

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The packages whose names are served."""
        return tuple(sorted(name for name in self.modules if "." not in name))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a served module; nothing else may provide a module of a served package."""
        if fullname.partition(".")[0] not in self.roots:
            return None
        if fullname not in self.modules:
            raise ModuleNotFoundError(f"gpucalcium does not provide {fullname} yet", name=fullname)
        is_package = any(name.startswith(f"{fullname}.") for name in self.modules)
        return ModuleSpec(fullname, self, origin="gpucalcium.accel", is_package=is_package)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is loaded yet: attributes are looked up when they are first used."""
        name = module.__name__
        children = [child.rpartition(".")[2] for child in self.modules if child.rpartition(".")[0] == name]
        names = sorted({*self.table.get(name, {}), *children})
        vars(module).update(
            __doc__=f"{name}, served by gpucalcium.accel.",
            __all__=names,
            __getattr__=partial(self._look_up, module),
            __dir__=lambda: names,
        )

    def _look_up(self, module: ModuleType, name: str) -> Any:
        """The attribute of a served module, kept there from then on."""
        path = f"{module.__name__}.{name}"
        if path in self.modules:
            return importlib.import_module(path)
        ours = self.table.get(module.__name__, {}).get(name)
        if ours is None:
            raise AttributeError(f"gpucalcium does not provide {path} yet", name=name, obj=module)
        home, _, attribute = ours.partition(":")
        value = getattr(importlib.import_module(home), attribute)
        vars(module)[name] = value
        return value


FINDER = DocumentedNames()
