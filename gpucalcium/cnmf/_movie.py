"""A movie as an extraction sees it: rows of pixels, read in chunks, against footprints and traces.

Footprints have their pixels in Fortran order, frames lie in memory in C order. Everything that reads the movie
goes through `PixelMovie`, which knows both orders; only here are they turned into each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.backend.stencils import compiled_dtype
from gpucalcium.errors import MemoryBudgetError, MovieShapeError
from gpucalcium.movies import open_movie
from gpucalcium.movies.source import Source

Footprints: TypeAlias = csc_matrix


class PixelMovie:
    """Frames of a movie as rows of pixels.

    Parameters
    ----------
    source : FrameSource
        Frames of shape `dims`.
    dims : tuple of int
        Field of view; one axis if the frames are rows of pixels in Fortran order already.
    """

    def __init__(self, source: FrameSource, dims: tuple[int, ...]) -> None:
        self.source = source
        self.dims = dims
        self.d = math.prod(dims)
        self.T = len(source)
        pixels = np.arange(self.d).reshape(dims)
        self._fortran = np.ravel(pixels, order="F")  # position in a frame of the pixel in each row of A

    @contextmanager
    def device(self) -> Iterator[None]:
        """The GPU that holds the movie as the active device, if one does; else the device stays as it is."""
        held: Array = getattr(self.source, "array", None)
        with backend.use(f"cuda:{held.device.id}") if backend.is_cupy(held) else nullcontext():
            yield

    def frames(self, working: int = 0) -> Iterator[tuple[int, Array]]:
        """(first frame, (n, d) chunk on the device), in one of the dtypes that kernels are compiled for."""
        start = 0
        for chunk in backend.stream(self.source, working=working + 16 * self.d):
            yield start, chunk.astype(compiled_dtype(chunk.dtype, wide="f8"), copy=False).reshape(-1, self.d)
            start += len(chunk)

    def in_frame_order(self, A: Footprints) -> Footprints:
        """Footprints with their pixels (rows) in the order of a frame, sorted."""
        columns = np.repeat(np.arange(A.shape[1]), np.diff(A.indptr))
        out = csc_matrix((A.data, (self._fortran[A.indices], columns)), shape=A.shape)
        out.sort_indices()
        return out

    def in_fortran_order(self, x: NDArray) -> NDArray:
        """Rows of a dense (d, ...) array, given in the order of a frame, in Fortran order."""
        return x[self._fortran]

    def fortran_rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row in a footprint of each position in a frame."""
        rows = np.empty(self.d, np.int64)
        rows[self._fortran] = np.arange(self.d)
        return rows[positions]

    def project(self, A: Footprints) -> NDArray[np.float64]:
        """A'Y, (K, T): what each footprint sees; one pass over the movie. Rows of `A` in Fortran order."""
        with self.device():
            return self._project(self.in_frame_order(A))

    def _project(self, A: Footprints) -> NDArray[np.float64]:
        out = np.empty((self.T, A.shape[1]))
        matrix = None
        for start, frames in self.frames(working=8 * A.shape[1]):
            if matrix is None:
                host = (A.indptr.astype(np.int64), A.indices.astype(np.int64), A.data.astype(np.float32))
                matrix = tuple(map(backend.put, host))
            seen = backend.zeros((len(frames), A.shape[1]), "float64")
            backend.wing(frames).products.project(frames, *matrix, seen)
            out[start : start + len(frames)] = backend.to_numpy(seen)
        return np.ascontiguousarray(out.T)

    def sample(
        self, traces: NDArray, positions: NDArray[np.int64], columns: NDArray[np.int64], squares: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Sums over time of pixel x trace where asked, in one pass over the movie.

        Parameters
        ----------
        traces : (M, T)
        positions, columns : (nnz,)
            Pixel (position in a frame) and trace of each sum; fast if sorted by column, then position.
        squares : bool
            Also the sum of squares of every pixel.

        Returns
        -------
        sums : (nnz,) float64
        squares : (d,) float64 in the order of a frame, or None
        """
        with self.device():
            return self._sample(traces, positions, columns, squares)

    def _sample(
        self, traces: NDArray, positions: NDArray[np.int64], columns: NDArray[np.int64], squares: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        sums = backend.zeros(len(positions), "float64")
        total = backend.zeros(self.d, "float64") if squares else None
        by_frame = np.ascontiguousarray(traces.T, np.float64)
        rows, cols = (backend.put(np.asarray(x, np.int64)) for x in (positions, columns))
        for start, frames in self.frames(working=8 * len(traces)):
            products = backend.wing(frames).products
            products.add_samples(frames, backend.put(by_frame[start : start + len(frames)]), rows, cols, sums)
            if total is not None:
                products.add_squares(frames, total)
        return backend.to_numpy(sums), None if total is None else backend.to_numpy(total)

    def mean(self) -> NDArray[np.float64]:
        """Mean over time of every pixel, (d,), in the order of a frame."""
        everywhere = np.arange(self.d)
        sums, _ = self.sample(np.ones((1, self.T)), everywhere, np.zeros_like(everywhere))
        return sums / self.T


class _Columns:
    """The columns of a (d, T) matrix, pixels in Fortran order, as frames."""

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix
        self.shape: tuple[int, ...] = (matrix.shape[1], matrix.shape[0])
        self.dtype = np.dtype(matrix.dtype)
        self.name = "the pixels x time matrix"
        turned = matrix.T
        if backend.is_cupy(matrix):
            self.array = backend.put(turned)
        elif turned.flags.c_contiguous and isinstance(matrix, np.ndarray):
            self.array = turned

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, frames: slice, out: NDArray | None = None) -> NDArray:
        part = np.asarray(self._matrix[:, frames]).T
        if out is None:
            return np.ascontiguousarray(part)
        out[:] = part
        return out


def pixel_movie(movie: Array | PixelMovie) -> PixelMovie:
    """A (d, T) matrix with pixels in Fortran order, as the documented functions take it, as a `PixelMovie`.

    Raises
    ------
    MovieShapeError
        Not two axes.
    """
    if isinstance(movie, PixelMovie):
        return movie
    if getattr(movie, "ndim", 0) != 2:
        raise MovieShapeError(
            f"Y has shape {getattr(movie, 'shape', None)}: it must be pixels x time, pixels in Fortran order "
            "(images.reshape(T, -1, order='F').T)"
        )
    return PixelMovie(_Columns(movie), (movie.shape[0],))


def images_movie(images: object, hold: bool = True) -> PixelMovie:
    """Anything that `open_movie` takes as a `PixelMovie`, held on the active device if it fits the budget."""
    source = open_movie(images)
    dims = tuple(source.shape[1:])
    if hold:
        try:
            source = open_movie(backend.hold(source))
        except MemoryBudgetError:
            return PixelMovie(source, dims)
    return PixelMovie(source, dims)


class Cropped(Source):
    """Part of the field of view of another source."""

    def __init__(self, source: FrameSource, window: tuple[slice, ...]) -> None:
        shape = [len(range(n)[part]) for n, part in zip(source.shape[1:], window, strict=True)]
        name = f"part {window} of {getattr(source, 'name', 'the movie')}"
        super().__init__((len(source), *shape), source.dtype, name)
        self.whole, self.window = source, window

    def _fill(self, wanted: range, out: NDArray) -> None:
        frames = self.whole.read(slice(wanted.start, wanted.stop, wanted.step))
        out[:] = frames[(slice(None), *self.window)]


def cropped(source: FrameSource, window: tuple[slice, ...]) -> FrameSource:
    """`source`, or the part of its field of view that `window` has."""
    if all(len(range(n)[part]) == n for n, part in zip(source.shape[1:], window, strict=True)):
        return source
    return Cropped(source, window)


class Filled(Source):
    """Another source with values in place of its NaNs, put in on the device.

    Parameters
    ----------
    source : FrameSource
    values : array of the shape of a frame
        What a NaN of each pixel becomes.
    """

    def __init__(self, source: FrameSource, values: NDArray) -> None:
        super().__init__(source.shape, source.dtype, getattr(source, "name", "the movie"))
        self.made_from, self._values = source, values.astype(source.dtype)
        self.working = 2 * self.frame_bytes  # the chunk that is made, and where it is NaN

    def make(self, chunk: Array, frames: range) -> Array:
        """The frames of a range from a chunk of the other source."""
        xp = backend.arrays.xp(chunk)
        return xp.where(xp.isnan(chunk), backend.put(self._values), chunk)

    def _fill(self, wanted: range, out: NDArray) -> None:
        self.made_from.read(slice(wanted.start, wanted.stop, wanted.step), out)
        missing = np.isnan(out)
        out[missing] = np.broadcast_to(self._values, out.shape)[missing]
