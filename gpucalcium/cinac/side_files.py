"""Text files beside .cinac files that say how these are to be used in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpucalcium.errors import MovieFileError


@dataclass(frozen=True)
class SideFiles:
    """What is said of files, by parts of their names (in capitals or not)."""

    sessions: Mapping[str, str] = field(default_factory=dict)
    """Part of a name to the session it is of."""
    only_for_training: tuple[str, ...] = ()
    to_keep: tuple[str, ...] = ()
    """Whose windows are never dropped."""
    to_exclude: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> SideFiles:
        """Read ``*session_ids*.txt``, ``*only_for_training*.txt``, ``*to_keep*.txt`` and ``*to_exclude*.txt``.

        Raises
        ------
        MovieFileError
            A line of a file of sessions is not "part of a name: session".
        """
        sessions = {}
        for path in sorted(folder.glob("*session_ids*.txt")):
            for line in _lines(path):
                part, colon, session = line.partition(":")
                if not (part.strip() and colon and session.strip()):
                    raise MovieFileError(f"{path}: {line!r} must be 'part of a file name: session'")
                sessions[part.strip()] = session.strip()
        others = (_entries(folder, name) for name in ("only_for_training", "to_keep", "to_exclude"))
        return cls(sessions, *others)

    def session(self, name: str) -> str:
        """The session of a file; the first that fits, or the file itself."""
        return next((session for part, session in self.sessions.items() if _in(part, name)), name)

    def trains_only(self, name: str) -> bool:
        """Whether it is never validated on."""
        return any(_in(part, name) for part in self.only_for_training)

    def keeps(self, name: str) -> bool:
        """Whether its windows are never dropped."""
        return any(_in(part, name) for part in self.to_keep)

    def excludes(self, name: str) -> bool:
        """Whether it is left out."""
        return any(_in(part, name) for part in self.to_exclude)


def _entries(folder: Path, name: str) -> tuple[str, ...]:
    return tuple(line for path in sorted(folder.glob(f"*{name}*.txt")) for line in _lines(path))


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _in(part: str, name: str) -> bool:
    return part.lower() in name.lower()
