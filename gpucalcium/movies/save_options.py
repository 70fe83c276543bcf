"""What a writer of movies is told: where the recording comes from, and how its file is to be."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, fields
from typing import Any

from gpucalcium.errors import ParameterError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is known of a movie beside its values."""

    fr: float = 30.0
    """Frames per second."""
    start_time: float = 0.0
    """Of the first frame, in s."""
    file_name: list[Any] = field(default_factory=lambda: [None])
    meta_data: list[Any] = field(default_factory=lambda: [None])

    def as_attributes(self) -> dict[str, Any]:
        """Two numbers and two texts of JSON; what JSON cannot hold becomes text. Never pickled."""
        return {
            "fr": self.fr,
            "start_time": self.start_time,
            "file_name": json.dumps(self.file_name, default=str),
            "meta_data": json.dumps(self.meta_data, default=str),
        }


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """The parameters of `timeseries.save`, which documents them."""

    to32: bool = True
    order: str = "F"
    imagej: bool = False
    bigtiff: bool = True
    excitation_lambda: float = 488.0
    compress: int = 0
    q_max: float | None = 99.75
    q_min: float | None = 1
    var_name_hdf5: str = "mov"
    sess_desc: str = "some_description"
    identifier: str = "some identifier"
    imaging_plane_description: str = "some imaging plane description"
    emission_lambda: float = 520.0
    indicator: str = "OGB-1"
    location: str = "brain"
    starting_time: float = 0.0
    experimenter: str = "Dr Who"
    lab_name: str | None = None
    institution: str | None = None
    experiment_description: str = "Experiment Description"
    session_id: str = "Session ID"
    unit: str = "a.u."

    def __post_init__(self) -> None:
        if self.compress not in range(10):
            raise ParameterError(f"compress={self.compress}: a level of zlib, 0 (none) to 9")
        if not self.var_name_hdf5.strip("/"):
            raise ParameterError(f"var_name_hdf5={self.var_name_hdf5!r}: a data set needs a name")
        if self.q_min is None or self.q_max is None:
            return
        if not 0 <= self.q_min < self.q_max <= 100:
            raise ParameterError(
                f"q_min={self.q_min}, q_max={self.q_max}: two percentiles, 0 <= q_min < q_max <= 100; None keeps the "
                "movie's own levels"
            )

    def tell_unused(self, suffix: str, used: frozenset[str]) -> None:
        """Log what was asked for and has no place in files of this kind."""
        asked = {one.name for one in fields(self) if getattr(self, one.name) != one.default}
        asked.discard("to32")  # False asks for what every other format does
        if unused := sorted(asked - used):
            log.warning("%s files have no place for %s: without effect", suffix, ", ".join(unused))
