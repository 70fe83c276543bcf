"""What a regression leaves around a seed, cut down to one cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

DIM = (
    1 / 3
)  # of the peak: below, a pixel from which the image rises away from the peak belongs to a neighbour
FAINT = 0.01  # of the peak, after opening: below, a pixel is no part of the cell
OPENING = 5  # pixels: side of the square that has to fit into a cell
EVERY_NEIGHBOUR = np.ones((3, 3))


def one_cell(image: NDArray, seed: tuple[int, int]) -> NDArray[np.float64]:
    """An image, not negative, without what falls off its peak and rises again, and without loose pieces.

    Parameters
    ----------
    image : (h, w)
    seed : (row, column)
        The piece that holds it stays if the image is 0 there after all; else that of the peak.

    Returns
    -------
    image : (h, w) float64
    """
    return connected(falling(np.asarray(image, np.float64)), seed)


def falling(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dim pixels whose gradient points away from the peak set to 0; then the peak's piece, grown by one pixel."""
    if not image.any() or min(image.shape) < 2:
        return image
    peak = np.unravel_index(int(np.argmax(image)), image.shape)
    slopes = np.gradient(image)
    away = [x - p for x, p in zip(np.indices(image.shape), peak, strict=True)]
    rises = slopes[0] * away[0] + slopes[1] * away[1] > 0
    kept = np.where(rises & (image < DIM * image[peak]), 0, image)
    labels, _ = ndimage.label(kept > 0)
    piece = ndimage.binary_dilation(labels == labels[peak], EVERY_NEIGHBOUR)
    return np.where(piece, kept, 0)


def connected(image: NDArray[np.float64], seed: tuple[int, int]) -> NDArray[np.float64]:
    """Only the piece around the peak, of what a square fits into; the image as it is where none does."""
    opened = ndimage.grey_opening(image, (OPENING, OPENING))
    labels, n = ndimage.label(opened > FAINT * image.max())
    if not n:
        return image
    peak = np.unravel_index(int(np.argmax(image)), image.shape)
    label = labels[peak] or labels[seed]
    return np.where(labels == label, image, 0) if label else image
