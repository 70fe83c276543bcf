"""What is done of a long prediction, kept on disk: a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import logging
import time
import zipfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac._optional import optional
from gpucalcium.movies.files import written_whole

if TYPE_CHECKING:
    from gpucalcium.cinac.recording import CinacRecording

SAVE_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Checkpoint:
    """Predictions so far and how far that is, in a file that appears complete or not at all.

    Parameters
    ----------
    path : Path, optional
        None: nothing is kept.
    name : str
        Of what is predicted, from what and how; a file of another name is not gone on with.
    shape : (N, T, K)

    Attributes
    ----------
    merged : (N, T, K) float32
        Predictions so far.
    run : int
        The run (of some cells, mirrored in one way) that is to be done next.
    group : int
        The first group of windows of it that is not done.
    """

    def __init__(self, path: Path | None, name: str, shape: tuple[int, int, int]) -> None:
        self._path, self._name, self._saved = path, name, time.monotonic()
        self.merged: NDArray[np.float32] = np.zeros(shape, np.float32)
        self.run = self.group = self._before = 0
        if path is not None and path.exists():
            self._read(path)

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._save(self._path)

    def group_is_done(self, index: int) -> None:
        """Group `index`, counted from `group` as it was when the run began, is in `merged`."""
        self.group = self._before + index + 1
        if self._path is not None and time.monotonic() - self._saved > SAVE_EVERY_S:
            self._save(self._path)

    def run_is_done(self) -> None:
        """All groups of the run are."""
        self.run, self.group, self._before = self.run + 1, 0, 0

    def _save(self, path: Path) -> None:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, merged=self.merged, name=self._name, at=(self.run, self.group))
        self._saved = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as kept:
                if str(kept["name"]) != self._name or kept["merged"].shape != self.merged.shape:
                    log.info("%s is of another prediction: this one starts anew", path)
                    return
                self.merged[...] = kept["merged"]
                self.run, self.group = map(int, kept["at"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as err:
            log.warning("%s cannot be read (%s): the prediction starts anew", path, err)
            return
        self._before = self.group
        log.info("going on from %s", path)


def fingerprint(recording: CinacRecording, *what: object) -> str:
    """A name for a prediction: of a movie, the cells in it, and everything else that its result depends on."""
    shapely = optional("shapely", "the geometry of cells")
    movie = recording.movie
    about = (movie.source.shape, str(movie.source.dtype), movie.mean, movie.std)
    digest = hashlib.sha256(repr(about).encode())
    for outline in recording.cells.polygons:
        digest.update(shapely.to_wkb(outline))
    for part in what:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()
