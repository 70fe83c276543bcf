"""Which pixels an outline covers, by the rule of Pillow's polygons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac._optional import optional


def draw_mask(
    geometry: Any, shape: tuple[int, int], corner: tuple[float, float] = (0, 0), buffer: float | None = None
) -> NDArray[np.bool_]:
    """Pixels of a geometry: those inside, and those that its outline touches.

    The geometry is moved, grown, its vertices truncated toward zero, and drawn by Pillow's rule of polygons.

    Parameters
    ----------
    geometry : shapely geometry
        Polygons, lines and points, in pixels, x first. Holes are filled.
    shape : (rows, columns)
        Of the mask; what lies beyond is cut off.
    corner : (x, y)
        Where pixel [0, 0] of the mask lies in the geometry's coordinates.
    buffer : float, optional
        Pixels by which the geometry is grown; None leaves it as it is.

    Returns
    -------
    mask : (rows, columns) bool
    """
    image_module = optional("PIL.Image", "drawing masks")
    draw_module = optional("PIL.ImageDraw", "drawing masks")
    image = image_module.new("1", (shape[1], shape[0]), 0)
    pen = draw_module.Draw(image)
    for ring in rings(geometry if buffer is None else geometry.buffer(buffer)):
        vertices = np.trunc(ring - np.asarray(corner)).astype(int)
        if len(vertices) == 1:
            vertices = np.repeat(vertices, 2, axis=0)  # Pillow draws a point as a line to itself
        pen.polygon([(int(x), int(y)) for x, y in vertices], outline=1, fill=1)
    return np.array(image, bool)


def rings(geometry: Any) -> list[NDArray[np.float64]]:
    """Outer rings of polygons, vertices of lines, and points of a geometry: each (n, 2), x and y."""
    parts: Sequence[Any] = getattr(geometry, "geoms", None) or [geometry]
    if len(parts) > 1 or parts[0] is not geometry:
        return [ring for part in parts for ring in rings(part)]
    if geometry.is_empty:
        return []
    outline = geometry.exterior if geometry.geom_type == "Polygon" else geometry
    return [np.asarray(outline.coords, np.float64)[:, :2]]
