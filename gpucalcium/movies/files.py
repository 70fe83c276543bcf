"""Where files go, and how they come to be there whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from gpucalcium.backend import settings


def target(file_name: str | os.PathLike[str]) -> Path:
    """Where a file of that name goes: without a folder, among the temporary files."""
    has_folder = os.path.dirname(file_name)  # noqa: PTH120 - Path drops "./"
    return Path(file_name) if has_folder else temporary_folder() / file_name


def temporary_folder() -> Path:
    """The folder of setting GPUCALCIUM_TEMP, else the system's; made if it is not there."""
    folder = settings.get("temp") or Path(gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` at the end, removed after an error."""
    temporary = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
