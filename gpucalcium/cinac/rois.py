"""Cells from where users have them: contours, pixels, suite2p, NWB, footprints, Fiji."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.cell_map import CellMap, from_contours, from_pixel_masks
from gpucalcium.cinac.suite2p_stat import read_stat
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
)

__all__ = [
    "CellMap",
    "from_contours",
    "from_fiji",
    "from_footprints",
    "from_nwb",
    "from_pixel_masks",
    "from_suite2p",
]

PathLike = str | os.PathLike[str]

HALF = 0.5  # of a footprint's maximum


def from_suite2p(is_cell_file_name: PathLike | None, stat_file_name: PathLike) -> CellMap:
    """Cells that suite2p found.

    Parameters
    ----------
    is_cell_file_name : path or None
        ``iscell.npy``, (N, 1 or more): cells whose first column is not 0 are kept and numbered anew. None keeps all.
    stat_file_name : path
        ``stat.npy``. A pickle, of which nothing is run: see `suite2p_stat`.

    Raises
    ------
    MovieNotFoundError, MovieFileError
        No such file; not such a file, or one that asks for code to be run.
    ArrayShapeError
        The two files are of different numbers of cells.
    """
    pixels = read_stat(Path(stat_file_name))
    if is_cell_file_name is not None:
        keeps = _is_cell(Path(is_cell_file_name))
        if len(keeps) != len(pixels):
            raise ArrayShapeError(
                f"{is_cell_file_name} has {len(keeps)} rows and {stat_file_name} {len(pixels)} cells: they are not of "
                "one recording"
            )
        pixels = [xy for xy, kept in zip(pixels, keeps, strict=True) if kept]
    return from_pixel_masks(pixels)


def from_nwb(
    nwb_data: Any, name_module: str, name_segmentation: str, name_seg_plane: str, invert_xy: bool = False
) -> CellMap:
    """Cells of a plane segmentation in an NWB file.

    Parameters
    ----------
    nwb_data : pynwb.NWBFile, or path
    name_module, name_segmentation, name_seg_plane : str
        Processing module, image segmentation in it, plane segmentation in that; its column ``pixel_mask`` is read.
    invert_xy : bool
        The file stores (y, x) for each pixel, as some exporters do, where NWB says (x, y).

    Raises
    ------
    DatasetNotFoundError
        No module, segmentation, plane or column of that name; lists those that are there.
    """
    if isinstance(nwb_data, str | os.PathLike):
        pynwb = optional("pynwb", "reading NWB files", "nwb")
        path = Path(nwb_data)
        _check_there(path)
        with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as file:
            return from_nwb(file.read(), name_module, name_segmentation, name_seg_plane, invert_xy)
    module = _member(nwb_data.processing, name_module, "processing module")
    segmentation = _member(module.data_interfaces, name_segmentation, f"image segmentation in {name_module}")
    plane = _member(
        segmentation.plane_segmentations, name_seg_plane, f"plane segmentation in {name_segmentation}"
    )
    if "pixel_mask" not in plane.colnames:
        raise DatasetNotFoundError(
            f"{name_seg_plane} has no column pixel_mask; there are: {', '.join(plane.colnames)}. Its cells cannot be "
            "taken; give pixel masks or contours of your own"
        )
    column = plane["pixel_mask"]
    masks = [_records(column[cell]) for cell in range(len(plane))]
    return from_pixel_masks([mask[:, ::-1] for mask in masks] if invert_xy else masks)


def from_footprints(
    A: sparse.spmatrix | NDArray, dims: tuple[int, int], thr: float = 0.9, thr_method: str = "nrg"
) -> CellMap:
    """Cells from footprints; of a footprint in several parts the outline of the largest.

    Parameters
    ----------
    A : (H * W, N), sparse or dense
        Pixels in Fortran order.
    dims : (H, W)
    thr : float
    thr_method : "nrg" or "max"
        Where the outline runs: around the brightest pixels that hold the fraction `thr` of the energy, or at the
        fraction `thr` of the maximum; at half of it, where the former leaves no room for an outline.

    Raises
    ------
    ArrayShapeError, ParameterError
        Pixels that do not fit `dims`; a footprint without positive pixels; `thr` out of range.
    """
    from gpucalcium.plotting.contours import outlines  # draws nothing

    A = sparse.csc_matrix(A)
    found = outlines(A, dims, thr, thr_method)
    for cell in [cell for cell, outline in enumerate(found) if not outline.paths]:
        # where all of the brightest pixels are alike, no curve runs between them
        found[cell] = outlines(A[:, [cell]], dims, HALF, "max")[0]
        if not found[cell].paths:
            raise ParameterError(f"the footprint of cell {cell} has no positive pixel: leave the cell out")
    return from_contours([max(one.paths, key=_area).T[::-1] for one in found])


def from_fiji(path: PathLike) -> CellMap:
    """Cells drawn in Fiji (ImageJ): a ``.roi`` file, or a ``.zip`` file of the ROI manager, in its order.

    Coordinates are taken as they are stored. Fiji counts those of areas from the upper left corner of the first pixel,
    here they are from its centre: such cells lie half a pixel to the lower right.

    Raises
    ------
    MovieNotFoundError, MovieFileError
        No such file; it cannot be read, or holds no ROI.
    """
    file = Path(path)
    _check_there(file)
    roifile = optional("roifile", "reading Fiji's ROI")
    try:
        found = roifile.roiread(file)
        drawn = [one.coordinates() for one in (found if isinstance(found, list) else [found])]
    except Exception as err:  # roifile fails in many ways, all of which mean the same here
        raise MovieFileError(f"{file} cannot be read as Fiji's ROI: {type(err).__name__}: {err}") from err
    if not drawn:
        raise MovieFileError(f"{file} holds no ROI: draw some and save them with the ROI manager")
    return from_contours([np.asarray(points, np.float64).reshape(-1, 2).T for points in drawn])


def _is_cell(path: Path) -> NDArray[np.bool_]:
    _check_there(path)
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as err:
        raise MovieFileError(
            f"{path} must be a .npy file of numbers, a row for each cell with 0 or 1 first: {err}"
        ) from err
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or values[..., :1].size == 0:
        raise MovieFileError(
            f"{path} is {values.shape} {values.dtype}; a row for each cell with 0 or 1 first is expected"
        )
    return (values if values.ndim == 1 else values[:, 0]) != 0


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")


def _member(members: Any, name: str, what: str) -> Any:
    if name not in members:
        raise DatasetNotFoundError(
            f"there is no {what} named {name!r}; there are: {', '.join(members) or 'none'}"
        )
    return members[name]


def _records(mask: Any) -> NDArray[np.float64]:
    """(n, 2) the first two fields of each pixel."""
    array = np.asarray(mask)
    if array.dtype.names:
        return np.stack([array[name] for name in array.dtype.names[:2]], axis=-1).astype(np.float64)
    return np.array([tuple(pixel)[:2] for pixel in mask], np.float64).reshape(-1, 2)


def _area(path: NDArray[np.float64]) -> float:
    """Area inside a closed curve (n, 2), by the shoelace formula."""
    x, y = path.T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2
