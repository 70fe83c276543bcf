"""Movies kept as one file per frame in a folder, ``0.tiff``, ``1.tiff`` ..., with their mean and deviation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.cinac.movies import CinacMovie, file_or_array
from gpucalcium.errors import MovieFileError, MovieNotFoundError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.files import written_whole
from gpucalcium.movies.source import Source

MOMENTS = ("mean.npy", "std.npy")


class _CinacSplitMovie(CinacMovie):
    """What both kinds share: the folder, found or made, and what lies in it."""

    _ending: str
    _write: Callable[[Path, NDArray], object]

    def __init__(
        self,
        identifier: str,
        tiffs_dirname: str | os.PathLike[str],
        already_normalized: bool = False,
        tiff_file_name: str | os.PathLike[str] | None = None,
        tiff_movie: Any = None,
    ) -> None:
        root = Path(tiffs_dirname)
        folder = find_folder(root, identifier)
        if folder is None:
            if tiff_file_name is None and tiff_movie is None:
                raise MovieNotFoundError(
                    f"{root} has no folder for {identifier!r}, {identifier.lower()!r} or one whose name holds it: give "
                    "tiff_file_name or tiff_movie, and it is made"
                )
            folder = root / identifier.lower()
            self._split(CinacMovie(file_or_array(tiff_file_name, tiff_movie), already_normalized), folder)
        self.folder = folder
        stored = [folder / name for name in MOMENTS]
        if any(path.exists() for path in stored) and not already_normalized:
            super().__init__(FrameFiles(folder, self._ending))
            mean, std = (_number(path) for path in stored)
            self._moments = mean, std
        else:
            super().__init__(FrameFiles(folder, self._ending), already_normalized=True)

    def _split(self, movie: CinacMovie, folder: Path) -> None:
        """Write each frame of a movie into a file of its own; the folder appears complete or not at all."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(folder) as temporary, backend.use("cpu"):
            temporary.mkdir()
            done = 0
            for chunk in backend.stream(movie.source):
                for frame in backend.to_numpy(chunk):
                    type(self)._write(temporary / f"{done}.{self._ending}", frame)
                    done += 1
            if not movie.already_normalized:
                for name, value in zip(MOMENTS, (movie.mean, movie.std), strict=True):
                    np.save(temporary / name, value)


class CinacSplitedTiffMovie(_CinacSplitMovie):
    """A movie in a folder of TIFF files, one per frame.

    Parameters
    ----------
    identifier : str
        The folder is ``identifier.lower()`` or, if there is none, the only one whose name holds it.
    tiffs_dirname : path
        Where that folder is; made from `tiff_movie` or `tiff_file_name`, in their dtype, if it is not there.
    already_normalized : bool
        Nothing is normalised. So it is, too, where the folder holds no ``mean.npy`` and ``std.npy``.
    tiff_file_name : path, optional
    tiff_movie : (T, H, W) array, optional
        Taken in place of the file, if both are given.

    Raises
    ------
    MovieNotFoundError
        No such folder, and no movie to make it from.
    ParameterError
        Several folders could be meant.
    MovieFileError
        A frame is missing, or differs in size or dtype from the first.
    """

    _ending = "tiff"
    _write = staticmethod(tifffile.imwrite)


class CinacSplitedNpyMovie(_CinacSplitMovie):
    """As `CinacSplitedTiffMovie`, of ``.npy`` files."""

    _ending = "npy"
    _write = staticmethod(np.save)


class FrameFiles(Source):
    """Frames of a folder with one file for each, named by their numbers from 0 on.

    Parameters
    ----------
    folder : Path
    ending : str
        Of the files, without a dot.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        numbers = sorted(int(path.stem) for path in folder.glob(f"*.{ending}") if path.stem.isdecimal())
        if not numbers:
            raise MovieFileError(f"{folder} holds no frames: files 0.{ending}, 1.{ending} ... are expected")
        if missing := sorted(set(range(numbers[-1] + 1)) - set(numbers)):
            raise MovieFileError(
                f"{folder}: frame {missing[0]} is missing, there is no {missing[0]}.{ending}"
            )
        self._folder, self._ending = folder, ending
        first = open_movie(self._path(0))
        super().__init__((len(numbers), *first.shape[1:]), first.dtype, str(folder))

    def _path(self, frame: int) -> Path:
        return self._folder / f"{frame}.{self._ending}"

    def _fill(self, wanted: range, out: NDArray) -> None:
        for at, frame in enumerate(wanted):
            one = open_movie(self._path(frame))
            if one.shape != (1, *self.shape[1:]) or one.dtype != self.dtype:
                raise MovieFileError(
                    f"{self._path(frame)} is {one.shape} {one.dtype}; one frame {self.shape[1:]} {self.dtype}, like "
                    "the first, was expected"
                )
            one.read(slice(None), out[at : at + 1])


def find_folder(root: Path, identifier: str) -> Path | None:
    """The folder in `root` of that name in lower case, else the only one whose name holds it; None if there is none.

    Raises
    ------
    ParameterError
        The identifier is no name, or several folders hold it.
    """
    wanted = identifier.lower()
    if not wanted or Path(wanted).name != wanted:
        raise ParameterError(
            f"identifier={identifier!r}: a folder is named by it, so it must be a plain name"
        )
    if not root.is_dir():
        return None
    folders: Mapping[str, Path] = {
        path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()
    }
    if wanted in folders:
        return folders[wanted]
    holding = [path for name, path in folders.items() if wanted in name]
    if len(holding) > 1:
        raise ParameterError(
            f"identifier={identifier!r} is part of the names of {len(holding)} folders in {root}, "
            f"{holding[0].name} and {holding[1].name} among them: give one in full"
        )
    return holding[0] if holding else None


def _number(path: Path) -> float:
    try:
        value = float(np.load(path, allow_pickle=False).reshape(()))
    except (OSError, ValueError, EOFError) as err:
        raise MovieFileError(
            f"{path} must hold one number, by which the frames are normalised: {err}. Without it and its companion the "
            "frames are taken as normalised"
        ) from err
    if not np.isfinite(value):
        raise MovieFileError(f"{path} holds {value}: frames cannot be normalised by it")
    return value
