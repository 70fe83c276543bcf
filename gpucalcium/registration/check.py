"""What a registration did, in numbers and images: the movie before and after, and the motion that is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayShapeError
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.registration.metrics import crispness, frame_correlations, mean_and_counts
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseResult
from gpucalcium.registration.residual import ResidualMotion, residual_motion
from gpucalcium.registration.rigid import RigidResult
from gpucalcium.registration.sweep import FrameQuality

if TYPE_CHECKING:
    from gpucalcium.registration.motion_correct import MotionCorrect

COMPONENTS = 10
MOSTLY = 0.9  # of the frames: pixels that borders reach more often do not count


@dataclass(frozen=True, eq=False)
class MovieState:
    """A movie, registered or not."""

    mean: NDArray[np.float32]
    """(d1, d2[, d3]) mean frame, NaN left out."""
    correlations: NDArray[np.float64]
    """(T,) Pearson's r of each frame with the mean, over pixels that no border reached."""
    crispness: float
    """Norm of the gradient of the mean, over the same pixels."""
    residual: ResidualMotion | None = field(repr=False)
    """Motion along its principal components; None if that was not asked for."""


@dataclass(frozen=True, eq=False)
class RegistrationCheck:
    """A registration before a reader's eyes; see `check_registration`."""

    before: MovieState
    after: MovieState
    shifts: NDArray[np.float32]
    """(T, ndim) displacement applied to each frame as a whole, pixels, axis order."""
    field: NDArray[np.float32] | None
    """``(T, *counts, ndim)`` displacement applied to each patch; None if registration was rigid."""
    grid: PatchGrid | None
    quality: FrameQuality | None

    def facts(self) -> dict[str, str]:
        """The numbers that sum it up: name -> value."""
        shown = {
            "frames": f"{len(self.shifts):,}",
            "largest shift (px)": f"{np.abs(self.shifts).max(initial=0):.1f}",
            "correlation": f"{self.before.correlations.mean():.2f} → {self.after.correlations.mean():.2f}",
            "crispness": f"× {self.after.crispness / max(self.before.crispness, 1e-30):.3f}",
        }
        if self.field is not None:
            apart = self.field - self.shifts.reshape(len(self.shifts), *(1,) * (self.field.ndim - 2), -1)
            shown["local motion (px)"] = (
                f"{np.sqrt((apart.astype(np.float64) ** 2).sum(-1)).max(initial=0):.1f}"
            )
        if self.after.residual is not None:
            shown["motion left (px)"] = f"{self.after.residual.rigid.max():.2f}"
        if self.quality is not None:
            shown["frames flagged"] = f"{(self.quality.clamped | self.quality.no_signal).sum():,}"
        return shown


def check_registration(
    recording: MovieLike,
    registered: MovieLike,
    found: RigidResult | PiecewiseResult | NDArray,
    *,
    components: int = COMPONENTS,
) -> RegistrationCheck:
    """Hold a movie before registration against the same after it.

    Parameters
    ----------
    recording, registered : (T, d1, d2[, d3]) movies as `open_movie` takes them
        Read in chunks, twice each, and once more for `components`; a `RegisteredMovie` need not be written.
    found : RigidResult, PiecewiseResult, or (T, ndim) array
        What registration found, or only the displacement applied to each frame, pixels.
    components : int
        Principal components in which motion is looked for; 0: do not.

    Returns
    -------
    RegistrationCheck

    Raises
    ------
    ArrayShapeError
        Movies of different shapes, shifts of another number of frames.
    """
    before, after = open_movie(recording), open_movie(registered)
    shifts = np.asarray(getattr(found, "shifts", found), np.float32)
    if before.shape != after.shape or shifts.shape != (len(after), len(after.shape) - 1):
        raise ArrayShapeError(
            f"the recording has shape {before.shape}, the registered movie {after.shape}, the shifts {shifts.shape}: "
            "they must belong together"
        )
    (raw, _), (mean, counts) = mean_and_counts(before), mean_and_counts(after)
    field = getattr(found, "field", None)
    inside = (counts >= MOSTLY * len(after)) & _inside(shifts if field is None else field, mean.shape)
    return RegistrationCheck(
        _state(before, raw, inside, components),
        _state(after, mean, inside, components),
        shifts,
        field,
        *(getattr(found, name, None) for name in ("grid", "quality")),
    )


def check_motion_correction(mc: MotionCorrect, *, components: int = COMPONENTS) -> RegistrationCheck:
    """`check_registration` of what a `MotionCorrect` has found; it displaces frames anew, and writes nothing."""
    with mc.on_device():
        moved = mc.registered_movie()
        shifts = np.array(mc.shifts_rig, np.float32)
        check = check_registration(moved.made_from, moved, shifts, components=components)
    return replace(check, field=moved.field, grid=moved.grid, quality=mc.frame_quality)


def _inside(moves: NDArray, dims: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels that no line reaches which came in from outside, whatever that was filled with, but in few frames."""
    inside = np.ones(dims, bool)
    for axis, n in enumerate(dims):
        lines = moves[..., axis].reshape(len(moves), -1)
        ends = [
            int(np.quantile(np.ceil(np.maximum(far, 0)), MOSTLY, method="higher"))
            for far in (lines.max(axis=1), -lines.min(axis=1))
        ]
        if sum(ends) < n:
            kept = np.arange(n)
            inside &= np.expand_dims(
                (kept >= ends[0]) & (kept < n - ends[1]), tuple(a for a in range(len(dims)) if a != axis)
            )
    return inside


def _state(
    source: FrameSource, mean: NDArray[np.float32], inside: NDArray[np.bool_], components: int
) -> MovieState:
    image = np.where(inside, mean, np.float32(np.nan))
    residual = residual_motion(source, components=components) if components and len(source) > 1 else None
    return MovieState(mean, frame_correlations(source, image), crispness(image), residual)
