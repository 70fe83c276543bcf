"""`CinacRecording`: a movie and the cells in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac import rois
from gpucalcium.cinac.cinac_file import CinacFileReader, Segment
from gpucalcium.cinac.movies import CinacFileReaderMovie, CinacMovie
from gpucalcium.cinac.rois import CellMap, PathLike
from gpucalcium.cinac.traces import DISPLAY_OFFSET, mean_traces, smoothed, z_scored
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, ParameterError


class CinacRecording:
    """A movie, the cells in it, and what is known of them.

    Parameters
    ----------
    identifier : str
        Goes into the names of files of results.

    Attributes
    ----------
    identifier : str
    cell_type : str or None
        Of the one cell of a recording made from a segment.
    """

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.cell_type: str | None = None
        self._movie: CinacMovie | None = None
        self._cells: CellMap | None = None
        self._raw: NDArray[np.float64] | None = None
        self._smooth: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        cells = "no cells" if self._cells is None else f"{len(self._cells)} cells"
        return f"<CinacRecording {self.identifier}: {self._movie!r}, {cells}>"

    # ------------------------------------------------------------------ the movie

    def set_movie(self, cinac_movie: CinacMovie) -> None:
        """Set the movie; cells come after it, so those that were set are dropped.

        Raises
        ------
        ArrayTypeError
            Not a `CinacMovie`.
        """
        if not isinstance(cinac_movie, CinacMovie):
            raise ArrayTypeError(
                f"{type(cinac_movie).__name__} is no movie of this kind: wrap it, e.g. CinacDataMovie(movie=...) or "
                "CinacTiffMovie(tiff_file_name=...)"
            )
        self._movie = cinac_movie
        self._cells = self._raw = self._smooth = None

    @property
    def movie(self) -> CinacMovie:
        """The movie.

        Raises
        ------
        ParameterError
            None was set.
        """
        if self._movie is None:
            raise ParameterError(f"recording {self.identifier!r} has no movie: call set_movie first")
        return self._movie

    def get_n_frames(self) -> int:
        """Number of frames."""
        return self.movie.get_n_frames()

    def get_source_profile_frames(
        self, frames_indices: Any, coords: tuple[int, int, int, int]
    ) -> NDArray[np.float32]:
        """Normalised frames around a cell: `CinacMovie.get_frames_section` of ``(minx, maxx, miny, maxy)``."""
        return self.movie.get_frames_section(frames_indices, *coords)

    # ------------------------------------------------------------------ the cells

    @property
    def cells(self) -> CellMap:
        """The cells.

        Raises
        ------
        ParameterError
            None were set.
        """
        if self._cells is None:
            raise ParameterError(
                f"recording {self.identifier!r} has no cells: call set_rois_2d_array or another of the setters first"
            )
        return self._cells

    def get_n_cells(self) -> int:
        """Number of cells."""
        return len(self.cells)

    def set_rois_2d_array(self, coord: Sequence[ArrayLike], from_matlab: bool) -> None:
        """Cells by their contours, each (2, n); see `rois.from_contours`."""
        self._set_cells(rois.from_contours(coord, from_matlab))

    def set_rois_using_pixel_mask(self, pixel_masks: Sequence[Any]) -> None:
        """Cells by their pixels; see `rois.from_pixel_masks`."""
        self._set_cells(rois.from_pixel_masks(pixel_masks))

    def set_rois_from_suite_2p(self, is_cell_file_name: PathLike | None, stat_file_name: PathLike) -> None:
        """Cells that suite2p found; see `rois.from_suite2p`."""
        self._set_cells(rois.from_suite2p(is_cell_file_name, stat_file_name))

    def set_rois_from_nwb(
        self,
        nwb_data: Any,
        name_module: str,
        name_segmentation: str,
        name_seg_plane: str,
        invert_xy: bool = False,
    ) -> None:
        """Cells of an NWB file; see `rois.from_nwb`."""
        self._set_cells(rois.from_nwb(nwb_data, name_module, name_segmentation, name_seg_plane, invert_xy))

    def set_rois_from_footprints(self, A: Any, thr: float = 0.9, thr_method: str = "nrg") -> None:
        """Cells by footprints (H * W, N), pixels in Fortran order; see `rois.from_footprints`."""
        self._set_cells(rois.from_footprints(A, self.movie.get_dimensions(), thr, thr_method))

    def set_rois_from_fiji(self, path: PathLike) -> None:
        """Cells drawn in Fiji; see `rois.from_fiji`."""
        self._set_cells(rois.from_fiji(path))

    def _set_cells(self, cells: CellMap) -> None:
        height, width = self.movie.get_dimensions()
        if len(cells) == 0:
            raise ParameterError(f"recording {self.identifier!r} is given no cells: give it one at least")
        self._check_inside(cells, height, width)
        self._cells, self._raw, self._smooth = cells, None, None

    def _check_inside(self, cells: CellMap, height: int, width: int) -> None:
        minx, maxx, miny, maxy = cells.boxes.T
        outside = np.flatnonzero((maxx < 0) | (maxy < 0) | (minx >= width) | (miny >= height))
        if len(outside):
            cell = int(outside[0])
            raise ParameterError(
                f"cell {cell} lies outside the field of view: columns {minx[cell]} to {maxx[cell]}, rows {miny[cell]} "
                f"to {maxy[cell]} of {width} columns and {height} rows ({len(outside)} such cells). x is the column "
                "and y the row: perhaps they are exchanged"
            )

    # ------------------------------------------------------------------ traces

    def get_raw_traces(self, normalized: bool) -> NDArray[np.float64]:
        """Mean of the raw movie over the pixels of each cell; the movie is read once, when first asked for.

        Parameters
        ----------
        normalized : bool
            Each trace less its mean, in standard deviations; a constant one is 0.

        Returns
        -------
        traces : (N, T) float64
            In units of the movie. Pixels that are NaN are left out.
        """
        raw = self._raw_traces()
        return z_scored(raw) if normalized else raw.copy()

    def get_smooth_traces(self, normalized: bool) -> NDArray[np.float64]:
        """Raw traces under a Hamming window of 7 frames, ends reflected.

        Parameters
        ----------
        normalized : bool
            Each trace in standard deviations, less 2: it is drawn below the raw one.

        Returns
        -------
        traces : (N, T) float64
            (T,) for a recording made from a segment, as it was stored there, if it was.
        """
        smooth = smoothed(self._raw_traces()) if self._smooth is None else self._smooth.copy()
        return z_scored(smooth) - DISPLAY_OFFSET if normalized else smooth

    def raw_trace(self, cell: int) -> NDArray[np.float64]:
        """(T,) the raw trace of one cell, in units of the movie."""
        return self._raw_traces()[cell].copy()

    def smooth_trace(self, cell: int) -> NDArray[np.float64]:
        """(T,) the normalised smooth trace of one cell; nothing is computed of the others but, once, raw traces."""
        if self._smooth is not None and cell == 0:  # of a segment, as it was stored there
            return z_scored(self._smooth) - DISPLAY_OFFSET
        smooth = smoothed(self._raw_traces()[cell])
        return z_scored(smooth) - DISPLAY_OFFSET

    def _raw_traces(self) -> NDArray[np.float64]:
        if self._raw is None:
            shape = self.movie.get_dimensions()
            pixels = [self.cells.pixels(cell, shape) for cell in range(len(self.cells))]
            self._raw = mean_traces(self.movie.source, pixels)
        return self._raw


def create_cinac_recording_from_cinac_file_segment(
    identifier: str, cinac_file_reader: CinacFileReader, segment: Segment
) -> CinacRecording:
    """A recording of the patch around one cell, which is cell 0.

    Parameters
    ----------
    identifier : str
    cinac_file_reader : CinacFileReader
    segment : (int, int, int)
        Cell, first and last frame.

    Returns
    -------
    CinacRecording
        Its movie is the patch, normalised already; its cells are those of the patch that are valid; its smooth trace
        is (n,), as stored; its cell type is that of the cell.
    """
    recording = CinacRecording(identifier)
    recording.set_movie(CinacFileReaderMovie(cinac_file_reader, segment))
    contours = cinac_file_reader.get_segment_cells_contour(segment)
    invalid = cinac_file_reader.get_segment_invalid_cells(segment)
    seen = [points.shape[1] > 0 and not invalid[cell] for cell, points in enumerate(contours)]
    valid = [points for cell, points in enumerate(contours) if cell == 0 or seen[cell]]
    recording._cells = rois.from_contours(valid)  # cells that it meets may lie outside the patch
    recording._smooth = cinac_file_reader.get_segment_smooth_traces(segment)
    recording.cell_type = cinac_file_reader.get_segment_cell_type(segment)
    return recording


def get_new_cell_indices_if_cells_removed(
    cell_indices_array: ArrayLike, removed_cells_mapping: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where cells are found after some of the original ones have been removed.

    Parameters
    ----------
    cell_indices_array : (n,) array-like of int
        Original indices.
    removed_cells_mapping : (original number of cells,) array-like of int, or None
        For each original cell its index now, -1 if it was removed. None: nothing was removed.

    Returns
    -------
    new : (m,) int64
        Indices now of those that are left, in the order given.
    original : (m,) int64
        Their original indices.

    Raises
    ------
    ParameterError
        An index that is out of range, or no whole number.
    """
    cells = _indices(cell_indices_array, "cell_indices_array")
    if removed_cells_mapping is None:
        return cells, cells.copy()
    mapping = _indices(removed_cells_mapping, "removed_cells_mapping")
    wrong = (cells < 0) | (cells >= len(mapping))
    if wrong.any():
        raise ParameterError(
            f"cell {cells[wrong][0]}: removed_cells_mapping is of {len(mapping)} cells, counted from 0"
        )
    new = mapping[cells]
    return new[new >= 0], cells[new >= 0]


def _indices(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ArrayShapeError(f"{name} has shape {array.shape}; a vector of indices is expected")
    if array.size and not np.array_equal(array, array.astype(np.int64)):
        raise ParameterError(f"{name} holds something else than whole numbers: {array[:3].tolist()} ...")
    return array.astype(np.int64)
