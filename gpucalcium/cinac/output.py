"""Files of predictions: where they go, and how they come to be there whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from gpucalcium.errors import OutputError, ParameterError
from gpucalcium.movies.files import written_whole

FORMATS = ("npy", "npz", "mat")
STAMP = "%Y_%m_%d.%H-%M-%S"


def checked_formats(formats: str | Sequence[str], allowed: Sequence[str] = FORMATS) -> tuple[str, ...]:
    """File formats as a tuple without repeats.

    Raises
    ------
    ParameterError
        A format that there is not.
    """
    given = (formats,) if isinstance(formats, str) else tuple(formats)
    for name in given:
        if name not in allowed:
            raise ParameterError(f"output_file_formats={formats!r}: there are {', '.join(allowed)}")
    return tuple(dict.fromkeys(given))


def results_folder(results_path: str | Path, stamped: bool) -> Path:
    """The folder for results, made with all above it; `stamped`: a new one in it, named by the time of day.

    Raises
    ------
    OutputError
        A file stands in its way, or it cannot be made.
    """
    folder = Path(results_path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not stamped:
            return folder
        name = datetime.now().strftime(STAMP)
        for again in range(1000):
            own = folder / (name if again == 0 else f"{name}_{again}")
            if not own.exists():
                own.mkdir()
                return own
    except OSError as err:
        raise OutputError(f"cannot make {folder} for the results: {err}") from err
    raise OutputError(f"{folder} holds a thousand results of this second")


def save_arrays(stem: Path, arrays: Mapping[str, NDArray], formats: Sequence[str]) -> list[Path]:
    """Write arrays beside each other into one file for each format; each appears whole or not at all.

    Parameters
    ----------
    stem : Path
        Without ending.
    arrays : mapping of str to array
    formats : sequence of str
        "npz", or "npy" which is the same; "mat" for Matlab 5.

    Returns
    -------
    list of Path
    """
    written, values = [], {name: np.asarray(array) for name, array in arrays.items()}
    for ending in dict.fromkeys("mat" if name == "mat" else "npz" for name in formats):
        path = stem.with_name(f"{stem.name}.{ending}")
        with written_whole(path) as temporary, temporary.open("wb") as file:
            if ending == "mat":
                scipy.io.savemat(file, values)
            else:
                np.savez(file, **values)  # type: ignore[arg-type]
        written.append(path)
    return written
