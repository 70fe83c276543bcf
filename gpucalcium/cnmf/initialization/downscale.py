"""Movies made smaller by block means, and what was found in them brought back to full size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, kron

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf._movie import PixelMovie


def block_means(n: int, factor: int) -> NDArray[np.float32]:
    """(ceil(n / factor), n) matrix of means over blocks; the last block averages what there is."""
    blocks = np.arange(n) // factor
    matrix = (np.arange(-(-n // factor))[:, None] == blocks).astype(np.float64)
    return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def linear_resize(small: int, n: int, factor: int) -> NDArray[np.float32]:
    """(n, small) matrix of linear interpolation between the middles of blocks of `factor`; the ends are held."""
    middles = np.array([(i * factor + min((i + 1) * factor, n) - 1) / 2 for i in range(small)])
    at = np.arange(n)
    return np.stack([np.interp(at, middles, row) for row in np.eye(small)], 1).astype(np.float32)


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
    """
    shape = tuple(-(-n // ssub) for n in movie.dims)
    total = -(-movie.T // tsub)
    out = backend.zeros((total, *shape), "float32")
    matrices = [backend.put(block_means(n, ssub)) for n in movie.dims] if ssub > 1 else []
    inverse = None if img is None else backend.put((1 / np.asarray(img)).astype(np.float32))
    for start, frames in movie.frames(working=8 * movie.d):
        small = frames.reshape(-1, *movie.dims).astype("float32")
        if inverse is not None:
            small *= inverse
        for axis, matrix in enumerate(matrices, 1):
            small = _along(small, matrix, axis)
        for phase in range(tsub):
            part = small[(phase - start) % tsub :: tsub]
            block = (start + (phase - start) % tsub) // tsub
            out[block : block + len(part)] += part
    if tsub > 1:
        out[: movie.T // tsub] /= tsub
        if movie.T % tsub:
            out[-1] /= movie.T % tsub
    return out


def _along(frames: Array, matrix: Array, axis: int) -> Array:
    xp = backend.arrays.xp(frames)
    return xp.ascontiguousarray(xp.moveaxis(xp.matmul(xp.moveaxis(frames, axis, -1), matrix.T), -1, axis))


def upscale_traces(traces: NDArray, T: int, tsub: int) -> NDArray[np.float32]:
    """(M, ceil(T / tsub)) traces linearly interpolated to (M, T)."""
    if tsub == 1:
        return np.asarray(traces, np.float32)
    return np.asarray(traces, np.float32) @ linear_resize(traces.shape[1], T, tsub).T


def upscale_footprints(A: csc_matrix, dims: tuple[int, ...], ssub: int) -> csc_matrix:
    """Footprints of a field made `ssub` times smaller, interpolated to `dims`; pixels in Fortran order."""
    if ssub == 1:
        return csc_matrix(A, dtype=np.float32)
    resize = csc_matrix(np.ones((1, 1), np.float32))
    for n in dims:  # Fortran order: the first axis runs fastest, so it is the last factor
        resize = kron(csc_matrix(linear_resize(-(-n // ssub), n, ssub)), resize, format="csc")
    return csc_matrix(resize @ csc_matrix(A, dtype=np.float32))
