"""Correlation of every pixel with its neighbours, from sums that are carried along a movie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, stencils

Neighbourhood = Literal["faces", "all"]
"""Which pixels are neighbours: those that share a face (4; 6 in volumes), or a corner too (8; 26)."""
Steps = Sequence[tuple[int, ...]]
"""To neighbours: a component of -1, 0 or 1 for each axis, the first that is not 0 being 1."""


class NeighbourCorrelations:
    """Sums over time for the Pearson correlations of neighbouring pixels: one pass, any number of chunks.

    How the frames are cut into chunks does not change a bit of the result.

    Parameters
    ----------
    shape : (d1, d2[, d3])
    steps : sequence of tuples of int
        To those neighbours of a pixel that come later in C order, as from `forward_steps`; none serves who wants
        the mean only.
    """

    def __init__(self, shape: tuple[int, ...], steps: Steps = ()) -> None:
        self.shape = tuple(shape)
        self.steps = steps
        self.frames = 0
        self._offsets: Array = step_offsets(steps, self.shape)
        self._pilot: Array | None = None
        self._sums: Array | None = None

    def working(self, dtype: DTypeLike) -> int:
        """Bytes for each frame of `dtype` that `add` needs beside the frames themselves."""
        compiled = stencils.compiled_dtype(dtype, wide="f8")
        return 0 if compiled == dtype else compiled.itemsize * math.prod(self.shape)

    def add(self, frames: Array) -> None:
        """Take in the next frames, (n, d1, d2[, d3]) of any real dtype, C order; all of them or, on an error, none."""
        if self._pilot is None or self._sums is None:
            self._pilot = frames[0].copy()
            self._offsets = _beside(frames, self._offsets)
            self._sums = backend.array_module(frames).zeros(
                (2 + len(self._offsets), self._pilot.size), "float64"
            )
        backend.wing(frames).correlation.add_products(frames, self._pilot, self._offsets, self._sums)
        self.frames += len(frames)

    def mean(self) -> NDArray[np.float32]:
        """Mean of the frames so far, (d1, d2[, d3]) on the host; NaN where a frame was."""
        if self._sums is None or self._pilot is None:
            return np.zeros(self.shape, np.float32)
        above = backend.to_numpy(self._sums)[0].reshape(self.shape) / self.frames
        return (backend.to_numpy(self._pilot) + above).astype(np.float32)

    def image(self, order_mean: int = 1) -> NDArray[np.float32]:
        """Mean correlation of each pixel with its neighbours so far; on the host.

        Parameters
        ----------
        order_mean : int
            k > 0: k-th root of the mean k-th power (with the sign of that mean); 0: geometric mean, in
            which a correlation below zero counts as zero.

        Returns
        -------
        image : (d1, d2[, d3]) float32
            As `local_correlations` says.
        """
        if self._sums is None:
            return np.zeros(self.shape, np.float32)
        return backend.to_numpy(self.device_image(order_mean))

    def device_image(self, order_mean: int = 1) -> Array:
        """`image`, on the device of the frames."""
        return images_of(self._taken()[None], self.frames, self.shape, self.steps, order_mean)[0]

    def moments(self) -> tuple[Array, Array, Array, Array]:
        """What a movie goes on from with weights of its own; on the device of the frames.

        Returns
        -------
        pilot : (d1, d2[, d3])
            The first frame, from which the others are measured.
        offsets : (m,) int64
        mean : (pixels,) float64
        moments : (2 + m, pixels) float64
            0, variance, and covariance with the pixel `offsets[k]` further on, as far as there is one.
        """
        moments = self._taken() / self.frames
        mean, pixels = moments[0].copy(), moments.shape[1]
        moments[0] = 0
        for row, offset in enumerate([0, *step_offsets(self.steps, self.shape).tolist()], 1):
            moments[row, : pixels - offset] -= mean[: pixels - offset] * mean[offset:]
        return self._pilot, self._offsets, mean, moments

    def _taken(self) -> Array:
        if self._sums is None:
            raise RuntimeError("no frames have been added")
        return self._sums

    def pairs(self) -> Iterator[NDArray[np.float64]]:
        """For each step, the correlation of each pixel for which there is one with the pixel a step on; on the host.

        0 where either is constant, NaN where either is not finite.
        """
        if self._sums is None:
            return
        sums = backend.to_numpy(self._sums).reshape(-1, *self.shape) / self.frames
        mean = sums[0]
        with np.errstate(invalid="ignore"):  # NaN pixels
            sd = np.sqrt(np.maximum(sums[1] - mean**2, 0))
        for (here, there), product_mean in zip(self._places(), sums[2:], strict=True):
            yield _pearson(product_mean[here], mean[here], mean[there], sd[here], sd[there])

    def _places(self) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """For each step, where the first and where the second pixel of its pairs stand."""
        for step in self.steps:
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, self.shape, strict=True))
            there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, self.shape, strict=True))
            yield here, there


def forward_steps(shape: tuple[int, ...], neighbourhood: Neighbourhood) -> list[tuple[int, ...]]:
    """Steps to the neighbours that come later in C order; along axes of length 1 there are none."""
    reaches = [(-1, 0, 1) if n > 1 else (0,) for n in shape]
    furthest = 1 if neighbourhood == "faces" else len(shape)
    return [s for s in product(*reaches) if s > (0,) * len(shape) and np.count_nonzero(s) <= furthest]


def step_array(steps: Steps, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Steps as (m, axes), also where there are none."""
    return np.array(steps, np.int64).reshape(-1, len(shape))


def step_offsets(steps: Steps, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """How far each step leads in the flat frame, (m,), pixels."""
    strides = [math.prod(shape[a + 1 :]) for a in range(len(shape))]
    return step_array(steps, shape) @ np.array(strides, np.int64)


def images_of(sums: Array, weight: float, shape: tuple[int, ...], steps: Steps, order_mean: int = 1) -> Array:
    """Correlation images (n, d1, d2[, d3]) float32 from sums (n, 2 + m, pixels), on their device."""
    out = backend.array_module(sums).empty((len(sums), math.prod(shape)), "float32")
    directions = _beside(sums, step_array(steps, shape))
    backend.wing(sums).correlation.images(sums, weight, shape, directions, order_mean, out)
    return out.reshape(len(sums), *shape)


def _beside(array: Array, values: NDArray) -> Array:
    """Small `values` on the device of `array`."""
    return backend.array_module(array).asarray(values)


def _pearson(
    product_mean: NDArray, mean_a: NDArray, mean_b: NDArray, sd_a: NDArray, sd_b: NDArray
) -> NDArray:
    """Pearson correlation from moments; 0 where either pixel is constant."""
    with np.errstate(invalid="ignore"):
        scale = sd_a * sd_b
        rho = (product_mean - mean_a * mean_b) / np.where(scale == 0, 1.0, scale)
    return np.where(scale == 0, 0.0, np.clip(rho, -1, 1))
