"""How many cells of hard two-photon movies are found: dense, faint, and made of real footprints and real traces.

    python -m benchmarks.accuracy_semireal [--data ../shared/data] [--seeds judge] [--only NAME] [--cells 1.0]

`--data` holds `simulate.py` and `real/semireal.py`. A cell counts as found if the masks at 25 % of the maximum of a
component and of the cell have an intersection over union of 0.5 (one to one, best total). `strong` is the recall of
cells whose peak is more than three times the noise of their footprint-weighted mean. `r` and `spikes` are medians of
Pearson's r over the cells found, spikes in bins of 4 frames. `--cells` and `--size` are the number of cells and the
width of a cell that the fit is told, over the true ones.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_matrix

from gpucalcium.cnmf.cnmf import CNMF

MASK_CUT, LEAST_IOU, STRONG = 0.25, 0.5, 3.0
SPIKE_BIN = 4
SEEDS = {"choose": (1, 2), "judge": (11, 12, 13)}
QUALITY = {"min_SNR": 2.5, "rval_thr": 0.8, "use_cnn": False}
DEMO_NOISE = {"baseline": 1400, "gain": 45, "read_noise": 23, "background": 0.5}


@dataclass(frozen=True, eq=False)
class Truth:
    """A movie and the cells in it; pixels in Fortran order."""

    movie: NDArray[np.float32]
    A: csc_matrix
    C: NDArray[np.float64]
    S: NDArray[np.float64] | None
    snr: NDArray[np.float64]
    fr: float
    gSig: float
    nb: int


@dataclass(frozen=True)
class Score:
    """What a fit found of a `Truth`."""

    precision: float
    recall: float
    strong: float
    f1: float
    iou: float
    r: float
    spikes: float


def compare(truth: Truth, A: csc_matrix, C: NDArray, S: NDArray) -> Score:
    """Score of components (d, K) with traces and spikes (K, T)."""
    found, cells = (np.asarray(x.toarray()) for x in (A, truth.A))
    found, cells = (x > MASK_CUT * x.max(axis=0, initial=0) for x in (found, cells))
    both = cells.T.astype(np.float64) @ found
    iou = both / np.maximum(cells.sum(0)[:, None] + found.sum(0) - both, 1)
    i, j = linear_sum_assignment(-iou)
    hit = iou[i, j] >= LEAST_IOU
    i, j = i[hit], j[hit]
    hits, strong = len(i), truth.snr > STRONG
    return Score(
        precision=hits / max(found.shape[1], 1),
        recall=hits / cells.shape[1],
        strong=strong[i].sum() / max(strong.sum(), 1),
        f1=2 * hits / (found.shape[1] + cells.shape[1]),
        iou=_median(iou[i, j]),
        r=_median([_r(truth.C[a], C[b]) for a, b in zip(i, j, strict=True)]),
        spikes=np.nan
        if truth.S is None
        else _median([_r(_binned(truth.S[a]), _binned(S[b])) for a, b in zip(i, j, strict=True)]),
    )


def _median(values: Any) -> float:
    return float(np.nanmedian(values)) if len(values) else float("nan")


def _r(x: NDArray, y: NDArray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


def _binned(x: NDArray) -> NDArray[np.float64]:
    return np.asarray(x[: len(x) // SPIKE_BIN * SPIKE_BIN].reshape(-1, SPIKE_BIN).sum(1), np.float64)


# ---------------------------------------------------------------------------- movies


def recipes(data: Path) -> dict[str, Callable[[int], Truth]]:
    """Movie makers by name; each takes a seed."""
    semireal, simulate = _module(data / "real", "semireal"), _module(data, "simulate")
    real = data / "real"

    def demo(which: str, noise: float) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            A, C, dims, _ = semireal.load_components(str(real / "components/demo_2p.npz"), which)
            made = semireal.make_movie(A, C, dims, noise_scale=noise, seed=seed, **DEMO_NOISE)
            return _from_parts(made, None, fr=10.0, gSig=4.5)

        return make

    def spikes_of_demo(which: str, peak: float) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            A, _, dims, _ = semireal.load_components(str(real / "components/demo_2p.npz"), which)
            C, S, _ = semireal.real_traces(str(real / "spikes"), A.shape[1], 1500, 10.0, peak=peak, seed=seed)
            made = semireal.make_movie(A, C, dims, seed=seed, **DEMO_NOISE)
            return _from_parts(made, S, fr=10.0, gSig=4.5)

        return make

    def dense(share: float, peak: float, noise: float, side: int = 96) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            rng = np.random.default_rng(seed)
            session = 1 + seed % 3
            A, dims = semireal.load_footprints(str(real / f"footprints/session_{session}.npz"))
            corner = [int(rng.integers(20, n - 20 - side)) for n in dims]
            A, dims, _ = semireal.crop_components(A, dims, *corner, side, side)
            kept = np.sort(rng.permutation(A.shape[1])[: round(share * A.shape[1])])
            A = A[:, kept]
            C, S, _ = semireal.real_traces(str(real / "spikes"), A.shape[1], 1200, 10.0, peak=peak, seed=seed)
            made = semireal.make_movie(A, C, dims, noise_scale=noise, seed=seed)
            return _from_parts(made, S, fr=10.0, gSig=2.5)

        return make

    def crowd(K: int, T: int = 2000, distance: float = 1.3, **options: float) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            from gpucalcium.simulate import two_photon

            made = two_photon(
                T, (128, 128), K, seed=seed, rise_s=0.08, min_distance=4.5 * distance, **options
            )
            sd = made.C.max(1) - made.resting
            noise = sd / np.maximum(made.snr(), 1e-9)
            snr = (np.percentile(made.C, 99, axis=1) - made.resting) / noise
            movie = made.movie.astype(np.float32)
            return Truth(movie, made.A, made.C, made.S, snr, 20.0, 4.0, 2)

        return make

    def easy(seed: int) -> Truth:
        made = simulate.two_photon(T=2000, seed=seed)
        full = np.full(made["A"].shape[1], np.inf)
        return Truth(made["Y"], made["A"], made["C"], made["S"], full, 20.0, 4.0, 2)

    return {
        "easy": easy,
        "demo": demo("A", 1.0),
        "demo faint": demo("A", 3.0),
        "demo alt": demo("A_alt", 1.0),
        "demo alt faint": demo("A_alt", 3.0),
        "demo spikes": spikes_of_demo("A", 1000),
        "demo spikes faint": spikes_of_demo("A_alt", 400),
        "dense": dense(1.0, 400, 1.0),
        "dense faint": dense(1.0, 200, 1.0),
        "dense bright": dense(1.0, 800, 1.0),
        "half dense": dense(0.5, 400, 1.0),
        "half dense faint": dense(0.5, 200, 1.0),
        "crowd 120": crowd(120),
        "crowd 120 faint": crowd(120, amplitude=10.0),
        "crowd 180": crowd(180, distance=1.0),
        "crowd 180 faint": crowd(180, distance=1.0, amplitude=10.0),
    }


def _module(folder: Path, name: str) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def _from_parts(made: dict[str, Any], S: NDArray | None, fr: float, gSig: float) -> Truth:
    dims = made["rest"].shape
    order = np.arange(dims[0] * dims[1]).reshape(dims).ravel(order="F")
    A = csc_matrix(csc_matrix(made["A"]).tocsr()[order])
    return Truth(made["movie"], A, made["C"], S, made["snr"], fr, gSig, 2)


# ---------------------------------------------------------------------------- fits


def fitted(truth: Truth, way: str, cells: float = 1.0, size: float = 1.0, **more: Any) -> CNMF:
    """A fit of the whole field, or of patches and then the whole field, with components evaluated."""
    field, K = truth.movie.shape[1:], truth.A.shape[1]
    gSig = truth.gSig * size
    options: dict[str, Any] = {
        "gSig": [gSig, gSig],
        "gnb": truth.nb,
        "fr": truth.fr,
        "decay_time": 0.6,
        "p": 2,
    }
    if way == "full":
        found = CNMF(1, k=max(round(cells * K), 1), **options, **more).fit(truth.movie)
    else:
        rf = min(20, min(field) // 3)
        share = (2 * rf + 1) ** 2 / (field[0] * field[1])
        patches = {"rf": rf, "stride": rf // 2, "only_init_patch": True}
        first = CNMF(1, k=max(round(cells * K * share), 1), **options, **patches, **more).fit(truth.movie)
        found = first.refit(truth.movie)
    found.params.change_params({"quality": QUALITY})
    found.estimates.evaluate_components(truth.movie, found.params)
    return found


def scored(truth: Truth, found: CNMF) -> tuple[Score, Score]:
    """Of all components, and of the accepted ones."""
    e = found.estimates
    good = e.idx_components
    return compare(truth, e.A, e.C, e.S), compare(truth, e.A[:, good], e.C[good], e.S[good])


def rows(
    truth: Truth, ways: list[str], cells: float, size: float
) -> Iterator[tuple[str, Score, Score, float, int]]:
    """What each way of fitting finds, the components it leaves, and the seconds it takes."""
    for way in ways:
        start = time.process_time()
        found = fitted(truth, way, cells, size)
        taken = time.process_time() - start
        yield way, *scored(truth, found), taken, found.estimates.A.shape[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--seeds", default="judge", help="'choose', 'judge', or numbers with commas")
    parser.add_argument("--only", help="names of recipes, with commas")
    parser.add_argument("--ways", default="full,patches")
    parser.add_argument("--cells", type=float, default=1.2)
    parser.add_argument("--size", type=float, default=1.0)
    given = parser.parse_args()
    seeds = SEEDS.get(given.seeds) or tuple(map(int, given.seeds.split(",")))
    makers = recipes(given.data)
    names = given.only.split(",") if given.only else list(makers)
    head = ("all F1", "F1", "precis.", "recall", "strong", "IoU", "r", "spikes", "s CPU", "comps", "cells")
    print(f"{'recipe':20}{'way':9}" + "".join(f"{h:>8}" for h in head))
    for name in names:
        table: dict[str, list[list[float]]] = {}
        for seed in seeds:
            truth = makers[name](seed)
            for way, every, kept, taken, count in rows(truth, given.ways.split(","), given.cells, given.size):
                s = kept
                line = [every.f1, s.f1, s.precision, s.recall, s.strong, s.iou, s.r, s.spikes, taken, count]
                table.setdefault(way, []).append([*line, truth.A.shape[1]])
        for way, lines in table.items():
            mean = np.mean(lines, axis=0)
            print(f"{name:20}{way:9}" + "".join(f"{x:8.3f}" for x in mean), flush=True)


if __name__ == "__main__":
    main()
