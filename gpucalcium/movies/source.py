"""What every reader of movies shares: the checks of shape and dtype, and reading into given memory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, MovieShapeError, ParameterError

PIECE = 8 << 20  # bytes that are converted or transposed at a time, so that they stay in the cache


def frame_dtype(stored: DTypeLike, name: str) -> np.dtype:
    """Dtype in which frames stored as `stored` are handed out: native byte order, and what devices compute with.

    bool becomes uint8 and float16 float32, both without loss; numbers wider than 64 bits become float64.

    Raises
    ------
    ArrayTypeError
        Complex numbers, texts, objects, records.
    """
    dtype = np.dtype(stored)
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    if dtype.kind not in "uif":
        raise ArrayTypeError(
            f"{name} holds values of dtype {dtype}; a movie holds real numbers (integers, float, bool). "
            "Convert it first, e.g. abs() or .real of complex values"
        )
    return dtype.newbyteorder("=")


class Source(ABC):
    """A movie that is read in pieces.

    Parameters
    ----------
    shape : tuple of int
        (T, d1, d2[, d3]).
    stored : dtype
        Of the values where they are stored; handed out as `frame_dtype` says.
    name : str
        What error messages call the movie.

    Attributes
    ----------
    about : mapping
        What the file says of the recording, where opening it told: fr (Hz), start_time (s), meta_data (a list); of a
        video that was written here levels, the values that became black and white (grey levels 0 and 255).

    Raises
    ------
    MovieShapeError
        Not 3 or 4 axes, or an axis of length 0.
    """

    about: Mapping[str, Any] = MappingProxyType({})
    parts: Sequence[FrameSource] = ()
    _source: FrameSource  # where frames are made from those of another source, or of several `parts`

    def __init__(self, shape: tuple[int, ...], stored: DTypeLike, name: str) -> None:
        self.name = name
        self.shape = tuple(int(n) for n in shape)
        self.stored = np.dtype(stored)
        self.dtype = frame_dtype(stored, name)
        if len(shape) not in (3, 4):
            raise MovieShapeError(
                f"{name} has {len(shape)} axes, shape {self.shape}; a movie is (T, d1, d2) or (T, d1, d2, d3). "
                "Give one image as image[None]; of several channels take one with channel=... and, where the file does "
                "not say which axis is which, axes='TCZYX'"
            )
        if 0 in self.shape:
            raise MovieShapeError(
                f"{name} is empty: its shape is {self.shape}, but a movie has at least one frame"
            )

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.shape} {self.dtype}>"

    @property
    def keeps(self) -> int:
        """Bytes of memory that it takes for itself while it is streamed, which `backend.stream` counts."""
        inside = self.parts or (getattr(self, "_source", None),)
        return max(getattr(part, "keeps", 0) for part in inside)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in `dtype`."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, frames: slice, out: NDArray | None = None) -> NDArray:
        """Frames of a slice, in memory of their own.

        Parameters
        ----------
        frames : slice
            As in indexing; the step must be positive.
        out : (n, d1, d2[, d3]) array of `dtype`, C order, optional
            Where to read into.

        Returns
        -------
        frames : (n, d1, d2[, d3]) array of `dtype`
            `out`, if given.

        Raises
        ------
        MovieFileError
            The file ends early or cannot be decoded; names the frame.
        """
        wanted = range(len(self))[frames]
        if wanted.step < 0:
            raise ParameterError(f"frames={frames}: frames are read forwards, so the step must be positive")
        shape = (len(wanted), *self.shape[1:])
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ArrayShapeError(
                f"out is {out.shape} {out.dtype}; these frames of {self.name} need {shape} {self.dtype} in C order"
            )
        if wanted:
            self._fill(wanted, out)
        return out

    @abstractmethod
    def _fill(self, wanted: range, out: NDArray) -> None:
        """Read the frames `wanted` (at least one, forwards) into `out`; several threads do so at once."""
