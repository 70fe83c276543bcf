"""Masked squares of a movie around cells, normalised: what CINAC networks look at. Twin: backend/cuda/cutouts.py."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend.cpu._threads import share
from gpucalcium.backend.stencils import compiled_dtype


def gather_patches(
    frames: NDArray, corners: NDArray[np.int32], masks: NDArray[np.bool_], mean: float, std: float
) -> NDArray[np.float32]:
    """Squares cut out of every frame, z-scored, and zero outside their masks.

    Parameters
    ----------
    frames : (n, H, W), any real dtype
    corners : (V, 2) int32
        Row and column of each square's first pixel; may lie outside the frame.
    masks : (V, P, P) bool
        Which of its pixels are seen.
    mean, std : float
        Of the movie; `std` above 0.

    Returns
    -------
    (n, V, P, P) float32
        ``(pixel - mean) / std`` in double precision, rounded once; 0 (the mean) where a pixel is not finite, not
        seen or outside the frame. The twins agree bit for bit.
    """
    frames = frames.astype(compiled_dtype(frames.dtype, wide="f8"), copy=False)
    out = np.empty((len(frames), *masks.shape), np.float32)
    mean, std = float(mean), float(std)
    share(len(frames), lambda a, b: _gather(frames[a:b], corners, masks, mean, std, out[a:b]))
    return out


@nb.njit(nogil=True, cache=True)
def _gather(frames, corners, masks, mean, std, out):
    n, rows, columns = frames.shape
    views, side, _ = masks.shape
    for t in range(n):
        for v in range(views):
            for i in range(side):
                y = corners[v, 0] + i
                for j in range(side):
                    x = corners[v, 1] + j
                    value = np.float32(0)
                    if masks[v, i, j] and 0 <= y < rows and 0 <= x < columns:
                        scaled = (np.float64(frames[t, y, x]) - mean) / std
                        if abs(scaled) < np.inf:
                            value = np.float32(scaled)
                    out[t, v, i, j] = value
