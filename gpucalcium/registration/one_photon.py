"""One-photon movies registered in one call, by high-pass filtered frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from gpucalcium.registration.motion_correct import MotionCorrect


def motion_correct_oneP_rigid(
    filename: Any,
    gSig_filt: Sequence[int] | int,
    max_shifts: Sequence[int] | int,
    dview: Any = None,
    splits_rig: int | None = 10,
    save_movie: bool = True,
    border_nan: bool | str = True,
) -> MotionCorrect:
    """Rigid registration of a one-photon movie: `MotionCorrect` with `gSig_filt`.

    Parameters
    ----------
    filename, gSig_filt, max_shifts, dview, splits_rig, border_nan
        As `fname` and the others of `MotionCorrect`.
    save_movie : bool
        Write the registered movie.

    Returns
    -------
    MotionCorrect
        After its `motion_correct`.
    """
    mc = MotionCorrect(
        filename,
        gSig_filt=gSig_filt,
        max_shifts=max_shifts,
        dview=dview,
        splits_rig=splits_rig,
        border_nan=border_nan,
    )
    return mc.motion_correct_rigid(save_movie=save_movie)


def motion_correct_oneP_nonrigid(
    filename: Any,
    gSig_filt: Sequence[int] | int,
    max_shifts: Sequence[int] | int,
    strides: Sequence[int] | int,
    overlaps: Sequence[int] | int,
    splits_els: int | None,
    upsample_factor_grid: int,
    max_deviation_rigid: int | None,
    dview: Any = None,
    splits_rig: int | None = 10,
    save_movie: bool = True,
    new_templ: NDArray | None = None,
    border_nan: bool | str = True,
) -> MotionCorrect:
    """Piecewise-rigid registration of a one-photon movie: `MotionCorrect` with `gSig_filt`.

    Parameters
    ----------
    filename, gSig_filt, max_shifts, strides, overlaps, splits_els, upsample_factor_grid, max_deviation_rigid, dview,
    splits_rig, border_nan
        As `fname` and the others of `MotionCorrect`.
    save_movie : bool
        Write the registered movie.
    new_templ : (d1, d2) array, optional
        Register to this image; default: made from the movie.

    Returns
    -------
    MotionCorrect
        After its `motion_correct`.
    """
    mc = MotionCorrect(
        filename,
        gSig_filt=gSig_filt,
        max_shifts=max_shifts,
        dview=dview,
        splits_rig=splits_rig,
        strides=strides,
        overlaps=overlaps,
        splits_els=splits_els,
        upsample_factor_grid=upsample_factor_grid,
        max_deviation_rigid=max_deviation_rigid,
        border_nan=border_nan,
        pw_rigid=True,
    )
    return mc.motion_correct_pwrigid(save_movie=save_movie, template=new_templ)
