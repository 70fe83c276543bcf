"""Telling the system what is read soon, so that a disk works on many requests at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def read_ahead(path: Path, places: Iterable[int], length: int) -> None:
    """Have `length` bytes from each of `places` in a file fetched into the system's memory.

    Worth it where small pieces lie far apart, each of which would else wait for the disk on its own; frames that lie
    one behind the other the system fetches ahead by itself. Without effect where the system cannot be told (macOS,
    Windows) or the file system does not listen, and on what is in memory already.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb", buffering=0) as file:
        try:
            for place in places:
                os.posix_fadvise(file.fileno(), max(0, place), length, os.POSIX_FADV_WILLNEED)
        except OSError:  # a hint was not taken: reading says whether anything is wrong
            return
