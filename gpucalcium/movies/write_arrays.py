"""Writing of movies as plain arrays: NumPy's .npy and .npz, MATLAB's .mat."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.io

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MemoryBudgetError, ParameterError
from gpucalcium.movies.save_options import Recording, SaveOptions

_MAT_LIMIT = 2**32 - 2**20  # bytes of a variable in version 5, less what its header takes
_MAT_COPIES = 3  # of the movie that scipy and the turned array need


def write_npy(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """The array; the format has no place for anything else."""
    with path.open("wb") as file:
        _write_array(source, file)


def write_npz(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """``input_arr`` and the attributes, metadata and file names as texts of JSON."""
    kind = zipfile.ZIP_DEFLATED if options.compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind, compresslevel=options.compress or None) as archive:
        with archive.open("input_arr.npy", "w", force_zip64=True) as member:
            _write_array(source, member)
        for name, value in about.as_attributes().items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _write_array(source: FrameSource, file: Any) -> None:
    """An array in NumPy's format, chunk by chunk."""
    header = {
        "descr": np.lib.format.dtype_to_descr(source.dtype),
        "fortran_order": False,
        "shape": source.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    for chunk in backend.stream(source):
        file.write(backend.to_numpy(chunk).reshape(-1).view(np.uint8))


def write_mat(source: FrameSource, path: Path, about: Recording, options: SaveOptions) -> None:
    """Version 5: ``input_arr`` with time last, (d1, d2[, d3], T), and the attributes.

    Raises
    ------
    ParameterError
        4 GiB or more, which version 5 cannot hold.
    MemoryBudgetError
        The movie does not fit: this format alone is not written in pieces.
    """
    size = math.prod(source.shape) * source.dtype.itemsize
    if size > _MAT_LIMIT:
        raise ParameterError(
            f"{source.shape} {source.dtype} are {size} bytes; a .mat file of version 5 holds less than 4 GiB. "
            "Save as .h5, which MATLAB reads with h5read"
        )
    if _MAT_COPIES * size > backend.budget():
        raise MemoryBudgetError(
            f"a .mat file is written whole: {_MAT_COPIES * size} bytes are needed, the budget is {backend.budget()}. "
            "Give more with GPUCALCIUM_MEMORY or backend.limit(memory=...), or save as .h5"
        )
    movie = np.empty(source.shape, source.dtype)
    done = 0
    for chunk in backend.stream(source):
        movie[done : done + len(chunk)] = backend.to_numpy(chunk)
        done += len(chunk)
    values = {"input_arr": np.moveaxis(movie, 0, -1), **about.as_attributes()}
    with path.open("wb") as file:
        _save_mat(file, values, compressed=options.compress > 0)


def _save_mat(file: BinaryIO, values: dict[str, Any], compressed: bool) -> None:
    if values["input_arr"].dtype == np.float16:  # the format has no such numbers
        values["input_arr"] = values["input_arr"].astype(np.float32)
    scipy.io.savemat(file, values, do_compression=compressed)
