"""Correlation of every pixel with its neighbours, from sums that are carried along a movie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, stencils

Neighbourhood = Literal["none", "faces", "all"]
"""Which pixels are neighbours: those that share a face (4; 6 in volumes), or a corner too (8; 26)."""


class NeighbourCorrelations:
    """Sums over time for the Pearson correlations of neighbouring pixels: one pass, any number of chunks.

    How the frames are cut into chunks does not change a bit of the result.

    Parameters
    ----------
    shape : (d1, d2[, d3])
    neighbourhood : {"none", "faces", "all"}
        "none" serves who wants the mean only.
    """

    def __init__(self, shape: tuple[int, ...], neighbourhood: Neighbourhood) -> None:
        self.shape = tuple(shape)
        self.frames = 0
        self._steps = forward_steps(self.shape, neighbourhood)
        strides = [math.prod(self.shape[a + 1 :]) for a in range(len(self.shape))]
        self._offsets: Array = np.array([np.dot(step, strides) for step in self._steps], np.int64)
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
            module = backend.array_module(frames)
            self._offsets = module.asarray(self._offsets)
            self._sums = module.zeros((2 + len(self._offsets), self._pilot.size), "float64")
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
        sums = backend.to_numpy(self._sums).reshape(-1, *self.shape) / self.frames
        mean, square = sums[0], sums[1]
        with np.errstate(invalid="ignore"):  # NaN pixels
            sd = np.sqrt(np.maximum(square - mean**2, 0))
        finite = np.isfinite(sd)
        total = np.zeros(self.shape)
        number = np.zeros(self.shape, np.int64)
        for (here, there), pair_mean in zip(self._pairs(), sums[2:], strict=True):
            rho = _pearson(pair_mean[here], mean[here], mean[there], sd[here], sd[there])
            both = finite[here] & finite[there]
            term = np.where(both, _term(rho, order_mean), 0.0)
            for part in (here, there):
                total[part] += term
                number[part] += both
        return np.where(finite, _root(total / np.maximum(number, 1), number, order_mean), np.nan).astype(
            np.float32
        )

    def _pairs(self) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """For each step, where the first and where the second pixel of its pairs stand."""
        for step in self._steps:
            here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, self.shape, strict=True))
            there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, self.shape, strict=True))
            yield here, there


def forward_steps(shape: tuple[int, ...], neighbourhood: Neighbourhood) -> list[tuple[int, ...]]:
    """Steps to the neighbours that come later in C order; along axes of length 1 there are none."""
    reaches = [(-1, 0, 1) if n > 1 else (0,) for n in shape]
    furthest = {"none": 0, "faces": 1, "all": len(shape)}[neighbourhood]
    return [s for s in product(*reaches) if s > (0,) * len(shape) and np.count_nonzero(s) <= furthest]


def _pearson(pair_mean: NDArray, mean_a: NDArray, mean_b: NDArray, sd_a: NDArray, sd_b: NDArray) -> NDArray:
    """Pearson correlation from moments; 0 where either pixel is constant."""
    with np.errstate(invalid="ignore"):
        scale = sd_a * sd_b
        rho = (pair_mean - mean_a * mean_b) / np.where(scale > 0, scale, 1.0)
    return np.where(scale > 0, np.clip(rho, -1, 1), 0.0)


def _term(rho: NDArray, order: int) -> NDArray:
    """What a correlation adds to its pixel's sum; for the geometric mean, its logarithm."""
    if order:
        return rho**order
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(rho, 0.0))


def _root(mean: NDArray, number: NDArray, order: int) -> NDArray:
    """The mean of the terms back on the scale of correlations; 0 where there is no neighbour."""
    if order:
        return np.sign(mean) * np.abs(mean) ** (1.0 / order)
    return np.where(number > 0, np.exp(mean), 0.0)
