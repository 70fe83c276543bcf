"""A small one-photon movie with known cells and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter
from scipy.sparse import csc_matrix


@dataclass
class OnePhotonScene:
    """Y = A C + B + noise; pixels of A in Fortran order, B as frames."""

    Y: np.ndarray
    A: csc_matrix
    C: np.ndarray
    B: np.ndarray

    @property
    def dims(self):
        return self.Y.shape[1:]


def one_photon(
    dims=(40, 44), T=300, centers=((10, 12), (12, 31), (29, 9), (27, 33)), sigma=2.0, noise=1.0, seed=0
) -> OnePhotonScene:
    """Gaussian cells on three wide blobs whose brightness fluctuates as much as the cells do."""
    rng = np.random.default_rng(seed)
    grid = np.indices(dims)

    def spot(center, width):
        return np.exp(-sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) / (2 * width**2))

    cells = np.array([spot(c, sigma) for c in centers]).reshape(-1, *dims)
    cells[cells < 0.05] = 0
    spikes = (rng.random((len(cells), T)) < 0.03) * (0.6 + rng.random((len(cells), T)))
    C = 25 * lfilter([1], [1, -0.85], spikes)
    blobs = np.array([spot(rng.random(2) * dims, 15) for _ in range(3)])
    f = gaussian_filter1d(rng.standard_normal((3, T)), 4, axis=1)
    B = 150 + np.tensordot((60 + 20 * f / f.std()).T, blobs, 1)
    Y = np.tensordot(C.T, cells, 1) + B + noise * rng.standard_normal((T, *dims))
    A = csc_matrix(cells.transpose(0, 2, 1).reshape(len(cells), -1).T)
    return OnePhotonScene(Y.astype(np.float32), A, C, B.astype(np.float32))
