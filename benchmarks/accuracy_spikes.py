"""How well rates are inferred where an electrode listened: leave one data set out, and print the table.

    python -m benchmarks.accuracy_spikes FOLDER

FOLDER holds one .npz a recording with `dff`, `time`, `frame_rate`, `spike_times` and `dataset`
(Rupprecht et al. 2021, Nat. Neurosci. 24:1324, and sources there). Score: Pearson correlation of the inferred
with the true rate in bins of 1/7.5 s, both smoothed with a Gaussian of 0.2 s. Settings that hold for a data
set are those with the best mean over the other data sets.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from gpucalcium.deconvolution import SpikeSettings, constrained_foopsi, infer_spikes

BINS, WIDTH = 7.5, 0.2  # Hz, seconds
CHOICES: dict[str, tuple[Any, ...]] = {
    "exponent": (0.7, 0.8, 0.9, 1.0),
    "widening": (1.0, 1.15, 1.3),
    "smoothing": (0.05, 0.1, 0.15),
    "baseline_window": (15.0, 30.0, 60.0, None),
}


@dataclass(frozen=True)
class Recording:
    """Fluorescence and spikes of one cell."""

    name: str
    dataset: str
    dff: NDArray[np.float32]
    time: NDArray[np.float64]
    frame_rate: float
    spikes: NDArray[np.float64]

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read one recording."""
        with np.load(path) as z:
            return cls(
                path.stem, str(z["dataset"]), z["dff"], z["time"], float(z["frame_rate"]), z["spike_times"]
            )

    def score(self, rate: NDArray, time: NDArray[np.float64] | None = None) -> float:
        """Correlation of a rate at `time` (default: of the frames) with the true one."""
        edges = np.arange(self.time[0], self.time[-1], 1 / BINS)
        true = np.histogram(self.spikes, edges)[0].astype(float)
        place = np.digitize(self.time if time is None else time, edges) - 1
        inside = (place >= 0) & (place < len(true))
        count = np.bincount(place[inside], minlength=len(true))
        total = np.bincount(place[inside], rate[inside], len(true))
        filled = np.flatnonzero(count)
        inferred = np.interp(np.arange(len(true)), filled, total[filled] / count[filled])
        smooth = (gaussian_filter1d(x, WIDTH * BINS) for x in (inferred, true))
        return float(np.corrcoef(*smooth)[0, 1])


def of_sparse_ar2(recording: Recording) -> float:
    """Score of the sparsest AR(2) calcium of the trace averaged to about 30 Hz."""
    block = max(1, round(recording.frame_rate / 30))
    frames = len(recording.dff) // block * block
    dff, time = (x[:frames].reshape(-1, block).mean(axis=1) for x in (recording.dff, recording.time))
    spikes = constrained_foopsi(dff, p=2, bas_nonneg=False)[5]
    return recording.score(spikes, time)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    recordings = [Recording.load(path) for path in sorted(parser.parse_args().folder.glob("*.npz"))]
    if not recordings:
        parser.error("the folder holds no .npz file")

    def scores(settings: SpikeSettings) -> NDArray[np.float64]:
        return np.array(
            [r.score(infer_spikes(r.dff, r.frame_rate, settings=settings).rate) for r in recordings]
        )

    sets = np.array([r.dataset for r in recordings])
    grid = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    table = np.array([scores(SpikeSettings(**choice)) for choice in grid])
    left_out = np.empty(len(recordings))
    for name in np.unique(sets):
        chosen = int(np.argmax(table[:, sets != name].mean(axis=1)))
        left_out[sets == name] = table[chosen][sets == name]
        print(f"without {name}: {grid[chosen]}")
    columns = {
        "sparse AR(2)": np.array([of_sparse_ar2(r) for r in recordings]),
        "left out": left_out,
        "default": scores(SpikeSettings()),
    }
    print(f"\n{'recording':45s}" + "".join(f"{name:>14s}" for name in columns))
    for i, recording in enumerate(recordings):
        print(f"{recording.name:45s}" + "".join(f"{values[i]:14.3f}" for values in columns.values()))
    for name, of in (("median", np.median), ("mean", np.mean), ("lowest", np.min)):
        print(f"{name:45s}" + "".join(f"{of(values):14.3f}" for values in columns.values()))
    medians = table.mean(axis=1), np.median(table, axis=1)
    print(
        f"\nover all {len(grid)} settings: mean {medians[0].min():.3f}-{medians[0].max():.3f}, "
        f"median {medians[1].min():.3f}-{medians[1].max():.3f}, lowest recording {table.min():.3f}"
    )


if __name__ == "__main__":
    main()
