"""Patches of one image, their displacements, and a shift of a spectrum: small functions of the documented interface."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.registration.apply import displace, warp
from gpucalcium.registration.field import AxisBasis, along_axes, ramps
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.rigid import border_of

Ints = Sequence[int]
Patch = tuple[Any, ...]


def get_patch_edges(
    dims: Ints, overlaps: Ints, strides: Ints, shifts_opencv: bool = True, upsample_factor_grid: int = 4
) -> tuple[NDArray[np.int64], ...]:
    """Where patches begin and end, per axis (count, 2): first pixel, and one past the last.

    Parameters
    ----------
    dims : (d1, d2[, d3])
        Of the frame.
    overlaps, strides : per axis
        Pixels that neighbours share, and their distance.
    shifts_opencv : bool
        False: of the finer grid of tiles that are shifted by Fourier transform.
    upsample_factor_grid : int
        How much finer that is.
    """
    grid = _grid(dims, overlaps, strides, shifts_opencv, upsample_factor_grid)
    return tuple(
        np.stack([np.array(s), np.array(s) + w], axis=1) for s, w in zip(grid.starts, grid.width, strict=True)
    )


def get_patch_centers(
    dims: Ints, overlaps: Ints, strides: Ints, shifts_opencv: bool = True, upsample_factor_grid: int = 4
) -> list[tuple[float, ...]]:
    """Middle of each patch, ``start + (width - 1) / 2``, C order over the grid; parameters as `get_patch_edges`."""
    grid = _grid(dims, overlaps, strides, shifts_opencv, upsample_factor_grid)
    return list(itertools.product(*(centres.tolist() for centres in grid.centres)))


def _grid(dims: Ints, overlaps: Ints, strides: Ints, patches: bool, upsample: int) -> PatchGrid:
    if upsample < 1:
        raise ParameterError(f"upsample_factor_grid={upsample}: must be 1 or more")
    apart = tuple(strides) if patches else tuple(max(1, round(s / upsample)) for s in strides)
    return PatchGrid.make(tuple(dims), apart, tuple(overlaps))


def sliding_window(image: ArrayLike | Array, overlaps: Ints, strides: Ints) -> Iterator[Patch]:
    """Patches of an image, C order: ``(i, j, row, column, patch)``; in a volume three of each.

    Parameters
    ----------
    image : (d1, d2[, d3]) array
        Anything that can be sliced; a patch is a view where slices are.
    overlaps, strides : per axis
        A patch has ``strides + overlaps`` pixels; the last of an axis ends where the image does.
    """
    pixels: Array = image if hasattr(image, "shape") else np.asarray(image)
    grid = PatchGrid.make(tuple(pixels.shape), tuple(strides), tuple(overlaps))
    for index, corner, patch in zip(grid.indices, grid.corners.tolist(), grid.slices, strict=True):
        yield (*index, *corner, pixels[patch])


def sliding_window_3d(image: ArrayLike | Array, overlaps: Ints, strides: Ints) -> Iterator[Patch]:
    """`sliding_window` of a volume: ``(i, j, k, row, column, plane, patch)``."""
    if np.ndim(image) != 3:
        raise ArrayShapeError(f"sliding_window_3d takes a volume, not an array of {np.ndim(image)} axes")
    return sliding_window(image, overlaps, strides)


def blending_weights(dims: Ints, overlaps: Ints, strides: Ints) -> Iterator[NDArray[np.float32]]:
    """Weights of each patch when patches are put together, C order.

    They fall linearly from one to zero over the overlap with a neighbour, and are one at the border of the frame;
    where patches overlap, the frame is the mean by these weights.
    """
    grid = PatchGrid.make(tuple(dims), tuple(strides), tuple(overlaps))
    along = [ramps(len(s), w, o) for s, w, o in zip(grid.starts, grid.width, overlaps, strict=True)]
    for index in grid.indices:
        weights = np.ones(())
        for axis, i in zip(along, index, strict=True):
            weights = np.multiply.outer(weights, axis[i])
        yield weights.astype(np.float32)


def interpolate_shifts(
    shifts: ArrayLike | Array, coords_orig: Sequence[ArrayLike], coords_new: Sequence[ArrayLike]
) -> Array:
    """Values on one grid evaluated on another by cubic splines, constant beyond the outer nodes.

    Parameters
    ----------
    shifts : (g1, g2[, g3]) array, real, or flat in C order
    coords_orig, coords_new : per axis (g,) and (m,)
        Where the nodes lie, rising, and where values are wanted, pixels. Fewer than four nodes on an axis are joined
        by a parabola, a line, or stay constant.

    Returns
    -------
    (m1, m2[, m3]) float32
        CuPy if `shifts` is CuPy.
    """
    nodes = [_rising("coords_orig", c) for c in coords_orig]
    wanted = [np.asarray(backend.to_numpy(c), np.float64).ravel() for c in coords_new]
    if len(nodes) != len(wanted):
        raise ArrayShapeError(f"coords_orig has {len(nodes)} axes, coords_new {len(wanted)}: they must agree")
    values = backend.put(shifts)
    if values.size != math.prod(map(len, nodes)):
        raise ArrayShapeError(
            f"shifts has shape {values.shape}, coords_orig {tuple(map(len, nodes))} nodes: one value per node is needed"
        )
    field = values.reshape(1, *map(len, nodes), 1)
    matrices = [_spline_matrix(c, x) for c, x in zip(nodes, wanted, strict=True)]
    return backend.like(shifts, along_axes(field, matrices)[0, ..., 0])


def _spline_matrix(centres: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, g) for positions in any order."""
    order = np.argsort(at, kind="stable")
    matrix = np.empty((len(at), len(centres)))
    matrix[order] = AxisBasis.spline(centres, at[order]).matrix()
    return matrix


def _rising(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(backend.to_numpy(values), np.float64).ravel()
    if array.size == 0 or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise ParameterError(f"{name}: positions of nodes must be finite numbers that rise, at least one")
    return array


def apply_pw_shifts_remap_2d(
    img: ArrayLike | Array,
    shifts_y: ArrayLike,
    shifts_x: ArrayLike,
    patch_centers_y: ArrayLike,
    patch_centers_x: ArrayLike,
    border_nan: bool | str = True,
    shifts_interpolate: bool = False,
) -> Array:
    """An image warped by a field of patches: ``out[i, j] = img[i + shifts_y(i, j), j + shifts_x(i, j)]``, bicubic.

    Parameters
    ----------
    img : (d1, d2) array, real
    shifts_y, shifts_x : (g1, g2) arrays, or flat in C order
        From where each patch is taken, rows and columns, pixels: the opposite of the displacement applied.
    patch_centers_y, patch_centers_x : (g1,) and (g2,)
        Middles of the patches, rising, pixels; only their number matters without `shifts_interpolate`.
    border_nan : True, 'min', 'copy' or False
        What pixels get that came in from outside: NaN, the minimum, the edge repeated, the reflection.
    shifts_interpolate : bool
        See `displace_field`.

    Returns
    -------
    (d1, d2) float32
        CuPy if `img` is CuPy.

    Raises
    ------
    ArrayShapeError, ParameterError, MovieValueError
        Shapes that do not agree; centres that do not rise; shifts that are not finite.
    """
    return _remap(
        img, (shifts_y, shifts_x), (patch_centers_y, patch_centers_x), border_nan, shifts_interpolate
    )


def apply_pw_shifts_remap_3d(
    img: ArrayLike | Array,
    shifts_y: ArrayLike,
    shifts_x: ArrayLike,
    shifts_z: ArrayLike,
    patch_centers_y: ArrayLike,
    patch_centers_x: ArrayLike,
    patch_centers_z: ArrayLike,
    border_nan: bool | str = True,
    shifts_interpolate: bool = False,
) -> Array:
    """`apply_pw_shifts_remap_2d` of a volume (d1, d2, d3); y, x, z are its axes in order."""
    centres = (patch_centers_y, patch_centers_x, patch_centers_z)
    return _remap(img, (shifts_y, shifts_x, shifts_z), centres, border_nan, shifts_interpolate)


def _remap(
    img: ArrayLike | Array,
    shifts: Sequence[ArrayLike],
    centres: Sequence[ArrayLike],
    border_nan: bool | str,
    interpolate: bool,
) -> Array:
    border = border_of(border_nan)
    frames = backend.put(img)[None]
    if frames.ndim != len(shifts) + 1:
        raise ArrayShapeError(f"img has shape {frames.shape[1:]}; it must have {len(shifts)} axes")
    nodes = [_rising("patch_centers", c) for c in centres]
    counts = tuple(map(len, nodes))
    given = [np.asarray(backend.to_numpy(s), np.float32) for s in shifts]
    if any(s.size != math.prod(counts) for s in given):
        raise ArrayShapeError(
            f"shifts have shapes {[s.shape for s in given]}; centres of {counts} patches need as many of each"
        )
    field = -np.stack([s.reshape(counts) for s in given], axis=-1)[None]
    if not np.isfinite(field).all():
        raise MovieValueError("shifts of patches must be finite numbers")
    moves = backend.arrays.xp(frames).asarray(field)
    return backend.like(img, warp(frames, moves, nodes, border=border, interpolate=interpolate)[0])


def apply_shifts_dft(
    src_freq: ArrayLike | Array,
    shifts: ArrayLike,
    diffphase: float = 0.0,
    is_freq: bool = True,
    border_nan: bool | str = True,
) -> Array:
    """An image shifted by Fourier transform, circularly: ``out[r, c] = image[r - shifts[0], c - shifts[1]]``.

    Parameters
    ----------
    src_freq : (d1, d2[, d3]) array
        The image's transform (``fftn``), or, with ``is_freq=False``, the image. Its pixels that are not finite take
        the mean of the others.
    shifts : (2,) or (3,)
        Pixels, axis order.
    diffphase : float
        Phase that the transform is turned by as well, radians; the real part is returned.
    is_freq : bool
    border_nan : True, 'min', 'copy' or False
        What pixels get that came in from outside: NaN, the minimum, the nearest line inside, the opposite side.

    Returns
    -------
    (d1, d2[, d3]) float32
        CuPy if `src_freq` is CuPy.

    Raises
    ------
    ArrayShapeError, ParameterError, MovieValueError
        Not one finite shift per axis; a transform that is not finite.
    """
    border = border_of(border_nan)
    source = backend.put(src_freq)
    xp, fft = backend.arrays.xp(source), backend.arrays.fft(source)
    moves = np.asarray(backend.to_numpy(shifts), np.float32)
    if source.ndim not in (2, 3) or moves.shape != (source.ndim,):
        raise ArrayShapeError(
            f"an image of shape {source.shape} cannot be moved by shifts of shape {moves.shape}: give one number per "
            "axis of an image or a volume"
        )
    if not (np.isfinite(moves).all() and np.isfinite(diffphase)):
        raise ParameterError(f"shifts={moves}, diffphase={diffphase}: finite numbers are needed")
    turn = complex(math.cos(diffphase), math.sin(diffphase))
    if is_freq:
        if not bool(xp.isfinite(source).all()):
            raise MovieValueError("src_freq holds NaN or infinite values")
        image = (fft.ifftn(source) * turn).real
    else:
        image = source * turn.real if diffphase else source
    moved = displace(image[None], xp.asarray(moves[None]), border=border, fourier=True)
    return backend.like(src_freq, moved[0])
