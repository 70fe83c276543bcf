"""Estimates: what a run found (footprints, traces, spikes, background, quality) and what is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf import selection


class Estimates:
    """Footprints, traces, spikes, background and quality of components.

    Y = A C + b f + residual, pixels in Fortran order. An attribute is None until something computes it.

    Parameters
    ----------
    A : (d, K) sparse or array, optional
        Footprints.
    b : (d, nb) array, optional
        Background images.
    C : (K, T) array, optional
        Denoised traces.
    f : (nb, T) array, optional
        Background traces.
    R : (K, T) array, optional
        Residuals of the traces.
    dims : tuple of int, optional
        Image size (d1, d2[, d3]).

    Attributes
    ----------
    YrA : (K, T) array
        Residual traces: C + YrA are the noisy traces.
    S : (K, T) array
        Spikes.
    g, bl, c1, neurons_sn, lam : (K, p), (K,), (K,), (K,), (K,) arrays
        Calcium model, baseline, decaying start, noise level and penalty of each trace.
    sn : (d,) array
        Noise level of each pixel.
    W, b0 : sparse, (d,) array
        Ring background.
    F_dff, F_dff_dec, S_dff : (K, T) arrays
        Relative fluorescence, the same denoised, and its spikes.
    idx_components, idx_components_bad : (n,) int arrays
        Accepted and rejected components.
    SNR_comp, r_values, cnn_preds, ecc : (K,) arrays
        Quality of each component.
    discarded_components : Estimates
        Components set aside by `select_components`.
    """

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
        self.cnn_preds: Any = None
        self.ecc: Any = None
        self.A_thr: Any = None
        self.discarded_components: Estimates | None = None

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

    def normalize_components(self) -> Estimates:
        """Scale columns of A and b to unit norm; C, S, YrA, R, bl, c1, neurons_sn and f take up the norms.

        Returns
        -------
        self : Estimates
        """
        selection.normalize(self)
        return self

    def select_components(
        self,
        idx_components: Sequence[int] | NDArray[Any] | None = None,
        use_object: bool = False,
        save_discarded_components: bool = True,
    ) -> Estimates:
        """Keep some of the components, in the order given.

        Parameters
        ----------
        idx_components : sequence of int, or mask of K entries, optional
            What to keep. None keeps everything as it is.
        use_object : bool
            Take `self.idx_components` instead.
        save_discarded_components : bool
            Set the others aside in `discarded_components`, from where `restore_discarded_components` returns them.

        Returns
        -------
        self : Estimates

        Raises
        ------
        ParameterError
            A component does not exist or is chosen twice; nothing has changed.
        """
        chosen = self.idx_components if use_object else idx_components
        if chosen is not None:
            selection.select(self, chosen, save_discarded_components)
        return self

    def restore_discarded_components(self) -> Estimates:
        """Append the components that were set aside; values computed since then are NaN for them.

        Returns
        -------
        self : Estimates
        """
        selection.restore(self)
        return self
