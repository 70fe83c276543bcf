"""Results in one HDF5 file that CaImAn 1.12 reads and writes too.

The attributes of a CNMF object stand at the root, its parameters under ``/params/<group>``, its estimates under
``/estimates``. None is the text "NoneType", a text is an attribute of its group, a sparse matrix is a group of
``data, indices, indptr, shape``, everything else is a data set. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from scipy import sparse

from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.cnmf.params_convert import plain, revive, same
from gpucalcium.cnmf.params_table import TABLE
from gpucalcium.errors import MovieNotFoundError, NotSupportedError, ParameterError, ResultsFileError
from gpucalcium.movies.files import written_whole

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF

NONE = "NoneType"
ROOT_FIELDS = ("dims", "dview", "mmap_file", "remove_very_bad_comps", "skip_refinement")
"""Attributes of a CNMF object, beside params and estimates, that a file holds."""
NOT_SAVED = ("groups", "coordinates", "optional_outputs", "merged_ROIs")
"""Estimates that are views for display or state of a running algorithm."""
SAVED_AS_NONE = ("OASISinstances",)
"""Estimates that only a running algorithm can make again."""
SET_ON_USE = ("nr", "Cn", "F_dff_dec", "S_dff", "accepted_list", "rejected_list")
"""Estimates that CaImAn does not have until they are computed: not written while None."""
CSR_FIELDS = ("W", "upscale_matrix")
TUPLE_FIELDS = ("dims",)
SPARSE_PARTS = ("data", "indices", "indptr", "shape")
TEXT_BYTES = 32
"""Length of fixed texts for what HDF5 has no type for (None and slices in a list)."""

log = logging.getLogger(__name__)


def save(cnmf: CNMF, filename: str | Path) -> None:
    """Write the results and parameters of a run; the file appears complete or not at all.

    Parameters
    ----------
    cnmf : CNMF
        Needs `params` and `estimates`.
    filename : path ending in ".hdf5"

    Raises
    ------
    ParameterError
        Another ending.
    MovieNotFoundError
        The folder does not exist.
    """
    path = Path(filename)
    if path.suffix != ".hdf5":
        raise ParameterError(f"results are saved as HDF5: {path.name!r} must end in '.hdf5'")
    if not path.parent.is_dir():
        raise MovieNotFoundError(
            f"cannot write {path}: the folder {path.parent} does not exist; make it first"
        )
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        _write_all(file, {name: getattr(cnmf, name, None) for name in ROOT_FIELDS})
        _write_params(file.create_group("params"), cnmf.params)
        _write_estimates(file.create_group("estimates"), cnmf.estimates)


def load_CNMF(filename: str | Path, n_processes: int = 1, dview: Any = None) -> CNMF:
    """A CNMF object as it was saved, by this library or by CaImAn 1.12.

    Parameters
    ----------
    filename : path ending in ".hdf5" or ".h5"
    n_processes : int
        Accepted for old scripts; threads are set once for all.
    dview : optional
        Kept in the object.

    Raises
    ------
    MovieNotFoundError
        No such file.
    ResultsFileError
        The file is truncated, is not HDF5, or holds no parameters and estimates.
    NotSupportedError
        Another ending.
    """
    from gpucalcium.cnmf.cnmf import CNMF

    root, params, estimates = read(filename)
    loaded = CNMF(n_processes, dview=dview, params=params)
    for name in set(ROOT_FIELDS) - {"dview"} & root.keys():
        setattr(loaded, name, root[name])
    loaded.estimates = estimates
    return loaded


def read(filename: str | Path) -> tuple[dict[str, Any], CNMFParams, Estimates]:
    """The root attributes, parameters and estimates of a file of results; errors as `load_CNMF`."""
    path = Path(filename)
    if path.suffix not in (".hdf5", ".h5"):
        raise NotSupportedError(f"{path.name}: results are loaded from '.hdf5' and '.h5' files")
    if not path.is_file():
        raise MovieNotFoundError(f"{path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in ("params", "estimates") if not isinstance(file.get(name), h5py.Group)]
            if missing:
                raise ResultsFileError(
                    f"{path} is an HDF5 file without group {missing[0]!r}: it was not written by a CNMF run"
                )
            root = _read_group(file, skip=("params", "estimates"))
            params = _read_params(file["params"], path)
            estimates = _read_estimates(file["estimates"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as err:
        if isinstance(err, ResultsFileError):
            raise
        raise ResultsFileError(
            f"{path} cannot be read as results: {err}; it is truncated or not HDF5"
        ) from err
    if estimates.dims is None and root.get("dims") is not None:
        estimates.dims = tuple(root["dims"])
    return root, params, estimates


def _write_all(group: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        _write(group, name, value)


def _write(group: h5py.Group, name: str, value: Any) -> None:
    """One value, as the table of the module says."""
    if value is None or name == "dview":
        group.create_dataset(name, data=NONE)
    elif isinstance(value, (str, Path)):
        group.attrs[name] = str(value)
    elif isinstance(value, Mapping):
        _write_all(group.create_group(name), {str(key): item for key, item in value.items()})
    elif sparse.issparse(value):
        matrix = sparse.csr_matrix(value) if name in CSR_FIELDS else sparse.csc_matrix(value)
        parts = {part: getattr(matrix, part) for part in SPARSE_PARTS}
        _write_all(group.create_group(name), parts)
    elif isinstance(value, Estimates):
        _write_estimates(group.create_group(name), value)
    elif callable(value):
        log.warning("%s is a function, which a file cannot hold: None is written", name)
        group.create_dataset(name, data=NONE)
    else:
        group.create_dataset(name, data=_array(_stacked(value) if name == "g" else value))


def _array(value: Any) -> Any:
    """An array or scalar of a type that HDF5 has; texts in UTF-8, other objects as short texts."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, (str, Path, bytes)) for item in value):
        value = [item if isinstance(item, bytes) else str(item).encode() for item in value]
    if isinstance(value, (list, tuple)) and any(item is None or isinstance(item, slice) for item in value):
        return np.array([str(item) for item in value], dtype=f"S{TEXT_BYTES}")
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8")
    return array.astype(f"S{TEXT_BYTES}") if array.dtype.kind == "O" else array


def _stacked(g: Any) -> Any:
    """Calcium models as one (K, p) array: absent ones and missing orders are 0."""
    if isinstance(g, np.ndarray) and g.dtype != object:
        return g
    rows = [np.zeros(1) if row is None else np.atleast_1d(np.asarray(row, dtype=float)) for row in g]
    stacked = np.zeros((len(rows), max(map(len, rows), default=0)))
    for k, row in enumerate(rows):
        stacked[k, : len(row)] = row
    return stacked


def _write_estimates(group: h5py.Group, estimates: Estimates) -> None:
    for name, value in vars(estimates).items():
        if name not in NOT_SAVED and not (name in SET_ON_USE and value is None):
            _write(group, name, None if name in SAVED_AS_NONE else value)


def _write_params(group: h5py.Group, params: CNMFParams) -> None:
    """Values in force; where they were derived, what was asked for is an attribute of the data set."""
    for name, values in params.groups.items():
        target = group.create_group(name)
        for key, value in values.items():
            _write(target, key, value)
            asked = values.asked[key]
            if isinstance(target.get(key), h5py.Dataset) and not same(value, asked):
                target[key].attrs["asked"] = json.dumps(plain(asked))


def _read_group(group: h5py.Group, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    values: dict[str, Any] = {name: _text(value) for name, value in group.attrs.items()}
    values.update({name: _read(group[name], name) for name in group if name not in skip})
    return values


def _read(node: h5py.Group | h5py.Dataset, name: str) -> Any:
    if isinstance(node, h5py.Group):
        return _read_sparse(node, name) if set(SPARSE_PARTS) <= set(node) else _read_group(node)
    value = node[()]
    if isinstance(value, (bytes, str)):
        text = _text(value)
        return None if text == NONE else text
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value.tolist()) if name in TUPLE_FIELDS else value


def _read_sparse(node: h5py.Group, name: str) -> Any:
    kind = sparse.csr_matrix if name in CSR_FIELDS else sparse.csc_matrix
    data, indices, indptr, shape = (node[part][()] for part in SPARSE_PARTS)
    matrix = kind((data, indices, indptr), shape=tuple(int(n) for n in shape))
    matrix.check_format(full_check=True)  # a damaged index would read outside the arrays later
    return matrix


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _read_params(group: h5py.Group, path: Path) -> CNMFParams:
    """Parameters as they were in force, without deriving anew; unknown keys are left out."""
    params = CNMFParams()
    for name in TABLE.keys() & group.keys():
        stored = _read_group(group[name])
        target = params.groups[name]
        for key in TABLE[name].keys() & stored.keys():
            row = TABLE[name][key]
            value = revive(row, stored[key])
            if not row.check.passes(value):
                log.warning(
                    "%s: params/%s/%s is %r, not %s; the default is used",
                    path,
                    name,
                    key,
                    value,
                    row.check.words,
                )
                continue
            target.load(key, value)
            node = group[name].get(key)
            if isinstance(node, h5py.Dataset) and "asked" in node.attrs:
                target.asked[key] = revive(row, json.loads(node.attrs["asked"]))
    params.trust_sizes()
    return params


def _read_estimates(group: h5py.Group) -> Estimates:
    estimates = Estimates()
    known = vars(estimates)
    for name, value in _read_group(group, skip=("discarded_components",)).items():
        if name in known:
            setattr(estimates, name, value)
    if isinstance(group.get("discarded_components"), h5py.Group):
        estimates.discarded_components = _read_estimates(group["discarded_components"])
    return estimates
