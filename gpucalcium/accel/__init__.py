"""Unmodified scripts on this library: the documented ``caiman.*`` module names, served by our objects.

``python -m gpucalcium.accel script.py`` runs a script that way; `install` does it for the present process::

    import gpucalcium.accel
    gpucalcium.accel.install()
    import caiman as cm          # cm.load is gpucalcium.movies.load

What stands is listed in ``modules.toml``. A name that is not there raises an error that says so; no name ever
comes from another installed package of the same name.
"""

from __future__ import annotations

import importlib.machinery
import logging
import sys
from types import ModuleType

from gpucalcium.accel._finder import FINDER

log = logging.getLogger(__name__)

_set_aside: dict[str, ModuleType] = {}
"""Modules of an installed package of the same name that were imported before `install`."""


def install() -> None:
    """Serve the documented module names from now on, before any installed package of the same name.

    Safe to call again. Modules of such a package that are imported already are set aside until `uninstall`.
    """
    if FINDER in sys.meta_path:
        return
    for root in FINDER.roots:
        if root in sys.modules or importlib.machinery.PathFinder.find_spec(root) is not None:
            log.warning("the installed package %r is not used: gpucalcium.accel serves its names", root)
    _set_aside.update(_take_modules())
    sys.meta_path.insert(0, FINDER)


def uninstall() -> None:
    """Serve nothing any more; what `install` set aside is there again. Objects in use stay what they are."""
    if FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)
        _take_modules()
        sys.modules.update(_set_aside)
        _set_aside.clear()


def _take_modules() -> dict[str, ModuleType]:
    """Remove all modules of the served packages from `sys.modules`."""
    names = [name for name in sys.modules if name.partition(".")[0] in FINDER.roots]
    return {name: sys.modules.pop(name) for name in names}
