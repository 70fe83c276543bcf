"""The ring model of a one-photon background: B = b0 + U W D (Y - A C - b0).

D averages blocks of pixels, U repeats them back, and row i of W predicts block i from a ring of blocks around it:
what a pixel shares with pixels farther away than a cell is wide is out of focus. The weights are kept place by place
of the ring, so that W is a stencil; B is made for one chunk of frames at a time.

Zhou et al. (2018), eLife 7:e28728, equations 6-8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._blocks import block_sums
from gpucalcium.cnmf._movie import PixelMovie, pixel_movie
from gpucalcium.errors import ArrayShapeError, MemoryBudgetError, NotSupportedError, ParameterError

RIDGE = 1e-5  # of the trace of a ring's Gram matrix
SHARE_FOR_SUMS = (
    0.5  # of the memory budget: the products of pixel pairs; the weights and a chunk need the rest
)


def compute_W(
    Y: Any,
    A: Any,
    C: NDArray,
    dims: tuple[int, int],
    radius: float,
    data_fits_in_memory: bool = True,
    ssub: int = 1,
    tsub: int = 1,
    parallel: bool = False,
) -> tuple[csr_matrix, NDArray[np.float32]]:
    """Weights W and constant b0 of the ring model of the background.

    Parameters
    ----------
    Y : (d, T)
        Movie, pixels in Fortran order; read twice, in chunks.
    A : (d, K), C : (K, T)
        Footprints and traces, which are taken out of the movie first.
    dims : (d1, d2)
        Field of view, pixels.
    radius : float
        Radius of the ring, pixels.
    ssub, tsub : int
        Side of the blocks of pixels, and number of frames, that are averaged before.
    data_fits_in_memory, parallel
        Accepted for old scripts and not used: the movie is read in chunks, on threads or on the GPU.

    Returns
    -------
    W : (n, n) float32 CSR, n = ceil(d1 / ssub) ceil(d2 / ssub)
        W_i = (X_R X_R' + 1e-5 tr(X_R X_R') I)^-1 X_R x_i, with X = D(Y - A C - b0) and R the places of distance
        more than r = round(radius / ssub) and at most r + 1, in Fortran order; nothing beyond the border.
    b0 : (d,) float32
        Mean of Y - A C over time.

    Raises
    ------
    NotSupportedError
        A volume.
    ParameterError
        `radius`, `ssub` or `tsub` too small.
    ArrayShapeError
        Shapes that do not go together.
    """
    model = RingModel.fit(pixel_movie(Y), A, C, radius, ssub, tsub, dims)
    return model.W(), model.b0.ravel(order="F")


@dataclass(frozen=True, kw_only=True)
class RingModel:
    """A fitted ring model on images of size `dims`."""

    dims: tuple[int, int]
    ssub: int
    """Side of a block, pixels."""
    ring: NDArray[np.int64]
    """(m, 2) displacements, in blocks."""
    weights: NDArray[np.float32]
    """(m, blocks of each axis); 0 beyond the border."""
    b0: NDArray[np.float32]
    """Constant of each pixel, (d1, d2)."""

    @classmethod
    def fit(
        cls,
        movie: PixelMovie,
        A: Any,
        C: NDArray,
        radius: float,
        ssub: int = 1,
        tsub: int = 1,
        dims: tuple[int, ...] | None = None,
    ) -> RingModel:
        """The model of what `A` `C` leaves of a movie; arguments and errors as for `compute_W`."""
        dims = checked_dims(movie, movie.dims if dims is None else dims)
        if radius <= 0 or ssub < 1 or tsub < 1:
            raise ParameterError(
                f"radius={radius}, ssub={ssub}, tsub={tsub}: a ring needs numbers above 0, 1 and 1"
            )
        A = _checked_model(movie, A, C)
        ring = ring_places(max(round(radius / ssub), 1))
        b0 = movie.mean() - movie.in_frame_order(A) @ np.asarray(C, np.float64).mean(1)
        frame = dims if len(movie.dims) > 1 else dims[::-1]
        blocks = tuple(-(-n // ssub) for n in frame)
        empty = np.zeros((len(ring), *blocks), np.float32)
        start = cls(dims=frame, ssub=ssub, ring=ring, weights=empty, b0=b0.reshape(frame).astype(np.float32))
        weights = _fit_weights(_Chunks(movie, start, A, C), ring, tsub)
        return replace(start, weights=weights).turned(dims)

    @classmethod
    def of(cls, W: Any, b0: NDArray, dims: tuple[int, ...]) -> RingModel:
        """The model with weights `W` (n, n) and constant `b0`, (d,) or (n,), pixels in Fortran order."""
        if len(dims) != 2:
            raise NotSupportedError(f"the ring model is one of planes; dims={dims}")
        side = block_side(dims, W.shape[0])
        grid = tuple(-(-n // side) for n in dims)
        W = csr_matrix(W, dtype=np.float32).tocoo()
        (row, column), (row_to, column_to) = (np.unravel_index(x, grid, order="F") for x in (W.row, W.col))
        # one number for each displacement: sorting a few hundred thousand pairs would take longer than the rest
        span = 2 * grid[1] - 1
        key = (row_to - row + grid[0] - 1) * span + column_to - column + grid[1] - 1
        middle = (grid[0] - 1) * span + grid[1] - 1  # there is always one place, be it without weight
        used = np.union1d(np.flatnonzero(np.bincount(key)), middle)
        ring = np.stack(np.divmod(used, span), 1) - np.array(grid) + 1
        weights = np.zeros((len(ring), *grid), np.float32)
        weights[np.searchsorted(used, key), row, column] = W.data
        constant = np.asarray(b0, np.float32).ravel()
        if len(constant) == W.shape[0]:
            image = constant.reshape(grid, order="F")
            constant_image = image.repeat(side, 0).repeat(side, 1)[: dims[0], : dims[1]]
        elif len(constant) == np.prod(dims):
            constant_image = constant.reshape(dims, order="F")
        else:
            raise ArrayShapeError(
                f"b0 has {len(constant)} entries, an image of {dims} has {np.prod(dims)} pixels"
            )
        size = (int(dims[0]), int(dims[1]))
        return cls(dims=size, ssub=side, ring=ring.astype(np.int64), weights=weights, b0=constant_image)

    def W(self) -> csr_matrix:
        """The weights as a matrix, blocks in Fortran order."""
        grid = self.weights.shape[1:]
        place, *here = np.nonzero(self.weights)
        there = [x + self.ring[place, axis] for axis, x in enumerate(here)]
        rows, columns = (np.ravel_multi_index(tuple(x), grid, order="F") for x in (here, there))
        n = int(np.prod(grid))
        return csr_matrix((self.weights[(place, *here)], (rows, columns)), shape=(n, n))

    def turned(self, dims: tuple[int, ...]) -> RingModel:
        """The same model for images with axes swapped, unless they have `dims` already."""
        if tuple(dims) == self.dims:
            return self
        return self._swapped()

    def _swapped(self) -> RingModel:
        weights = np.ascontiguousarray(self.weights.swapaxes(1, 2))
        return RingModel(
            dims=self.dims[::-1], ssub=self.ssub, ring=np.ascontiguousarray(self.ring[:, ::-1]), weights=weights,
            b0=np.ascontiguousarray(self.b0.T),
        )  # fmt: skip

    def without_background(self, movie: PixelMovie, A: Any, C: NDArray) -> RingResidual:
        """The movie Y - B, B being that of the components `A` `C`; made chunk by chunk as it is read."""
        checked_dims(movie, self.dims if len(movie.dims) == 1 else movie.dims)
        return RingResidual(movie, self, _checked_model(movie, A, C), C)

    def background(self, movie: PixelMovie, A: Any, C: NDArray) -> RingBackground:
        """The movie max(B, 0), B being the background of `movie` beside the components `A` `C`."""
        checked_dims(movie, self.dims if len(movie.dims) == 1 else movie.dims)
        return RingBackground(movie, self, _checked_model(movie, A, C), C)


def checked_dims(movie: PixelMovie, dims: tuple[int, ...]) -> tuple[int, int]:
    """Two axes that make as many pixels as the movie has."""
    if len(dims) != 2:
        raise NotSupportedError(f"the ring model is one of planes, but the field of view is {tuple(dims)}")
    if dims[0] * dims[1] != movie.d:
        raise ArrayShapeError(f"dims={tuple(dims)}: the movie has {movie.d} pixels")
    return int(dims[0]), int(dims[1])


def _checked_model(movie: PixelMovie, A: Any, C: NDArray) -> csc_matrix:
    A = csc_matrix(A, dtype=np.float32)
    if A.shape[0] != movie.d or np.shape(C) != (A.shape[1], movie.T):
        raise ArrayShapeError(
            f"A is {A.shape} and C {np.shape(C)}: a movie of {movie.d} pixels and {movie.T} frames needs "
            f"({movie.d}, K) and (K, {movie.T})"
        )
    return A


def block_side(dims: tuple[int, ...], blocks: int) -> int:
    """Side of the blocks, the last ones of an axis smaller, of which an image of `dims` has so many.

    Raises
    ------
    ArrayShapeError
        No side gives so many blocks.
    """
    side = 1
    while (count := int(np.prod([-(-n // side) for n in dims]))) > blocks:
        side += 1
    if count != blocks:
        raise ArrayShapeError(f"a ring model of {blocks} blocks does not fit an image of {tuple(dims)}")
    return side


def ring_places(radius: int) -> NDArray[np.int64]:
    """Displacements farther than `radius` and not farther than ``radius + 1``, and (0, 0), in C order."""
    span = np.arange(-radius - 1, radius + 2)
    rows, columns = np.meshgrid(span, span, indexing="ij")
    square = rows**2 + columns**2
    chosen = ((square > radius**2) & (square <= (radius + 1) ** 2)) | (square == 0)
    return np.stack([rows[chosen], columns[chosen]], 1).astype(np.int64)


class _Chunks:
    """Chunks of a movie minus b0, and the blocks of what the components leave of them, on the device.

    `model` lies as the frames do, `A` has its pixels in Fortran order.
    """

    def __init__(self, movie: PixelMovie, model: RingModel, A: csc_matrix, C: NDArray) -> None:
        self.movie, self.model = movie, model
        self._C = np.asarray(C, np.float32)
        self._cells = self._averaged(movie.in_frame_order(A).tocsr()) if A.shape[1] else None
        sizes = [
            np.minimum(model.ssub, n - model.ssub * np.arange(blocks))
            for n, blocks in zip(model.dims, model.weights.shape[1:], strict=True)
        ]
        self._sizes = np.multiply.outer(*sizes).astype(np.float32)

    def _averaged(self, A: csr_matrix) -> csr_matrix:
        """D A."""
        rows, columns = np.divmod(np.arange(A.shape[0]), self.model.dims[1])
        width = self.model.weights.shape[2]
        block = rows // self.model.ssub * width + columns // self.model.ssub
        shape = (int(np.prod(self.model.weights.shape[1:])), A.shape[0])
        sums = csr_matrix((np.ones(len(block)), (block, np.arange(len(block)))), shape=shape)
        counts = np.asarray(sums.sum(1)).ravel()
        return csr_matrix(csr_matrix(sums.multiply(1 / counts[:, None])) @ A, dtype=np.float32)

    def __call__(self, working: int = 0) -> Iterator[tuple[int, Array, Array]]:
        """(first frame, (n, d) Y - b0, (n, blocks) D(Y - A C - b0)) of each chunk, float32."""
        b0 = sizes = cells = None
        model = self.model
        for start, frames in self.movie.frames(working=working + 16 * self.movie.d):
            if b0 is None:
                b0, sizes = backend.put(model.b0.reshape(-1)), backend.put(self._sizes)
                if self._cells is not None:
                    parts = tuple(
                        map(backend.put, (self._cells.data, self._cells.indices, self._cells.indptr))
                    )
                    cells = backend.arrays.sparse(frames).csr_matrix(parts, shape=self._cells.shape)
            xp = backend.arrays.xp(frames)
            n = len(frames)
            y = frames.astype("float32") - b0
            x = y.reshape(n, *model.dims)
            if model.ssub > 1:
                x = block_sums(block_sums(x, 1, model.ssub), 2, model.ssub) / sizes
            x = x.reshape(n, -1)
            if cells is not None:
                traces = backend.put(self._C[:, start : start + n])
                x = x - (cells @ traces).T
            yield start, y, xp.ascontiguousarray(x)


class RingResidual(PixelMovie):
    """A movie without its ring background, Y - B, chunk by chunk."""

    def __init__(self, movie: PixelMovie, model: RingModel, A: csc_matrix, C: NDArray) -> None:
        super().__init__(movie.source, movie.dims)
        frame = movie.dims if len(movie.dims) > 1 else model.dims[::-1]
        self._model = model if len(movie.dims) > 1 else model._swapped()
        self._chunks = _Chunks(movie, self._model, A, C)
        self._at = [np.arange(n) // model.ssub for n in frame]

    def frames(self, working: int = 0) -> Iterator[tuple[int, Array]]:
        """(first frame, (n, d) chunk of Y - B on the device), float32."""
        for start, y, predicted in self._predictions(working):
            y -= predicted
            yield start, y

    def backgrounds(self, working: int = 0) -> Iterator[tuple[int, Array]]:
        """(first frame, (n, d) chunk of B on the device), float32."""
        b0 = None
        for start, _, predicted in self._predictions(working):
            b0 = backend.put(self._model.b0.reshape(-1)) if b0 is None else b0
            yield start, predicted + b0

    def _predictions(self, working: int) -> Iterator[tuple[int, Array, Array]]:
        """(first frame, Y - b0, B - b0) of each chunk."""
        model = self._model
        weights = steps = rows = columns = None
        for start, y, x in self._chunks(working):
            if weights is None:
                weights = backend.put(model.weights.reshape(len(model.ring), -1))
                steps = backend.put(model.ring @ np.array([model.weights.shape[2], 1]))
                rows, columns = map(backend.put, self._at)
            xp = backend.arrays.xp(y)
            out = xp.empty_like(x)
            backend.wing(x).ring.predict(x, weights, steps, out)
            blocks = out.reshape(len(y), *model.weights.shape[1:])
            if model.ssub > 1:
                blocks = xp.take(xp.take(blocks, rows, axis=1), columns, axis=2)
            yield start, y, blocks.reshape(y.shape)


class RingBackground(RingResidual):
    """The ring background of a movie, B, cut at 0; chunk by chunk."""

    def frames(self, working: int = 0) -> Iterator[tuple[int, Array]]:
        """(first frame, (n, d) chunk of max(B, 0) on the device), float32."""
        for start, background in self.backgrounds(working):
            yield start, backend.arrays.xp(background).maximum(background, 0)


def _fit_weights(chunks: _Chunks, ring: NDArray[np.int64], tsub: int) -> NDArray[np.float32]:
    """Weights (m, blocks of each axis) of the places `ring`, in as many passes over the movie as the budget asks."""
    height, width = chunks.model.weights.shape[1:]
    out = np.zeros((len(ring), height, width), np.float32)
    reach = int(ring[-1, 0])
    steps, pairs = _pair_steps(ring, (height, width))
    row_bytes = 8 * (len(steps) + len(ring)) * width
    rows = int(SHARE_FOR_SUMS * backend.budget() // row_bytes) - 2 * reach
    if rows < 1:
        raise MemoryBudgetError(
            f"the ring model of a field of {height} x {width} blocks needs {row_bytes * (2 * reach + 1) / 2**20:.0f} "
            "MiB for products of pixel pairs: raise ssub_B, or give more with GPUCALCIUM_MEMORY or "
            "backend.limit(memory=...)"
        )
    for first in range(0, height, rows):
        last = min(first + rows, height)
        top, bottom = max(first - reach, 0), min(last + reach, height)
        found = _band_weights(chunks, ring, steps, pairs, (top, bottom), tsub)
        out[:, first:last] = found[:, first - top : last - top]
    return out


def _band_weights(
    chunks: _Chunks,
    ring: NDArray[np.int64],
    steps: NDArray[np.int64],
    pairs: NDArray[np.int64],
    band: tuple[int, int],
    tsub: int,
) -> NDArray[np.float32]:
    """Weights of rows top..bottom of the blocks, right where their rings lie inside or beyond the field's border."""
    width = chunks.model.weights.shape[2]
    dims = (band[1] - band[0], width)
    d = dims[0] * width
    flat = steps[:, 0] * width + steps[:, 1]
    with chunks.movie.device():
        sums = backend.zeros((len(steps), d), "float64")
        given = backend.put(np.where(flat < d, flat, 0))
        for x in _time_means(chunks, tsub):
            part = backend.array_module(x).ascontiguousarray(x[:, band[0] * width : band[1] * width])
            backend.wing(part).ring.add_pair_products(part, given, sums)
        weights = backend.zeros((len(ring), d), "float32")
        backend.wing(sums).ring.ring_weights(
            sums, backend.put(pairs), backend.put(ring), dims, RIDGE, weights
        )
        return backend.to_numpy(weights).reshape(len(ring), *dims)


def _pair_steps(
    ring: NDArray[np.int64], dims: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Displacements between places that a field of `dims` can hold, and which of them leads from place a to b >= a."""
    between = ring[None] - ring[:, None]
    a, b = np.triu_indices(len(ring))
    fits = (np.abs(between[a, b]) < dims).all(1)
    steps, which = np.unique(between[a, b][fits], axis=0, return_inverse=True)
    pairs = np.zeros((len(ring), len(ring)), np.int64)
    pairs[a[fits], b[fits]] = which.ravel()
    return steps, pairs


def _time_means(chunks: _Chunks, tsub: int) -> Iterator[Array]:
    """Means over `tsub` frames of the blocks, chunk by chunk; the last has what there is."""
    if tsub == 1:
        yield from (x for _, _, x in chunks())
        return
    kept: list[Array] = []
    for start, _, x in chunks():
        for i in range(len(x)):
            kept.append(x[i])
            if len(kept) == tsub or start + i + 1 == chunks.movie.T:
                total = kept[0].copy()
                for frame in kept[1:]:
                    total += frame
                yield (total / np.float32(len(kept)))[None]
                kept = []
