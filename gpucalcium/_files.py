"""Writing files so that a target is either the old file or the complete new one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpucalcium.errors import MovieNotFoundError


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """A temporary path beside `target`, renamed to it when the block ends; removed if the block fails.

    Raises
    ------
    MovieNotFoundError
        The folder of `target` does not exist.
    """
    target = Path(target)
    if not target.parent.is_dir():
        raise MovieNotFoundError(
            f"cannot write {target}: the folder {target.parent} does not exist; make it first"
        )
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
