"""CNMFParams: every parameter of a calcium imaging run, by group."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gpucalcium.cnmf import params_convert as convert
from gpucalcium.cnmf.params_derived import derive_all, sizes_key
from gpucalcium.cnmf.params_describe import Description, describe
from gpucalcium.cnmf.params_group import ParameterGroup, nearest
from gpucalcium.cnmf.params_measure import measure
from gpucalcium.cnmf.params_requests import by_group, report, sorted_out, warn
from gpucalcium.cnmf.params_suggest import Suggestion, grouped, is_one_photon, propose
from gpucalcium.cnmf.params_table import GROUP_ALIASES, PRESETS, TABLE
from gpucalcium.errors import UnknownParameterError
from gpucalcium.movies.files import written_whole

NOTHING: Mapping[str, Any] = MappingProxyType({})


class CNMFParams:
    """All parameters of motion correction, CNMF, its online form and quality tests.

    Each group is a dict of the values in force: ``params.init["K"]``. What is asked for is kept apart from what
    is derived from it (``gSiz`` from ``gSig``, ``dims`` from the files), so changing parameters twice is the same
    as changing them once. `describe` lists every parameter with its value, default and meaning.

    Parameters
    ----------
    params_dict : mapping
        ``{group: {key: value}}`` or ``{key: value}``; the preferred way to set anything.
    params_from_file : path, optional
        A JSON file written by `to_jsonfile`. Read first; keywords that are not at their default and then
        `params_dict` have the last word.
    **keywords
        One for each of the older keyword arguments; each sets the key of that name in every group that has it
        (``k`` is ``init.K``, ``gnb`` the three ``nb``, ``merge_thresh`` is ``merging.merge_thr``,
        ``only_init_patch`` is ``patch.only_init``).

    Raises
    ------
    ParameterError
        A value that cannot work.
    MovieNotFoundError, MovieShapeError
        `fnames` holds a file that does not exist, or files of different image size.
    """

    def __init__(
        self,
        fnames: Any = None,
        dims: Any = None,
        dxy: Sequence[float] = (1, 1),
        border_pix: int = 0,
        del_duplicates: bool = False,
        low_rank_background: bool | None = True,
        memory_fact: float = 1,
        n_processes: int = 1,
        nb_patch: int = 1,
        p_ssub: float = 2,
        p_tsub: float = 2,
        remove_very_bad_comps: bool = False,
        rf: Any = None,
        stride: Any = None,
        check_nan: bool = True,
        n_pixels_per_process: Any = None,
        k: int | None = 30,
        alpha_snmf: float = 100,
        center_psf: bool = False,
        gSig: Sequence[float] | None = (5, 5),
        gSiz: Any = None,
        init_iter: int = 2,
        method_init: str = "greedy_roi",
        min_corr: float = 0.85,
        min_pnr: float = 20,
        gnb: int = 1,
        normalize_init: bool = True,
        options_local_NMF: Any = None,
        ring_size_factor: float | None = 1.5,
        rolling_length: int = 100,
        rolling_sum: bool = True,
        ssub: float = 2,
        ssub_B: float = 2,
        tsub: float = 2,
        block_size_spat: int = 5000,
        num_blocks_per_run_spat: int = 20,
        block_size_temp: int = 5000,
        num_blocks_per_run_temp: int = 20,
        update_background_components: bool = True,
        method_deconvolution: str = "oasis",
        p: int = 2,
        s_min: Any = None,
        do_merge: bool = True,
        merge_thresh: float = 0.8,
        decay_time: float = 0.4,
        fr: float = 30,
        min_SNR: float = 2.5,
        rval_thr: float = 0.8,
        N_samples_exceptionality: Any = None,
        batch_update_suff_stat: bool = False,
        expected_comps: int = 500,
        iters_shape: int = 5,
        max_comp_update_shape: float = np.inf,
        max_num_added: int = 5,
        min_num_trial: int = 5,
        minibatch_shape: int = 100,
        minibatch_suff_stat: int = 5,
        n_refit: int = 0,
        num_times_comp_updated: float = np.inf,
        simultaneously: bool = False,
        sniper_mode: bool = False,
        test_both: bool = False,
        thresh_CNN_noisy: float = 0.5,
        thresh_fitness_delta: float = -50,
        thresh_fitness_raw: Any = None,
        thresh_overlap: float = 0.5,
        update_freq: int = 200,
        update_num_comps: bool = True,
        use_dense: bool = True,
        use_peak_max: bool = True,
        only_init_patch: bool = True,
        var_name_hdf5: str = "mov",
        max_merge_area: Any = None,
        use_corr_img: bool = False,
        params_dict: Mapping[str, Any] = NOTHING,
        *,
        params_from_file: str | Path | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _KEYWORD_DEFAULTS}
        self.data = ParameterGroup("data")
        self.init = ParameterGroup("init")
        self.merging = ParameterGroup("merging")
        self.motion = ParameterGroup("motion")
        self.online = ParameterGroup("online")
        self.patch = ParameterGroup("patch")
        self.preprocess = ParameterGroup("preprocess")
        self.ring_CNN = ParameterGroup("ring_CNN")
        self.quality = ParameterGroup("quality")
        self.spatial = ParameterGroup("spatial")
        self.temporal = ParameterGroup("temporal")
        self._known_sizes: dict[Any, tuple[tuple[int, ...], int | None]] = {}
        if params_from_file is not None:
            self._update(convert.read_json(params_from_file))
        self._update(by_group({k: v for k, v in given.items() if v is not _KEYWORD_DEFAULTS[k]}))
        self._update(sorted_out(self.groups, params_dict, allow_legacy=True, warn_unused=True))
        self.check_consistency()

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any]) -> CNMFParams:
        """Parameters from older keyword arguments, those of the CNMF class included; None of them may be unknown.

        Raises
        ------
        UnknownParameterError
            A keyword that sets nothing.
        """
        params = cls()
        params._update(by_group(keywords))
        params.check_consistency()
        return params

    @classmethod
    def preset(cls, name: str, params_dict: Mapping[str, Any] = NOTHING) -> CNMFParams:
        """A named set of values, changed by `params_dict`.

        ``"caiman-1.12"`` has the defaults of CaImAn 1.12 where those left the documented ones.
        """
        if name not in PRESETS:
            raise UnknownParameterError(
                f"no preset {name!r}{nearest(name, PRESETS)}; there is {sorted(PRESETS)}"
            )
        params = cls(params_dict=PRESETS[name])
        params.change_params(params_dict)
        return params

    @property
    def merge(self) -> ParameterGroup:
        """The group `merging` under its older name."""
        return self.merging

    @property
    def groups(self) -> dict[str, ParameterGroup]:
        """The groups by name."""
        return {name: getattr(self, name) for name in TABLE}

    def get(self, group: str, key: str) -> Any:
        """The value in force; UnknownParameterError (a KeyError) if there is no such group or key."""
        return self._group(group)[key]

    def get_group(self, group: str) -> dict[str, Any]:
        """A copy of a group's values in force; UnknownParameterError (a KeyError) if there is no such group."""
        return dict(self._group(group))

    def set(
        self, group: str, val_dict: Mapping[str, Any], set_if_not_exists: bool = False, verbose: bool = False
    ) -> None:
        """Ask for values of one group, without deriving others from them (`change_params` does that too).

        Parameters
        ----------
        group : str
            Name of the group.
        val_dict : mapping
            Values by key. Unknown keys are left out with a warning.
        set_if_not_exists : bool
            Accepted for old scripts and not supported: a key that nothing reads is refused with an error.
        verbose : bool
            Log each value that changes.

        Raises
        ------
        UnknownParameterError
            No such group, or an unknown key with `set_if_not_exists`.
        ParameterError
            A value that cannot work; then nothing is set.
        """
        target = self._group(group)
        unknown = [key for key in val_dict if key not in target]
        if unknown and set_if_not_exists:
            target.canonical(unknown[0])
        for key in unknown:
            warn(
                f"group {target.name!r} has no parameter {key!r}{nearest(key, target)}; it is left out",
                level=3,
            )
        values = {key: value for key, value in val_dict.items() if key in target}
        if verbose:
            report({target.name: values}, self.groups)
        target.update(values)

    def change_params(
        self,
        params_dict: Mapping[str, Any],
        verbose: bool = False,
        *,
        allow_legacy: bool = True,
        warn_unused: bool = True,
    ) -> CNMFParams:
        """Ask for values and derive what follows from them. If anything fails, nothing changes.

        Parameters
        ----------
        params_dict : mapping
            ``{group: {key: value}}``, or ``{key: value}``: then every group that has the key gets it.
            ``nb`` belongs to `init`; other groups follow it.
        verbose : bool
            Log each value that changes.
        allow_legacy : bool
            Take flat keys; otherwise they are left out.
        warn_unused : bool
            Warn of what is left out, naming the nearest known name.

        Returns
        -------
        self : CNMFParams
        """
        changes = sorted_out(self.groups, params_dict, allow_legacy, warn_unused)
        if verbose:
            report(changes, self.groups)
        before = {name: group.snapshot() for name, group in self.groups.items()}
        try:
            self._update(changes)
            self.check_consistency()
        except Exception:
            for name, group in self.groups.items():
                group.restore(before[name])
            raise
        return self

    def check_consistency(self) -> None:
        """Derive sizes, thresholds and couplings from what was asked for, afresh each time."""
        derive_all(self.groups, self._known_sizes)

    def trust_sizes(self) -> None:
        """Take the present `dims` as those of the present files, which are then not opened (they may be gone)."""
        if self.data["fnames"] and self.data["dims"] is not None:
            self._known_sizes[sizes_key(self.data)] = (tuple(self.data["dims"]), None)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """A copy of all values in force: ``{group: {key: value}}``."""
        return {name: deepcopy(dict(group)) for name, group in self.groups.items()}

    def to_json(self) -> str:
        """What was asked for, as JSON: arrays as lists, slices as [start, stop, step], infinity as Infinity.

        Derived values are left as they were asked for (None), so that reading the text derives them again.
        """
        return json.dumps({name: convert.plain(group.asked) for name, group in self.groups.items()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> CNMFParams:
        """The parameters that `to_json` wrote: tuples, arrays, slices, None and infinity are what they were.

        Raises
        ------
        ParameterError
            The text is not JSON, or holds a value that cannot work.
        """
        return cls().change_params(convert.from_json(text))

    def to_jsonfile(self, targfn: str | Path) -> None:
        """Write `to_json` to a file."""
        with written_whole(Path(targfn)) as path:
            path.write_text(self.to_json(), encoding="utf-8")

    def change_params_from_json(self, jsonfn: str | Path, verbose: bool = False) -> CNMFParams:
        """`change_params` with what a JSON file holds; lists become tuples, arrays and slices again."""
        return self.change_params(convert.read_json(jsonfn), verbose=verbose)

    def describe(self, group: str | None = None) -> Description:
        """A table of parameters, of one group or all: value in force, default, and meaning with its unit.

        It is a text (``*`` marks what is not the default), and in notebooks an HTML table.
        """
        names = list(TABLE) if group is None else [self._group(group).name]
        return describe({name: self.groups[name] for name in names})

    def suggest(self, movie: Any) -> Suggestion:
        """Values for a movie, from its noise, motion and cells; nothing is changed here.

        The imaging rate, the decay time and the kind of microscope (``init.method_init``) are taken from these
        parameters.

        Parameters
        ----------
        movie : (T, d1, d2[, d3]) movie as `open_movie` takes it
            30 frames and 16 x 16 pixels or more. About 1000 frames of it are registered, in parts if these move apart.

        Returns
        -------
        suggestion : Suggestion
            Printing it lists each proposed value with the reason; ``suggestion.params`` are these parameters with
            the proposals. Where no cells stand out, or frames do not match each other, sizes or shifts stay.

        Raises
        ------
        MovieShapeError, MovieValueError, NotSupportedError
            A movie too small or without a finite pixel; a one-photon volume.
        """
        measured = measure(movie, is_one_photon(self.groups))
        proposals = propose(measured, self.groups)
        params = deepcopy(self).change_params(grouped(proposals))
        return Suggestion(params=params, proposals=proposals, measured=measured)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CNMFParams):
            return NotImplemented
        return all(
            convert.same(value, other.groups[name][key])
            for name, group in self.groups.items()
            for key, value in group.items()
        )

    __hash__ = None  # type: ignore[assignment]  # parameters change

    def __repr__(self) -> str:
        changed = [
            f"{name}.{key}={value!r}"
            for name, group in self.groups.items()
            for key, value in group.asked.items()
            if not convert.same(value, TABLE[name][key].default)
        ]
        return f"CNMFParams({', '.join(changed)})"

    def _group(self, name: str) -> ParameterGroup:
        known = GROUP_ALIASES.get(name, name)
        if known not in TABLE:
            raise UnknownParameterError(f"there is no parameter group {name!r}{nearest(name, TABLE)}")
        return self.groups[known]

    def _update(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        for name, values in changes.items():
            self.groups[name].update(values)


_KEYWORD_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(CNMFParams.__init__).parameters.items()
    if name not in ("self", "params_dict", "params_from_file")
}
