"""The folder of a run: results, figures, report; complete or not there at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gpucalcium.errors import OutputError
from gpucalcium.pipeline.activity import write_activity
from gpucalcium.pipeline.results import FIGURES, REPORT, RESULTS, Results
from gpucalcium.pipeline.stages import Stages


def check_output(folder: Path) -> None:
    """Refuse, before any work, a folder that could not be written to in the end.

    Raises
    ------
    OutputError
        A file stands in the way, or the folder above is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; results need a folder: choose another name")
    if not folder.exists() and not folder.parent.is_dir():
        raise OutputError(f"cannot make {folder}: the folder {folder.parent} does not exist; make it first")


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, whose contents move there when the block ends; removed if it fails.

    What `folder` holds under other names stays.
    """
    check_output(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        yield Path(temporary)
        folder.mkdir(exist_ok=True)
        for new in Path(temporary).iterdir():
            target = folder / new.name
            if target.is_dir():
                shutil.rmtree(target)
            new.replace(target)


def write_results(results: Results, folder: Path, stages: Stages) -> Results:
    """Write everything of one plane into `folder`; returns the results with that path in them."""
    from gpucalcium.pipeline.summary import figures, report_page
    from gpucalcium.plotting import save_figure
    from gpucalcium.report import render

    with filling(folder) as temporary:
        with stages.stage("results"):
            results.cnmf.save(temporary / RESULTS)
            if results.activity is not None:
                write_activity(temporary / RESULTS, results.activity)
        with stages.stage("figures"):
            pictures = figures(results)
            (temporary / FIGURES).mkdir()
            for name, picture in pictures.items():
                save_figure(picture.figure, temporary / FIGURES / name)
        with stages.stage("report"):
            page = report_page(results, list(pictures.values()))
            (temporary / REPORT).write_text(render(page), encoding="utf-8")
    return replace(results, output=folder)
