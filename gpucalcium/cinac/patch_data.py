"""`MoviePatchData`: one window of frames around one cell, as training and prediction hand it about."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.errors import ArrayShapeError, ParameterError


@dataclass(eq=False)
class MoviePatchData:
    """A window of `window_len` frames around a cell; two are equal if recording, cell and first frame are.

    Raises
    ------
    ParameterError
        The window starts before the movie, or has no frame.
    ArrayShapeError
        `ground_truth` is neither a class nor as long as the window.
    """

    cinac_recording: CinacRecording
    cell: int
    index_movie: int
    """First frame."""
    window_len: int
    """Frames."""
    ground_truth: NDArray | int | None = None
    """For each frame whether the cell is active; or the code of its type."""
    encoded_frames: NDArray | None = None
    """For each frame the code of what happens in it."""
    decoding_frame_dict: Mapping[int, Any] | None = None
    """What the codes mean."""
    session_id: str | None = None
    """Which session it comes from; default: the identifier of the recording."""
    weight: float = 1.0
    """Of its loss in training."""
    to_keep_absolutely: bool = False
    """It is never dropped to balance a training set."""
    data_augmentation_fct: Callable[[NDArray], NDArray] | None = None
    """What is done to each of its frames."""
    n_augmentations_to_perform: int = 0
    """How many changed copies training makes of it."""
    movie_info: dict[str, Any] = field(default_factory=dict)
    """What else is known of the window."""

    def __post_init__(self) -> None:
        if self.index_movie < 0 or self.window_len < 1:
            raise ParameterError(
                f"index_movie={self.index_movie}, window_len={self.window_len}: a window starts at frame 0 or later, "
                "and has one frame or more"
            )
        if self.ground_truth is not None and np.ndim(self.ground_truth) > 0:
            self.ground_truth = np.asarray(self.ground_truth)
            if self.ground_truth.shape != (self.window_len,):
                raise ArrayShapeError(
                    f"ground_truth has shape {self.ground_truth.shape}; for a window of {self.window_len} frames "
                    f"({self.window_len},) is expected, or the code of a cell type"
                )
        if self.session_id is None:
            self.session_id = self.cinac_recording.identifier

    @property
    def last_index_movie(self) -> int:
        """Last frame, included. Beyond the end of a movie that is shorter than the window there are zeros."""
        return self.index_movie + self.window_len - 1

    def copy(self) -> MoviePatchData:
        """Another of the same window: arrays and notes are its own, the recording is shared."""
        other = copy.copy(self)
        other.ground_truth, other.encoded_frames = _own(self.ground_truth), _own(self.encoded_frames)
        other.decoding_frame_dict = (
            None if self.decoding_frame_dict is None else dict(self.decoding_frame_dict)
        )
        other.movie_info = dict(self.movie_info)
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MoviePatchData) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[int, int, int]:
        return id(self.cinac_recording), int(self.cell), int(self.index_movie)


def _own(values: Any) -> Any:
    return values.copy() if isinstance(values, np.ndarray) else values
