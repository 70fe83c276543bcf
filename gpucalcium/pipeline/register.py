"""Registration alone: shifts, report and, if wanted, the registered movie, in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpucalcium
from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.pipeline.output import check_output, filling
from gpucalcium.pipeline.planes import open_planes
from gpucalcium.pipeline.registration import displaced, find_motion
from gpucalcium.pipeline.results import FIGURES, REPORT
from gpucalcium.pipeline.settings import ASSUMED_FRAME_RATE, RunSettings
from gpucalcium.pipeline.stages import Stages
from gpucalcium.registration.check import RegistrationCheck, check_registration
from gpucalcium.registration.output import FORMATS
from gpucalcium.registration.piecewise import PiecewiseResult
from gpucalcium.registration.rigid import RigidResult

MOTION, MOVIE = "motion.npz", "registered"
"""What a registration writes into its folder, beside the report and the figures."""


def register_recording(
    movie: Any,
    output: str | Path,
    asked: RunSettings | None = None,
    *,
    dataset: str | None = None,
    axes: str | None = None,
    save: str | None = None,
    progress: bool = False,
) -> list[RegistrationCheck]:
    """Register every plane of a recording, and write down what moved.

    Parameters
    ----------
    movie : path, array or source
        As `open_planes` takes it.
    output : path
        Folder for ``motion.npz`` (shifts, field, quality and template as plain arrays), ``report.html``, ``figures/``
        and the registered movie; with several planes for a folder ``plane_0/``, ``plane_1/`` ... of each, and a page
        that links them. It appears complete or not at all.
    asked : RunSettings, optional
        ``frame_rate`` (default: what the file says, else 30 Hz), ``max_shift``, ``pw_rigid``, ``um_per_px`` and the
        group "motion" of ``params`` matter.
    dataset, axes : str, optional
        Which array of the file, and what its axes are; see `open_planes`.
    save : {'mmap', 'hdf5', 'zarr', 'tiff'}, optional
        Write the registered movie in this format; default: do not, the shifts tell how to make it again.
    progress : bool
        Draw a bar for each stage on stderr.

    Returns
    -------
    list of RegistrationCheck
        One for each plane.

    Raises
    ------
    ParameterError, OutputError, MovieShapeError, MovieValueError
        An unknown format; a folder that cannot be written to; a movie that holds nothing.
    """
    asked, folder = asked or RunSettings(), Path(output)
    if save is not None and save not in FORMATS:
        raise ParameterError(f"save={save!r}: expected one of {', '.join(map(repr, FORMATS))}")
    check_output(folder)
    planes = open_planes(movie, dataset=dataset, axes=axes)
    title = str(movie) if isinstance(movie, str | os.PathLike) else "movie"
    with filling(folder) as temporary:
        if len(planes) == 1:
            return [_register(planes[0].source, temporary, asked, title, save, Stages(progress))]
        from gpucalcium.report import render_index

        checks, entries = [], []
        for plane in planes:
            (temporary / plane.name).mkdir()
            name = f"{title}, {plane.name}"
            check = _register(plane.source, temporary / plane.name, asked, name, save, Stages(progress))
            checks.append(check)
            entries.append((plane.name.replace("_", " "), f"{plane.name}/{REPORT}", check.facts()))
        page = render_index(Path(title).name, entries, gpucalcium.__version__)
        (temporary / REPORT).write_text(page, encoding="utf-8")
    return checks


def _register(
    source: FrameSource, folder: Path, asked: RunSettings, name: str, save: str | None, stages: Stages
) -> RegistrationCheck:
    """One plane, into a folder that is there."""
    from gpucalcium.plotting import save_figure
    from gpucalcium.report import registration_page, registration_pictures, render

    known = asked.frame_rate or getattr(source, "about", {}).get("fr")
    rate = float(known or ASSUMED_FRAME_RATE)
    with stages.stage("motion correction", (2 if asked.pw_rigid else 1) * len(source)):
        found = find_motion(stages.watched(source), asked)
    moved = displaced(source, asked, found)
    with stages.stage("registration check"):
        check = check_registration(source, moved, found)
    with stages.stage("results"):
        np.savez(folder / MOTION, allow_pickle=False, **_arrays(found, check))
        if save is not None:
            moved.write(os.path.join(folder, MOVIE), format=save)  # noqa: PTH118 - Path drops the folder "."
    with stages.stage("figures"):
        pictures = registration_pictures(check, frame_rate=rate, um_per_px=asked.um_per_px)
        (folder / FIGURES).mkdir()
        for stem, picture in pictures.items():
            save_figure(picture.figure, folder / FIGURES / stem)
    with stages.stage("report"):
        details = {
            "frame rate": f"{rate:g} Hz" if known else f"{rate:g} Hz, assumed (--frame-rate)",
            "device": str(backend.active()),
            "results": MOTION,
            "figures": f"{FIGURES}/ (PDF and PNG)",
        }
        page = registration_page(check, pictures, name=name, frame_rate=rate, details=details)
        (folder / REPORT).write_text(render(page), encoding="utf-8")
    return check


def _arrays(found: RigidResult | PiecewiseResult, check: RegistrationCheck) -> dict[str, NDArray]:
    """What a later program needs, under plain names."""
    kept: dict[str, NDArray] = {
        "shifts": found.shifts,
        "template": found.template,
        "correlations_before": check.before.correlations,
        "correlations": check.after.correlations,
        "peak": found.quality.peak,
        "clamped": found.quality.clamped,
        "no_signal": found.quality.no_signal,
        "missing": found.quality.missing,
    }
    if isinstance(found, PiecewiseResult):
        kept["field"] = found.field
        kept |= {f"centres_{axis}": at for axis, at in enumerate(found.grid.centres)}
    return kept
