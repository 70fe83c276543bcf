"""Ring model: sums of pixel pairs, weights and predictions against plain NumPy, twin against twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.backend import to_numpy
from gpucalcium.backend import wing as wing_of
from gpucalcium.cnmf.ring import _pair_steps, ring_places
from tests.wings import wings_present

RIDGE = 1e-5


def movie(n=37, dims=(9, 11), seed=0):
    return np.random.default_rng(seed).standard_normal((n, *dims)).astype("float32")


def pair_products(wing, frames, steps, chunk=None):
    flat = frames.reshape(len(frames), -1)
    sums = wing.put(np.zeros((len(steps), flat.shape[1])))
    for first in range(0, len(flat), chunk or len(flat)):
        part = wing.put(flat[first : first + (chunk or len(flat))])
        wing_of(part).ring.add_pair_products(part, wing.put(steps), sums)
    return to_numpy(sums)


def weights_of(wing, frames, radius):
    dims = frames.shape[1:]
    ring = ring_places(radius)
    steps, pairs = _pair_steps(ring, dims)
    sums = wing.put(pair_products(wing, frames, steps @ np.array([dims[1], 1])))
    out = wing.put(np.full((len(ring), dims[0] * dims[1]), 7, "float32"))
    wing_of(sums).ring.ring_weights(sums, wing.put(pairs), wing.put(ring), dims, RIDGE, out)
    return ring, to_numpy(out).reshape(len(ring), *dims)


def plain_weights(frames, ring, row, column):
    """(X_R X_R' + 1e-5 trace I)^-1 X_R x of one pixel."""
    inside = np.array([row, column]) + ring
    places = np.flatnonzero(ring.any(1) & (inside >= 0).all(1) & (inside < frames.shape[1:]).all(1))
    out = np.zeros(len(ring))
    if not len(places):
        return out
    X = np.array([frames[:, row + ring[k][0], column + ring[k][1]] for k in places], float)
    gram = X @ X.T
    out[places] = np.linalg.solve(
        gram + RIDGE * np.trace(gram) * np.eye(len(gram)), X @ frames[:, row, column]
    )
    return out


def test_pair_products_are_those_of_numpy(wing):
    frames = movie()
    steps = np.array([0, 1, 12, 30, 98])
    sums = pair_products(wing, frames, steps)
    flat = frames.reshape(len(frames), -1).astype(float)
    for step, got in zip(steps, sums, strict=True):
        count = flat.shape[1] - step
        assert_allclose(got[:count], (flat[:, :count] * flat[:, step:]).sum(0), rtol=1e-12, atol=1e-12)
        assert_array_equal(got[count:], 0)


@pytest.mark.parametrize("chunk", [1, 3, 5, 36])
def test_chunks_change_no_bit(wing, chunk):
    frames, steps = movie(), np.array([0, 2, 11])
    assert_array_equal(pair_products(wing, frames, steps, chunk), pair_products(wing, frames, steps))


def test_more_pixels_than_a_tile(wing):
    frames, steps = movie(5, (23, 31)), np.array([0, 511, 600])
    flat = frames.reshape(5, -1).astype(float)
    sums = pair_products(wing, frames, steps)
    assert_allclose(sums[1, :-511], (flat[:, :-511] * flat[:, 511:]).sum(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dims", "radius"), [((9, 11), 2), ((4, 13), 3), ((3, 3), 4), ((1, 9), 2)])
def test_weights_solve_the_normal_equations(wing, dims, radius):
    frames = movie(60, dims)
    ring, weights = weights_of(wing, frames, radius)
    for row in range(dims[0]):
        for column in range(dims[1]):
            expected = plain_weights(frames, ring, row, column)
            assert_allclose(weights[:, row, column], expected, rtol=1e-5, atol=1e-6)


def test_silent_pixels_predict_and_get_nothing(wing):
    frames = movie(40, (9, 9))
    frames[:, :4] = 0
    _, weights = weights_of(wing, frames, 2)
    assert_array_equal(weights[:, :1], 0)
    assert np.isfinite(weights).all()


def test_prediction_is_that_of_the_stencil(wing):
    frames, ring = movie(6, (8, 9)), ring_places(2)
    weights = movie(len(ring), (8, 9), seed=3)
    expected = np.zeros(frames.shape)
    for k, (a, b) in enumerate(ring):
        for row in range(8):
            for column in range(9):
                if 0 <= row + a < 8 and 0 <= column + b < 9:
                    expected[:, row, column] += weights[k, row, column] * frames[
                        :, row + a, column + b
                    ].astype(float)
                else:
                    weights[k, row, column] = 0
    given = [
        wing.put(x) for x in (frames.reshape(6, -1), weights.reshape(len(ring), -1), ring @ np.array([9, 1]))
    ]
    out = wing.put(np.full((6, 72), 5, "float32"))
    wing_of(out).ring.predict(*given, out)
    assert_allclose(to_numpy(out).reshape(expected.shape), expected, atol=3e-5)


def test_twins_agree():
    """Sums bit for bit; weights to the rounding of fused multiply-adds."""
    frames = movie(50, (8, 9))
    first, *others = [
        (pair_products(w, frames, np.array([0, 1, 10])), weights_of(w, frames, 2)[1]) for w in wings_present()
    ]
    for sums, weights in others:
        assert_array_equal(sums, first[0])
        assert_allclose(weights, first[1], rtol=1e-5, atol=1e-7)
