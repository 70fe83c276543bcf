"""The ring background in a run: when it is there, what is refined beside it, and its form of low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from gpucalcium.cnmf._movie import PixelMovie
from gpucalcium.cnmf.cell_extent import groups_at_one_place, reach, within_reach
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.initialization.background import Streamed, background_nmf
from gpucalcium.cnmf.merging import merge_groups
from gpucalcium.cnmf.ring import RingModel

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF


def refined_beside_ring(cnmf: CNMF) -> bool:
    """Whether the parameters ask for the ring model as the background beside which components are refined."""
    init = cnmf.params.get_group("init")
    ring = init["method_init"].lower() == "corr_pnr" and init["ring_size_factor"] is not None
    return ring and init["nb"] >= 0


def has_ring(cnmf: CNMF) -> bool:
    """Whether it is the background that is wanted as well, not a factorisation of it."""
    return refined_beside_ring(cnmf) and cnmf.params.get("init", "nb") == 0


def fit_ring(cnmf: CNMF, movie: PixelMovie) -> None:
    """The ring model of what the cells leave of the movie."""
    estimates = cnmf.estimates
    ring = ring_beside(cnmf, movie, estimates.A, estimates.C)
    estimates.W, estimates.b0 = ring.W(), ring.b0.ravel(order="F")
    estimates.b, estimates.f = np.zeros((movie.d, 0), np.float32), np.zeros((0, movie.T), np.float32)


def ring_beside(cnmf: CNMF, movie: PixelMovie, A: Any, C: NDArray) -> RingModel:
    """The ring model, as the parameters ask for it, of what `A` `C` leaves of the movie."""
    init = cnmf.params.get_group("init")
    radius = init["ring_size_factor"] * init["gSiz"][0]
    return RingModel.fit(movie, A, C, radius, int(init["ssub_B"]), dims=cnmf.estimates.dims)


def beside_ring(estimates: Estimates, movie: PixelMovie) -> PixelMovie:
    """The movie without its ring background if there is one, made as it is read; else the movie itself."""
    if estimates.W is None:
        return movie
    ring = RingModel.of(estimates.W, estimates.b0, estimates.image_size(None))
    return ring.without_background(movie, estimates.A, estimates.C)


def low_rank(estimates: Estimates) -> tuple[Any, Any]:
    """b and f beside which components are refined; None beside a ring model, of which they are but a part."""
    return (estimates.b, estimates.f) if estimates.W is None else (None, None)


def factorise_ring(cnmf: CNMF, movie: PixelMovie) -> None:
    """b and f: a non-negative factorisation, of rank `nb`, of the ring background."""
    estimates = cnmf.estimates
    ring = RingModel.of(estimates.W, estimates.b0, estimates.image_size(None))
    whole = Streamed(ring.background(movie, estimates.A, estimates.C))
    estimates.b, estimates.f = background_nmf(whole, cnmf.params.get("init", "nb"))


def cut_to_cells(cnmf: CNMF, A: Any) -> csc_matrix:
    """Footprints that go no farther than a cell of the size that the parameters say."""
    init = cnmf.params.get_group("init")
    return within_reach(A, cnmf.estimates.image_size(None), reach(init["gSig"], init["gSiz"]))


def merge_at_one_place(cnmf: CNMF, p: int) -> None:
    """Merge components that have all but the same footprint; `p`: order of their calcium models."""
    e = cnmf.estimates
    temporal = {**cnmf.params.get_group("temporal"), "p": p}
    groups = groups_at_one_place(e.A)
    if groups:
        A, C, nr, merged, S, bl, c1, sn, g, _, R = merge_groups(
            e.A, e.C, e.YrA, e.S, groups, temporal, True, e.bl, e.c1, e.neurons_sn, e.g
        )
        vars(e).update(A=A, C=C, nr=nr, merged_ROIs=merged, S=S, bl=bl, c1=c1, neurons_sn=sn, g=g, YrA=R, R=R)
