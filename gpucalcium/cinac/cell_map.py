"""The cells of a field of view as shapes: outlines, centres, bounds, and which of them meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.masks import draw_mask
from gpucalcium.errors import ArrayShapeError, ParameterError


@dataclass(frozen=True, eq=False)
class CellMap:
    """Cells, in the order in which they were given; x is the column, y the row, pixel centres at whole numbers."""

    contours: tuple[NDArray[np.float64], ...]
    """For each cell (2, n): x and y of its outline, NaN left out."""
    polygons: tuple[Any, ...]
    """Shapely geometries, all valid: a polygon, a line or a point where there are fewer than 3 or 2 points."""
    pixel_masks: tuple[NDArray[np.int64], ...] | None = None
    """For each cell (n, 2): x and y of its pixels, where these were given; None: its polygon, filled."""

    def __len__(self) -> int:
        return len(self.polygons)

    @cached_property
    def centroids(self) -> NDArray[np.float64]:
        """(N, 2) x and y."""
        shapely = optional("shapely", "the geometry of cells")
        return shapely.get_coordinates(shapely.centroid(self._shapes)).reshape(-1, 2)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """(N, 4) least x, least y, greatest x, greatest y, truncated toward zero."""
        shapely = optional("shapely", "the geometry of cells")
        return np.trunc(shapely.bounds(self._shapes)).astype(np.int64).reshape(-1, 4)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(N, 4) as `bounds`, ordered minx, maxx, miny, maxy as sections of a movie are."""
        return self.bounds[:, [0, 2, 1, 3]]

    @cached_property
    def neighbours(self) -> tuple[NDArray[np.int64], ...]:
        """For each cell the others that it meets, sorted; to touch is enough."""
        shapely = optional("shapely", "the geometry of cells")
        pairs = shapely.STRtree(self._shapes).query(self._shapes, predicate="intersects")
        one, other = pairs[:, pairs[0] != pairs[1]]
        order = np.lexsort((other, one))
        cuts = np.searchsorted(one[order], np.arange(1, len(self)))
        return tuple(part.astype(np.int64) for part in np.split(other[order], cuts)[: len(self)])

    @property
    def _shapes(self) -> NDArray[np.object_]:
        """The polygons as Shapely's functions of many take them."""
        return np.array(self.polygons, dtype=object)

    def pixels(self, cell: int, shape: tuple[int, int]) -> NDArray[np.int64]:
        """Pixels of a cell inside a field of view of `shape` (rows, columns), as sorted indices in C order.

        Those that were given, or those that its polygon covers.
        """
        if self.pixel_masks is None:
            x, y = self._drawn(cell, shape)
        else:
            x, y = self.pixel_masks[cell].T
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
        return np.unique(y[inside] * shape[1] + x[inside])

    def _drawn(self, cell: int, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """x and y of the pixels that a polygon covers, drawn in the box around it."""
        left, right, top, bottom = self.boxes[cell]
        left, top = max(left, 0), max(top, 0)  # further out, vertices would be truncated to other pixels
        right, bottom = min(right, shape[1] - 1), min(bottom, shape[0] - 1)
        box = (max(bottom - top + 1, 0), max(right - left + 1, 0))
        y, x = np.nonzero(draw_mask(self.polygons[cell], box, corner=(left, top)))
        return x + left, y + top


def from_contours(contours: Sequence[ArrayLike], from_matlab: bool = False) -> CellMap:
    """Cells from their outlines.

    Parameters
    ----------
    contours : sequence of (2, n) array-like
        x and y. Points that are NaN are left out. The arrays given are not changed.
    from_matlab : bool
        Coordinates are counted from 1; else from 0.

    Raises
    ------
    ArrayShapeError
        A contour is not (2, n).
    ParameterError
        A contour has no point, or an infinite one; names the cell.
    """
    cleaned = tuple(_clean(points, cell, bool(from_matlab)) for cell, points in enumerate(contours))
    return CellMap(cleaned, tuple(_shape_of(points.T) for points in cleaned))


def from_pixel_masks(pixel_masks: Sequence[Any]) -> CellMap:
    """Cells from their pixels; outlines are convex hulls.

    Parameters
    ----------
    pixel_masks : sequence
        For each cell its pixels, one per row: (n, 2) x and y, or (n, 3) with a weight, or n records whose first two
        fields are these. Or a tuple of arrays, x and y and perhaps weights. Weights are not used.

    Raises
    ------
    ArrayShapeError
        Something else.
    ParameterError
        A cell has no pixel, or one that is no whole number; names the cell.
    """
    pixels = tuple(_pixels(mask, cell) for cell, mask in enumerate(pixel_masks))
    shapely = optional("shapely", "the geometry of cells")
    hulls = tuple(shapely.convex_hull(shapely.MultiPoint(xy)) for xy in pixels)
    outlines = tuple(shapely.get_coordinates(shapely.normalize(hull)).T.copy() for hull in hulls)
    return CellMap(outlines, hulls, pixels)


def _clean(contour: ArrayLike, cell: int, from_matlab: bool) -> NDArray[np.float64]:
    points = np.array(contour, np.float64)
    if points.ndim != 2 or len(points) != 2:
        raise ArrayShapeError(
            f"the contour of cell {cell} has shape {points.shape}; (2, n) is expected, x in the first row and y in the "
            "second" + ("; transpose it" if points.ndim == 2 and points.shape[1] == 2 else "")
        )
    points = points[:, ~np.isnan(points).any(axis=0)]
    if points.shape[1] == 0:
        raise ParameterError(
            f"the contour of cell {cell} is empty: give it a point at least, or leave the cell out"
        )
    if not np.isfinite(points).all():
        raise ParameterError(f"the contour of cell {cell} has infinite coordinates")
    return points - from_matlab


def _shape_of(points: NDArray[np.float64]) -> Any:
    """The valid geometry through points (n, 2)."""
    shapely = optional("shapely", "the geometry of cells")
    if (points == points[0]).all():
        return shapely.Point(points[0])
    if len(points) < 3:
        return shapely.LineString(points)
    polygon = shapely.Polygon(points)
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def _pixels(mask: Any, cell: int) -> NDArray[np.int64]:
    """(n, 2) x and y of a cell's pixels."""
    if isinstance(mask, tuple) and len(mask) in (2, 3) and all(isinstance(part, np.ndarray) for part in mask):
        table = np.stack([np.asarray(part, np.float64).ravel() for part in mask[:2]], axis=1)
    else:
        table = _table(mask, cell)
    if len(table) == 0:
        raise ParameterError(f"cell {cell} has no pixels: give it one at least, or leave the cell out")
    whole = table.astype(np.int64) if np.isfinite(table).all() else table
    if not np.array_equal(whole, table):
        raise ParameterError(f"cell {cell} has pixels that are no whole numbers, e.g. {table[0].tolist()}")
    return whole.astype(np.int64)


def _table(mask: Any, cell: int) -> NDArray[np.float64]:
    array = mask if isinstance(mask, np.ndarray) else np.asarray([tuple(pixel) for pixel in mask])
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names[:2]], axis=-1)
    if array.size == 0:
        return np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] not in (2, 3):
        raise ArrayShapeError(
            f"the pixels of cell {cell} have shape {array.shape}; one row per pixel is expected, x and y or x, y and a "
            "weight" + ("; transpose it" if array.ndim == 2 and len(array) in (2, 3) else "")
        )
    return array[:, :2].astype(np.float64)
