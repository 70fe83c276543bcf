"""What a run found, as attributes, and the look-ups and book-keeping that methods of `Estimates` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.cnmf import selection
from gpucalcium.errors import ParameterError


class EstimatesState:
    """The attributes of `Estimates`; None until something computes them."""

    def __init__(
        self,
        A: Any = None,
        b: Any = None,
        C: Any = None,
        f: Any = None,
        R: Any = None,
        dims: Sequence[int] | None = None,
    ) -> None:
        self.A = A
        self.b = b
        self.C = C
        self.f = f
        self.R = R
        self.dims = None if dims is None else tuple(int(n) for n in dims)

        self.W: Any = None
        self.b0: Any = None
        self.YrA: Any = None
        self.S: Any = None
        self.sn: Any = None
        self.g: Any = None
        self.bl: Any = None
        self.c1: Any = None
        self.neurons_sn: Any = None
        self.lam: Any = None
        self.center: Any = None
        self.merged_ROIs: Any = None
        self.coordinates: Any = None
        self.F_dff: Any = None
        self.F_dff_dec: Any = None
        self.S_dff: Any = None
        self.shifts: Any = []
        self.Cn: Any = None
        self.nr: int | None = None
        self.optional_outputs: Any = None

        self.idx_components: Any = None
        self.idx_components_bad: Any = None
        self.accepted_list: Any = None
        self.rejected_list: Any = None
        self.SNR_comp: Any = None
        self.r_values: Any = None
        self.r_contrast: Any = None
        self.cnn_preds: Any = None
        self.ecc: Any = None
        self.A_thr: Any = None
        self.discarded_components: Self | None = None

        # state of the online algorithm
        self.noisyC: Any = None
        self.C_on: Any = None
        self.Ab: Any = None
        self.Cf: Any = None
        self.OASISinstances: Any = None
        self.CY: Any = None
        self.CC: Any = None
        self.Ab_dense: Any = None
        self.Yr_buf: Any = None
        self.mn: Any = None
        self.vr: Any = None
        self.ind_new: Any = None
        self.rho_buf: Any = None
        self.AtA: Any = None
        self.AtY_buf: Any = None
        self.sv: Any = None
        self.groups: Any = None

    def __repr__(self) -> str:
        size = "no components" if self.A is None else f"{self.A.shape[1]} components"
        frames = "" if self.C is None else f", {np.shape(self.C)[1]} frames"
        accepted = "" if self.idx_components is None else f", {len(self.idx_components)} accepted"
        return f"<Estimates: {size}{frames}{accepted}>"

    def footprints(self) -> sparse.csc_matrix:
        """A as a sparse matrix; ParameterError if it is not there."""
        if self.A is None:
            raise ParameterError("there are no components: fit a movie first, or give the footprints A")
        return sparse.csc_matrix(self.A)

    def count(self) -> int:
        """Number of components; ParameterError if there are no footprints at all."""
        return int(self.footprints().shape[1])

    def trace_residuals(self) -> NDArray[Any]:
        """What the noisy traces have beside C, (K, T); ParameterError if it is not there."""
        if self.C is None:
            raise ParameterError("there are no traces C: fit a movie first")
        residuals = self.R if self.YrA is None else self.YrA
        if residuals is None:
            raise ParameterError("there are no residual traces (YrA): call compute_residuals(movie) first")
        return residuals

    def image_size(self, imgs: Any) -> tuple[int, ...]:
        """`dims`, else the image size of a movie; ParameterError if neither tells."""
        if self.dims is not None:
            return tuple(self.dims)
        if getattr(imgs, "shape", None) is None:
            raise ParameterError("estimates.dims is not set: give it the image size (d1, d2[, d3])")
        return tuple(imgs.shape[1:])

    def thresholded(self) -> Any:
        """A_thr; ParameterError if it is not there."""
        if self.A_thr is None:
            raise ParameterError("A_thr is not set: call threshold_spatial_components() first")
        return self.A_thr

    def assigned(self, select_mode: str) -> NDArray[np.intp]:
        """Components that a selection mode leaves to choose from."""
        everything = np.arange(self.count())
        lists = {"All": (), "Accepted": ("accepted_list",), "Rejected": ("rejected_list",)}
        lists["Unassigned"] = ("accepted_list", "rejected_list")
        if select_mode not in lists:
            raise ParameterError(f"select_mode={select_mode!r}: must be one of {', '.join(map(repr, lists))}")
        for name in lists[select_mode]:
            if getattr(self, name) is None:
                raise ParameterError(f"select_mode={select_mode!r} needs estimates.{name}")
        if select_mode == "All":
            return everything
        listed = np.concatenate([np.asarray(getattr(self, n), np.intp) for n in lists[select_mode]])
        return np.setdiff1d(everything, listed) if select_mode == "Unassigned" else np.unique(listed)

    def accept(self, chosen: NDArray[np.intp], narrow: bool) -> None:
        """Accept components and reject all others; with `narrow` only those that were accepted so far."""
        if narrow and self.idx_components is not None:
            chosen = np.intersect1d(chosen, self.idx_components)
        self.idx_components = chosen
        self.idx_components_bad = np.setdiff1d(np.arange(self.count()), chosen)

    def keep(self, fitting: NDArray[np.intp], select_comp: bool) -> NDArray[np.intp]:
        """Narrow what is accepted to `fitting`, set the rest aside if asked to, and return what is kept."""
        self.accept(fitting, narrow=True)
        kept = self.idx_components
        if select_comp:
            selection.select(self, kept, save_discarded=True)
        return kept
