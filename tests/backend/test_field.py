"""Displacement fields in the wings: against the definition, against rolls, and twin against twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from tests.wings import REAL_DTYPES, wings_present

BORDERS = ("nan", "min", "copy", "reflect")
PAD = {"nan": "symmetric", "min": "symmetric", "copy": "edge", "reflect": "symmetric"}


def cubic(x):
    """The cubic convolution kernel of Keys (1981) with a = -0.75."""
    x, a = np.abs(x), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    return np.where(x <= 1, near, np.where(x < 2, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a, 0))


def linear_basis(nodes, length):
    """Nodes spread evenly over an axis, the outer ones at its ends."""
    at = np.linspace(0, nodes - 1, length)
    first = np.minimum(at.astype(int), max(nodes - 2, 0)).astype(np.int32)
    weights = np.stack([1 - (at - first), at - first])[: min(nodes, 2)].astype(np.float32)
    dense = np.zeros((length, nodes))
    for p, weight in enumerate(weights):
        dense[np.arange(length), first + p] += weight
    return first, weights, dense


def by_definition(frame, displacement, border, offset=0.0):
    """Every sample from the 4^ndim pixels around it; `displacement` (*shape, ndim)."""
    reach = int(np.ceil(np.abs(displacement).max())) + 3
    padded = np.pad(frame.astype(np.float64), reach, mode=PAD[border])
    position = np.indices(frame.shape) - np.moveaxis(displacement, -1, 0)
    cell = np.floor(position).astype(int)
    out = np.zeros(frame.shape)
    for tap in np.ndindex((4,) * frame.ndim):
        at = [c + t - 1 for c, t in zip(cell, tap, strict=True)]
        weight = np.prod([cubic(p - a) for p, a in zip(position, at, strict=True)], axis=0)
        value = padded[tuple(a + reach for a in at)]
        out += np.where(weight != 0, weight * value, 0)
    if border in ("nan", "min"):
        ends = np.array(frame.shape).reshape(-1, *(1,) * frame.ndim) - 1
        outside = ((position < 0) | (position > ends)).any(0)
        out[outside] = np.nan if border == "nan" else frame.min()
    return out - offset


def warped(wing, frames, field, bases, border, offset=0.0):
    put = wing.put
    return backend.to_numpy(
        backend.wing(put(frames)).field.warp_field(
            put(frames),
            put(field),
            tuple(put(first) for first, _, _ in bases),
            tuple(put(weights) for _, weights, _ in bases),
            offset,
            border,
        )
    )


def dense(field, bases):
    """Displacement at every pixel, (n, *shape, ndim)."""
    for axis, (_, _, matrix) in enumerate(bases, start=1):
        field = np.moveaxis(np.tensordot(field, matrix, ((axis,), (1,))), -1, axis)
    return field


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    ("shape", "grid"),
    [((37, 29), (3, 4)), ((8, 65), (1, 5)), ((1, 7), (1, 2)), ((5, 1), (2, 1)), ((9, 7, 11), (2, 1, 3))],
)
def test_warp_is_the_cubic_of_its_definition(wing, shape, grid, border):
    rng = np.random.default_rng(1)
    frames = rng.normal(50, 10, (3, *shape)).astype(np.float32)
    bases = [linear_basis(g, n) for g, n in zip(grid, shape, strict=True)]
    field = rng.uniform(-6, 6, (3, *grid, len(shape))).astype(np.float32)
    out = warped(wing, frames, field, bases, border, 5.0)
    expected = [by_definition(f, d, border, 5.0) for f, d in zip(frames, dense(field, bases), strict=True)]
    assert_allclose(out, expected, atol=1e-3)  # positions to 1e-6 pixels, pixels up to 90


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_every_dtype(wing, dtype):
    frames = np.random.default_rng(2).integers(0, 2 if dtype == "bool" else 120, (2, 9, 13)).astype(dtype)
    bases = [linear_basis(2, 9), linear_basis(2, 13)]
    field = np.random.default_rng(3).uniform(-2, 2, (2, 2, 2, 2)).astype(np.float32)
    expected = warped(wing, frames.astype(np.float32), field, bases, "copy")
    assert_array_equal(warped(wing, frames, field, bases, "copy"), expected)


@pytest.mark.parametrize("shape", [(8, 9), (5, 6, 4)])
def test_whole_pixels_are_a_roll(wing, shape):
    frames = np.random.default_rng(4).normal(size=(2, *shape)).astype(np.float32)
    axes = len(shape)
    bases = [linear_basis(2, n) for n in shape]
    field = np.broadcast_to(np.float32([2, -1, 1][:axes]), (2, *(2,) * axes, axes))
    out = warped(wing, frames, np.ascontiguousarray(field), bases, "nan")
    expected = np.roll(frames, (2, -1, 1)[:axes], range(1, axes + 1))
    inside = np.isfinite(out)
    assert inside.sum() == 2 * np.prod([n - abs(s) for n, s in zip(shape, (2, -1, 1), strict=False)])
    assert_array_equal(out[inside], expected[inside])


def test_nan_is_kept_to_samples_that_need_it(wing):
    frames = np.ones((2, 9, 12), np.float32)
    frames[:, 4, 5] = np.nan
    bases = [linear_basis(1, 9), linear_basis(1, 12)]
    field = np.array([(1, -2), (0, 0.5)], np.float32).reshape(2, 1, 1, 2)
    out = warped(wing, frames, field, bases, "reflect")
    assert np.argwhere(np.isnan(out[0])).tolist() == [[5, 3]]
    assert np.argwhere(np.isnan(out[1])).tolist() == [[4, c] for c in range(4, 8)]


def test_field_without_a_number_counts_as_outside(wing):
    frames = np.ones((1, 5, 6), np.float32)
    bases = [linear_basis(1, 5), linear_basis(1, 6)]
    for value in (np.nan, np.inf, -np.inf, 1e30):
        field = np.full((1, 1, 1, 2), value, np.float32)
        assert np.isnan(warped(wing, frames, field, bases, "nan")).all()
        assert_allclose(warped(wing, frames, field, bases, "reflect"), 1)


@pytest.mark.parametrize("border", BORDERS)
def test_twins_warp_alike(border):
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 4000, (4, 35, 70)).astype(np.uint16)
    bases = [linear_basis(3, 35), linear_basis(4, 70)]
    field = rng.uniform(-8, 8, (4, 3, 4, 2)).astype(np.float32)
    results = []
    for wing in wings_present():
        with wing.chosen():
            results.append(warped(wing, frames, field, bases, border, 2.0))
    for other in results[1:]:
        assert_allclose(other, results[0], atol=4000 * 1e-5)


def test_empty_chunk(wing):
    bases = [linear_basis(1, 4), linear_basis(1, 5)]
    out = warped(wing, np.zeros((0, 4, 5), np.int16), np.zeros((0, 1, 1, 2), np.float32), bases, "min")
    assert out.shape == (0, 4, 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(BORDERS), st.integers(0, 3))
def test_frames_are_independent_and_linear(seed, border, first):
    wing = wings_present()[0]
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 20, 2))
    grid = tuple(rng.integers(1, 4, 2))
    frames = rng.normal(size=(4, *shape)).astype(np.float32)
    bases = [linear_basis(g, n) for g, n in zip(grid, shape, strict=True)]
    field = rng.uniform(-5, 5, (4, *grid, 2)).astype(np.float32)
    out = warped(wing, frames, field, bases, border)
    alone = warped(wing, frames[first : first + 1], field[first : first + 1], bases, border)
    assert_array_equal(out[first : first + 1], alone)
    assert_allclose(warped(wing, 2 * frames, field, bases, border), 2 * out, rtol=1e-6)
