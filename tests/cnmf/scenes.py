"""A small movie with known cells, and how well what was found agrees with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.signal import lfilter
from scipy.sparse import csc_matrix


@dataclass
class Scene:
    """Y = A C + b f + noise; pixels in Fortran order."""

    Y: np.ndarray
    A: csc_matrix
    C: np.ndarray
    b: np.ndarray
    f: np.ndarray
    centers: np.ndarray
    noise: float

    @property
    def dims(self):
        return self.Y.shape[1:]

    @property
    def Yr(self):
        """Pixels x time."""
        return self.Y.reshape(len(self.Y), -1, order="F").T

    @property
    def sn(self):
        return np.full(self.A.shape[0], max(self.noise, 1e-3))


def gaussian_cells(
    dims=(20, 30),
    T=300,
    fr=30.0,
    rate=2.0,
    gamma=0.9,
    sigma=2.0,
    noise=0.5,
    background=10.0,
    centers=None,
    seed=0,
) -> Scene:
    """Gaussian cells, norm 10, of AR(1) activity on a smooth background that fluctuates."""
    rng = np.random.default_rng(seed)
    if centers is None:
        centers = [(5, 6), (12, 9), (6, 23), (14, 22)]
    centers = np.array([list(c)[: len(dims)] for c in centers], float)
    grid = np.indices(dims)
    cells = []
    for c in centers:
        cell = np.exp(-sum((g - x) ** 2 for g, x in zip(grid, c, strict=True)) / (2 * sigma**2))
        cell[cell < 0.05] = 0
        cells.append(10 * cell / np.linalg.norm(cell))
    A = np.stack([cell.ravel(order="F") for cell in cells], 1)
    spikes = (rng.random((len(cells), T)) < rate / fr) * (0.6 + rng.random((len(cells), T)))
    spikes[:, 0] = 0
    C = lfilter([1], [1, -gamma], spikes)
    b = (1 + 0.3 * np.cos(np.pi * grid[0] / dims[0])).ravel(order="F")[:, None]
    f = background * (1 + 0.05 * np.sin(np.arange(T) / 40))[None]
    Yr = A @ C + b @ f + noise * rng.standard_normal((A.shape[0], T))
    Y = np.ascontiguousarray(Yr.T.reshape((T, *dims), order="F"), np.float32)
    return Scene(Y, csc_matrix(A), C, b, f, centers, noise)


def matched(A, C, scene):
    """(truth, found) pairs by cosine of footprints, those cosines, and the correlations of traces."""
    mine = csc_matrix(A).toarray()
    truth = scene.A.toarray()
    norms = np.outer(np.linalg.norm(truth, axis=0), np.linalg.norm(mine, axis=0) + 1e-30)
    cosine = truth.T @ mine / norms
    i, j = linear_sum_assignment(-cosine)
    r = np.array([np.corrcoef(scene.C[a], C[b])[0, 1] for a, b in zip(i, j, strict=True)])
    return list(zip(i, j, strict=True)), cosine[i, j], r


def f1(A, C, truth_A, truth_C, cut=0.25):
    """F1 of masks at `cut` of the maximum (intersection over union 0.5), and median correlation of the matches."""
    found, truth = (csc_matrix(x).toarray() for x in (A, truth_A))
    found, truth = (x > cut * x.max(0) for x in (found, truth))
    both = truth.T.astype(float) @ found
    iou = both / (truth.sum(0)[:, None] + found.sum(0) - both)
    i, j = linear_sum_assignment(-iou)
    hit = iou[i, j] >= 0.5
    r = [np.corrcoef(truth_C[a], C[b])[0, 1] for a, b in zip(i[hit], j[hit], strict=True)]
    return 2 * hit.sum() / (found.shape[1] + truth.shape[1]), np.median(r)
