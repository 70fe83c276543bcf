"""How frames lie in files: in which dtype, and in which order of pixels. Twin: backend/cuda/layout.py."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.backend.cpu._threads import share

TILE = 8  # pixels a side of what is turned in registers: constant, so that it is unrolled into shuffles
CAST_AT_ONCE = 1 << 16  # values that stay in L2 beside their copies
SMALLEST_HALF, LARGEST_HALF = np.float32(2.0**-14), np.float32(65504)  # of the normal numbers of float16
LARGEST_HALF_BITS, NAN_HALF_BITS = np.uint32(0x7BFF), np.uint32(0x7E00)


def stored_as(frames: NDArray, dtype: DTypeLike, fill: float, out: NDArray | None = None) -> NDArray:
    """Frames in the dtype of a file: rounded half to even and clipped to its range; `fill` where an integer is NaN.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
        Pass through float32, unless they are of `dtype` already.
    dtype : float32, float16, int16 or uint16
    fill : float
        A value of `dtype`. Floating-point files keep NaN; their infinities become the largest numbers of float16.
    out : array as the result, optional
        Where to put it; memory that is used again costs far less than new.

    Returns
    -------
    (n, pixels) of `dtype`
        Each frame in C order. Equal in both wings bit for bit.
    """
    frames = np.ascontiguousarray(frames)
    out = np.empty((len(frames), math.prod(frames.shape[1:])), dtype) if out is None else out
    values, flat = frames.reshape(-1), out.reshape(-1)
    share(len(flat), lambda first, last: _cast(values[first:last], fill, flat[first:last]), CAST_AT_ONCE)
    return out


def frames_to_fortran(frames: NDArray, dtype: DTypeLike, fill: float, out: NDArray | None = None) -> NDArray:
    """Frames as `stored_as` gives them, but each in Fortran order: column by column, as memory maps have them.

    Parameters and result as there.
    """
    frames, dtype = np.ascontiguousarray(frames), np.dtype(dtype)
    n, first_axis, last_axis = len(frames), frames.shape[1], frames.shape[-1]
    pixels = math.prod(frames.shape[1:])
    out = np.empty((n, pixels), dtype) if out is None else out
    bits = np.dtype(f"u{dtype.itemsize}")
    turned = out.view(bits).reshape(n, last_axis, -1, first_axis)

    def work(first: int, last: int) -> None:
        stored = None if frames.dtype == dtype else np.empty(pixels, dtype)
        for t in range(first, last):
            frame = frames[t]
            if stored is not None:
                _cast(frame.reshape(-1), fill, stored)
                frame = stored
            _turn(frame.view(bits).reshape(first_axis, -1, last_axis), turned[t])

    share(n, work, max(1, CAST_AT_ONCE // max(1, pixels)))
    return out


def _cast(values: NDArray, fill: float, out: NDArray) -> None:
    """Flat `values` in the dtype of `out`."""
    if values.dtype == out.dtype or out.dtype == np.float32:
        np.copyto(out, values, casting="same_kind")
        return
    values = values.astype(np.float32, copy=False)
    if out.dtype == np.float16:
        _halve(values, values.view(np.uint32), out.view(np.uint16))
    else:
        about = np.iinfo(out.dtype)
        _round(values, np.float32(about.min), np.float32(about.max), out.dtype.type(fill), out)


@nb.njit(nogil=True, cache=True)
def _round(values, least, most, fill, out):
    for p in range(len(values)):
        v = np.rint(values[p])
        v = least if v < least else v
        v = most if v > most else v
        out[p] = fill if v != v else out.dtype.type(v)


@nb.njit(nogil=True, cache=True)
def _halve(values, bits, out):
    """Bits of the nearest float16; ten times faster than the conversion of NumPy.

    A normal number loses 13 bits of its fraction, and 112 of its exponent; half of the last bit kept is added before,
    less one if that bit is even. Smaller numbers are multiples of 2^-24.
    """
    for p in range(len(values)):
        size = np.float32(abs(values[p]))
        whole = np.uint32(bits[p] & 0x7FFFFFFF)
        normal = np.uint32((whole - (112 << 23) + 0xFFF + ((whole >> 13) & 1)) >> 13)
        tiny = np.uint32(np.rint(min(size, SMALLEST_HALF) * np.float32(1 << 24)))
        half = tiny if size < SMALLEST_HALF else normal
        half = LARGEST_HALF_BITS if size > LARGEST_HALF else half
        half = NAN_HALF_BITS if size != size else half
        out[p] = np.uint16(half | ((bits[p] >> 16) & 0x8000))


@nb.njit(nogil=True, cache=True)
def _turn(frame, out):
    """out[k, j, i] = frame[i, j, k], tile by tile."""
    d0, d1, d2 = frame.shape
    whole0, whole2 = d0 // TILE * TILE, d2 // TILE * TILE
    for j in range(d1):
        for i0 in range(0, whole0, TILE):
            for k0 in range(0, whole2, TILE):
                tile, turned = (
                    frame[i0 : i0 + TILE, j, k0 : k0 + TILE],
                    out[k0 : k0 + TILE, j, i0 : i0 + TILE],
                )
                for k in range(TILE):
                    for i in range(TILE):
                        turned[k, i] = tile[i, k]
        for i in range(d0):
            for k in range(whole2 if i < whole0 else 0, d2):
                out[k, j, i] = frame[i, j, k]
