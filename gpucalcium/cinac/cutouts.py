"""Where the square around each cell lies, and which of its pixels each input of a network sees: drawn once per cell.

Two ways. ``legacy`` is how the classifiers in circulation were trained, to the pixel: corners that lose the last row
and column, and second and third inputs that are the whole square without its first rows. ``corrected`` is what was
meant: squares that hold the whole cell wherever it fits, and inputs of the neighbours' pixels and of all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac.cell_map import CellMap
from gpucalcium.cinac.masks import draw_mask
from gpucalcium.errors import ParameterError

MASK_MODES = ("legacy", "corrected")
KINDS = {"activity": ("input_0", "input_1", "input_2"), "cell_type": ("input_0", "input_1")}
"""What networks of each kind may be fed with."""
BLANK_ROWS = 2  # of the square, in legacy inputs: where the original meant to blank the cell


@dataclass(frozen=True, eq=False)
class Cutouts:
    """Squares around N cells, as I inputs of a network see them."""

    corners: NDArray[np.int32]
    """(N, 2) row and column of the first pixel; negative where the frame is smaller than the square."""
    masks: NDArray[np.bool_]
    """(N, I, P, P) pixels that each input sees."""


def cutouts(
    cells: CellMap,
    wanted: NDArray[np.integer],
    dims: tuple[int, int],
    side: int,
    inputs: Sequence[str],
    *,
    kind: str = "activity",
    mask_mode: str = "legacy",
    buffer: float | None = None,
    all_pixels: bool = True,
) -> Cutouts:
    """Corners and masks of the squares around cells.

    Parameters
    ----------
    cells : CellMap
        All cells of the recording.
    wanted : (N,) int
        The cells to cut out.
    dims : (H, W)
        Rows and columns of the field of view.
    side : int
        P, rows and columns of a square, px.
    inputs : sequence of str
        What the network is fed with: "input_0" and on.
    kind : "activity" or "cell_type"
    mask_mode : "legacy" or "corrected"
    buffer : float, optional
        Pixels that outlines grow by.
    all_pixels : bool
        Of cell types: whether the whole square is offered, as "input_1".

    Returns
    -------
    Cutouts

    Raises
    ------
    ParameterError
        Inputs that there are not for this kind of network, an unknown kind or mode.
    """
    _check(inputs, kind, mask_mode, all_pixels)
    corners = np.empty((len(wanted), 2), np.int32)
    masks = np.empty((len(wanted), len(inputs), side, side), bool)
    for i, cell in enumerate(wanted):
        corners[i] = corner(cells, int(cell), dims, side, mask_mode)
        own, others = _drawn(cells, int(cell), corners[i], side, buffer)
        shown = {"input_0": own}
        if kind == "cell_type":
            shown["input_1"] = np.ones_like(own)
        else:
            shown["input_1"], shown["input_2"] = (
                _legacy(side, len(cells.neighbours[cell]) > 0)
                if mask_mode == "legacy"
                else (others, ~(own | others))
            )
        masks[i] = np.stack([shown[name] for name in inputs])
    return Cutouts(corners, masks)


def _check(inputs: Sequence[str], kind: str, mask_mode: str, all_pixels: bool) -> None:
    if mask_mode not in MASK_MODES:
        raise ParameterError(f"mask_mode={mask_mode!r}: must be one of {MASK_MODES}")
    if kind not in KINDS:
        raise ParameterError(f"a network of kind {kind!r}; there are {tuple(KINDS)}")
    offered = KINDS[kind] if kind == "activity" or all_pixels else KINDS[kind][:1]
    if not inputs or not set(inputs) <= set(offered):
        more = ", with all_pixels=True" if set(inputs) == {"input_0", "input_1"} else ""
        raise ParameterError(
            f"the model wants the inputs {', '.join(inputs) or '(none)'}, but what is fed to a model of kind {kind!r} "
            f"here is {', '.join(offered)}: give a model that was trained on these{more}"
        )


# ---------------------------------------------------------------------------- corners


def corner(cells: CellMap, cell: int, dims: tuple[int, int], side: int, mask_mode: str) -> tuple[int, int]:
    """Row and column of the first pixel of a cell's square; along an axis shorter than it, the frame is centred."""
    x, y = (_corrected if mask_mode == "corrected" else _as_trained)(cells, cell, side)
    return _on_axis(y, dims[0], side, mask_mode), _on_axis(x, dims[1], side, mask_mode)


def _on_axis(first: int, length: int, side: int, mask_mode: str) -> int:
    """`first`, moved into the frame: in legacy mode the square never reaches the last row and column."""
    if length <= side:
        return -((side - length) // 2)
    return min(max(first, 0), length - side - (mask_mode == "legacy"))


def _as_trained(cells: CellMap, cell: int, side: int) -> tuple[int, int]:
    """Corner (x, y) of the classifiers in circulation, before it is moved into the frame."""
    cx, cy = (int(c) - side // 2 for c in cells.centroids[cell])
    minx, miny, maxx, maxy = map(int, cells.bounds[cell])
    if maxx - minx + 1 >= side or maxy - miny + 1 >= side:
        return cx, cy
    x0 = maxx - side + 1 if cx + side - 1 < maxx else cx
    y0 = min(cy, miny, *(int(cells.bounds[other][1]) for other in cells.neighbours[cell]))
    return x0, maxy - side + 1 if y0 + side - 1 < maxy else y0


def _corrected(cells: CellMap, cell: int, side: int) -> tuple[int, int]:
    """Corner (x, y) centred on the centroid, moved as little as needed to hold the whole cell if it fits."""
    found = []
    for axis in range(2):
        first = int(cells.centroids[cell][axis]) - side // 2
        low, high = int(cells.bounds[cell][axis]), int(cells.bounds[cell][axis + 2])
        found.append(min(max(first, high - side + 1), low) if high - low < side else first)
    return found[0], found[1]


# ---------------------------------------------------------------------------- masks


def _legacy(side: int, has_neighbours: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The second and third input as the original computes them: an integer mask, used as an index of rows."""
    second, third = np.ones((2, side, side), bool)
    second[0 if has_neighbours else 1 : BLANK_ROWS] = False
    third[:BLANK_ROWS] = False
    return second, third


def _drawn(
    cells: CellMap, cell: int, first: NDArray[np.int32], side: int, buffer: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(P, P) pixels of a cell, and those of the cells that intersect it."""

    def drawn(which: int) -> NDArray[np.bool_]:
        return draw_mask(cells.polygons[which], (side, side), (first[1], first[0]), buffer)

    others = np.zeros((side, side), bool)
    for other in cells.neighbours[cell]:
        others |= drawn(other)
    return drawn(cell), others


# ---------------------------------------------------------------------------- what is encoded


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Views that one encoder sees."""

    which: int
    """Input whose encoder it is."""
    corners: NDArray[np.int32]
    """(V, 2)"""
    masks: NDArray[np.bool_]
    """(V, P, P)"""


@dataclass(frozen=True, eq=False)
class Views:
    """What is different among the squares of all cells and inputs: each is encoded once for every frame.

    Where encoders are the same, so are the second and third legacy inputs of cells with neighbours; and all squares in
    which nothing is seen.
    """

    sets: tuple[ViewSet, ...]
    of_input: tuple[tuple[int, NDArray[np.int64]], ...]
    """For each input: its set, and the view (N,) of each cell."""

    @property
    def n_cells(self) -> int:
        """N"""
        return len(self.of_input[0][1])

    @classmethod
    def of(cls, cut: Cutouts, tied: bool) -> Views:
        """Views of squares, for inputs that share one encoder (`tied`) or have their own."""
        n, inputs = cut.masks.shape[:2]
        groups = [list(range(inputs))] if tied else [[k] for k in range(inputs)]
        sets, of_input = [], []
        for s, group in enumerate(groups):
            seen: dict[tuple[bytes, ...], int] = {}
            places: list[tuple[int, int]] = []
            rows = np.empty((len(group), n), np.int64)
            for position, k in enumerate(group):
                for i in range(n):
                    mask = cut.masks[i, k]
                    key = (cut.corners[i].tobytes(), np.packbits(mask).tobytes()) if mask.any() else ()
                    if key not in seen:
                        seen[key] = len(places)
                        places.append((i, k))
                    rows[position, i] = seen[key]
            cell, which = np.array(places, np.int64).reshape(-1, 2).T
            sets.append(ViewSet(group[0], cut.corners[cell], cut.masks[cell, which]))
            of_input += [(s, row) for row in rows]
        return cls(tuple(sets), tuple(of_input))
