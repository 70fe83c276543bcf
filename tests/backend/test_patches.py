"""Patches located against their part of a template: both wings, and against imposed displacements."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from gpucalcium import backend
from tests.backend.test_registration import full_band, moved, plain_kernel, texture

CORNERS = {
    (41, 38): [(0, 0), (7, 3), (22, 15)],
    (12, 30): [(0, 0), (0, 7)],
    (20, 18, 9): [(0, 0, 0), (6, 4, 1)],
}
WIDTH = {(41, 38): (19, 23), (12, 30): (12, 22), (20, 18, 9): (14, 13, 8)}


def kernels(image: np.ndarray, corners: list[tuple[int, ...]], width: tuple[int, ...]) -> np.ndarray:
    """Unweighted correlation with each patch of an image, at all frequencies."""
    patches = [
        image[tuple(slice(s, s + w) for s, w in zip(corner, width, strict=True))] for corner in corners
    ]
    return np.stack([plain_kernel(p - p.mean(), full_band(width)) for p in patches])


def locate(wing, frames, image, moves, *, bound, offset=0.0):
    shape = image.shape
    corners, width = CORNERS[shape], WIDTH[shape]
    put = wing.put(frames)
    found = backend.wing(put).patches.locate_patches(
        put,
        wing.put(image),
        offset,
        wing.put(np.asarray(moves, np.int32)),
        wing.put(np.array(corners)),
        width,
        wing.put(kernels(image, corners, width)),
        bound,
    )
    return [backend.to_numpy(x) for x in found]


@pytest.mark.parametrize("shape", CORNERS)
def test_periodic_patches_are_found_exactly(wing, shape):
    """A frame that repeats with the patch's period correlates circularly without loss."""
    width = WIDTH[shape]
    tile = texture(width)
    reach = [range(-2 * n, 2 * n) for n in shape]
    imposed = np.random.default_rng(3).uniform(-1.9, 1.9, (4, len(shape)))
    periodic = [
        m[np.ix_(*(np.arange(n) % w for n, w in zip(shape, width, strict=True)))]
        for m in moved(tile, imposed)
    ]
    image = tile[np.ix_(*(np.arange(n) % w for n, w in zip(shape, width, strict=True)))]
    offsets, peaks = locate(
        wing, np.array(periodic, np.float32), image, np.zeros((4, len(shape))), bound=(2,) * len(shape)
    )
    assert len(reach) == len(shape)
    assert_allclose(offsets, np.repeat(imposed[:, None], len(CORNERS[shape]), axis=1), atol=5e-5)
    assert (peaks > 0).all()
