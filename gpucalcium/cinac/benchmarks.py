"""Methods that find activity, compared on annotated sessions: one folder for each, described by YAML files."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gpucalcium.cinac.benchmark_files import (
    TRUTH,
    BenchmarkConfig,
    Inferred,
    Method,
    Piece,
    found_by_name,
    read_truth,
    read_yaml,
)
from gpucalcium.cinac.metrics import Scores, compute_stats_over_gt
from gpucalcium.cinac.rois import PathLike
from gpucalcium.errors import MovieFileError, ParameterError
from gpucalcium.movies.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

LEVELS = ("frames", "transients")
METRICS = ("sensitivity", "specificity", "PPV", "NPV", "ACC", "F1")

Cell = tuple[str, int]
"""Session and cell."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """How methods did on each cell."""

    config_id: str
    scores: Mapping[str, Mapping[Cell, Mapping[str, Scores]]]
    """By method and cell, of frames and of transients."""

    def values(
        self, method: str, level: str, metric: str, cells: Sequence[Cell] | None = None
    ) -> NDArray[np.float64]:
        """(n,) a metric of `Scores.as_dict` on each cell; on all that the method is of, in order."""
        of = self.scores[method]
        return np.array(
            [of[cell][level].as_dict()[metric] for cell in (sorted(of) if cells is None else cells)]
        )

    def summary(self) -> list[dict[str, Any]]:
        """For each method, level and metric: number of cells, median and quartiles."""
        rows = []
        for method, level, metric in self._each():
            found = self.values(method, level, metric)
            low, median, high = np.percentile(found, [25, 50, 75]) if len(found) else [np.nan] * 3
            rows.append(
                {
                    "method": method,
                    "level": level,
                    "metric": metric,
                    "cells": len(found),
                    "median": float(median),
                    "quartile_1": float(low),
                    "quartile_3": float(high),
                }
            )
        return rows

    def comparisons(self) -> list[dict[str, Any]]:
        """For each pair of methods, level and metric, on their common cells: medians, and Wilcoxon's signed-rank p.

        References
        ----------
        Wilcoxon (1945), Biometrics Bull. 1:80.
        """
        rows = []
        for one, other in combinations(self.scores, 2):
            common = sorted(set(self.scores[one]) & set(self.scores[other]))
            for level in LEVELS:
                for metric in METRICS:
                    x, y = (self.values(method, level, metric, common) for method in (one, other))
                    rows.append(
                        {
                            "method": one,
                            "other": other,
                            "level": level,
                            "metric": metric,
                            "cells": len(common),
                            "median": float(np.median(x)) if common else np.nan,
                            "other_median": float(np.median(y)) if common else np.nan,
                            "p": _wilcoxon(x, y),
                        }
                    )
        return rows

    def figure(self, level: str = "transients") -> Figure:
        """Box plots of each metric, a box for each method.

        Raises
        ------
        MissingExtraError
            Matplotlib is not installed.
        """
        from gpucalcium.plotting import style

        made = style.new_figure(style.TWO_COLUMNS, style.ONE_COLUMN)
        for axes, metric in zip(made.subplots(1, len(METRICS), sharey=True), METRICS, strict=True):
            axes.boxplot(
                [self.values(method, level, metric) for method in self.scores], tick_labels=list(self.scores)
            )
            style.tidy(axes, title=metric, ylabel=f"of {level}, each cell" if metric == METRICS[0] else "")
            axes.tick_params(axis="x", labelrotation=90)
            axes.set_ylim(-0.02, 1.02)
        return made

    def save(self, results_path: PathLike) -> list[Path]:
        """Write tables, ``{config_id}_{summary,comparisons,cells}.csv``, and figures, ``{config_id}_{level}.png``."""
        from gpucalcium.plotting import save_figure

        folder = Path(results_path)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {
            "summary": self.summary(),
            "comparisons": self.comparisons(),
            "cells": list(self._by_cell()),
        }
        written = []
        for name, rows in tables.items():
            if rows:
                written.append(folder / f"{self.config_id}_{name}.csv")
                _write_table(written[-1], rows)
        for level in LEVELS:
            written += save_figure(self.figure(level), folder / f"{self.config_id}_{level}", ("png",))
        return written

    def _each(self) -> Iterator[tuple[str, str, str]]:
        for method in self.scores:
            for level in LEVELS:
                for metric in METRICS:
                    yield method, level, metric

    def _by_cell(self) -> Iterator[dict[str, Any]]:
        for method, of in self.scores.items():
            for session, cell in sorted(of):
                for level in LEVELS:
                    named = {"method": method, "session": session, "cell": cell, "level": level}
                    yield named | of[session, cell][level].as_dict()


def benchmark_activity(folder: PathLike, results_path: PathLike | None = None) -> Benchmark:
    """Compare methods with the truth, cell by cell.

    Parameters
    ----------
    folder : path
        One folder for each session, and a YAML file with the entries of `BenchmarkConfig`. In each of them the files to
        compare, and a YAML file: ``groundtruth`` and, by its name, each method, with the entries of `Method`. The truth
        is a ``.cinac`` file, of which frames that are annotated and not doubtful count, or a raster with smooth traces.
    results_path : path, optional
        Where tables and figures are written, see `Benchmark.save`.

    Returns
    -------
    Benchmark

    Raises
    ------
    MovieNotFoundError, MovieFileError, DatasetNotFoundError, UnknownParameterError
        A file, an array in it, or an entry of a YAML file is not there, or not what it should be.
    ArrayShapeError
        A file is of fewer cells or frames than are annotated.
    ParameterError
        There is nothing to compare.
    """
    root = Path(folder)
    path, said = read_yaml(root)
    config = BenchmarkConfig.read(str(path), said)
    sessions = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    sessions = [one for one in sessions if one.name not in config.sessions_to_exclude]
    if not sessions:
        raise ParameterError(f"{root} has no folders of sessions that are not excluded")
    scores: dict[str, dict[Cell, dict[str, Scores]]] = {name: {} for name in config.inferences_to_benchmark}
    for session in sessions:
        pieces, methods = _session(session, config)
        for name, inferred in methods.items():
            _score(scores[name], session.name, pieces, inferred)
    found = Benchmark(config.config_id, scores)
    for row in found.summary():
        log.info("%(method)s, %(metric)s of %(level)s: median %(median).3f of %(cells)d cells", row)
    if results_path is not None:
        found.save(results_path)
    return found


def _session(session: Path, config: BenchmarkConfig) -> tuple[list[Piece], dict[str, Inferred]]:
    """What was annotated in a session, and what each method found there."""
    path, said = read_yaml(session)
    if not isinstance(said, Mapping) or TRUTH not in said:
        raise MovieFileError(f"{path} must have an entry {TRUTH}")
    pieces = read_truth(session, Method.read(f"{path}, {TRUTH}", said[TRUTH]))
    methods = {}
    for name in config.inferences_to_benchmark:
        method = (
            Method.read(f"{path}, {name}", said[name])
            if name in said
            else found_by_name(session, name, config.predictions_keywords)
        )
        methods[name] = Inferred(session, method, config.predictions_threshold)
    return pieces, methods


def _score(
    scores: dict[Cell, dict[str, Scores]], session: str, pieces: Sequence[Piece], inferred: Inferred
) -> None:
    """Add what a method is worth on each cell of a session."""
    for piece in pieces:
        raster = inferred.of(piece)
        if raster is None:
            continue
        found = compute_stats_over_gt(piece.raster, raster, piece.trace, annotated=piece.annotated)
        before = scores.setdefault((session, piece.cell), {level: Scores(0, 0, 0, 0) for level in LEVELS})
        for level in LEVELS:
            before[level] += getattr(found, level)


def _wilcoxon(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """p of the signed-rank test; 1 where nothing differs, NaN without cells."""
    if len(x) == 0:
        return float("nan")
    return float(stats.wilcoxon(x, y).pvalue) if (x != y).any() else 1.0


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
