"""Tiles in the wings: cut and blended as NumPy would, and twin against twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import REAL_DTYPES, wings_present

BORDERS = ("nan", "min", "copy", "reflect")
LAYOUTS = [  # frame, starts per axis, width per axis
    ((17, 23), ((0, 5, 9), (0, 6, 12, 16)), (8, 7)),
    ((9, 40), ((0,), (0, 8, 16, 24, 32)), (9, 8)),
    ((9, 8, 7), ((0, 4), (0, 3), (0,)), (5, 5, 7)),
]
HALO = 2


def cut_by_definition(frame, moves, starts, size, border):
    """Tiles of one frame by padding it far enough."""
    reach = 30
    padded = np.pad(frame, reach, mode="symmetric" if border == "reflect" else "edge")
    counts = tuple(map(len, starts))
    tiles = np.empty((*counts, *size), np.float32)
    for index in np.ndindex(counts):
        corner = [starts[a][i] - HALO - moves[index][a] + reach for a, i in enumerate(index)]
        tiles[index] = padded[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))]
    return tiles


def blended_by_definition(tiles, field, starts, shape, weights, kind, fill, border):
    """One frame, tile by tile, pixel by pixel of a tile."""
    total, weight = np.zeros(shape), np.zeros(shape)
    width = tuple(w.shape[2] for w in weights)
    for index in np.ndindex(tiles.shape[: len(shape)]):
        for at in np.ndindex(width):
            pixel = tuple(starts[a][i] + x for a, (i, x) in enumerate(zip(index, at, strict=True)))
            w = np.prod([weights[a][kind, i, x] for a, (i, x) in enumerate(zip(index, at, strict=True))])
            source = list(at)
            inside = True
            for a, n in enumerate(shape):
                s = field[index][a]
                inside &= 0 <= pixel[a] - s <= n - 1
                if border == "copy":  # of the lines that are inside, or the last of the frame
                    first = min(max(int(np.ceil(s)), 0), n - 1)
                    last = max(n - max(int(np.ceil(-s)), 0), first + 1) - 1
                    nearest = min(max(pixel[a], first), last) - starts[a][index[a]]
                    source[a] = min(max(nearest, 0), width[a] - 1)
            if border in ("nan", "min") and not inside:
                continue
            total[pixel] += w * tiles[index][tuple(x + HALO for x in source)]
            weight[pixel] += w
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), fill)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("shape", "starts", "width"), LAYOUTS)
def test_tiles_are_cut_where_they_lie(wing, shape, starts, width, border):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 999, (3, *shape)).astype(np.int16)
    size = tuple(w + 2 * HALO + 1 for w in width)
    moves = rng.integers(-9, 10, (3, *map(len, starts), len(shape))).astype(np.int32)
    tiles = backend.wing(wing.put(frames)).tiles.cut_tiles(
        wing.put(frames), wing.put(moves), starts, size, HALO, border
    )
    expected = [cut_by_definition(f, m, starts, size, border) for f, m in zip(frames, moves, strict=True)]
    assert_array_equal(backend.to_numpy(tiles), expected)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("shape", "starts", "width"), LAYOUTS)
def test_tiles_are_blended_by_their_weights(wing, shape, starts, width, border):
    rng = np.random.default_rng(2)
    counts = tuple(map(len, starts))
    tiles = rng.normal(size=(2, *counts, *(w + 2 * HALO for w in width))).astype(np.float32)
    field = rng.uniform(-4, 4, (2, *counts, len(shape))).astype(np.float32)
    field[0, ..., 0] = 99  # nothing of this frame is left
    weights = tuple(
        rng.uniform(0.1, 1, (2, g, w)).astype(np.float32) for g, w in zip(counts, width, strict=True)
    )
    fill = np.float32([-7, -8])
    frames = backend.wing(wing.put(tiles)).tiles.blend_tiles(
        wing.put(tiles),
        wing.put(field),
        starts,
        shape,
        HALO,
        tuple(wing.put(w) for w in weights),
        wing.put(np.int32([1, 0])),
        wing.put(fill),
        border,
    )
    expected = [
        blended_by_definition(tiles[t], field[t], starts, shape, weights, 1 - t, fill[t], border)
        for t in (0, 1)
    ]
    assert_allclose(backend.to_numpy(frames), expected, atol=1e-5)  # float32 of values near one


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_every_dtype_is_cut(wing, dtype):
    frames = np.random.default_rng(3).integers(0, 2 if dtype == "bool" else 99, (2, 6, 7)).astype(dtype)
    moves = np.zeros((2, 1, 1, 2), np.int32)
    tiles = backend.wing(wing.put(frames)).tiles.cut_tiles(
        wing.put(frames), wing.put(moves), ((0,), (0,)), (6, 7), 0, "nan"
    )
    assert_array_equal(backend.to_numpy(tiles).reshape(2, 6, 7), frames.astype(np.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BORDERS))
def test_whole_pixels_cut_and_blended_are_the_frame_moved(seed, border):
    """Whatever the weights: tiles that all moved by the same agree where they overlap."""
    rng = np.random.default_rng(seed)
    shape, starts, width = LAYOUTS[seed % len(LAYOUTS)]
    counts = tuple(map(len, starts))
    shift = rng.integers(-3, 4, len(shape))
    frames = rng.normal(size=(1, *shape)).astype(np.float32)
    moves = np.broadcast_to(shift, (1, *counts, len(shape))).astype(np.int32)
    tiles = backend.wing(frames).tiles
    cut = tiles.cut_tiles(frames, moves, starts, tuple(w + 2 * HALO for w in width), HALO, border)
    weights = tuple(
        rng.uniform(0.1, 1, (1, g, w)).astype(np.float32) for g, w in zip(counts, width, strict=True)
    )
    kind, fill = np.zeros(1, np.int32), np.float32([np.nan])
    back = tiles.blend_tiles(cut, moves.astype(np.float32), starts, shape, HALO, weights, kind, fill, border)[
        0
    ]
    rolled = np.roll(frames[0], tuple(shift), range(len(shape)))
    inside = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, shape, strict=True))
    assert_allclose(back[inside], rolled[inside], rtol=1e-5, atol=1e-6)
    assert np.isnan(back).any() == (border in ("nan", "min") and bool(shift.any()))


def test_twins_agree():
    rng = np.random.default_rng(4)
    shape, starts, width = LAYOUTS[0]
    counts = tuple(map(len, starts))
    tiles = rng.normal(size=(3, *counts, *(w + 2 * HALO for w in width))).astype(np.float32)
    field = rng.uniform(-4, 4, (3, *counts, 2)).astype(np.float32)
    weights = tuple(
        rng.uniform(0, 1, (1, g, w)).astype(np.float32) for g, w in zip(counts, width, strict=True)
    )
    results = []
    for wing in wings_present():
        with wing.chosen():
            put = wing.put
            blended = backend.wing(put(tiles)).tiles.blend_tiles(
                put(tiles),
                put(field),
                starts,
                shape,
                HALO,
                tuple(map(put, weights)),
                put(np.zeros(3, np.int32)),
                put(np.zeros(3, np.float32)),
                "nan",
            )
            results.append(backend.to_numpy(blended))
    for other in results[1:]:
        assert_allclose(other, results[0], atol=1e-5)
