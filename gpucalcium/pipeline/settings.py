"""What a user may ask of a whole run; everything else is guessed from the movie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucalcium.errors import ParameterError

ASSUMED_FRAME_RATE = 30.0  # Hz, where neither the user nor the file says
ASSUMED_DECAY_S = 0.4  # GCaMP6f


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The few things that matter for a run from movie to cells; None means: guess from the movie."""

    frame_rate: float | None = None
    """Hz; default 30, with a note in the report."""
    decay_s: float = ASSUMED_DECAY_S
    """Decay time of a typical transient, s."""
    cell_radius: float | None = None
    """Radius of a typical cell, px; 1 or more."""
    n_components: int | None = None
    """Components to start from: somewhat more than there are cells."""
    motion_correct: bool = True
    """Register the frames first."""
    pw_rigid: bool = False
    """Register patches of the field, a fifth of it apart, each on its own, where tissue deforms."""
    max_shift: int | None = None
    """Largest displacement looked for, px; default 6, and no more than a sixth of the field."""
    refit: bool = True
    """Fit once more from the components that look like cells."""
    um_per_px: float | None = None
    """Size of a pixel in micrometres, for scale bars."""
    cinac: bool = False
    """Predict the activity of the cells by a network that looks at the movie around them, too."""
    cinac_model: str | Path | None = None
    """Its model file; None: the one that comes with the library."""
    cinac_weights: str | Path | None = None
    """File of its weights; None: the one that the model file names."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Changes to the CNMF parameters, and to those of registration (group "motion"), ``{group: {key: value}}``; they
    have the last word."""

    def __post_init__(self) -> None:
        for name in ("frame_rate", "cell_radius", "um_per_px", "decay_s", "n_components"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ParameterError(f"{name}={value}: must be above 0")
        if not self.cinac and (self.cinac_model or self.cinac_weights) is not None:
            raise ParameterError("a network is named, but cinac=False: set cinac=True to predict with it")
        if self.max_shift is not None and self.max_shift < 1:
            raise ParameterError(
                f"max_shift={self.max_shift}: must be 1 or more; motion_correct=False for none"
            )
