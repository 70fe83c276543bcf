"""Rigid registration: find the shift of every frame, and apply it. Twin: backend/cpu/registration.py."""

from __future__ import annotations

import cupy as cp
import numpy as np

from gpucalcium.backend import fourier
from gpucalcium.backend.arrays import Array
from gpucalcium.backend.cuda._launch import kernel
from gpucalcium.backend.cuda._peak import find_peaks, search_plan
from gpucalcium.backend.stencils import compiled_dtype

BLOCK_BYTES = (
    256 << 20
)  # float32 frames that one call should get: enough to fill the device, in any size of frame
THREADS = 256
TILE = (32, 8)  # threads of a block that displaces frames: a warp takes a run of a row
MOVE_BYTES = 48  # sizeof(Move)

_prepare = kernel("registration.cu", "prepare")
_weigh = kernel("registration.cu", "weigh")
_plan_moves = kernel("registration.cu", "plan_moves")
_displace = kernel("registration.cu", "displace")
_mark_border = kernel("registration.cu", "mark_border")
_add_frames = kernel("registration.cu", "add_frames")
_add_squares = kernel("registration.cu", "add_squares")
_add_power = kernel("registration.cu", "add_power")


def locate(
    frames: Array, fill: Array, offset: float, kernel: Array, bound: tuple[int, ...]
) -> tuple[Array, Array, Array]:
    """Where each frame lies with respect to a template, to a fraction of a pixel.

    Parameters and result as the twin says. Beside the frames it needs a float32 copy, their spectra, and the
    products with the kernel.
    """
    shape = frames.shape[1:]
    ready, missing = _prepared(frames, fill, offset)
    plan = search_plan(shape, kernel.shape, bound)
    spectra = cp.fft.rfftn(ready, axes=tuple(range(1, ready.ndim)))
    shifts, peaks = find_peaks(_products(spectra, kernel, plan), plan)
    return shifts, peaks, missing


def power(frames: Array, fill: Array, offset: float, window: Array) -> Array:
    """Sum over frames of |rfftn(window * (frame - offset))|^2, (d1, d2//2 + 1) or with three axes."""
    ready, _ = _prepared(frames, fill, offset)
    ready *= window
    spectra = cp.fft.rfftn(ready, axes=tuple(range(1, ready.ndim)))
    total = cp.zeros(spectra.shape[1:], cp.float64)
    _add_power(
        (),
        blocks=_blocks(total.size),
        threads=THREADS,
        args=(cp.ascontiguousarray(spectra), np.int64(len(frames)), np.int64(total.size), total),
    )
    return total


def warp(frames: Array, shifts: Array, offset: float, border: str) -> Array:
    """Frames displaced by `shifts`: bicubic, reflecting at the edge, clipped to the frame's own range.

    Parameters and result as the twin says.
    """
    frames = _compiled(frames)
    n, d1, d2 = frames.shape
    moves = cp.empty(n * MOVE_BYTES, cp.uint8)
    _plan_moves((frames.dtype,), blocks=n, threads=THREADS, args=(frames, np.int64(d1 * d2), shifts, moves))
    out = cp.empty(frames.shape, cp.float32)
    _displace(
        (frames.dtype,),
        blocks=(-(-d2 // TILE[0]), -(-d1 // TILE[1]), n),
        threads=TILE,
        args=(
            frames,
            np.int32(d1),
            np.int32(d2),
            shifts,
            moves,
            np.float32(offset),
            np.int32(fourier.BORDERS.index(border)),
            out,
        ),
    )
    return out


def mark_border(frames: Array, shifts: Array, border: str) -> None:
    """Replace, in place, pixels of displaced frames (n, d1, d2[, d3]) that came from outside; `border` as in `warp`."""
    if border == "reflect":
        return
    dims = (1,) * (4 - frames.ndim) + frames.shape[1:]
    moves = cp.zeros((len(frames), 3), cp.float32)
    moves[:, 3 - shifts.shape[1] :] = shifts
    _mark_border(
        (),
        blocks=len(frames),
        threads=THREADS,
        args=(frames, *map(np.int32, dims), moves, np.int32(fourier.BORDERS.index(border))),
    )


def add_frames(frames: Array, sums: Array, counts: Array) -> None:
    """Add frames (n, ...) of any real dtype to `sums` (...) in order, and to `counts` (...) where they are finite."""
    frames = _compiled(frames)
    _add_frames(
        (frames.dtype,),
        blocks=_blocks(sums.size),
        threads=THREADS,
        args=(frames, np.int64(len(frames)), np.int64(sums.size), sums, counts),
    )


def add_squares(frames: Array, mean: Array, sums: Array) -> None:
    """Add (frame - mean)^2 to `sums` (...), frame by frame, where it is finite; frames as in `add_frames`."""
    frames = _compiled(frames)
    _add_squares(
        (frames.dtype,),
        blocks=_blocks(sums.size),
        threads=THREADS,
        args=(frames, np.int64(len(frames)), np.int64(sums.size), mean, sums),
    )


# ---------------------------------------------------------------------------- inside


def _compiled(frames: Array) -> Array:
    return cp.ascontiguousarray(frames.astype(compiled_dtype(frames.dtype, wide="f4"), copy=False))


def _blocks(items: int) -> int:
    return -(-items // THREADS)


def _prepared(frames: Array, fill: Array, offset: float) -> tuple[Array, Array]:
    frames = _compiled(frames)
    ready, missing = cp.empty(frames.shape, cp.float32), cp.empty(len(frames), cp.int32)
    _prepare(
        (frames.dtype,),
        blocks=len(frames),
        threads=THREADS,
        args=(frames, np.int64(fill.size), fill, np.float32(offset), ready, missing),
    )
    return ready, missing


def _products(spectra: Array, kernel: Array, plan: fourier.SearchPlan) -> Array:
    """Spectra of the frames times the kernel, at the kernel's frequencies only."""
    n, columns, width = len(spectra), spectra.shape[-1], kernel.shape[-1]
    products = cp.empty((n, *kernel.shape), cp.complex64)
    _weigh(
        (),
        blocks=_blocks(products.size),
        threads=THREADS,
        args=(
            cp.ascontiguousarray(spectra),
            np.int64(n),
            np.int64(spectra[0].size // columns),
            np.int64(columns),
            plan.rows,
            np.int64(plan.rows.size),
            np.int64(width),
            kernel,
            products,
        ),
    )
    return products
