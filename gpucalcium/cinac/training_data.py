"""Annotated cells as training takes them, and the windows of pixels that a network is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac.cutouts import cutouts
from gpucalcium.cinac.events import Events
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.errors import ArrayShapeError
from gpucalcium.nets.plan import Plan


@dataclass(frozen=True, eq=False)
class Annotated:
    """Frames of one cell that someone looked at; those of the movie of its recording, counted from 0."""

    recording: CinacRecording
    cell: int
    truth: NDArray[np.int8]
    """(T,) 1 in frames in which the cell is active."""
    session_id: str
    cell_type: str | None = None
    doubtful: NDArray[np.int8] | None = None
    """(T,) 1 in frames that are neither."""
    only_for_training: bool = False
    to_keep_absolutely: bool = False
    """Its windows are never dropped to balance the training set."""
    identity: object = None
    """Equal for segments of the same cell."""

    def __post_init__(self) -> None:
        n_frames = self.recording.get_n_frames()
        for name in ("truth", "doubtful"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != (n_frames,):
                raise ArrayShapeError(
                    f"{name} of cell {self.cell} of {self.recording.identifier!r} has shape {np.shape(values)}; its "
                    f"movie has {n_frames} frames, so ({n_frames},) is expected"
                )
        if self.identity is None:
            object.__setattr__(self, "identity", (id(self.recording), self.cell))

    @property
    def n_frames(self) -> int:
        """Frames."""
        return len(self.truth)

    @property
    def has_doubtful_frames(self) -> bool:
        """Whether there are any."""
        return self.doubtful is not None and bool(np.any(self.doubtful))

    @cached_property
    def smooth_trace(self) -> NDArray[np.float64]:
        """(T,) normalised."""
        traces = self.recording.get_smooth_traces(normalized=True)
        return traces if traces.ndim == 1 else traces[self.cell]

    @cached_property
    def events(self) -> Events:
        """Its transients, and what looks like one."""
        return Events.of(self.truth, self.smooth_trace)


class WindowLoader:
    """Windows of pixels, as the inputs of a network see them; corners and masks of each cell are found once.

    Parameters
    ----------
    plan : Plan
        Of the network: window, patch, inputs, how patches are masked.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cut: dict[tuple[int, int], tuple[NDArray[np.int32], NDArray[np.bool_]]] = {}

    def load(self, patches: Sequence[MoviePatchData]) -> NDArray[np.float32]:
        """(n, I, L, P, P) normalised and masked pixels of windows; zeros, the mean, where there is no movie."""
        length, side = self._plan.window_len, self._plan.patch_size
        out = np.empty((len(patches), len(self._plan.inputs), length, side, side), np.float32)
        for values, patch in zip(out, patches, strict=True):
            (y, x), masks = self._cutouts(patch)
            crop = self._crop(patch, int(y), int(x))
            np.multiply(crop[None], masks[:, None], out=values)
        return out

    def _cutouts(self, patch: MoviePatchData) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        key = (id(patch.cinac_recording), patch.cell)
        if key not in self._cut:
            recording, plan = patch.cinac_recording, self._plan
            found = cutouts(
                recording.cells,
                np.array([patch.cell]),
                recording.movie.get_dimensions(),
                plan.patch_size,
                plan.inputs,
                kind=plan.kind,
                mask_mode=plan.mask_mode,
                buffer=plan.buffer,
            )
            self._cut[key] = found.corners[0], found.masks[0]
        return self._cut[key]

    def _crop(self, patch: MoviePatchData, y: int, x: int) -> NDArray[np.float32]:
        """(L, P, P) from row y and column x, either of which may lie outside."""
        side, length = self._plan.patch_size, self._plan.window_len
        recording, first = patch.cinac_recording, patch.index_movie
        height, width = recording.movie.get_dimensions()
        top, left, bottom, right = max(y, 0), max(x, 0), min(y + side, height), min(x + side, width)
        last = min(first + length, recording.get_n_frames())
        seen = recording.get_source_profile_frames(slice(first, last), (left, right - 1, top, bottom - 1))
        if seen.shape == (length, side, side):
            return seen
        out = np.zeros((length, side, side), np.float32)
        out[: len(seen), top - y : bottom - y, left - x : right - x] = seen
        return out
