"""Reading of movies in HDF5 files: plain ones, NWB, and MATLAB's from version 7.3 on."""

from __future__ import annotations

from pathlib import Path

import h5py

from gpucalcium.errors import DatasetNotFoundError, MovieFileError
from gpucalcium.movies.arrays import SlicedSource

_SHOWN = 20  # names listed in an error


def open_hdf5(path: Path, var_name_hdf5: str = "mov") -> SlicedSource:
    """Frames of a data set: the one of that name, or the only one at the top of the file.

    `var_name_hdf5` may be a path ("group/data"); an NWB series is found under ``<name>/data`` or
    ``acquisition/<name>/data``. A data set of two axes is one frame.

    Raises
    ------
    MovieFileError
        Not an HDF5 file, truncated, or a data set that cannot be opened.
    DatasetNotFoundError
        No such data set; lists those that are there.
    """
    try:
        file = h5py.File(path, "r")
        data = find_dataset(file, var_name_hdf5)
        shape = data.shape
    except (OSError, RuntimeError) as err:
        raise MovieFileError(
            f"{path} cannot be read as HDF5: {err}. It may be truncated or still being written (a .mat file older than "
            "version 7.3 is no HDF5 file: save it again with '-v7.3')"
        ) from err
    return SlicedSource(data, f"{path}:{data.name}", shape=(1, *shape) if len(shape) == 2 else None)


def find_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The data set meant by `name`, see `open_hdf5`."""
    for path in (name, f"{name}/data", f"acquisition/{name}/data"):
        if isinstance(found := file.get(path), h5py.Dataset):
            return found
    if len(file) == 1:
        only = next(iter(file))
        for path in (only, f"{only}/data"):
            if isinstance(found := file.get(path), h5py.Dataset):
                return found
    there: list[str] = []
    file.visititems(lambda path, item: there.append(path) if isinstance(item, h5py.Dataset) else None)
    listed = ", ".join(there[:_SHOWN]) + (" ..." if len(there) > _SHOWN else "")
    raise DatasetNotFoundError(
        f"{file.filename} has no data set {name!r}; there are: {listed or 'none'}. Name one with var_name_hdf5=..."
    )
