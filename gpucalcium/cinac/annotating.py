"""From recordings to `.cinac` files: segments cut out around cells, with what was annotated in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac.cinac_file import Segment
from gpucalcium.cinac.cinac_writer import CinacFileWriter
from gpucalcium.cinac.cutouts import corner
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.cinac.traces import DISPLAY_OFFSET, z_scored
from gpucalcium.errors import ArrayShapeError, ParameterError

PATCH_SIDE = 25
"""Rows and columns of a patch, unless another is asked for: those of the classifiers in circulation."""


def write_recording(writer: CinacFileWriter, recording: CinacRecording, with_movie: bool = False) -> None:
    """Say in a file what the whole recording is: numbers of frames and cells, contours, traces.

    Parameters
    ----------
    writer : CinacFileWriter
    recording : CinacRecording
    with_movie : bool
        The movie itself, too, in its own dtype.
    """
    movie = recording.movie
    writer.create_full_data_group(
        recording.get_n_frames(),
        recording.get_n_cells(),
        ci_movie_file_name=getattr(movie.source, "name", None),
        cells_contour=recording.cells.contours,
        invalid_cells=np.zeros(recording.get_n_cells(), bool),
        smooth_traces=recording.get_smooth_traces(normalized=True) + DISPLAY_OFFSET,
        raw_traces=recording.get_raw_traces(normalized=True),
        ci_movie=movie.source if with_movie else None,
    )


def write_segment(
    writer: CinacFileWriter,
    recording: CinacRecording,
    segment: Segment,
    raster_dur: ArrayLike,
    *,
    doubtful_frames: ArrayLike | None = None,
    cell_type: str | None = None,
    side: int = PATCH_SIDE,
) -> str:
    """Add what was annotated of a cell: the patch around it, its outline and those that it meets, traces, activity.

    Parameters
    ----------
    writer : CinacFileWriter
    recording : CinacRecording
    segment : (int, int, int)
        Cell, first and last frame (included): n frames.
    raster_dur : (n,)
        1 in frames in which the cell is active, from the onset of a transient to its peak; else 0.
    doubtful_frames : (n,), optional
        1 in frames that are neither.
    cell_type : str, optional
    side : int
        P, rows and columns of the patch, px; it is centred on the cell and holds all of it, if it fits.

    Returns
    -------
    name : str
        Of the group.

    Raises
    ------
    ParameterError, ArrayShapeError
        There is no such cell, or no such frame; not n values.
    """
    cell, first, last = map(int, segment)
    if not (0 <= cell < recording.get_n_cells() and 0 <= first <= last < recording.get_n_frames()):
        raise ParameterError(
            f"segment {segment}: recording {recording.identifier!r} has {recording.get_n_cells()} cells and "
            f"{recording.get_n_frames()} frames, both counted from 0"
        )
    if side < 1:
        raise ParameterError(f"side={side}: a patch has one row and column at least")
    if np.shape(raster_dur) != (last - first + 1,):
        raise ArrayShapeError(
            f"raster_dur has shape {np.shape(raster_dur)}; ({last - first + 1},) is expected"
        )
    cells, frames = recording.cells, slice(first, last + 1)
    top, left = corner(cells, cell, recording.movie.get_dimensions(), side, "corrected")
    shown = [cell, *cells.neighbours[cell]]
    return writer.add_segment_group(
        (cell, first, last),
        raster_dur=raster_dur,
        ci_movie=_patch(recording, frames, top, left, side),
        cells_contour=[cells.contours[one] - [[left], [top]] for one in shown],
        invalid_cells=np.zeros(len(shown), bool),
        smooth_traces=(recording.smooth_trace(cell) + DISPLAY_OFFSET)[frames],
        raw_traces=z_scored(recording.raw_trace(cell))[frames],
        doubtful_frames=doubtful_frames,
        cell_type=cell_type,
        pixels_around=0,
    )


def _patch(recording: CinacRecording, frames: slice, top: int, left: int, side: int) -> NDArray[np.float32]:
    """(n, P, P) normalised; zeros, the mean, beyond the frame."""
    height, width = recording.movie.get_dimensions()
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)
    patch = np.zeros((frames.stop - frames.start, side, side), np.float32)
    patch[:, y0 - top : y1 - top, x0 - left : x1 - left] = recording.get_source_profile_frames(
        frames, (x0, x1 - 1, y0, y1 - 1)
    )
    return patch
