"""What follows from the parameters that were asked for: sizes, thresholds and couplings between groups.

Each function puts derived values in force and leaves what was asked for alone, so deriving twice is deriving once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_ndtr

import gpucalcium
from gpucalcium.cnmf.params_group import ParameterGroup
from gpucalcium.errors import ParameterError
from gpucalcium.movies import get_file_size

LEAST_FRAMES_A_SPLIT = 10

log = logging.getLogger(__name__)

Groups = Mapping[str, ParameterGroup]


def derive_all(groups: Groups, known_sizes: dict[Any, tuple[tuple[int, ...], int | None]]) -> None:
    """Derive everything, from a fresh start.

    `known_sizes` remembers the image size and the number of frames of file lists, so that headers are read once;
    a number of None leaves what depends on it as asked.
    """
    for group in groups.values():
        group.reset()
    _versions(groups["data"])
    _files(groups, known_sizes)
    _volumes(groups)
    _cell_size(groups)
    _background(groups)
    _online(groups)


def _versions(data: ParameterGroup) -> None:
    version = data["caiman_version"] or f"gpucalcium {gpucalcium.__version__}"
    data.derive("caiman_version", version)
    data.derive("last_commit", data["last_commit"] or version)


def file_names(names: Any) -> list[str]:
    """A list of texts, from one name or several, texts, bytes or paths."""
    several = [names] if isinstance(names, (str, bytes, Path)) else names
    return [name.decode() if isinstance(name, bytes) else str(name) for name in several]


def sizes_key(data: ParameterGroup) -> tuple[Any, ...]:
    """Under which name the sizes of the present files are remembered."""
    return (*data["fnames"], data["var_name_hdf5"])


def _files(groups: Groups, known_sizes: dict[Any, tuple[tuple[int, ...], int | None]]) -> None:
    data, motion, online = groups["data"], groups["motion"], groups["online"]
    if data["dims"] is not None:
        data.derive("dims", tuple(int(n) for n in data["dims"]))
    if data["fnames"] is None:
        return
    data.derive("fnames", file_names(data["fnames"]))
    if not data["fnames"]:
        raise ParameterError(
            "data.fnames is an empty list: give at least one file, or None for movies in memory"
        )
    key = sizes_key(data)
    if key not in known_sizes:
        known_sizes[key] = _read_sizes(data["fnames"], data["var_name_hdf5"])
    dims, frames = known_sizes[key]
    if data["dims"] is None:
        data.derive("dims", dims)
    if frames is not None:
        splits = max(frames // max(motion["num_frames_split"], LEAST_FRAMES_A_SPLIT), 1)
        motion.derive("splits_els", splits)
        motion.derive("splits_rig", splits)
    online.derive("movie_name_online", str(Path(data["fnames"][0]).parent / online["movie_name_online"]))


def _read_sizes(files: list[str], var_name_hdf5: str) -> tuple[tuple[int, ...], int]:
    dims, frames = get_file_size(files, var_name_hdf5=var_name_hdf5)
    return tuple(int(n) for n in dims), int(np.atleast_1d(frames)[0])


def _volumes(groups: Groups) -> None:
    motion = groups["motion"]
    if not motion["is3D"]:
        return
    for key in ("indices", "max_shifts", "strides", "overlaps"):
        motion.derive(key, _three(key, motion[key]))


def _three(key: str, value: Any) -> tuple[Any, ...]:
    """Three entries: equal ones are repeated, others have to be given."""
    entries = (value,) if isinstance(value, Real) else tuple(value)
    if len(entries) < 3 and all(entry == entries[0] for entry in entries):
        entries = (entries[0],) * 3
    if len(entries) != 3:
        raise ParameterError(
            f"motion.{key}={value!r}: volumes (is3D) need one entry for each of the three axes"
        )
    return entries


def _axes(value: Any, axes: int) -> tuple[Any, ...]:
    return (value,) * axes if isinstance(value, Real) else tuple(value)


def _odd(size: float) -> int:
    whole = round(size)
    return int(whole + 1 - whole % 2)


def _cell_size(groups: Groups) -> None:
    init, rf = groups["init"], groups["patch"]["rf"]
    if init["gSig"] is None:
        init.derive("gSig", [-1, -1])
    axes = len(groups["data"]["dims"] or (0, 0))
    if isinstance(init["gSig"], Real):
        init.derive("gSig", list(_axes(init["gSig"], axes)))
    half = init["gSig"]
    box: Sequence[float] = (
        [2 * s + 1 for s in half] if init["gSiz"] is None else _axes(init["gSiz"], len(half))
    )
    init.derive("gSiz", tuple(_odd(size) for size in box))
    if rf is not None and min(_axes(rf, 2)) <= init["gSiz"][0]:
        warnings.warn(
            f"patch.rf={rf} is not larger than init.gSiz={init['gSiz']}: patches hardly hold one cell; use a larger rf",
            stacklevel=5,  # the line that made or changed the parameters
        )


def _background(groups: Groups) -> None:
    init, patch, spatial = groups["init"], groups["patch"], groups["spatial"]
    nb = init["nb"]
    spatial.load("nb", nb)  # not derived: these two are init.nb, and have no value of their own
    groups["temporal"].load("nb", nb)
    if nb <= 0:
        patch.derive("nb_patch", nb)
        patch.derive("low_rank_background", None)
    if nb == -1:
        spatial.derive("update_background_components", False)
    if init["method_init"].lower() == "corr_pnr" and init["ring_size_factor"] is not None:
        init.derive("normalize_init", False)


def _online(groups: Groups) -> None:
    data, online = groups["data"], groups["online"]
    if online["N_samples_exceptionality"] is None:
        online.derive("N_samples_exceptionality", int(np.ceil(data["fr"] * data["decay_time"])))
    if online["thresh_fitness_raw"] is None:
        fitness = float(log_ndtr(-online["min_SNR"])) * online["N_samples_exceptionality"]
        online.derive("thresh_fitness_raw", fitness)
    online.derive("max_shifts_online", int(online["max_shifts_online"] / online["ds_factor"]))
    if online["max_num_added"] == 0 or online["min_num_trial"] == 0:
        online.derive("update_num_comps", False)
