"""The recordings that motion correction is given: opened, checked, and what the files made of them are called."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import MovieShapeError, MovieValueError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.chain import Selection
from gpucalcium.registration.journal import fingerprint

FRAMES_FOR_MINIMUM = 400


def open_recordings(
    names: Sequence[Any], *, is3D: bool = False, indices: Any = (slice(None),), var_name_hdf5: str = "mov"
) -> list[FrameSource]:
    """Open recordings of one field of view; only headers are read.

    Parameters
    ----------
    names : sequence of path, array, source, or tuple of paths
    is3D : bool
        Whether frames are volumes.
    indices : slice or tuple of slices
        Part of the field of view, from the first axis on; axes beyond stay whole.
    var_name_hdf5 : str
        Data set in files that hold several.

    Raises
    ------
    MovieShapeError
        Wrong number of axes, or fields of view of different sizes.
    ParameterError
        More slices than axes, or slices that leave nothing.
    """
    sources = [_opened(name, is3D, indices, var_name_hdf5) for name in names]
    first = sources[0]
    for source in sources[1:]:
        if source.shape[1:] != first.shape[1:]:
            raise MovieShapeError(
                f"Files have FOVs with different sizes: {_name(first)} has {first.shape[1:]}, {_name(source)} has "
                f"{source.shape[1:]}. Crop them to one size with `indices`, or register them one by one"
            )
    return sources


def _opened(name: Any, is3D: bool, indices: Any, var_name_hdf5: str) -> FrameSource:
    source = open_movie(name, var_name_hdf5=var_name_hdf5)
    axes = 4 if is3D else 3
    if len(source.shape) != axes:
        raise MovieShapeError(
            f"{_name(source)} has {len(source.shape)} axes, shape {source.shape}, but is3D={is3D} means {axes}: set "
            f"is3D={not is3D}, or check the file"
        )
    parts = tuple(indices) if isinstance(indices, Sequence) else (indices,)
    if len(parts) > axes - 1:
        raise ParameterError(
            f"indices={indices!r} has {len(parts)} slices; frames of {_name(source)} have {axes - 1} axes"
        )
    if all(part == slice(None) for part in parts):
        return source
    if not all(isinstance(part, slice) for part in parts):
        raise ParameterError(
            f"indices={indices!r}: a slice, or a tuple of slices, one per axis of the frames"
        )
    if any(not range(n)[part] for part, n in zip(parts, source.shape[1:], strict=False)):
        raise ParameterError(f"indices={indices!r} leaves nothing of frames of shape {source.shape[1:]}")
    return Selection(source, (slice(None), *parts))


def stems(names: Sequence[Any], sources: Sequence[FrameSource], *, lasting: bool = False) -> list[str]:
    """What recordings are called where files are made of them: as their own files, told apart by number.

    Parameters
    ----------
    names, sources : sequences of one length
        As the user gave the recordings, and as they were opened.
    lasting : bool
        Arrays, which have no name, are called by what they hold, so that a later run finds what this one left; else
        at random, so that runs do not get into each other's way.
    """
    found: list[str] = []
    for name, source in zip(names, sources, strict=True):
        stem = _stem(name) or f"movie-{fingerprint(source)[:8] if lasting else secrets.token_hex(4)}"
        found.append(stem if stem not in found else f"{stem}-{len(found)}")
    return found


def _stem(name: Any) -> str | None:
    first = name[0] if isinstance(name, tuple | list) and name else name
    if isinstance(first, str | os.PathLike):
        return Path(first).stem
    known = getattr(first, "name", None) if hasattr(first, "read") else None
    if not isinstance(known, str):
        return None
    without_ending = re.sub(r"\.[A-Za-z0-9]+(?=\W|$)", "", Path(known).name)
    return re.sub(r"\W+", "-", without_ending).strip("-")


def per_axis(value: Sequence[int] | int, dims: tuple[int, ...], *, limit: bool = False) -> tuple[int, ...]:
    """One value per axis from a number, or from a tuple that lacks the third axis.

    Parameters
    ----------
    limit : bool
        The value supplied for a third axis is less than half of its length, as a largest shift has to be.
    """
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * len(dims)
    if len(values) == len(dims) - 1 == 2:
        values = (*values, min(values[-1], (dims[-1] - 1) // 2) if limit else values[-1])
    return values


def lowest_value(source: FrameSource, high_pass: NDArray[np.float64] | None = None) -> float:
    """Smallest number in the first 400 frames, of the frames correlated with `high_pass` if that is given.

    Raises
    ------
    MovieValueError
        There is none.
    """
    lowest = math.inf
    for frames in backend.stream(source, frames=slice(0, FRAMES_FOR_MINIMUM)):
        if high_pass is not None:
            frames = backend.wing(frames).filters.correlate(frames, high_pass, "reflect")
        lowest = min(lowest, lowest_of(frames))
    if lowest == math.inf:
        raise MovieValueError(
            f"none of the first {FRAMES_FOR_MINIMUM} frames holds a finite number: check how the movie was read, or "
            "give min_mov"
        )
    return lowest


def lowest_of(frames: Array) -> float:
    """Smallest finite number in a chunk; infinity if there is none."""
    if frames.dtype.kind == "f":
        xp = backend.arrays.xp(frames)
        frames = xp.where(xp.isfinite(frames), frames, frames.dtype.type(np.inf))
    return float(frames.min())


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
