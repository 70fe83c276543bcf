"""The first stage of a run: frames are registered, and stay where the next stages read them fastest."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource, settings
from gpucalcium.cnmf.params_table import TABLE
from gpucalcium.errors import ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.raw import RawSource
from gpucalcium.pipeline.results import Registration
from gpucalcium.pipeline.settings import RunSettings
from gpucalcium.pipeline.stages import Stages
from gpucalcium.registration.check import check_registration
from gpucalcium.registration.motion_fields import MotionFields
from gpucalcium.registration.piecewise import PiecewiseResult, register_piecewise
from gpucalcium.registration.registered import RegisteredMovie
from gpucalcium.registration.rigid import RigidResult, register_rigid

DEFAULT_MAX_SHIFT = 6  # px
LARGEST_SHIFT_SHARE = 6  # of the field: one sixth
STRIDE_SHARE, STRIDES = 5, (24, 96)  # patches are a fifth of the field apart, px within these bounds
BORDER = "copy"  # extraction takes no missing values
NOT_OURS = {
    "border_nan",
    "indices",
    "is3D",
    "min_mov",
    "nonneg_movie",
    "use_cuda",
}  # of the motion parameters
HELD_SHARE = 4  # registered frames stay in memory if they take at most this part of the budget


@contextlib.contextmanager
def registered(
    source: FrameSource, asked: RunSettings, stages: Stages
) -> Iterator[tuple[FrameSource, Registration | None]]:
    """The movie to extract from, registered if that is asked for.

    Registered frames are held in the memory of the active device where there is room. Else those of a recording
    that is read as fast as the disk allows are displaced anew whenever they are read, on the active device; those
    of any other lie in a temporary file, which is gone afterwards.
    """
    if not asked.motion_correct:
        yield source, None
        return
    with contextlib.ExitStack() as stack:
        with stages.stage("motion correction", len(source)):
            frames, found = _register(source, asked, stages, stack)
        with stages.stage("registration check"):
            check = check_registration(source, frames, found)
        yield frames, Registration(found.shifts, found.quality.peak, found.template, check)


def _register(
    source: FrameSource, asked: RunSettings, stages: Stages, stack: contextlib.ExitStack
) -> tuple[FrameSource, RigidResult | PiecewiseResult]:
    watched = stages.watched(source)
    if 4 * int(np.prod(source.shape)) * HELD_SHARE <= backend.budget():
        frames = backend.empty(source.shape, np.float32)
        return open_movie(frames), find_motion(watched, asked, out=frames)
    if isinstance(source, RawSource) or getattr(source, "array", None) is not None:
        found = find_motion(watched, asked)
        return displaced(source, asked, found), found
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gpucalcium-", dir=settings.get("temp")))
    path = Path(folder) / "registered.npy"
    written = np.lib.format.open_memmap(path, "w+", np.float32, source.shape)

    def write(start: int, moved: NDArray) -> None:
        written[start : start + len(moved)] = moved

    found = find_motion(watched, asked, sink=write)
    written.flush()
    return open_movie(path), found


def find_motion(source: FrameSource, asked: RunSettings, **where: Any) -> RigidResult | PiecewiseResult:
    """Displacement of frames, or of their patches; `where` registered frames go as in `register_rigid`."""
    dims, motion = source.shape[1:], _motion(source, asked)
    if motion.pw_rigid:
        return register_piecewise(source, motion.piecewise_params(dims), **where)
    return register_rigid(source, motion.rigid_params(dims), **where)


def displaced(
    source: FrameSource, asked: RunSettings, found: RigidResult | PiecewiseResult
) -> RegisteredMovie:
    """The registered movie, made when it is read."""
    motion = _motion(source, asked)
    if isinstance(found, RigidResult):
        return RegisteredMovie(source, found.shifts, border=BORDER, fourier=not motion.shifts_opencv)
    how = motion.piecewise_params(source.shape[1:]).how()
    return RegisteredMovie(source, field=found.field, grid=found.grid, border=BORDER, **how)


def _motion(source: FrameSource, asked: RunSettings) -> MotionFields:
    """How to register: as the parameters of the group "motion" say, and else as suits the size of the frames."""
    dims, given = source.shape[1:], dict(asked.params.get("motion", {}))
    for name in NOT_OURS & given.keys():
        if given.pop(name) != TABLE["motion"][name].default:
            raise ParameterError(
                f"the motion parameter {name!r} is not taken here: a run reads the whole movie, keeps its values, and "
                "repeats the edge where nothing was recorded; use MotionCorrect"
            )
    least, most = STRIDES
    strides = tuple(min(max(n // STRIDE_SHARE, least), most) for n in dims)
    chosen: dict[str, Any] = {
        "max_shifts": largest_shifts(dims, asked.max_shift),
        "strides": strides,
        "overlaps": tuple(stride // 2 for stride in strides),
    }
    piecewise = asked.pw_rigid or given.pop("pw_rigid", False)
    chosen |= given
    return MotionFields(source, border_nan=BORDER, pw_rigid=piecewise, **chosen)


def largest_shifts(dims: tuple[int, ...], asked: int | None) -> tuple[int, ...]:
    """How far to look for motion on each axis: what is asked for, else 6 px but no more than a sixth of the field."""
    if asked is not None:
        return tuple(asked for _ in dims)
    return tuple(max(1, min(DEFAULT_MAX_SHIFT, n // LARGEST_SHIFT_SHARE)) for n in dims)
