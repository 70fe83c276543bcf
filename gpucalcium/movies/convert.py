"""From any file that can be read to any that can be written, chunk by chunk."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium._progress import stage
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError, UnknownParameterError
from gpucalcium.movies.chain import Chain, Selection, selectors_of
from gpucalcium.movies.save_options import Recording, SaveOptions
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.movies.timeseries import DEFAULT_FR, timeseries
from gpucalcium.movies.writers import check_format, write


def convert(
    source: MovieLike,
    target: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    channel: int | None = None,
    axes: str | None = None,
    frames: Any = None,
    fr: float | None = None,
    start_time: float | None = None,
    meta_data: Any = None,
    **options: Any,
) -> str:
    """Write a movie into a file of another kind, within the memory budget however long it is.

    Parameters
    ----------
    source : path, list of paths, array or source
        What `open_movie` takes; several files follow each other in time.
    target : path
        Its extension says what is written; the file appears once it is complete. A memory map gets its size and
        order into its name.
    dataset : str, optional
        Data set to read in HDF5 and similar files.
    channel, axes : optional
        Which channel, and what each axis of an array is, see `open_movie`.
    frames : slice, int, list or tuple of these, optional
        What to take: frames, or one selector per axis.
    fr, start_time : float, optional
        Frames per second, and time of the first frame in s; default: what the source says, else 30 and 0. With
        `frames`, the time of the first one taken.
    meta_data : optional
        What is known of the recording; default: what the source says.
    **options
        As in `timeseries.save`; unlike there, `to32` is False: the dtype is kept.

    Returns
    -------
    name : str
        Of the file written.

    Raises
    ------
    MovieNotFoundError, UnknownFormatError, MovieFileError, DatasetNotFoundError
        The source cannot be read; the extension of `target` is not known.
    ParameterError
        An option that the format does not have; the target is the source.
    OutputError
        The folder cannot be written to, or the disk is full; nothing is left behind.
    """
    path = Path(target)
    checked = _options(options)
    check_format(path)
    _check_differs(source, path)
    name = dataset or SaveOptions.var_name_hdf5
    opened = open_movie(source, var_name_hdf5=name, channel=channel, axes=axes)
    about = _recording(source, opened, {"fr": fr, "start_time": start_time, "meta_data": meta_data}, frames)
    wanted = opened if frames is None else Selection(opened, frames)
    with stage("conversion", len(wanted)) as bar:
        return str(write(Watched(wanted, bar), path, about, checked))


class Watched:
    """A source that moves a progress bar as its frames are read."""

    def __init__(self, source: FrameSource, bar: Any) -> None:
        self._source, self._bar = source, bar
        self.shape, self.dtype, self.name = source.shape, source.dtype, getattr(source, "name", "the movie")

    def __len__(self) -> int:
        return len(self._source)

    def read(self, frames: slice, out: NDArray | None = None) -> NDArray:
        """As `FrameSource.read`."""
        values = self._source.read(frames, out)
        self._bar.update(len(values))
        return values


def _options(given: Mapping[str, Any]) -> SaveOptions:
    known = [one.name for one in fields(SaveOptions)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise UnknownParameterError(f"convert has no option {name!r}; {hint}")
    return SaveOptions(**{"to32": False, **given})


def _check_differs(source: MovieLike, target: Path) -> None:
    files = [Path(one) for one in _listed(source) if isinstance(one, str | os.PathLike)]
    if target.exists() and any(file.exists() and file.samefile(target) for file in files):
        raise ParameterError(f"{target} is the source itself: choose another name for what is written")


def _listed(source: MovieLike) -> Sequence[Any]:
    return source if isinstance(source, list | tuple) else [source]


def _recording(source: MovieLike, opened: FrameSource, given: Mapping[str, Any], frames: Any) -> Recording:
    """What is known of the movie: as given, else as the source says."""
    if isinstance(source, timeseries):
        known: Mapping[str, Any] = {name: getattr(source, name) for name in ("fr", "start_time", "meta_data")}
        names = source.file_name
    else:
        known = _known(opened.parts if isinstance(opened, Chain) else [opened], given["fr"])
        names = [str(one) if isinstance(one, str | os.PathLike) else None for one in _listed(source)]
    fr = float(known.get("fr", DEFAULT_FR) if given["fr"] is None else given["fr"])
    if not (np.isfinite(fr) and fr > 0):
        raise ParameterError(f"fr={fr}: the frame rate is a positive number of frames per second")
    start = given["start_time"]
    if start is None:
        start = float(known.get("start_time", 0.0)) + _first_frame(frames, len(opened)) / fr
    about = known.get("meta_data", [None]) if given["meta_data"] is None else given["meta_data"]
    return Recording(
        fr=fr, start_time=start, file_name=names, meta_data=about if isinstance(about, list) else [about]
    )


def _known(parts: Sequence[FrameSource], fr: float | None) -> Mapping[str, Any]:
    """What the files say; the rate must be one, unless another is given."""
    said = [getattr(part, "about", {}) for part in parts]
    rates = {about["fr"] for about in said if "fr" in about}
    if fr is None and len(rates) > 1:
        raise ParameterError(
            f"the files have frame rates of {sorted(rates)}: resample them to one, or give fr=..."
        )
    return {**said[0], "meta_data": [one for about in said for one in about.get("meta_data", [None])]}


def _first_frame(frames: Any, length: int) -> int:
    """Index of the first frame that is taken."""
    first = selectors_of(frames)[0]
    if first is None:
        return 0
    picked = np.arange(length)[first if isinstance(first, slice) else np.atleast_1d(np.asarray(first))]
    return int(picked[0]) if len(picked) else 0
