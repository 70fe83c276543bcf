"""The overlapping patches that piecewise-rigid registration divides a frame into."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ParameterError


@dataclass(frozen=True)
class PatchGrid:
    """Patches of one size on a regular grid that covers a frame; the last of an axis ends where the frame ends."""

    shape: tuple[int, ...]
    """Of the frame, (d1, d2[, d3])."""
    starts: tuple[tuple[int, ...], ...]
    """Per axis, first pixel of each patch, rising."""
    width: tuple[int, ...]
    """Side of a patch per axis, pixels; never more than the frame has."""

    @classmethod
    def make(cls, shape: tuple[int, ...], strides: tuple[int, ...], overlaps: tuple[int, ...]) -> PatchGrid:
        """Patches of ``strides + overlaps`` pixels, `strides` apart.

        An axis of n pixels with patches of w has starts ``0, stride, 2 stride, ... < n - w``, and ``n - w``.
        A patch longer than the frame is as long as the frame.

        Parameters
        ----------
        shape : (d1, d2[, d3])
            Of the frame.
        strides, overlaps : one whole number per axis
            Pixels; at least 1 and at least 0.

        Raises
        ------
        ParameterError
            Not one number per axis, or one that is too small or not whole.
        """
        for name, values, least in (("strides", strides, 1), ("overlaps", overlaps, 0)):
            if len(values) != len(shape):
                raise ParameterError(
                    f"{name}={tuple(values)} has {len(values)} values, but frames of shape {tuple(shape)} have "
                    f"{len(shape)} axes: give one per axis"
                )
            if any(v < least or v != int(v) for v in values):
                raise ParameterError(f"{name}={tuple(values)}: whole numbers of pixels, {least} or more")
        width = tuple(
            min(int(stride) + int(overlap), n)
            for n, stride, overlap in zip(shape, strides, overlaps, strict=True)
        )
        starts = tuple(
            (*range(0, n - w, int(stride)), n - w) for n, w, stride in zip(shape, width, strides, strict=True)
        )
        return cls(tuple(int(n) for n in shape), starts, width)

    @property
    def counts(self) -> tuple[int, ...]:
        """Patches per axis."""
        return tuple(len(s) for s in self.starts)

    @property
    def n(self) -> int:
        """Patches in all."""
        return math.prod(self.counts)

    @cached_property
    def centres(self) -> tuple[NDArray[np.float64], ...]:
        """Per axis, middle of each patch, in pixels: ``start + (width - 1) / 2``."""
        return tuple(np.array(s) + (w - 1) / 2 for s, w in zip(self.starts, self.width, strict=True))

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """(n, ndim) first pixel of each patch, C order over the grid."""
        return np.stack([x.ravel() for x in np.meshgrid(*self.starts, indexing="ij")], axis=1).astype(
            np.int64
        )

    @cached_property
    def indices(self) -> list[tuple[int, ...]]:
        """Place in the grid of each patch, C order."""
        return list(np.ndindex(*self.counts))

    @cached_property
    def slices(self) -> list[tuple[slice, ...]]:
        """Pixels of each patch, C order over the grid."""
        return [
            tuple(slice(s, s + w) for s, w in zip(corner, self.width, strict=True))
            for corner in self.corners.tolist()
        ]
