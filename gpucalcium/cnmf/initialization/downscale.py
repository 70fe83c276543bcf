"""Movies made smaller by block means, and what was found in them brought back to full size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, kron

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._blocks import block_sums
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.errors import MemoryBudgetError

SEARCHED_COPIES = 3  # of the small movie, float32: itself, what is left of it, and that filtered


def linear_resize(small: int, n: int, factor: int) -> NDArray[np.float32]:
    """(n, small) matrix of linear interpolation between the middles of blocks of `factor`; the ends are held."""
    return _interpolated(np.eye(small), n, factor).T


def _interpolated(rows: NDArray, n: int, factor: int) -> NDArray[np.float32]:
    """Rows of values at the middles of blocks of `factor`, at each of n places; the ends are held."""
    blocks = np.arange(rows.shape[1])
    middles = (blocks * factor + np.minimum((blocks + 1) * factor, n) - 1) / 2
    out = np.empty((len(rows), n), np.float32)
    for row, values in zip(out, rows, strict=True):
        row[:] = np.interp(np.arange(n), middles, values)
    return out


def downscale(movie: PixelMovie, ssub: int, tsub: int, img: NDArray | None = None) -> Array:
    """Block means of a movie in space and time, in one pass.

    Parameters
    ----------
    movie : PixelMovie
        T frames of shape `dims`.
    ssub, tsub : int
        Sides of a block in space and in time.
    img : dims, optional
        Each frame is divided by it first.

    Returns
    -------
    frames : (ceil(T / tsub), ceil(d1 / ssub), ...) float32 on the active device
        Frames are added in order of time, whatever the chunks.

    Raises
    ------
    MemoryBudgetError
        The small movie, and the copies of it that a search works on, do not fit the budget.
    """
    shape = tuple(-(-n // ssub) for n in movie.dims)
    total = -(-movie.T // tsub)
    needed = SEARCHED_COPIES * 4 * total * math.prod(shape)
    if needed > backend.budget():
        raise MemoryBudgetError(
            f"the search for cells in {total} frames of {shape} needs {needed / 2**20:.0f} MiB; the budget is "
            f"{backend.budget() / 2**20:.0f} MiB. Raise ssub={ssub} or tsub={tsub}, or give more with "
            "GPUCALCIUM_MEMORY or backend.limit(memory=...)"
        )
    out = backend.zeros((total, *shape), "float32")
    inverse = None if img is None else backend.put((1 / np.asarray(img)).astype(np.float32))
    for start, frames in movie.frames(working=8 * movie.d):
        small = frames.reshape(-1, *movie.dims).astype("float32")
        if inverse is not None:
            small *= inverse
        for axis in range(1, small.ndim):
            small = block_sums(small, axis, ssub)
        for phase in range(tsub):
            part = small[(phase - start) % tsub :: tsub]
            block = (start + (phase - start) % tsub) // tsub
            out[block : block + len(part)] += part
    for axis, (n, factor) in enumerate(
        zip((movie.T, *movie.dims), (tsub, *[ssub] * len(movie.dims)), strict=True)
    ):
        if factor > 1:
            sizes = np.minimum(factor, n - factor * np.arange(out.shape[axis])).astype(np.float32)
            out /= backend.put(sizes.reshape([-1 if a == axis else 1 for a in range(out.ndim)]))
    return out


def upscale_traces(traces: NDArray, T: int, tsub: int) -> NDArray[np.float32]:
    """(M, ceil(T / tsub)) traces linearly interpolated to (M, T)."""
    if tsub == 1:
        return np.asarray(traces, np.float32)
    return _interpolated(np.asarray(traces), T, tsub)


def upscale_footprints(A: csc_matrix, dims: tuple[int, ...], ssub: int) -> csc_matrix:
    """Footprints of a field made `ssub` times smaller, interpolated to `dims`; pixels in Fortran order."""
    if ssub == 1:
        return csc_matrix(A, dtype=np.float32)
    resize = csc_matrix(np.ones((1, 1), np.float32))
    for n in dims:  # Fortran order: the first axis runs fastest, so it is the last factor
        resize = kron(csc_matrix(linear_resize(-(-n // ssub), n, ssub)), resize, format="csc")
    return csc_matrix(resize @ csc_matrix(A, dtype=np.float32))
