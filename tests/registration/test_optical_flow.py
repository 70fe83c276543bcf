"""Optical flow against displacements that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, map_coordinates

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.registration.optical_flow import FlowParams, flow_norm, optical_flow

NOISE = np.random.default_rng(0).normal(size=(140, 150))
SCENERY = gaussian_filter(NOISE, 2) + 12 * gaussian_filter(NOISE, 8)  # fine and coarse
DIMS = (97, 110)
INSIDE = np.s_[15:-15, 15:-15]


def pair(displacement):
    """Two views of the scenery, the second displaced by (2, d1, d2) rows and columns."""
    at = np.indices(DIMS).astype(float) + 20
    return map_coordinates(SCENERY, at, order=3), map_coordinates(SCENERY, at - displacement, order=3)


def rms(flow, displacement):
    wrong = backend.to_numpy(flow)[..., ::-1].transpose(2, 0, 1) - displacement
    return np.sqrt((wrong[(slice(None), *INSIDE)] ** 2).mean())


@pytest.mark.parametrize("by", [(0.4, -0.7), (3.0, 2.0), (-6.5, 8.0)])
def test_uniform_displacement(wing, by):
    displacement = np.ones((2, *DIMS)) * np.array(by)[:, None, None]
    images = (wing.put(image.astype("float32")) for image in pair(displacement))
    flow = optical_flow(*images, FlowParams(winsize=21, iterations=10))
    assert backend.is_cupy(flow) == (wing.name != "cpu")
    assert flow.dtype == np.float32
    assert rms(flow, displacement) < 0.05


@pytest.mark.parametrize("gaussian", [False, True])
def test_smooth_field(gaussian):
    r, c = np.indices(DIMS)
    displacement = np.stack([1.5 + np.sin(c / 20), -2 + np.cos(r / 25)])
    flow = optical_flow(*pair(displacement), FlowParams(winsize=15, iterations=5, gaussian=gaussian))
    assert rms(flow, displacement) < 0.1


def test_every_parameter_matters():
    r, c = np.indices(DIMS)
    images = pair(np.stack([2 + np.sin(c / 20), -3 + np.cos(r / 25)]))
    plain = optical_flow(*images)
    changes = [
        {"pyr_scale": 0.7}, {"levels": 1}, {"winsize": 9}, {"iterations": 1}, {"poly_n": 7}, {"poly_sigma": 1.5},
        {"gaussian": True},
    ]  # fmt: skip
    for change in changes:
        assert np.abs(optical_flow(*images, FlowParams(**change)) - plain).max() > 1e-3, change


def test_a_pyramid_finds_what_one_level_cannot():
    displacement = np.ones((2, *DIMS)) * np.array([-6.5, 8.0])[:, None, None]
    errors = [
        rms(optical_flow(*pair(displacement), FlowParams(levels=n, iterations=10)), displacement)
        for n in (1, 2)
    ]
    assert errors[1] < 0.1 * errors[0]


def test_scale_and_offset_of_brightness_do_not_matter():
    images = pair(np.ones((2, *DIMS)))
    plain = optical_flow(*images)
    assert_allclose(optical_flow(*(1e-3 * x + 5 for x in images)), plain, atol=1e-4)
    assert_allclose(optical_flow(*(1e4 * x for x in images)), plain, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3), (64, 33)])
def test_nothing_to_see_does_not_move(shape):
    flow = optical_flow(np.ones(shape), np.ones(shape))
    assert_array_equal(flow, np.zeros((*shape, 2)))


def test_norm():
    assert flow_norm(np.array([[[3.0, 4.0]], [[0.0, 12.0]]], "float32")) == 13


def test_errors():
    with pytest.raises(ArrayShapeError, match="two images"):
        optical_flow(np.ones((4, 4)), np.ones((4, 5)))
    for change in ({"pyr_scale": 1.0}, {"levels": 0}, {"winsize": 0}, {"poly_n": 4}, {"poly_sigma": 0}):
        with pytest.raises(ParameterError, match=next(iter(change))):
            FlowParams(**change)
