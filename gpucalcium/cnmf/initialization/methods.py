"""The ways to find components in a movie: what each is told, how it searches, and how its finds are refined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import Array
from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.initialization.compressed import find_compressed
from gpucalcium.cnmf.initialization.graph_nmf import Graph, find_on_graph
from gpucalcium.cnmf.initialization.greedy import Found, find_cells, places_of
from gpucalcium.cnmf.initialization.local import refine_in_boxes
from gpucalcium.cnmf.initialization.pca_ica import find_independent
from gpucalcium.cnmf.initialization.refine import Model, look_again, refine_hals
from gpucalcium.cnmf.initialization.smoothing import Smoothing
from gpucalcium.cnmf.initialization.sparse_nmf import find_sparse

FACTORISATIONS = ("sparse_nmf", "graph_nmf", "compressed_nmf", "pca_ica")


class Method(Protocol):
    """A way to find components in a movie that has been made smaller."""

    def find(self, frames: Array, K: int) -> Found:
        """At most K components of frames (T, d1, d2[, d3]) on the device, and what they leave."""

    def refine(self, movie: PixelMovie, frames: Array, first: Model, K: int) -> Model:
        """These components and the background, refined."""


@dataclass(frozen=True, kw_only=True)
class Factorisation:
    """A factorisation of the whole movie, one of `FACTORISATIONS`; each looks at its own options."""

    name: str
    smoothing: Smoothing
    max_iter: int
    alpha: float
    l1_ratio: float | None
    graph: Graph
    graph_weight: float

    def find(self, frames: Array, K: int) -> Found:
        """See `Method`."""
        match self.name:
            case "sparse_nmf":
                return find_sparse(frames, K, self.smoothing, self.max_iter, self.alpha, self.l1_ratio)
            case "graph_nmf":
                return find_on_graph(frames, K, self.smoothing, self.max_iter, self.graph, self.graph_weight)
            case "compressed_nmf":
                return find_compressed(frames, K, self.smoothing, self.max_iter)
            case _:
                return find_independent(frames, K, self.smoothing, self.max_iter)

    def refine(self, movie: PixelMovie, frames: Array, first: Model, K: int) -> Model:
        """As found: a refinement without the penalty would undo what it did."""
        return first


@dataclass(frozen=True, kw_only=True)
class GreedySearch:
    """Cells one after the other, see `greedyROI`; sizes in pixels of the smaller movie."""

    gSig: Sequence[float]
    gSiz: Sequence[float]
    nIter: int
    kernel: NDArray | None
    window: int
    seed_method: Any
    rounds: int | None
    """Iterations of HALS; None: no refinement."""
    boxes: Sequence[float] | None = None
    """Sides of the box that each footprint is confined to; None: supports grow, and what is left is searched."""
    candidates: float = 1.0
    """Components looked at for each that is kept, where what is left is searched."""

    def find(self, frames: Array, K: int) -> Found:
        """See `Method`; more than K if the refinement will choose among them."""
        chosen = self.rounds is not None and self.boxes is None and places_of(self.seed_method)[0] != "manual"
        return self._find(frames, math.ceil(self.candidates * K) if chosen else K, self.seed_method)

    def _find(self, frames: Array, K: int, seed_method: Any = "auto") -> Found:
        return find_cells(frames, K, self.gSig, self.gSiz, self.nIter, self.kernel, self.window, seed_method)

    def refine(self, movie: PixelMovie, frames: Array, first: Model, K: int) -> Model:
        """See `Method`; seeds that are given are not given up."""
        if self.rounds is None:
            return first
        if self.boxes is not None:
            return refine_in_boxes(movie, first, self.boxes, self.rounds)
        model = refine_hals(movie, *first, maxIter=self.rounds)
        how, places = places_of(self.seed_method)
        if how == "manual":
            return model
        wanted = K if places is None else K + len(np.atleast_2d(places))
        return look_again(movie, frames, model, wanted, self._find, self.rounds, self.candidates)
