"""Piecewise-rigid registration of a movie: one displacement per patch and frame, templates of temporal splits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.registration.apply import displace_field
from gpucalcium.registration.journal import Journal
from gpucalcium.registration.patch_matching import LocatedPatches, PatchMatcher
from gpucalcium.registration.patch_template import first_patch_matcher
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.record import SweepRecord
from gpucalcium.registration.rigid import (
    RigidParams,
    check_moves,
    check_out,
    check_template,
    drawn,
    median_of,
    rigid_finder,
)
from gpucalcium.registration.sweep import FrameQuality, Sink, Sweep
from gpucalcium.registration.template import sample_of


@dataclass(frozen=True, kw_only=True)
class PiecewiseParams:
    """How frames are registered patch by patch."""

    rigid: RigidParams = dataclasses.field(default_factory=RigidParams)
    """The displacement of a frame as a whole: `max_shifts` and `gSig_filt` hold for the patches, too; the rest is
    for the template, where none is given: it starts from that which the last of `niter_rig` rigid passes would use."""
    strides: tuple[int, ...] = (96, 96)
    """Distance of patches per axis, pixels."""
    overlaps: tuple[int, ...] = (32, 32)
    """Pixels that neighbours share; a patch has ``strides + overlaps``."""
    splits_els: int | None = 14
    """Temporal splits, one template each, at most one per frame; None: as `num_frames_split` of `rigid` says."""
    num_splits_to_process_els: int | None = None
    """The new template comes from this many splits, drawn at random; None: from all."""
    max_deviation_rigid: float | None = 3
    """Largest distance of a patch's shift from the frame's, pixels, per axis; both ends belong to the window, which
    never exceeds half a patch. 0: patches move with the frame. None: as far as `max_shifts` of `rigid`. An axis that
    `max_shifts` holds still is still in every patch."""
    upsample_factor_grid: int = 4
    """How much finer the grid of tiles is that `fourier` shifts; patches that are warped need no finer grid."""
    shifts_interpolate: bool = False
    """Pixels are displaced by a spline through the true middles of the patches, instead of the grid stretched over
    the frame."""
    border: str = "nan"
    """See `displace_field`."""
    fourier: bool = False
    """Shift tiles by Fourier transform and blend them, instead of bicubic interpolation."""
    seed: int = 0
    """Of the choice of splits."""

    def __post_init__(self) -> None:
        d = self.max_deviation_rigid
        if d is not None and not 0 <= d < np.inf:
            raise ParameterError(f"max_deviation_rigid={d}: a number of pixels, 0 or more, or None")
        for name in ("splits_els", "num_splits_to_process_els", "upsample_factor_grid"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value != int(value)):
                raise ParameterError(f"{name}={value}: a whole number, 1 or more")
        check_moves(self.rigid.gSig_filt, self.fourier)

    def deviation(self) -> tuple[float, ...]:
        """Largest distance of a patch's shift from the frame's, per axis."""
        d = self.max_deviation_rigid
        return tuple(0.0 if m == 0 else float(m if d is None else d) for m in self.rigid.max_shifts)

    def how(self) -> dict[str, Any]:
        """Options of `displace_field` beside border and offset."""
        tiles = {"upsample": self.upsample_factor_grid, "strides": self.strides, "overlaps": self.overlaps}
        return {"fourier": self.fourier, "interpolate": self.shifts_interpolate, **tiles}

    def splits(self, frames: int) -> list[range]:
        """Near-equal, consecutive ranges of frames."""
        return replace(self.rigid, splits_rig=self.splits_els).splits(frames)


@dataclass(frozen=True)
class PiecewiseResult:
    """What piecewise-rigid registration of one movie found."""

    shifts: NDArray[np.float32]
    """(T, ndim) displacement of each frame as a whole, pixels."""
    field: NDArray[np.float32]
    """``(T, *counts, ndim)`` displacement applied at each patch of `grid`: of frame and patch together."""
    grid: PatchGrid
    quality: FrameQuality
    """As for rigid registration; `clamped` also where a patch lay beyond `max_deviation_rigid`."""
    split_templates: list[NDArray[np.float32]]
    """Mean registered image of each split."""
    template: NDArray[np.float32]
    """Median of these; what the next file starts from."""
    used_template: NDArray[np.float32] = dataclasses.field(repr=False)
    """What the shifts refer to."""
    rigid_template: NDArray[np.float32] | None = dataclasses.field(repr=False, default=None)
    """What rigid registration would refer to, and the patches' template was made from; None where one was given."""


def register_piecewise(
    source: FrameSource,
    params: PiecewiseParams,
    *,
    template: NDArray[np.float32] | None = None,
    sink: Sink | None = None,
    out: Array | None = None,
    offset: float = 0.0,
    journal: Journal | None = None,
    label: str = "piecewise registration",
) -> PiecewiseResult:
    """Find the displacement of every patch of every frame of a movie.

    Parameters
    ----------
    source : FrameSource
        (T, d1, d2[, d3]). Read for a sample and once; with ``niter_rig=2`` or more in `params.rigid`, and without a
        template, once more for each rigid pass after the first. Never held whole.
    params : PiecewiseParams
    template : (d1, d2[, d3]) array, optional
        What to register to; default: made from the movie.
    sink, out, offset, journal, label
        As in `register_rigid`.

    Returns
    -------
    PiecewiseResult

    Raises
    ------
    MovieShapeError, ArrayShapeError, ParameterError
        Wrong number of axes, a template or `out` of another shape, shifts larger than the frame allows.
    MovieValueError
        No pixel is a finite number.
    """
    grid = PatchGrid.make(source.shape[1:], params.strides, params.overlaps)
    check_out(out, source)
    finder, first = _finder(source, params, grid, template, journal, label)
    move = partial(move_patches, grid=grid, **params.how())
    sweep = Sweep(source, move, border=params.border, fourier=params.fourier, offset=offset)
    splits = params.splits(len(source))
    kept = sink is None and out is None
    record = None if journal is None else SweepRecord(journal, "piecewise", splits, kept=kept)
    swept = sweep.run(finder, splits, sink=sink, out=out, record=record, label=label)
    means = [swept.means[i] for i in drawn(len(splits), params.num_splits_to_process_els, params.seed)]
    return PiecewiseResult(
        swept.shifts,
        swept.found.field,
        grid,
        swept.quality,
        means,
        median_of(means, finder.rigid.template),
        finder.rigid.template,
        first,
    )


def move_patches(frames: Array, found: LocatedPatches, *, grid: PatchGrid, **how: Any) -> Array:
    """Frames displaced patch by patch; options as in `displace_field`."""
    return displace_field(frames, found.field, grid, **how)


def _finder(
    source: FrameSource,
    params: PiecewiseParams,
    grid: PatchGrid,
    template: NDArray[np.float32] | None,
    journal: Journal | None,
    label: str,
) -> tuple[PatchMatcher, NDArray[np.float32] | None]:
    """Filters for the template that was given, or one made from a sample of frames; and what that started from."""
    sample = sample_of(source)
    given = None if template is None else check_template(template, source)
    passes = params.rigid if given is None else replace(params.rigid, niter_rig=0)
    rigid, noise = rigid_finder(source, sample, passes, template=given, journal=journal, label=label)
    finder = first_patch_matcher(
        sample,
        rigid,
        noise,
        grid,
        params.deviation(),
        keep=given is not None,
        high_pass=params.rigid.high_pass(),
    )
    return finder, rigid.template if given is None else None
