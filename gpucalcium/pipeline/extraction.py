"""From a movie to cells: registration, extraction, quality, relative fluorescence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams
from gpucalcium.errors import MovieShapeError, MovieValueError
from gpucalcium.images import local_correlations
from gpucalcium.movies import open_movie
from gpucalcium.pipeline.activity import cell_activity, load_classifier
from gpucalcium.pipeline.guess import GSIG_SHARE, guess_parameters
from gpucalcium.pipeline.output import check_output, write_results
from gpucalcium.pipeline.registration import registered
from gpucalcium.pipeline.results import Registration, Results
from gpucalcium.pipeline.settings import RunSettings
from gpucalcium.pipeline.stages import Stages
from gpucalcium.rois import Match, binary_masks, match_footprints
from gpucalcium.simulate import SimulatedMovie

FEWEST_FRAMES = 30  # noise and time constants are estimated from each pixel's and trace's own history
SMALLEST_FIELD = 8  # px; below, no neighbourhood of a cell is left
SIZE_RANGE = 4  # a cell's area is within this factor of the typical one, either way
KEPT_BY_REFIT = 0.8  # a second fit that loses more cells than this has let them grow into each other
BASELINE_FRAMES = 500  # window of the running baseline of dF/F
FIT_PASSES = 7  # how often extraction reads the movie, for its progress bar


def run(
    movie: Any,
    output: str | Path | None = None,
    asked: RunSettings | None = None,
    *,
    truth: SimulatedMovie | None = None,
    name: str | None = None,
    progress: bool = False,
) -> Results:
    """Find the cells of one plane: register, extract, judge, and write everything down.

    Parameters
    ----------
    movie : array, path, or source, (T, d1, d2)
        Anything that `open_movie` takes; `run_recording` also takes several planes and .npz files.
    output : path, optional
        Folder for ``results.hdf5``, ``report.html`` and ``figures/``. It appears complete or not at all; files of
        an earlier run in it are replaced.
    asked : RunSettings, optional
        What is known of the recording; the rest is guessed from it.
    truth : SimulatedMovie, optional
        What is really in the movie, to score the result.
    name : str, optional
        Title of the report; default: the name of the file.
    progress : bool
        Draw a bar for each stage on stderr.

    Returns
    -------
    Results

    Raises
    ------
    MovieShapeError, MovieValueError, ParameterError
        A movie that is too small or short, or holds nothing; before anything is computed or written.
    """
    asked = asked or RunSettings()
    if output is not None:
        check_output(Path(output))
    source = open_movie(movie)
    name = str(name or getattr(source, "name", "the movie"))
    _check_shape(source.shape, name)
    stages, classifier = Stages(progress), load_classifier(asked)
    with _naming(name), registered(source, asked, stages) as (frames, registration):
        correlation = _correlation_image(frames, stages)
        params, notes = guess_parameters(correlation, asked)
        fitted, more = _extract(frames, params, asked, stages)
        fitted.estimates.Cn = correlation
        _finish(fitted, frames, registration, stages)
        activity = cell_activity(fitted.estimates, frames, classifier, stages)
    match = _score(fitted, truth)
    if match is not None and len(match.uncounted):
        more += (
            f"{len(match.uncounted)} cells that the border cuts by more than half count neither way in the score.",
        )
    results = Results(
        cnmf=fitted,
        correlation_image=correlation,
        registration=registration,
        frame_rate=float(params.get("data", "fr")),
        frames=len(source),
        seconds=stages.seconds,
        device=str(backend.active()),
        name=name,
        notes=notes + more,
        um_per_px=asked.um_per_px,
        truth=truth,
        activity=activity,
        match=match,
    )
    return results if output is None else write_results(results, Path(output), stages)


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 3:
        raise MovieShapeError(
            f"{name} has shape {shape}; one plane is (T, rows, columns). Several planes are run one by one: "
            "name the axes, for instance axes='TZYX'"
        )
    if shape[0] < FEWEST_FRAMES:
        raise MovieShapeError(
            f"{name} has {shape[0]} frames; at least {FEWEST_FRAMES} are needed to tell activity from noise. Is "
            f"time the first axis? The shape is {shape}"
        )
    if min(shape[1:]) < SMALLEST_FIELD:
        raise MovieShapeError(
            f"{name} has frames of {shape[1]}x{shape[2]} px; at least {SMALLEST_FIELD} px a side are "
            f"needed. Is time the first axis? The shape is {shape}"
        )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which movie it is that holds nothing."""
    try:
        yield
    except MovieValueError as err:
        raise MovieValueError(f"{name}: {err}") from err


def _correlation_image(frames: FrameSource, stages: Stages) -> NDArray[np.float32]:
    with stages.stage("correlation image", len(frames)):
        image = backend.to_numpy(local_correlations(stages.watched(frames), swap_dim=False))
    if not np.isfinite(image).any():
        raise MovieValueError(
            "every pixel is NaN or infinite in some frame, so nothing can be correlated. Crop the "
            "border that registration left, or replace missing values first"
        )
    if not image.any():
        raise MovieValueError("no pixel ever changes together with another: nothing is recorded in it")
    return image


def _extract(
    frames: FrameSource, params: CNMFParams, asked: RunSettings, stages: Stages
) -> tuple[CNMF, tuple[str, ...]]:
    """Fit, keep what looks like a cell, and fit again from there; with notes for the reader."""
    with stages.stage("extraction", FIT_PASSES * len(frames)):
        first = CNMF(params=params).fit(stages.watched(frames))
    with stages.stage("quality", len(frames)):
        _judge(first, stages.watched(frames))
    before = len(first.estimates.idx_components)
    if not asked.refit or before == 0:
        return first, ()
    with stages.stage("refit", FIT_PASSES * len(frames)):
        again = first.refit(stages.watched(frames))
        _judge(again, frames)
    after = len(again.estimates.idx_components)
    if after >= KEPT_BY_REFIT * before:
        return again, ()
    return first, (
        f"The second fit kept {after} of {before} cells, as happens where neighbours are active together; the first "
        "fit is shown.",
    )


def _judge(fitted: CNMF, frames: FrameSource) -> None:
    """Accept what has the signal, the shape and the size of a cell."""
    found = fitted.estimates
    found.evaluate_components(frames, fitted.params)
    typical = np.pi * float(np.mean(fitted.params.get("init", "gSig")) / GSIG_SHARE) ** 2
    pixels = np.diff(binary_masks(found.A).indptr)
    sized = (pixels >= typical / SIZE_RANGE) & (pixels <= typical * SIZE_RANGE)
    accepted = np.isin(np.arange(len(pixels)), found.idx_components) & sized
    found.idx_components, found.idx_components_bad = np.flatnonzero(accepted), np.flatnonzero(~accepted)


def _finish(fitted: CNMF, frames: FrameSource, registration: Registration | None, stages: Stages) -> None:
    """Relative fluorescence, and shifts for the record."""
    if registration is not None:
        fitted.estimates.shifts = registration.shifts
    with stages.stage("dF/F"):
        if fitted.estimates.A.shape[1]:
            fitted.estimates.detrend_df_f(frames_window=min(BASELINE_FRAMES, len(frames)))


def _score(fitted: CNMF, truth: SimulatedMovie | None) -> Match | None:
    if truth is None:
        return None
    cells = fitted.estimates.A[:, fitted.estimates.idx_components]
    return match_footprints(cells, truth.A, uncounted=truth.A_border)
