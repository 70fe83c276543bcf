"""What tests of summary images share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def _misplaced_diagonals(movie: np.ndarray) -> np.ndarray:
    """What to add to the reference's `local_correlations` with 8 neighbours to get the definition.

    It adds the correlations along one diagonal to the pixels above, and along the other to those below, each pair
    of pixels twice, once in the wrong column.
    """
    y = movie.astype(np.float64)
    z = (y - y.mean(0)) / y.std(0)
    falling = (z[:, :-1, :-1] * z[:, 1:, 1:]).mean(0)
    rising = (z[:, 1:, :-1] * z[:, :-1, 1:]).mean(0)
    change = np.zeros(movie.shape[1:])
    change[1:, 1:] += falling - rising
    change[:-1, 1:] += rising - falling
    rows, columns = np.indices(change.shape)
    edges = (
        (rows == 0).astype(int)
        + (rows == change.shape[0] - 1)
        + (columns == 0)
        + (columns == change.shape[1] - 1)
    )
    return change / np.array([8, 5, 3])[edges]


@pytest.fixture(scope="session")
def diagonals() -> Callable[[np.ndarray], np.ndarray]:
    """Definition minus reference of `local_correlations` with 8 neighbours, for a movie (T, d1, d2)."""
    return _misplaced_diagonals
