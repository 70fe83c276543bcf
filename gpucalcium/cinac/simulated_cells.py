"""Where simulated cells lie and what they look like: outlines, places, brightness of each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.cell_map import CellMap, from_contours

TILE = 30  # px: side of the square that holds one cell of interest and its neighbours
BORDER = 5  # px of the field of view without centres of cells
LEAST_DISTANCE = 2.0  # px between centroids
JITTER = 4.0  # px by which cells of interest are off the centres of their tiles
ATTEMPTS = 60  # to place a neighbour, before it is left out
VERTICES = 24
WEIGHTS = (100.0, 15.0)  # mean and standard deviation of the brightness of pixels
NUCLEUS_WEIGHTS = (50.0, 70.0)  # lowest and highest, at rest
NUCLEUS_AREA = (1 / 5, 1 / 3)  # of a cell
WITH_NUCLEUS = 0.8  # share of cells

TARGET, OVERLAPPING, OTHER = 0, 1, 2
"""Why a cell is there."""


@dataclass(frozen=True, kw_only=True)
class CellKind:
    """What cells of a type look like and do; ranges are lowest and highest."""

    radius: tuple[float, float]
    """Pixels, before they are drawn out."""
    elongation: tuple[float, float]
    """Long over short axis."""
    roughness: float
    """Standard deviation of the waves of the outline, in radii."""
    rate: float
    """Transients, in those of a pyramidal cell; 0: none, only slow drifts."""
    decay: float
    """How long transients decay, likewise."""
    has_nucleus: bool = True
    """Whether it may have a nucleus that is dark at rest."""


KINDS: Mapping[str, CellKind] = {
    "pyramidal": CellKind(radius=(4.0, 5.2), elongation=(1.0, 1.2), roughness=0.04, rate=1.0, decay=1.0),
    "interneuron": CellKind(radius=(5.2, 6.8), elongation=(1.2, 1.7), roughness=0.06, rate=3.0, decay=1.6),
    "noise": CellKind(
        radius=(2.4, 4.2), elongation=(1.0, 2.2), roughness=0.16, rate=0.0, decay=1.0, has_nucleus=False
    ),
}
"""Types of cells by name: they differ in size, shape, rate of transients and decay."""


@dataclass(frozen=True, eq=False)
class SimulatedMap:
    """N cells of a field of view."""

    cells: CellMap
    types: tuple[str, ...]
    """Of each cell, a name in `KINDS`."""
    roles: NDArray[np.int64]
    """(N,) `TARGET`, `OVERLAPPING` or `OTHER`."""


def draw_map(
    rng: np.random.Generator,
    dims: tuple[int, int],
    n_targets: int,
    n_overlapping: tuple[int, int],
    n_others: tuple[int, int],
    type_shares: Mapping[str, float],
    outlines: Sequence[NDArray[np.float64]] | None = None,
) -> SimulatedMap:
    """Cells on tiles of `TILE` px: one of interest each, then some that overlap it, then some that do not.

    Parameters
    ----------
    rng : Generator
    dims : (rows, columns)
    n_targets : int
        At most as many as there are tiles.
    n_overlapping, n_others : (lowest, highest)
        Neighbours of each cell of interest. A place is sought for each up to `ATTEMPTS` times.
    type_shares : mapping of type to share
        How often each of `KINDS` is drawn.
    outlines : sequence of (2, n), optional
        Outlines to choose from; default: random smooth ones, as the type says.

    Returns
    -------
    SimulatedMap
        Cells of interest are the first ones.
    """
    names, shares = list(type_shares), np.array(list(type_shares.values()), float)
    draft = _Draft(rng, dims)

    def outline() -> tuple[NDArray[np.float64], str]:
        kind = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        if outlines is None:
            return random_outline(rng, KINDS[kind]), kind
        chosen = np.asarray(outlines[int(rng.integers(len(outlines)))], float)
        return chosen - chosen.mean(axis=1, keepdims=True), kind

    columns = dims[1] // TILE
    tiles = rng.permutation((dims[0] // TILE) * columns)[:n_targets]
    for tile in tiles:
        centre = TILE * (np.array([tile % columns, tile // columns]) + 0.5)
        draft.put(*outline(), centre + rng.uniform(-JITTER, JITTER, 2), TARGET)
    for target in range(n_targets):
        for _ in range(rng.integers(n_overlapping[0], n_overlapping[1] + 1)):
            draft.put_near(*outline(), target, OVERLAPPING)
        for _ in range(rng.integers(n_others[0], n_others[1] + 1)):
            draft.put_near(*outline(), target, OTHER)
    return SimulatedMap(from_contours(draft.contours), tuple(draft.types), np.array(draft.roles, np.int64))


def random_outline(rng: np.random.Generator, kind: CellKind) -> NDArray[np.float64]:
    """(2, `VERTICES`) x and y of a smooth closed outline around the origin."""
    angles = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    radius = np.ones(VERTICES)
    for wave in (2, 3, 4):
        radius += kind.roughness * rng.standard_normal() * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.5) * rng.uniform(*kind.radius)
    stretch = np.sqrt(rng.uniform(*kind.elongation))
    points = np.stack([radius * np.cos(angles) * stretch, radius * np.sin(angles) / stretch])
    turn = rng.uniform(0, np.pi)
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ points


class _Draft:
    """Cells as they are placed."""

    def __init__(self, rng: np.random.Generator, dims: tuple[int, int]) -> None:
        self._rng, self._dims = rng, dims
        self._shapely = optional("shapely", "the geometry of cells")
        self._polygons: list[Any] = []
        self._centroids: list[NDArray[np.float64]] = []
        self.contours: list[NDArray[np.float64]] = []
        self.types: list[str] = []
        self.roles: list[int] = []

    def put(self, outline: NDArray[np.float64], kind: str, centre: NDArray[np.float64], role: int) -> None:
        """Place a cell."""
        limits = np.array(self._dims[::-1])[:, None] - 1
        points = np.clip(outline + centre[:, None], 0, limits)
        polygon = self._shapely.make_valid(self._shapely.Polygon(points.T))
        self._polygons.append(polygon)
        self._centroids.append(np.array([polygon.centroid.x, polygon.centroid.y]))
        self.contours.append(points)
        self.types.append(kind)
        self.roles.append(role)

    def put_near(self, outline: NDArray[np.float64], kind: str, target: int, role: int) -> None:
        """Place a cell that overlaps the target, or one beside it that does not; nowhere if there is no room."""
        home, reach = self._centroids[target], np.sqrt(self._polygons[target].area / np.pi)
        low, high = (0.5 * reach, 2.2 * reach) if role == OVERLAPPING else (2.0 * reach, 0.7 * TILE)
        for _ in range(ATTEMPTS):
            angle, distance = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(low, max(high, low + 1))
            centre = home + distance * np.array([np.cos(angle), np.sin(angle)])
            if not self._is_free(centre):
                continue
            polygon = self._shapely.Polygon((outline + centre[:, None]).T)
            if polygon.intersects(self._polygons[target]) == (role == OVERLAPPING):
                self.put(outline, kind, centre, role)
                return

    def _is_free(self, centre: NDArray[np.float64]) -> bool:
        inside = (centre >= BORDER).all() and (centre < np.array(self._dims[::-1]) - BORDER).all()
        gaps = np.linalg.norm(np.array(self._centroids) - centre, axis=1)
        return bool(inside and gaps.min() > LEAST_DISTANCE)


@dataclass(frozen=True, eq=False)
class PixelWeights:
    """Brightness of the pixels of one cell."""

    pixels: NDArray[np.int64]
    """(n,) in C order."""
    at_rest: NDArray[np.float32]
    """(n,) at the baseline."""
    rising: NDArray[np.float32]
    """(n,) what is added for each baseline by which the cell is brighter."""


def draw_weights(
    rng: np.random.Generator, drawn: SimulatedMap, dims: tuple[int, int]
) -> tuple[PixelWeights, ...]:
    """Brightness of the pixels of all cells; most have a nucleus that is dark at rest."""
    found = []
    for cell in range(len(drawn.cells)):
        pixels = drawn.cells.pixels(cell, dims)
        rising = np.maximum(rng.normal(*WEIGHTS, len(pixels)), 1).astype(np.float32)
        at_rest = rising.copy()
        if KINDS[drawn.types[cell]].has_nucleus and rng.random() < WITH_NUCLEUS:
            inner = _nucleus(rng, drawn.cells, cell, pixels, dims)
            at_rest[inner] = rng.uniform(*NUCLEUS_WEIGHTS, len(inner))
        found.append(PixelWeights(pixels, at_rest, rising))
    return tuple(found)


def _nucleus(
    rng: np.random.Generator, cells: CellMap, cell: int, pixels: NDArray[np.int64], dims: tuple[int, int]
) -> NDArray[np.int64]:
    """Which pixels of a cell lie deepest in it: a fifth to a third of them, as an eroded outline has."""
    shapely = optional("shapely", "the geometry of cells")
    y, x = np.divmod(pixels, dims[1])
    depth = shapely.distance(shapely.points(x, y), shapely.boundary(cells.polygons[cell]))
    depth = np.where(shapely.contains_xy(cells.polygons[cell], x, y), depth, 0)
    return np.argsort(-depth, kind="stable")[: int(len(pixels) * rng.uniform(*NUCLEUS_AREA))]
