"""How well the classifiers that come with the library do on simulated movies that they were not trained on.

    python -m benchmarks.accuracy_cinac [--figure FILE] [--model FILE]

Activity: transients found and falsely found, of the network (probability of 0.5 or more) and of deconvolution, whose
order and threshold are those that do best on four of the movies that the network was trained on. Types of cells: the
share that is right. Prints the tables of docs/theory/cinac.md.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpucalcium import nets
from gpucalcium.cinac import CinacRecording, Scores, compute_stats_over_gt, weights
from gpucalcium.cinac.cell_types import DEFAULT_CELL_TYPES
from gpucalcium.cinac.prediction import predict_activity, predict_cell_types
from gpucalcium.cinac.simulated import SimulatedRecording
from gpucalcium.cinac.train import HELD_OUT_SEEDS, TRAINING_SEEDS, scene, simulated
from gpucalcium.cinac.transients import widened_to_transients
from gpucalcium.deconvolution import constrained_foopsi

FRAMES = 1000
TUNED_ON = TRAINING_SEEDS[:4]
ORDERS, THRESHOLDS = (1, 2), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # thresholds in noise levels
ACTIVE_FROM = 0.5


@dataclass(eq=False)
class Scene:
    """A simulated movie, its recording and its traces."""

    seed: int
    made: SimulatedRecording
    recording: CinacRecording
    raw: NDArray[np.float64]
    smooth: NDArray[np.float64]
    overlaps: NDArray[np.bool_]
    """Which cells meet another."""

    @classmethod
    def of(cls, seed: int, what: str = "activity") -> Scene:
        made = simulated([seed], FRAMES, what)[0]
        recording = made.recording(f"simulated_{seed}")
        overlaps = np.array([len(others) > 0 for others in recording.cells.neighbours])
        raw, smooth = (
            recording.get_raw_traces(normalized=False),
            recording.get_smooth_traces(normalized=False),
        )
        return cls(seed, made, recording, raw, smooth, overlaps)

    def scores(self, raster: NDArray, cells: NDArray[np.bool_]) -> tuple[Scores, Scores]:
        """Of transients and of frames."""
        if not cells.any():
            return Scores(0, 0, 0, 0), Scores(0, 0, 0, 0)
        found = compute_stats_over_gt(self.made.raster[cells], raster[cells], self.smooth[cells])
        return found.transients, found.frames


def deconvolved(traces: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Spikes of each trace, in noise levels."""
    found = constrained_foopsi(traces, p=order, bas_nonneg=False)
    return found[5] / np.asarray(found[4])[:, None]


def best_deconvolution(scenes: Sequence[Scene]) -> tuple[int, float, bool, float]:
    """Order, threshold and whether spikes are widened to putative transients: those of the best F1; and that."""
    totals: dict[tuple[int, float, bool], Scores] = {}
    for scene_, order in itertools.product(scenes, ORDERS):
        spikes = deconvolved(scene_.raw, order)
        for threshold, wide in itertools.product(THRESHOLDS, (False, True)):
            raster = _spiking(spikes, threshold, wide, scene_.smooth)
            score, _ = scene_.scores(raster, np.ones(len(raster), bool))
            key = (order, threshold, wide)
            totals[key] = totals.get(key, Scores(0, 0, 0, 0)) + score
    best = max(totals, key=lambda key: totals[key].f1)
    return *best, totals[best].f1


def _spiking(spikes: NDArray, threshold: float, wide: bool, smooth: NDArray) -> NDArray[np.bool_]:
    raster = spikes >= threshold
    return np.array([widened_to_transients(*x) for x in zip(raster, smooth, strict=True)]) if wide else raster


def activity_table(
    scenes: Sequence[Scene], methods: dict[str, Callable[[Scene], NDArray]]
) -> dict[tuple[str, str], tuple[Scores, Scores]]:
    """Scores of each method, for cells that overlap others, the rest, and each movie."""
    found: dict[tuple[str, str], tuple[Scores, Scores]] = {}
    none = Scores(0, 0, 0, 0)
    for scene_, (name, method) in itertools.product(scenes, methods.items()):
        raster = method(scene_)
        every = np.ones(len(raster), bool)
        groups = {
            "all cells": every,
            "cells that overlap": scene_.overlaps,
            "cells that do not": ~scene_.overlaps,
            f"movie {scene_.seed}": every,
        }
        for group, cells in groups.items():
            before = found.get((group, name), (none, none))
            now = scene_.scores(raster, cells)
            found[group, name] = (before[0] + now[0], before[1] + now[1])
    return found


def print_activity(found: dict[tuple[str, str], tuple[Scores, Scores]]) -> None:
    print("| cells | method | transients | recall | precision | F1 | F1 of frames |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for group in sorted({group for group, _ in found}):
        for name in dict.fromkeys(name for _, name in found):
            one, frames = found[group, name]
            print(
                f"| {group} | {name} | {one.tp + one.fn} | {one.sensitivity:.3f} | {one.ppv:.3f} | {one.f1:.3f} | "
                f"{frames.f1:.3f} |"
            )


def types_table(scenes: Sequence[Scene], network: nets.Network) -> NDArray[np.int64]:
    """(3, 3) counts of cells by true (row) and predicted type."""
    counts = np.zeros((3, 3), np.int64)
    for scene_ in scenes:
        found = predict_cell_types(
            scene_.recording, np.arange(len(scene_.raw)), network, n_segments=3, all_pixels=True
        )
        for true, segments in zip(scene_.made.cell_types, found, strict=True):
            counts[DEFAULT_CELL_TYPES.code(true), segments.mean(axis=0).argmax()] += 1
    return counts


def draw(path: Path, scene_: Scene, chances: NDArray, spikes: NDArray, threshold: float, found: dict) -> None:
    """Traces of overlapping cells with what was found, and F1 of each movie."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(2.4, 1), layout="constrained")
    busy = np.flatnonzero(scene_.overlaps & (scene_.made.raster.sum(axis=1) > 0))[:4]
    for row, cell in enumerate(busy):
        trace = scene_.raw[cell]
        base = 4.2 * row
        left.plot(base + 1.4 + (trace - np.median(trace)) / np.ptp(trace) * 2.6, color="0.35", lw=0.7)
        left.plot(base + 0.5 + 0.6 * chances[cell], color="tab:blue", lw=1)
        marks = (
            ("tab:green", scene_.made.raster[cell], 0.25),
            ("tab:orange", spikes[cell] >= threshold, 0.0),
        )
        for colour, active, height in marks:
            frames = np.flatnonzero(active)
            left.plot(frames, np.full(len(frames), base + height), "|", color=colour, ms=6)
    for colour, label in (
        ("0.35", "mean over the pixels of the cell"),
        ("tab:blue", "probability of activity"),
        ("tab:green", "truth"),
        ("tab:orange", "deconvolution above its threshold"),
    ):
        left.plot([], [], color=colour, label=label)
    title = f"four cells of movie {scene_.seed}, all overlapped by others"
    left.set(yticks=[], xlabel="frame", title=title, xlim=(0, 600))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False, fontsize=8)
    names = list(dict.fromkeys(name for _, name in found))
    movies = sorted({group for group, _ in found if group.startswith("movie")})
    for k, name in enumerate(names):
        heights = [found[movie, name][0].f1 for movie in movies]
        right.bar(
            np.arange(len(movies)) + 0.38 * k, heights, 0.36, label=name, color=("tab:blue", "tab:orange")[k]
        )
    noise = [scene(int(movie.split()[1]), FRAMES).noise_variance for movie in movies]
    labels = [f"{movie.split()[1]}\n{value:.3f}" for movie, value in zip(movies, noise, strict=True)]
    right.set_xticks(np.arange(len(movies)) + 0.19, labels, fontsize=8)
    right.set(
        ylim=(0, 1),
        ylabel="F1 of transients",
        title="held-out movies",
        xlabel="movie, and its noise variance",
    )
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--model", help="another network of activity")
    parser.add_argument("--movies", type=int, default=len(HELD_OUT_SEEDS))
    parser.add_argument("--skip-types", action="store_true")
    asked = parser.parse_args()
    network = nets.load_network(asked.model or weights("activity")[0])
    order, threshold, wide, tuned = best_deconvolution([Scene.of(seed) for seed in TUNED_ON])
    print(
        f"deconvolution: AR({order}), {threshold} noise levels, widened: {wide}; F1 {tuned:.3f} where tuned"
    )
    scenes = [Scene.of(seed) for seed in HELD_OUT_SEEDS[: asked.movies]]
    chances = {
        s.seed: predict_activity(s.recording, np.arange(len(s.raw)), network, overlap=0.5)[..., 0]
        for s in scenes
    }
    methods: dict[str, Callable[[Scene], NDArray]] = {
        "network": lambda s: chances[s.seed] >= ACTIVE_FROM,
        "deconvolution": lambda s: _spiking(deconvolved(s.raw, order), threshold, wide, s.smooth),
    }
    found = activity_table(scenes, methods)
    print_activity(found)
    if asked.figure:
        first = scenes[0]
        draw(asked.figure, first, chances[first.seed], deconvolved(first.raw, order), threshold, found)
    if not asked.skip_types:
        typed = [Scene.of(seed, "cell_types") for seed in HELD_OUT_SEEDS[: asked.movies]]
        counts = types_table(typed, nets.load_network(weights("cell_types")[0]))
        print("\n| true | " + " | ".join(DEFAULT_CELL_TYPES.names) + " |\n| --- | --- | --- | --- |")
        for name, row in zip(DEFAULT_CELL_TYPES.names, counts, strict=True):
            print(f"| {name} | " + " | ".join(map(str, row)) + " |")
        print(f"right: {np.trace(counts) / counts.sum():.3f} of {counts.sum()}")


if __name__ == "__main__":
    main()
