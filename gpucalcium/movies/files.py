"""Where files go, and how they come to be there whole."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from gpucalcium.backend import settings
from gpucalcium.errors import OutputError

_NO_ROOM = {errno.ENOSPC: "No space left on device", errno.EFBIG: "File too large", errno.EROFS: "Read-only"}
_NO_ROOM |= {errno.EDQUOT: "quota exceeded"} if hasattr(errno, "EDQUOT") else {}
_NO_ROOM_TEXT = re.compile(
    "|".join([*_NO_ROOM.values(), r"requested and \d+ written"])
)  # the last: ndarray.tofile


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
def written_whole(path: Path, *, resume: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` for a file or folder; renamed to `path` at the end, removed after an error.

    Parameters
    ----------
    path : Path
    resume : bool
        Use the name that `unfinished` gives, and keep what lies there after an error, for the next attempt.

    Raises
    ------
    OutputError
        The folder is not there or cannot be written to; the disk is full.
    """
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"{path} cannot be written: no permission to write into {folder}; choose another folder"
        )
    temporary = unfinished(path) if resume else folder / f".{secrets.token_hex(6)}.part{path.suffix}"
    kept = False
    try:
        yield temporary
        _take_the_place_of(path, temporary)
    except (OSError, RuntimeError) as err:  # HDF5 may say it at the end, in an error of its own
        kept = resume
        if not _is_no_room(err):
            raise
        left = f"What is done is kept in {temporary}" if resume else "Nothing is left of it"
        raise OutputError(
            f"{path} cannot be written: {' '.join(str(err).split())}. {left}; make room, or choose another disk"
        ) from err
    except BaseException:
        kept = resume
        raise
    finally:
        if not kept:
            _remove(temporary)


def unfinished(path: Path) -> Path:
    """Where the beginning of a file is kept that a later run may go on with."""
    return path.with_name(f".{path.name}.unfinished")


def _take_the_place_of(path: Path, temporary: Path) -> None:
    """Rename; what stood there before is gone only once the new file or folder stands there."""
    if temporary.is_dir() and path.is_dir():
        old = temporary.with_name(f"{temporary.name}.old")
        path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old)
    else:
        temporary.replace(path)


def _is_no_room(err: BaseException | None) -> bool:
    """Whether this error, or one that led to it, says that the disk takes no more."""
    while err is not None:
        if getattr(err, "errno", None) in _NO_ROOM or _NO_ROOM_TEXT.search(str(err)):
            return True
        err = err.__cause__ or err.__context__
    return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
