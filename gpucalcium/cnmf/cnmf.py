"""CNMF: from a movie to cells, their traces and spikes, and the background."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf import _fit, patches, storage
from gpucalcium.cnmf._fit_file import fit_file
from gpucalcium.cnmf._movie import PixelMovie, images_movie, pixel_movie
from gpucalcium.cnmf._steps import (
    checked_movie,
    components_to_start_from,
    in_order,
    needs_components,
    numbers_below,
    undone_if_it_fails,
)
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.initialization.greedy import time_last
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.temporal import FOOPSI_OPTIONS
from gpucalcium.errors import ParameterError

log = logging.getLogger(__name__)


class CNMF:
    """Source extraction by constrained non-negative matrix factorisation: Y = A C + b f + noise.

    Parameters
    ----------
    n_processes : int
        Accepted for old scripts (kept in ``params.patch``): threads are set once for all.
    k, gSig, gSiz, merge_thresh, p, do_merge, ssub, tsub, ...
        One keyword for many of the parameters; `CNMFParams.describe` lists all with their meaning. None of these
        counts if `params` is given.
    Ain : (d, K), optional
        Footprints to start from; without `Cin` their non-zero pixels are masks in which cells are fitted.
    Cin : (K, T), b_in : (d, nb), f_in : (nb, T), optional
        Traces and background that belong to them.
    dview : optional
        Where patches are worked on (`rf`): an executor of concurrent.futures, a client of dask, a pool, or a view of a
        cluster, whatever has `map_sync`, `submit` or `map`. None: threads of this process, or streams of one GPU. The
        whole field is always done here.
    params : CNMFParams, optional
        All parameters. A copy is kept: neither this object nor the caller's changes the other.

    Attributes
    ----------
    params : CNMFParams
    estimates : Estimates
        Everything that was found.
    dims : tuple of int
        Field of view of the last movie.
    empty_merged : (n,) bool array
        Of the last merging: which merged components came out empty.

    References
    ----------
    Pnevmatikakis et al. (2016), Neuron 89:285.
    """

    def __init__(
        self,
        n_processes: int = 1,
        k: int = 5,
        gSig: Any = (4, 4),
        gSiz: Any = None,
        merge_thresh: float = 0.8,
        p: int = 2,
        dview: Any = None,
        Ain: Any = None,
        Cin: Any = None,
        b_in: Any = None,
        f_in: Any = None,
        do_merge: bool = True,
        ssub: float = 2,
        tsub: float = 2,
        p_ssub: float = 1,
        p_tsub: float = 1,
        method_init: str = "greedy_roi",
        alpha_snmf: float = 100,
        rf: Any = None,
        stride: Any = None,
        memory_fact: float = 1,
        gnb: int = 1,
        nb_patch: int = 1,
        only_init_patch: bool = False,
        method_deconvolution: str = "oasis",
        n_pixels_per_process: int | None = 4000,
        block_size_temp: int = 5000,
        num_blocks_per_run_temp: int = 20,
        block_size_spat: int = 5000,
        num_blocks_per_run_spat: int = 20,
        check_nan: bool = True,
        skip_refinement: bool = False,
        normalize_init: bool = True,
        options_local_NMF: Any = None,
        minibatch_shape: int = 100,
        minibatch_suff_stat: int = 3,
        update_num_comps: bool = True,
        rval_thr: float = 0.9,
        thresh_fitness_delta: float = -20,
        thresh_fitness_raw: float | None = None,
        thresh_overlap: float = 0.5,
        max_comp_update_shape: float = np.inf,
        num_times_comp_updated: float = np.inf,
        batch_update_suff_stat: bool = False,
        s_min: float | None = None,
        remove_very_bad_comps: bool = False,
        border_pix: int = 0,
        low_rank_background: bool | None = True,
        update_background_components: bool = True,
        rolling_sum: bool = True,
        rolling_length: int = 100,
        min_corr: float = 0.85,
        min_pnr: float = 20,
        ring_size_factor: float | None = 1.5,
        center_psf: bool = False,
        use_dense: bool = True,
        deconv_flag: bool = True,
        simultaneously: bool = False,
        n_refit: int = 0,
        del_duplicates: bool = False,
        N_samples_exceptionality: int | None = None,
        max_num_added: int = 3,
        min_num_trial: int = 2,
        thresh_CNN_noisy: float = 0.5,
        fr: float = 30,
        decay_time: float = 0.4,
        min_SNR: float = 2.5,
        ssub_B: float = 2,
        init_iter: int = 2,
        sniper_mode: bool = False,
        use_peak_max: bool = False,
        test_both: bool = False,
        expected_comps: int = 500,
        max_merge_area: float | None = None,
        params: CNMFParams | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _SETTINGS}
        if params is None:
            given["p"] = p if deconv_flag else 0  # without deconvolution a trace is what its footprint sees
            self.params = CNMFParams.from_keywords({**given, "n_processes": n_processes})
        else:
            self.params = copy.deepcopy(params)
            self.params.set("patch", {"n_processes": n_processes})
        components_to_start_from(Ain, Cin, b_in, f_in)
        self.dview = dview
        self.dims: tuple[int, ...] | None = None
        self.mmap_file: str | None = None
        self.empty_merged: NDArray[np.bool_] | None = None
        self.skip_refinement = bool(self.params.get("patch", "skip_refinement"))
        self.remove_very_bad_comps = bool(self.params.get("patch", "remove_very_bad_comps"))
        self.estimates = Estimates(A=Ain, b=b_in, C=Cin, f=f_in, dims=self.params.get("data", "dims"))

    def __repr__(self) -> str:
        return f"<CNMF: {self.estimates!r}>"

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    # ------------------------------------------------------------------ whole runs

    def fit(self, images: Any, indices: Sequence[slice] = (slice(None), slice(None))) -> CNMF:
        """Find the cells of a movie.

        Parameters
        ----------
        images : array-like, path, movie or frame source, (T, d1, d2[, d3])
            Any real dtype. Held on the active device if it fits the memory budget, else read in chunks: once for
            the noise, twice or three times to initialise, twice for each round of refinement.
        indices : sequence of slices
            Part of the field of view to work on; axes that are not named are whole. Results are those of the
            whole field.

        Returns
        -------
        self : CNMF
            With `estimates` filled; unchanged if anything fails.

        Raises
        ------
        MovieShapeError
            Wrong number of axes, or too few frames.
        MovieValueError
            A movie without a single finite value, or with infinite ones.
        NotSupportedError
            Parameters ask for what is not carried out, which the message names.
        """
        run = _fit.fit if self.params.get("patch", "rf") is None else patches.fit
        run(self, images, indices)
        return self

    def refit(self, images: Any, dview: Any = None) -> CNMF:
        """A new object fitted from the accepted components of this one, on the whole field.

        Parameters
        ----------
        images : as in `fit`
        dview : optional
            Kept in the new object.

        Returns
        -------
        refitted : CNMF
            This object does not change.
        """
        params = copy.deepcopy(self.params)
        params.change_params({"patch": {"rf": None, "only_init": False}})
        again = CNMF(self.params.get("patch", "n_processes"), params=params, dview=dview)
        again.estimates = copy.deepcopy(self.estimates)
        again.estimates.select_components(use_object=True)
        again.estimates.coordinates = None
        again.mmap_file = self.mmap_file
        return again.fit(images)

    def fit_file(
        self, motion_correct: bool = False, indices: Sequence[slice] | None = None, include_eval: bool = False
    ) -> CNMF:
        """Run everything on the files of ``params.data["fnames"]``.

        Parameters
        ----------
        motion_correct : bool
            Register the movie first; the shifts go into `estimates.shifts`.
        indices : sequence of slices, optional
            Part of the field of view.
        include_eval : bool
            Also refit, evaluate components, compute dF/F and the correlation image, and save beside the movie.

        Returns
        -------
        fitted : CNMF
            This object; with `include_eval` the refitted one.
        """
        return fit_file(self, motion_correct, indices, include_eval)

    def save(self, filename: str | Path) -> None:
        """Write parameters and estimates to an HDF5 file; see `load_CNMF`."""
        storage.save(self, filename)

    # ------------------------------------------------------------------ single steps

    def preprocess(self, Yr: Any) -> PixelMovie:
        """Noise level of each pixel, into `estimates.sn`; returns the movie with missing values filled."""
        return _fit.preprocess(self, as_movie(Yr))

    def initialize(self, Y: Any, **kwargs: Any) -> CNMF:
        """First estimates of a movie, (d1, d2[, d3], T) as the function of that name takes it, or a path or source.

        Keywords change parameters of the group `init`.
        """
        with undone_if_it_fails(self, "init", kwargs):
            if not isinstance(Y, PixelMovie):
                Y = time_last(Y) if hasattr(Y, "ndim") else images_movie(Y)
            _fit.initialize(self, Y)
        return self

    def update_spatial(self, Y: Any, use_init: bool = True, **kwargs: Any) -> CNMF:
        """New footprints and background images from the present traces.

        Keywords change parameters of the group `spatial`. `use_init` is accepted for old scripts: there is one
        set of estimates.
        """
        with undone_if_it_fails(self, "spatial", kwargs):
            _fit.update_spatial(self, self._fitting(Y))
        return self

    def update_temporal(self, Y: Any, use_init: bool = True, **kwargs: Any) -> CNMF:
        """New traces and background time courses from the present footprints.

        Keywords change parameters of the group `temporal`; `use_init` as in `update_spatial`.
        """
        with undone_if_it_fails(self, "temporal", kwargs):
            _fit.update_temporal(self, self._fitting(Y), self.params.get("temporal", "p"))
        return self

    def merge_comps(
        self, Y: Any, mx: int = 50, fast_merge: bool = True, max_merge_area: float | None = None
    ) -> CNMF:
        """Merge overlapping components with correlated traces; see `merge_components`. `Y` is not needed."""
        needs_components(self.estimates, residuals=True)
        if max_merge_area is None:
            max_merge_area = self.params.get("merging", "max_merge_area")
        _fit.merge(self, mx, fast_merge, max_merge_area)
        return self

    def compute_residuals(self, Yr: Any) -> CNMF:
        """Residual trace of each component, into `estimates.YrA` and `R`; one pass over the movie."""
        _fit.compute_residuals(self, self._fitting(Yr))
        return self

    def deconvolve(
        self,
        p: int | None = None,
        method_deconvolution: str | None = None,
        bas_nonneg: bool | None = None,
        noise_method: str | None = None,
        optimize_g: int = 0,
        s_min: float | None = None,
        **kwargs: Any,
    ) -> CNMF:
        """Deconvolve the noisy traces C + YrA anew.

        Parameters
        ----------
        p : int, optional
            Order of the AR model; default: that of the group `preprocess`.
        method_deconvolution, bas_nonneg, noise_method : optional
            Default: those of the group `temporal`.
        optimize_g : int
            Spikes on which the time constants are fitted again.
        s_min : float, optional
            Smallest spike; None: an L1 penalty instead.
        **kwargs
            Other options of `constrained_foopsi`; `sn` may be given, one a component, while `bl`, `c1` and `g` are
            always found anew.

        Raises
        ------
        ParameterError
            An option that there is not, or a value that does not fit.
        """
        if unknown := sorted(set(kwargs) - FOOPSI_OPTIONS - {"sn"}):
            raise ParameterError(
                f"{', '.join(unknown)}: no option here; there are {', '.join(sorted(FOOPSI_OPTIONS | {'sn'}))}"
            )
        needs_components(self.estimates, residuals=True)
        chosen = {
            "p": self.params.get("preprocess", "p") if p is None else p,
            "method_deconvolution": method_deconvolution,
            "bas_nonneg": bas_nonneg,
            "noise_method": noise_method,
        }
        options = {key: value for key, value in chosen.items() if value is not None}
        _fit.deconvolve(self, {**options, "optimize_g": optimize_g, "s_min": s_min, **kwargs})
        return self

    def remove_components(self, ind_rm: Sequence[int]) -> CNMF:
        """Delete components, by number, from everything that has one entry for each."""
        count = 0 if self.estimates.A is None else self.estimates.A.shape[1]
        kept = np.ones(count, bool)
        kept[numbers_below(count, ind_rm, "ind_rm")] = False
        self.estimates.select_components(np.flatnonzero(kept), save_discarded_components=False)
        return self

    def HALS4traces(
        self,
        Yr: Any,
        groups: Sequence[Any] | None = None,
        use_groups: bool = False,
        order: Sequence[int] | None = None,
        update_bck: bool = True,
        bck_non_neg: bool = True,
        iters: int = 5,
        tol: float = 1e-3,
    ) -> CNMF:
        """Traces that are not negative, and background time courses, by sweeps of least squares.

        Parameters
        ----------
        Yr : (d, T), or any movie
        groups, use_groups
            Groups without overlap (see `update_order`): components are updated in their order.
        order : sequence of int, optional
            Order of the components, if `groups` is None.
        update_bck, bck_non_neg : bool
            Whether background time courses change, and whether they may be negative.
        iters, tol
            Sweeps at most; stop once one changes the traces by less, relative.
        """
        movie = self._fitting(Yr)
        _fit.hals_traces(
            self,
            movie,
            in_order(self.estimates.A.shape[1], groups, use_groups, order).tolist(),
            update_bck,
            bck_non_neg,
            iters,
            tol,
        )
        return self

    def HALS4footprints(self, Yr: Any, update_bck: bool = True, num_iter: int = 2) -> CNMF:
        """Footprints on their present supports, and background images, by sweeps of least squares."""
        _fit.hals_footprints(self, self._fitting(Yr), update_bck, num_iter)
        return self

    def _fitting(self, Y: Any) -> PixelMovie:
        needs_components(self.estimates)
        movie = as_movie(Y)
        if self.estimates.dims is None:
            if len(movie.dims) == 1:
                raise ParameterError(
                    "estimates.dims is None: a pixels x time matrix does not tell the field of view"
                )
            self.estimates.dims = movie.dims
        return checked_movie(self.estimates, movie)


def as_movie(Y: Any) -> PixelMovie:
    """A (d, T) matrix, or anything that `open_movie` takes, as rows of pixels."""
    if isinstance(Y, PixelMovie) or getattr(Y, "ndim", 0) == 2:
        return pixel_movie(Y)
    return images_movie(Y)


_NOT_SETTINGS = {"self", "n_processes", "dview", "Ain", "Cin", "b_in", "f_in", "deconv_flag", "params"}
_SETTINGS = set(inspect.signature(CNMF.__init__).parameters) - _NOT_SETTINGS
