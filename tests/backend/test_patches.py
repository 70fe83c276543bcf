"""Patches located against their part of a template: both wings, and against imposed displacements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.backend.test_registration import DTYPES, full_band, moved, plain_kernel, texture
from tests.wings import wings_present

STARTS = {
    (41, 38): ((0, 7, 22), (0, 3, 15)),
    (12, 30): ((0,), (0, 7)),
    (20, 18, 9): ((0, 6), (0, 4, 5), (0, 1)),
}
WIDTH = {(41, 38): (19, 23), (12, 30): (12, 22), (20, 18, 9): (14, 13, 8)}


def patches(image: np.ndarray) -> list[np.ndarray]:
    """The patches of an image, C order."""
    starts, width = STARTS[image.shape], WIDTH[image.shape]
    return [
        image[tuple(slice(s, s + w) for s, w in zip(corner, width, strict=True))]
        for corner in itertools.product(*starts)
    ]


def kernels(image: np.ndarray) -> np.ndarray:
    """Unweighted correlation with each patch of an image, at all frequencies."""
    return np.stack([plain_kernel(p - p.mean(), full_band(p.shape)) for p in patches(image)])


def locate(wing, frames, image, moves, *, bound, offset=0.0, kernel=None):
    put = wing.put(frames)
    found = backend.wing(put).patches.locate_patches(
        put,
        wing.put(image),
        offset,
        wing.put(np.asarray(moves, np.int32)),
        STARTS[image.shape],
        WIDTH[image.shape],
        wing.put(kernels(image) if kernel is None else kernel),
        bound,
    )
    return [backend.to_numpy(x) for x in found]


@pytest.mark.parametrize("shape", STARTS)
def test_periodic_patches_are_found_exactly(wing, shape):
    """A frame that repeats with the patch's period correlates circularly without loss."""
    width = WIDTH[shape]
    tile = texture(width)
    tiled = np.ix_(*(np.arange(n) % w for n, w in zip(shape, width, strict=True)))
    imposed = np.random.default_rng(3).uniform(-1.9, 1.9, (4, len(shape)))
    frames = np.array([m[tiled] for m in moved(tile, imposed)], np.float32)
    offsets, peaks = locate(wing, frames, tile[tiled], np.zeros((4, len(shape))), bound=(2,) * len(shape))
    assert_allclose(offsets, np.repeat(imposed[:, None], peaks.shape[1], axis=1), atol=5e-5)
    assert (peaks > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_patches_are_read_where_the_frame_lies(wing, dtype):
    """Whole-pixel moves are undone; what comes from outside is the fill, so the patch is where it should be."""
    image = np.rint(texture((41, 38)) * 20 + 100).astype(np.float32)
    moves = np.array([(0, 0), (3, -5), (-40, 2), (100, -100)], np.int32)
    frames = np.array([np.roll(image, m, axis=(0, 1)) for m in moves]).astype(dtype)
    offsets, _ = locate(wing, frames, image - 100, moves, bound=(3, 3), offset=100.0)
    own, _ = locate(wing, image[None].astype(dtype), image - 100, moves[:1], bound=(3, 3), offset=100.0)
    assert_allclose(offsets[1, 4], own[0, 4], atol=1e-4)  # the middle patch stays inside
    assert_allclose(offsets[0], own[0], atol=1e-6)
    assert_allclose(offsets[3], own[0], atol=1e-6)  # nothing but fill
    assert (np.abs(offsets) <= 4).all()


def test_missing_pixels_are_the_fill(wing):
    image = texture((41, 38))
    frames = np.stack([image, image])
    frames[1, 3:7, 4:30], frames[1, 30, 30] = np.nan, -np.inf
    offsets, peaks = locate(wing, frames, image, np.zeros((2, 2)), bound=(2, 2))
    assert_array_equal(offsets[1], offsets[0])
    assert_array_equal(peaks[1], peaks[0])


def test_no_window_holds_the_patch_still(wing):
    image = texture((12, 30))
    offsets, _ = locate(wing, np.roll(image, 2, axis=1)[None], image, [(0, 0)], bound=(0, 3))
    assert (np.abs(offsets[..., 0]) <= 1).all()
    assert_allclose(offsets[..., 1], 2, atol=0.5)


def test_twins_locate_alike():
    image = texture((41, 38))
    rng = np.random.default_rng(5)
    frames = (np.roll(image, 2, axis=0) + rng.normal(0, 0.5, (6, 41, 38))).astype(np.float32)
    narrow = np.ascontiguousarray(kernels(image)[:, np.r_[0:5, -4:0], :7])
    moves = rng.integers(-2, 3, (6, 2))
    found = []
    for wing in wings_present():
        with wing.chosen():
            found.append(locate(wing, frames, image, moves, bound=(4, 3), kernel=narrow))
    for other in found[1:]:
        assert_allclose(other[0], found[0][0], atol=1e-3)
        assert_allclose(other[1], found[0][1], rtol=1e-4)


def settled(wing, apart, seen, within, at_centres, limit):
    put = [wing.put(x) for x in (apart, seen, within, at_centres, limit)]
    return backend.to_numpy(backend.wing(put[0]).patches.settle(*put))


def test_settled_patches_are_weighted_sums(wing):
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(5, 70, 2)).astype(np.float32)
    within, at_centres = rng.normal(size=(2, 2, 70, 70)).astype(np.float32)
    seen, limit = np.ones((5, 70), bool), np.full((2, 2, 70), np.inf, np.float32)
    found = settled(wing, apart, seen, within, at_centres, limit)
    assert_allclose(found, np.einsum("apq,tqa->tpa", at_centres.astype(float), apart), rtol=1e-5, atol=1e-5)


def test_settled_patches_believe_the_others(wing):
    """One patch that is far off, and one that shows nothing, among patches that all say the same."""
    apart = np.ones((2, 9, 2), np.float32)
    apart[1, 4], apart[1, 7] = (50, -50), 0
    seen = np.ones((2, 9), bool)
    seen[1, 7] = False
    mean = np.full((2, 9, 9), 1 / 9, np.float32)
    limit = np.stack([np.full((2, 9), 2, np.float32), np.full((2, 9), 0.25, np.float32)])
    found = settled(wing, apart, seen, mean, mean, limit)
    assert_allclose(found[0], 1, rtol=1e-6)
    assert_allclose(found[1], 1, atol=0.1)  # without the limits: 6.3 and -4.7
    assert np.ptp(found[1], axis=0).max() < 1e-6


def test_twins_settle_alike():
    rng = np.random.default_rng(1)
    args = (
        rng.normal(size=(7, 33, 3)).astype(np.float32),
        rng.uniform(size=(7, 33)) > 0.2,
        *(rng.normal(size=(2, 3, 33, 33)) / 33).astype(np.float32),
        np.full((2, 3, 33), 0.7, np.float32),
    )
    found = []
    for wing in wings_present():
        with wing.chosen():
            found.append(settled(wing, *args))
    for other in found[1:]:
        assert_allclose(other, found[0], rtol=1e-5, atol=1e-6)
