"""Components by factorising the surroundings of each seed for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.greedy import boxes, per_axis
from gpucalcium.cnmf.initialization.refine import Model, on_support, refine_hals
from gpucalcium.errors import ParameterError

KNOWN = ("gSiz", "maxIter")
WIDER = 2  # times the box of the search: it holds a cell whose centre was found a few pixels off


def checked_options(options: Any, gSiz: Sequence[float], maxIter: int, ssub: int) -> tuple[list[float], int]:
    """Side of a box along each axis in the pixels of the smaller movie, and iterations, of `options_local_NMF`.

    Raises
    ------
    ParameterError
        None, or anything that is not known.
    """
    if options is None:
        raise ParameterError(
            "You need to define arguments for local NMF: options_local_NMF is None. Give a dict with any of "
            f"{', '.join(KNOWN)} (side of the box around a seed in pixels, iterations), or an empty one"
        )
    if not isinstance(options, Mapping) or set(options) - set(KNOWN):
        raise ParameterError(f"options_local_NMF={options!r}: expected a dict with any of {', '.join(KNOWN)}")
    rounds = options.get("maxIter", maxIter)
    if rounds != int(rounds) or rounds < 0:
        raise ParameterError(f"options_local_NMF: maxIter={rounds}: expected a whole number, 0 or more")
    sides = per_axis(
        options.get("gSiz", [WIDER * side for side in gSiz]), len(gSiz), "options_local_NMF: gSiz"
    )
    return [max(round(side / ssub), 1) for side in sides], int(rounds)


def refine_in_boxes(movie: PixelMovie, first: Model, sides: Sequence[float], maxIter: int) -> Model:
    """Footprints, traces and background by HALS, each footprint free within a box and 0 outside.

    Parameters
    ----------
    movie : PixelMovie
    first : A, C, b, f
        Where to start; boxes are laid around the centres of mass.
    sides : sequence of float
        Side of a box along each axis, pixels; made odd.
    maxIter : int

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. Fundam. E92-A:708, "local" learning rules.
    """
    A, C, b, f = first
    centers = np.nan_to_num(centers_of_mass(A, movie.dims)).round().astype(np.int64)
    seeds = np.ravel_multi_index(tuple(centers.T), movie.dims).reshape(-1)
    half = [int(side) // 2 for side in sides]
    support = boxes(seeds, movie.dims, half)
    inside = csc_matrix(A.multiply(support))
    return refine_hals(movie, on_support(inside, support), C, b, f, bSiz=None, maxIter=maxIter)
