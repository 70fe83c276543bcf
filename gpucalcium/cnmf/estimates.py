"""Estimates: what a run found (footprints, traces, spikes, background, quality) and what is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf import background, dff, quality, revision, selection, shapes
from gpucalcium.cnmf.estimates_state import EstimatesState
from gpucalcium.cnmf.footprints import threshold_components
from gpucalcium.errors import NotSupportedError, ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpucalcium.cnmf.params import CNMFParams

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Estimates(EstimatesState):
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
        Ring background; `b` `f`, if there is one as well, is its factorisation.
    F_dff, F_dff_dec, S_dff : (K, T) arrays
        Relative fluorescence, the same denoised, and its spikes.
    idx_components, idx_components_bad : (n,) int arrays
        Accepted and rejected components.
    SNR_comp, r_values, cnn_preds, ecc : (K,) arrays
        Quality of each component.
    discarded_components : Estimates
        Components set aside by `select_components`.
    """

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

    def compute_background(self, Yr: Any) -> NDArray[np.float32]:
        """The background of every frame, as large as the movie.

        Parameters
        ----------
        Yr : (d, T) array, or movie (T, d1, d2[, d3])
            Needed for the ring background only; pixels in Fortran order.

        Returns
        -------
        B : (d, T) float32
            b f, or the ring background if that was fitted.
        """
        return background.compute_background(self, Yr)

    def compute_residuals(self, Yr: Any) -> Estimates:
        """Residual traces R: what each footprint sees of the movie beside the model.

        Parameters
        ----------
        Yr : (d, T) array, or movie (T, d1, d2[, d3])
            Read once, in chunks; pixels in Fortran order.

        Returns
        -------
        self : Estimates
        """
        self.R = background.residual_traces(self, Yr)
        return self

    def deconvolve(self, params: CNMFParams, dview: Any = None, dff_flag: bool = False) -> Estimates:
        """Deconvolve the noisy traces C + YrA again, with `params.temporal` and the order `params.preprocess["p"]`.

        Parameters
        ----------
        params : CNMFParams
        dview : optional
            Accepted for old scripts; traces are solved in one batch.
        dff_flag : bool
            Also deconvolve F_dff, with the calcium models found, into F_dff_dec and S_dff.

        Returns
        -------
        self : Estimates
            C, S, YrA, bl, c1, g, neurons_sn and lam are new.
        """
        revision.deconvolve(self, params, dff_flag)
        return self

    def detrend_df_f(
        self,
        quantileMin: float = 8,
        frames_window: int | None = 500,
        flag_auto: bool = True,
        use_fast: bool = False,
        use_residuals: bool = True,
        detrend_only: bool = False,
    ) -> Estimates:
        """Relative fluorescence F_dff = (F - F0) / F0.

        Parameters
        ----------
        quantileMin : float
            Percentile of the baseline, 0 to 100.
        frames_window : int, optional
            Frames in the running percentile.
        flag_auto : bool
            Choose the percentile for each trace.
        use_fast : bool
            Approximate running percentile.
        use_residuals : bool
            Take the noisy traces C + YrA, else C.
        detrend_only : bool
            Subtract the baseline without dividing by it.

        Returns
        -------
        self : Estimates
        """
        residuals = self.trace_residuals() if use_residuals else None
        self.F_dff = dff.detrend_df_f(
            self.A,
            self.b,
            self.C,
            self.f,
            residuals,
            quantileMin=quantileMin,
            frames_window=frames_window,
            flag_auto=flag_auto,
            use_fast=use_fast,
            detrend_only=detrend_only,
        )
        return self

    def evaluate_components(self, imgs: Any, params: CNMFParams, dview: Any = None) -> Estimates:
        """Measure the quality of every component and accept or reject it.

        Parameters
        ----------
        imgs : movie, (T, d1, d2[, d3])
            Registered frames; read once, in chunks.
        params : CNMFParams
            Thresholds in `quality`; `fr` and `decay_time` in `data`.
        dview : optional
            Accepted for old scripts.

        Returns
        -------
        self : Estimates
            idx_components, idx_components_bad, SNR_comp, r_values, cnn_preds (empty) and, with
            rval_contrast and use_ecc, r_contrast and ecc are new.

        Raises
        ------
        MissingWeightsError
            `use_cnn` is set (its documented default); this version has no classifier.
        """
        found = quality.evaluate(
            imgs,
            self.A,
            self.C,
            self.trace_residuals(),
            self.image_size(imgs),
            params.data["fr"],
            params.data["decay_time"],
            params.quality,
            self.sn,
        )
        self.idx_components, self.idx_components_bad = found.accepted, found.rejected
        self.SNR_comp, self.cnn_preds, self.ecc = found.snr, found.cnn, found.ecc
        self.r_values = np.nan_to_num(found.r, nan=-1.0)
        self.r_contrast = None if found.contrast is None else np.nan_to_num(found.contrast, nan=-1.0)
        return self

    def filter_components(
        self,
        imgs: Any,
        params: CNMFParams,
        new_dict: Mapping[str, Any] = NOTHING,
        dview: Any = None,
        select_mode: str = "All",
    ) -> Estimates:
        """Accept and reject by other thresholds, without measuring again what was measured.

        Parameters
        ----------
        imgs : movie
            Used only if the components were not evaluated before.
        params : CNMFParams
            Its group `quality` takes up `new_dict`.
        new_dict : mapping
            New values of that group.
        dview : optional
            Accepted for old scripts.
        select_mode : {"All", "Accepted", "Rejected", "Unassigned"}
            Accept only components that are also in `accepted_list`, in `rejected_list`, or in neither.

        Returns
        -------
        self : Estimates
        """
        trial = deepcopy(params)
        trial.set("quality", new_dict)
        chosen = self.assigned(select_mode)
        if self.SNR_comp is None or self.r_values is None:
            self.evaluate_components(imgs, trial, dview)
        scores = self.cnn_preds if trial.quality["use_cnn"] else np.zeros(0)
        if trial.quality["use_cnn"] and len(scores) != len(self.SNR_comp):
            quality.check_classifier(trial.quality)
        if trial.quality["use_ecc"] and self.ecc is None:
            self.ecc = quality.eccentricity(self.A, self.image_size(imgs))
        accepted, _ = quality.decide(
            self.SNR_comp, self.r_values, scores, trial.quality, self.ecc, self.r_contrast
        )
        self.accept(np.intersect1d(accepted, chosen), narrow=False)
        params.quality.update(trial.quality)
        return self

    def threshold_spatial_components(self, maxthr: float = 0.25, dview: Any = None) -> Estimates:
        """Footprints cut off at `maxthr` of their peak, connected, as A_thr.

        Returns
        -------
        self : Estimates
        """
        if self.dims is None:
            raise ParameterError("thresholding footprints needs estimates.dims, the image size")
        self.A_thr = threshold_components(self.footprints(), self.dims, thr_method="max", maxthr=maxthr)
        return self

    def remove_small_large_neurons(
        self, min_size_neuro: float, max_size_neuro: float, select_comp: bool = False
    ) -> NDArray[np.intp]:
        """Reject footprints with `min_size_neuro` pixels or fewer, or `max_size_neuro` or more.

        Needs `threshold_spatial_components` before.

        Parameters
        ----------
        min_size_neuro, max_size_neuro : float
            Bounds, excluded, in pixels of A_thr.
        select_comp : bool
            Also set rejected components aside, as `select_components` does.

        Returns
        -------
        neurons_to_keep : (n,) int array
            Components of fitting size that were accepted so far.
        """
        fitting = shapes.within_size(self.thresholded(), min_size_neuro, max_size_neuro)
        return self.keep(fitting, select_comp)

    def remove_duplicates(
        self,
        predictions: NDArray[Any] | None = None,
        r_values: NDArray[Any] | None = None,
        dist_thr: float = 0.1,
        min_dist: float = 10,
        thresh_subset: float = 0.6,
        plot_duplicates: bool = False,
        select_comp: bool = False,
    ) -> NDArray[np.intp]:
        """Of footprints that lie in each other keep the best. Needs `threshold_spatial_components` before.

        Parameters
        ----------
        predictions, r_values : (K,) arrays, optional
            What makes a component better: classifier score, else spatial correlation, else area.
        dist_thr, min_dist
            Accepted for old scripts: the reference never removes anything by them.
        thresh_subset : float
            Fraction of one footprint that has to lie in the other.
        plot_duplicates : bool
            Not supported: draw ``plotting.field_figure(image, A, accepted=kept)``.
        select_comp : bool
            Also set rejected components aside, as `select_components` does.

        Returns
        -------
        kept : (n,) int array
            Components without a better double that were accepted so far.
        """
        if plot_duplicates:
            raise NotSupportedError(
                "plot_duplicates: draw plotting.field_figure(image, A, accepted=kept) with the indices returned"
            )
        given = predictions if predictions is not None else r_values
        A_thr = self.thresholded()
        metric = shapes.sizes(A_thr) if given is None else np.asarray(given)
        return self.keep(shapes.without_duplicates(A_thr, metric, thresh_subset), select_comp)

    def merge_components(
        self,
        Y: Any,
        params: CNMFParams,
        mx: int = 50,
        fast_merge: bool = True,
        dview: Any = None,
        max_merge_area: float | None = None,
    ) -> Estimates:
        """Merge overlapping components with correlated traces, as during fitting.

        Parameters
        ----------
        Y
            Accepted for old scripts; the movie is not needed.
        params : CNMFParams
            Threshold in `merging`, deconvolution in `temporal`.
        mx : int
            Groups that are merged at most.
        fast_merge : bool
            Merge by a rank-one fit, else keep the strongest member.
        dview : optional
            Accepted for old scripts.
        max_merge_area : float, optional
            Largest merged footprint, pixels; default that of `params.merging`.

        Returns
        -------
        self : Estimates
        """
        area = params.merging["max_merge_area"] if max_merge_area is None else max_merge_area
        revision.merge(self, params, mx, fast_merge, area)
        return self

    def manual_merge(self, components: Sequence[Sequence[int]], params: CNMFParams) -> Estimates:
        """Merge the components of each list into one.

        Parameters
        ----------
        components : list of lists of int
            No component twice.
        params : CNMFParams
            Deconvolution in `temporal`.

        Returns
        -------
        self : Estimates
            Merged components stand last; they are accepted if components were evaluated.
        """
        revision.merge_by_hand(self, components, params)
        return self

    def masks_2_neurofinder(self, dataset_name: str) -> dict[str, Any]:
        """The thresholded footprints in the format of the Neurofinder challenge.

        Returns
        -------
        dict
            ``{"dataset": name, "regions": [{"coordinates": [[row, column], ...]}, ...]}``
        """
        A_thr = self.thresholded()
        if self.dims is None:
            raise ParameterError("pixel coordinates need estimates.dims, the image size")
        return shapes.neurofinder_regions(A_thr, self.dims, dataset_name)

    def plot_contours(
        self,
        img: NDArray[Any] | None = None,
        idx: Sequence[int] | None = None,
        thr_method: str = "max",
        thr: float = 0.2,
        display_numbers: bool = True,
        params: CNMFParams | None = None,
        cmap: str = "viridis",
    ) -> Figure:
        """Outlines of the footprints on an image; needs the extra ``gpucalcium[plot]``.

        Parameters
        ----------
        img : (d1, d2), optional
            Default: the mean footprint.
        idx : sequence of int, optional
            Accepted components; the others are drawn as rejected.
        thr_method, thr
            Outlines at a fraction of the peak ("max") or around a fraction of the energy ("nrg").
        display_numbers : bool
            Number the components, from 1.
        params : optional
            Accepted for old scripts.
        cmap : str
            Colour map of the image.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from gpucalcium import plotting

        A = self.footprints()
        dims = self.image_size(img[None] if img is not None else None)
        image = np.asarray(A.mean(axis=1)).reshape(dims, order="F") if img is None else img
        return plotting.field_figure(
            image,
            A,
            accepted=idx,
            thr=thr,
            thr_method=thr_method,
            numbers=display_numbers,
            label="mean footprint" if img is None else "image",
            cmap=cmap,
        )
