"""Movies as rows of pixels above a pilot frame, in float32, tile by tile."""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import stencils

TILE = 2048  # pixels at a time: eight centred rows of it (64 KiB) and one row of sums (16 KiB) stay in L2


def flat_frames(
    frames: NDArray, pilot: NDArray, offsets: NDArray[np.int64]
) -> tuple[NDArray, NDArray, NDArray[np.int64], int]:
    """Frames and pilot as rows of pixels of compiled dtypes, the steps with 0 before them, pixels per tile."""
    dtype = stencils.compiled_dtype(frames.dtype, wide="f8")
    flat = frames.reshape(len(frames), -1).astype(dtype, copy=False)
    base = pilot.reshape(-1).astype(dtype).astype(np.result_type(dtype, np.float32))
    steps = np.concatenate(([0], offsets))
    return flat, base, steps, max(TILE, int(steps.max()))  # longer than its halo, which is centred twice


@nb.njit(nogil=True, cache=True)
def centre(y, pilot, x):
    for p in range(len(y)):
        x[p] = np.float32(y[p] - pilot[p])  # floats: exact for 16-bit integers, no wrapping
