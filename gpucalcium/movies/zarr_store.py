"""Reading of movies in Zarr stores, format 2 and 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpucalcium.errors import DatasetNotFoundError, MissingExtraError, MovieFileError
from gpucalcium.movies.about import about_recording
from gpucalcium.movies.arrays import SlicedSource


def open_zarr(path: Path, name: str = "mov") -> SlicedSource:
    """Frames of an array in a Zarr folder: the folder itself, the array of that name in it, or the only one.

    An array of two axes is one frame. Chunks that are not there hold the fill value, as Zarr defines.

    Raises
    ------
    MissingExtraError
        Zarr is not installed.
    MovieFileError
        No Zarr store, or one whose metadata cannot be read.
    DatasetNotFoundError
        No such array; lists those that are there.
    """
    try:
        import zarr
    except ImportError as err:
        raise MissingExtraError("Zarr stores need Zarr: pip install 'gpucalcium[zarr]'") from err
    try:
        store = zarr.open(str(path), mode="r")
        data = store if isinstance(store, zarr.Array) else _array(path, store, name)
        source = SlicedSource(data, f"{path}:{data.path}")
        source.about = about_recording(dict(data.attrs))
    except (OSError, ValueError, TypeError, KeyError) as err:
        if isinstance(err, MovieFileError | DatasetNotFoundError):
            raise
        raise MovieFileError(
            f"{path} cannot be read as Zarr: {type(err).__name__}: {err}. Its metadata (.zarray or zarr.json) may be "
            "missing or corrupt; copy the whole folder again"
        ) from err
    return source


def _array(path: Path, group: Any, name: str) -> Any:
    import zarr

    for wanted in (name, f"{name}/data", f"acquisition/{name}/data"):
        if wanted in group and isinstance(found := group[wanted], zarr.Array):
            return found
    arrays = dict(group.arrays())
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    listed = ", ".join(sorted([*arrays, *(f"{one}/" for one in group.group_keys())]))
    raise DatasetNotFoundError(
        f"{path} has no array {name!r}; there are: {listed or 'none'}. Name one with var_name_hdf5=..."
    )
