"""Where suite2p says its cells are: ``stat.npy``, a pickle of which nothing is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MovieFileError, MovieNotFoundError
from gpucalcium.movies.plain_pickle import read_records


def read_stat(path: Path) -> list[NDArray[np.int64]]:
    """(n, 2) x and y of the pixels of each cell.

    Parameters
    ----------
    path : Path
        Dictionaries with arrays ``xpix`` and ``ypix``, see `plain_pickle`.

    Raises
    ------
    MovieNotFoundError
        No such file.
    MovieFileError
        Not such a file; truncated; or it refers to anything but NumPy, dates and paths, as hostile ones do.
    """
    if not path.is_file():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")
    try:
        cells = read_records(path, ("xpix", "ypix"))
    except (ValueError, OSError) as err:
        raise MovieFileError(
            f"{path} cannot be read as the cells of suite2p: {err}. Give the pixels of each cell to "
            "set_rois_using_pixel_mask instead"
        ) from err
    return [_pixels(path, cell, found) for cell, found in enumerate(cells)]


def _pixels(path: Path, cell: int, found: dict[str, NDArray]) -> NDArray[np.int64]:
    if missing := {"xpix", "ypix"} - set(found):
        raise MovieFileError(f"{path}: cell {cell} has no array {' and no '.join(sorted(missing))}")
    x, y = found["xpix"], found["ypix"]
    if x.ndim != 1 or x.shape != y.shape or x.dtype.kind not in "iu" or y.dtype.kind not in "iu":
        raise MovieFileError(
            f"{path}: cell {cell} has xpix {x.shape} {x.dtype} and ypix {y.shape} {y.dtype}; two vectors of whole "
            "numbers, equally long, are expected"
        )
    return np.stack([x, y], axis=1).astype(np.int64)
