"""Displace frames by known shifts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.registration.field import HALO, Tiling, along_axes, bases, shear
from gpucalcium.registration.patches import PatchGrid

FAR = 1e6  # pixels; no field reaches further
MAX_SHEAR = 0.5  # pixels between neighbouring tiles, from which on a blend would show things twice


def displace(
    frames: Array, shifts: Array, *, border: str = "nan", fourier: bool = False, offset: float = 0.0
) -> Array:
    """Frames moved by `shifts`: ``out[r, c] = frame[r - shift[0], c - shift[1]]``.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype, on the device where the work is done
    shifts : (n, 2 or 3) float32, same device
        Pixels, axis order.
    border : {"nan", "min", "copy", "reflect"}
        What pixels get that came in from outside: NaN, the frame's minimum, the nearest line that is inside,
        or what interpolation gives there (the reflection; with `fourier` the opposite side).
    fourier : bool
        Shift by the Fourier transform: exact for band-limited frames, and circular. Volumes always are.
    offset : float
        Subtracted from the result.

    Returns
    -------
    (n, d1, d2[, d3]) float32
    """
    registration = backend.wing(frames).registration
    if not fourier and frames.ndim == 3:
        return registration.warp(frames, shifts, offset, border)
    moved = fourier_shift(frames, shifts)
    if offset:
        moved -= np.float32(offset)
    registration.mark_border(moved, shifts, border)
    return moved


def displace_field(
    frames: Array,
    field: Array,
    grid: PatchGrid,
    *,
    border: str = "nan",
    fourier: bool = False,
    interpolate: bool = False,
    offset: float = 0.0,
    upsample: int = 4,
    strides: tuple[int, ...] | None = None,
    overlaps: tuple[int, ...] | None = None,
) -> Array:
    """Frames moved by a displacement field: ``out[r, c] = frame[r - field_0(r, c), c - field_1(r, c)]``.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype, on the device where the work is done
    field : (n, *grid.counts, ndim) float32, same device
        Displacement of each patch, pixels, axis order.
    grid : PatchGrid
        The patches that the displacements belong to.
    border : {"nan", "min", "copy", "reflect"}
        What pixels get that came in from outside: NaN, the frame's minimum, the edge repeated, or the reflection.
    fourier : bool
        Divide the frame into smaller tiles, shift each by Fourier transform and blend them, instead of cubic
        interpolation of every pixel at its own displacement. Tiles are not blended but put side by side where they
        are pulled apart by more than `MAX_SHEAR` pixels.
    interpolate : bool
        False: the grid is stretched over the frame as an image of one pixel per patch would be, and displacements
        interpolated linearly (bicubically from patches to tiles). True: a cubic spline goes through the centres of
        the patches, constant beyond the outer ones.
    offset : float
        Subtracted from the result.
    upsample : int
        With `fourier`, distance of patches over that of tiles.
    strides, overlaps : per axis
        With `fourier`: of the patches; tiles are ``round(strides / upsample)`` apart and overlap by `overlaps`.
        Default: as `grid` shows.

    Returns
    -------
    (n, d1, d2[, d3]) float32
        Not clipped to the range of the frame. NaN wherever a pixel of non-zero weight is; with `fourier`, missing
        pixels take the mean of their tile.
    """
    if not fourier:
        return warp(frames, field, grid.centres, border=border, interpolate=interpolate, offset=offset)
    tiling = tiles_of(grid, upsample=upsample, strides=strides, overlaps=overlaps)
    return shift_tiles(frames, tiling.spread(field, grid, interpolate), tiling, border=border, offset=offset)


def tiles_of(
    grid: PatchGrid,
    *,
    upsample: int = 4,
    strides: tuple[int, ...] | None = None,
    overlaps: tuple[int, ...] | None = None,
) -> Tiling:
    """The tiles that `displace_field` shifts by Fourier transform where patches lie as in `grid`; options as there."""
    strides = strides or tuple(
        s[1] - s[0] if len(s) > 1 else w for s, w in zip(grid.starts, grid.width, strict=True)
    )
    overlaps = overlaps or tuple(w - s for w, s in zip(grid.width, strides, strict=True))
    return Tiling.make(grid.shape, tuple(max(1, round(s / upsample)) for s in strides), tuple(overlaps))


def warp(
    frames: Array,
    field: Array,
    centres: Sequence[Sequence[float] | NDArray],
    *,
    border: str = "nan",
    interpolate: bool = False,
    offset: float = 0.0,
) -> Array:
    """`displace_field` by interpolation, for patches around any `centres`: per axis, rising, pixels."""
    xp = backend.arrays.xp(frames)
    spread = bases(frames.shape[1:], centres, interpolate)
    return backend.wing(frames).field.warp_field(
        frames,
        along_axes(field, [axis.coefficients for axis in spread]),
        tuple(xp.asarray(axis.first) for axis in spread),
        tuple(xp.asarray(axis.weights) for axis in spread),
        offset,
        border,
    )


def shift_tiles(
    frames: Array, field: Array, tiling: Tiling, *, border: str = "nan", offset: float = 0.0
) -> Array:
    """Frames whose tiles are shifted by Fourier transform, each by its own displacement, and blended.

    Each tile is read at the nearest whole pixel, with some of what lies around it, and transformed to move by the
    fraction that is left: nothing wraps around, and tiles need not overlap.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype, on the device where the work is done
    field : (n, *tiling.grid.counts, ndim) float32, same device
    tiling : Tiling
    border, offset
        As in `displace_field`.

    Returns
    -------
    (n, d1, d2[, d3]) float32
    """
    xp = backend.arrays.xp(frames)
    known = xp.where(abs(field) < FAR, field, FAR)  # NaN is far, too: nothing of the frame is there
    field = xp.ascontiguousarray(known.astype(np.float32))
    bytes_each = 4 * tiling.grid.n * math.prod(tiling.size)
    block = max(1, backend.wing(frames).registration.BLOCK_BYTES // bytes_each)
    out = [
        _shift_block(frames[i : i + block], field[i : i + block], tiling, border)
        for i in range(0, len(frames), block)
    ]
    moved = xp.concatenate(out) if out else xp.zeros(frames.shape, np.float32)
    return moved - np.float32(offset) if offset else moved


def _shift_block(frames: Array, field: Array, tiling: Tiling, border: str) -> Array:
    xp, wing = backend.arrays.xp(frames), backend.wing(frames).tiles
    n, starts, axes = len(frames), tiling.grid.starts, field.shape[-1]
    whole = xp.round(field)
    tiles = wing.cut_tiles(frames, whole.astype(np.int32), starts, tiling.size, HALO, border)
    tiles = fourier_shift(tiles.reshape(-1, *tiling.size), (field - whole).reshape(-1, axes))
    fill = xp.full(n, np.nan, np.float32)
    if border == "min":
        values = frames.reshape(n, -1)
        fill = xp.where(xp.isnan(values), np.float32(np.inf), values).min(axis=1).astype(np.float32)
    return wing.blend_tiles(
        tiles.reshape(*field.shape[:-1], *tiling.size),
        field,
        starts,
        tiling.grid.shape,
        HALO,
        tuple(xp.asarray(weights) for weights in tiling.weights),
        (shear(field) >= MAX_SHEAR).astype(np.int32),
        fill,
        border,
    )


def fourier_shift(frames: Array, shifts: Array) -> Array:
    """Circular shift of each frame by its own, possibly fractional, displacement.

    The spectrum is multiplied by exp(-2 pi i k.s / n), where at the Nyquist frequency of an even axis the real
    part cos(pi s) stands, so that the result is real. Whole-pixel shifts equal ``roll`` to 1e-5.

    Parameters
    ----------
    frames : (n, d1, d2[, d3]), any real dtype
        Pixels that are not finite take the mean of their frame.
    shifts : (n, 2 or 3) float32

    Returns
    -------
    (n, d1, d2[, d3]) float32
    """
    xp, fft = backend.arrays.xp(frames), backend.arrays.fft(frames)
    axes = tuple(range(1, frames.ndim))
    values = frames.astype(np.float32)
    if frames.dtype.kind == "f":
        good = xp.isfinite(values)
        count = xp.maximum(good.sum(axis=axes, keepdims=True), 1)
        mean = xp.where(good, values, np.float32(0)).sum(axis=axes, keepdims=True, dtype=np.float64) / count
        values = xp.where(good, values, mean.astype(np.float32))
    spectrum = fft.rfftn(values, axes=axes)
    for axis, n in zip(axes, frames.shape[1:], strict=True):
        phase = _phases(xp, shifts[:, axis - 1], n, halved=axis == axes[-1])
        spectrum *= phase.reshape(len(frames), *(phase.shape[1] if a == axis else 1 for a in axes))
    return fft.irfftn(spectrum, s=frames.shape[1:], axes=axes)


def _phases(xp: backend.arrays.Namespace, shift: Array, n: int, halved: bool) -> Array:
    """exp(-2 pi i k s / n) for each frame, (frames, n or n//2+1) complex64; cosine at the Nyquist frequency."""
    k = np.arange(n // 2 + 1) if halved else np.fft.fftfreq(n, 1 / n)
    angle = xp.asarray(-2 * np.pi * k / n) * shift.astype(np.float64)[:, None]
    imaginary = xp.sin(angle)
    if n % 2 == 0:
        imaginary[:, n // 2] = 0
    return (xp.cos(angle) + 1j * imaginary).astype(np.complex64)
