"""Blobs: simulated cells and drawn discs are counted, measured and placed; empty pictures have none."""

from __future__ import annotations

import numpy as np
import pytest

from gpucalcium.images import local_correlations
from gpucalcium.images.blobs import find_blobs
from gpucalcium.simulate import two_photon


@pytest.mark.parametrize(("radius", "cells"), [(3.0, 80), (4.5, 60), (6.0, 35), (8.0, 20)])
def test_radius_of_simulated_cells(radius, cells):
    scene = two_photon(500, (128, 128), cells, radius=radius, seed=2)
    found = find_blobs(local_correlations(scene.movie, swap_dim=False))
    assert found.radius == pytest.approx(radius, rel=0.2)
    assert 0.4 * cells <= found.count <= 1.5 * cells  # silent and touching cells make no blob of their own


def test_discs_are_counted_and_measured():
    rows, columns = np.indices((90, 110))
    image = np.zeros((90, 110))
    for row in range(15, 90, 20):
        for column in range(15, 110, 20):
            image += np.hypot(rows - row, columns - column) < 5
    found = find_blobs(image)
    assert found.count == 4 * 5
    assert found.radius == pytest.approx(5, rel=0.15)
    assert found.centers.shape == (20, 2)
    assert (
        np.abs((found.centers - 15) / 20 - np.round((found.centers - 15) / 20)).max() <= 1 / 20
    )  # one pixel


@pytest.mark.parametrize("image", [np.zeros((12, 12)), np.full((9, 30), np.nan), np.ones((8, 8))])
def test_empty_pictures_have_no_blobs(image):
    assert find_blobs(image).count == 0
