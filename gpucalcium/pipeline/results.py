"""What a run from movie to cells gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.pipeline.activity import Activity
from gpucalcium.registration.check import RegistrationCheck
from gpucalcium.rois import Match, trace_correlations
from gpucalcium.simulate import SimulatedMovie

RESULTS, REPORT, FIGURES = "results.hdf5", "report.html", "figures"
"""What a run writes into its folder."""


@dataclass(frozen=True, eq=False)
class Registration:
    """How the frames of a movie moved."""

    shifts: NDArray[np.float32]
    """(T, 2) displacement applied to each frame, px."""
    agreement: NDArray[np.float32]
    """(T,) height of each frame's correlation with the template; 1 for a frame that equals it."""
    template: NDArray[np.float32]
    """(d1, d2) the mean image that frames were moved onto."""
    check: RegistrationCheck = field(repr=False)
    """The movie before and after, and the motion that is left."""


@dataclass(frozen=True, eq=False)
class Results:
    """Cells, traces and spikes of one plane, and how they were found."""

    cnmf: CNMF
    """The fit; `CNMF.save` writes it, `load_CNMF` reads it."""
    correlation_image: NDArray[np.float32]
    """(d1, d2) local correlation of the registered movie."""
    registration: Registration | None
    """None where frames were taken as they are."""
    frame_rate: float
    """Hz."""
    frames: int
    seconds: Mapping[str, float]
    """Duration of each stage."""
    device: str
    """Where it was computed."""
    name: str = "movie"
    notes: tuple[str, ...] = ()
    """What was assumed or is worth a look."""
    um_per_px: float | None = None
    truth: SimulatedMovie | None = field(default=None, repr=False)
    activity: Activity | None = None
    """What a network says of when the accepted cells are active, if it was asked."""
    match: Match | None = None
    """Accepted cells against the truth of a simulation; `found` counts within `accepted`."""
    output: Path | None = None
    """Folder with the files, if they were asked for."""

    @property
    def estimates(self) -> Estimates:
        """Footprints, traces, spikes, background and quality of every component."""
        return self.cnmf.estimates

    @property
    def params(self) -> CNMFParams:
        """The parameters of the fit."""
        return self.cnmf.params

    @property
    def accepted(self) -> NDArray[np.intp]:
        """Columns of the footprints that are cells."""
        return np.asarray(self.estimates.idx_components, np.intp)

    @property
    def rejected(self) -> NDArray[np.intp]:
        """Columns of the footprints that are not."""
        return np.asarray(self.estimates.idx_components_bad, np.intp)

    @property
    def dims(self) -> tuple[int, int]:
        """Rows and columns of the field of view."""
        rows, columns = self.correlation_image.shape
        return rows, columns

    def median_trace_correlation(self) -> float:
        """Median over matched cells of the correlation of found and true trace; NaN without truth or match."""
        if self.truth is None or self.match is None or len(self.match.found) == 0:
            return float("nan")
        found = self.estimates.C[self.accepted]
        return float(np.nanmedian(trace_correlations(found, self.truth.C, self.match)))

    def facts(self) -> dict[str, str]:
        """The numbers that sum up the run: name -> value."""
        shown = {
            "cells": str(len(self.accepted)),
            "rejected": str(len(self.rejected)),
            "frames": f"{self.frames:,}",
            "field (px)": "{} × {}".format(*self.dims),
        }
        if self.registration is not None:
            shown["largest shift (px)"] = f"{np.abs(self.registration.shifts).max(initial=0):.1f}"
        if self.activity is not None:
            shown["active (%)"] = f"{100 * self.activity.raster.mean():.1f}"
        if self.match is not None:
            shown["precision"] = f"{self.match.precision:.3f}"
            shown["recall"] = f"{self.match.recall:.3f}"
            shown["F1"] = f"{self.match.f1:.3f}"
            shown["trace correlation"] = f"{self.median_trace_correlation():.3f}"
        return shown
