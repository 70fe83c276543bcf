"""Recordings of several planes: each plane is run on its own, and one page links their reports."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpucalcium
from gpucalcium.pipeline.extraction import run
from gpucalcium.pipeline.output import check_output, filling
from gpucalcium.pipeline.planes import open_planes
from gpucalcium.pipeline.results import REPORT, Results
from gpucalcium.pipeline.settings import RunSettings
from gpucalcium.report import render_index


def run_recording(
    movie: Any,
    output: str | Path,
    asked: RunSettings | None = None,
    *,
    dataset: str | None = None,
    axes: str | None = None,
    progress: bool = False,
) -> list[Results]:
    """Find the cells in every plane of a recording.

    Parameters
    ----------
    movie : path, array or source
        As `open_planes` takes it: the formats of `open_movie`, and .npz.
    output : path
        Folder for the results: those of `run` for a single plane; else ``plane_0/``, ``plane_1/`` ... and a
        ``report.html`` that links them. It appears complete or not at all.
    asked : RunSettings, optional
        What is known of the recording.
    dataset, axes : str, optional
        Which array of the file, and what its axes are; see `open_planes`.
    progress : bool
        Draw a bar for each stage on stderr.

    Returns
    -------
    list of Results
        One for each plane.
    """
    folder = Path(output)
    check_output(folder)
    planes = open_planes(movie, dataset=dataset, axes=axes)
    title = str(movie) if isinstance(movie, str | os.PathLike) else "movie"
    if len(planes) == 1:
        return [run(planes[0].source, folder, asked, name=title, progress=progress)]
    with filling(folder) as temporary:
        done = [
            run(plane.source, temporary / plane.name, asked, name=f"{title}, {plane.name}", progress=progress)
            for plane in planes
        ]
        entries = [
            (plane.name.replace("_", " "), f"{plane.name}/{REPORT}", results.facts())
            for plane, results in zip(planes, done, strict=True)
        ]
        page = render_index(Path(title).name, entries, gpucalcium.__version__)
        (temporary / REPORT).write_text(page, encoding="utf-8")
    return [replace(r, output=folder / plane.name) for r, plane in zip(done, planes, strict=True)]
