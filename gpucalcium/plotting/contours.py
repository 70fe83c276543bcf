"""Outlines of footprints, for drawing and for counting; no figure is made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.errors import ArrayShapeError, ParameterError


@dataclass(frozen=True, eq=False)
class Outline:
    """Where one footprint lies; coordinates are (row, column) in pixels, pixel centres at whole numbers."""

    paths: tuple[NDArray[np.float64], ...]
    """Closed curves, each (n, 2); several where the footprint has several parts or a hole."""
    center: NDArray[np.float64]
    """(ndim,) centre of mass; NaN for an empty footprint."""
    box: tuple[slice, ...]
    """Smallest box around the footprint's support."""

    def moved(self, by: NDArray[np.floating]) -> Outline:
        """The same curves and centre, displaced by so many (rows, columns); the box stays."""
        return Outline(tuple(path + by for path in self.paths), self.center + by, self.box)


def outlines(
    A: sparse.spmatrix | NDArray, dims: tuple[int, ...], thr: float = 0.2, thr_method: str = "max"
) -> list[Outline]:
    """Outline of each footprint on a two-dimensional field.

    Parameters
    ----------
    A : (d1 * d2, K), sparse or dense
        Footprints, pixels in Fortran order. Negative weights count as none.
    dims : (d1, d2)
        Rows and columns.
    thr : float
        "max": the curve runs at this fraction of the footprint's maximum; "nrg": around the brightest pixels
        that together hold this fraction of its energy (summed squares). Between 0 and 1.
    thr_method : "max" or "nrg"

    Returns
    -------
    list of Outline
        One per column; one without paths for an empty column.

    Raises
    ------
    ArrayShapeError, ParameterError
        Pixels that do not fit `dims`; `thr` or `thr_method` that is none of the above.
    """
    if len(dims) != 2:
        raise ArrayShapeError(
            f"dims={tuple(dims)}: outlines are drawn plane by plane, so dims must be (d1, d2)"
        )
    if thr_method not in ("max", "nrg") or not 0 < thr < 1:
        raise ParameterError(
            f"thr_method={thr_method!r}, thr={thr}: expected 'max' or 'nrg', and 0 < thr < 1"
        )
    A = sparse.csc_matrix(A)
    if A.shape[0] != np.prod(dims):
        raise ArrayShapeError(f"footprints of {A.shape[0]} pixels do not fit a field of {dims[0]}x{dims[1]}")
    return [_outline(*_column(A, k), dims, thr, thr_method) for k in range(A.shape[1])]


def get_contours(
    A: sparse.spmatrix | NDArray, dims: tuple[int, ...], thr: float = 0.9, thr_method: str = "nrg"
) -> list[dict[str, Any]]:
    """Outlines as dictionaries of the documented keys, for two- and three-dimensional fields.

    Parameters
    ----------
    A, dims, thr, thr_method
        As for `outlines`; `dims` may have a third axis, along which planes are outlined one by one.

    Returns
    -------
    list of dict
        ``coordinates``: (n, 2) float64 of x (column) and y (row), each closed curve preceded and the last
        followed by a row of NaN; for volumes a list of such arrays, one per plane. ``CoM``: (ndim,) centre of
        mass, axis order. ``neuron_id``: 1-based. ``bbox``: lowest and highest pixel of the support as
        [row0, row1, column0, column1(, plane0, plane1)], end exclusive; empty list for an empty footprint.

    Raises
    ------
    ArrayShapeError, ParameterError
        As for `outlines`.
    """
    A = sparse.csc_matrix(A)
    if len(dims) == 2:
        found = outlines(A, dims, thr, thr_method)
        return [_as_dict(k, _with_gaps(o.paths), o.center, o.box) for k, o in enumerate(found)]
    if len(dims) != 3:
        raise ArrayShapeError(f"dims={tuple(dims)}: expected (d1, d2) or (d1, d2, d3)")
    plane = dims[0] * dims[1]
    if A.shape[0] != plane * dims[2]:
        raise ArrayShapeError(f"footprints of {A.shape[0]} pixels do not fit a volume of {tuple(dims)}")
    planes = [outlines(A[z * plane : (z + 1) * plane], dims[:2], thr, thr_method) for z in range(dims[2])]
    dicts = []
    for k in range(A.shape[1]):
        center, box = _place(*_column(A, k), dims)
        dicts.append(_as_dict(k, [_with_gaps(found[k].paths) for found in planes], center, box))
    return dicts


def _as_dict(k: int, coordinates: Any, center: NDArray, box: tuple[slice, ...]) -> dict[str, Any]:
    edges = [edge for side in box for edge in (side.start, side.stop)]
    return {"coordinates": coordinates, "CoM": center, "neuron_id": k + 1, "bbox": edges}


def _with_gaps(paths: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    gap = np.full((1, 2), np.nan)
    return np.concatenate([gap, *(piece for path in paths for piece in (path[:, ::-1], gap))])


def _column(A: sparse.csc_matrix, k: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    part = slice(A.indptr[k], A.indptr[k + 1])
    positive = A.data[part] > 0
    return A.indices[part][positive], A.data[part][positive].astype(np.float64)


def _place(
    pixels: NDArray[np.intp], weights: NDArray[np.float64], dims: tuple[int, ...]
) -> tuple[NDArray[np.float64], tuple[slice, ...]]:
    if len(pixels) == 0:
        return np.full(len(dims), np.nan), ()
    position = np.array(np.unravel_index(pixels, dims, order="F"))
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in position)
    return (position * weights).sum(axis=1) / weights.sum(), box


def _outline(
    pixels: NDArray[np.intp], weights: NDArray[np.float64], dims: tuple[int, ...], thr: float, thr_method: str
) -> Outline:
    from skimage import measure

    center, box = _place(pixels, weights, dims)
    if len(pixels) == 0:
        return Outline((), center, box)
    rows, columns = np.unravel_index(pixels, dims, order="F")
    corner = np.array([box[0].start - 1, box[1].start - 1])  # one pixel of nothing around closes every curve
    image = np.zeros((box[0].stop - corner[0] + 1, box[1].stop - corner[1] + 1))
    image[rows - corner[0], columns - corner[1]] = weights
    level = thr * weights.max() if thr_method == "max" else _energy_level(weights, thr)
    return Outline(tuple(path + corner for path in measure.find_contours(image, level)), center, box)


def _energy_level(weights: NDArray[np.float64], thr: float) -> float:
    """Half-way between the last of the brightest pixels that hold `thr` of the energy and the next one."""
    falling = np.sort(weights)[::-1]
    energy = np.cumsum(falling**2)
    last = int(np.searchsorted(energy, thr * energy[-1]))
    below = falling[last + 1] if last + 1 < len(falling) else 0.0
    return float((falling[last] + below) / 2)
