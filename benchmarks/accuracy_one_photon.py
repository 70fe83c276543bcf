"""How many cells of one-photon movies are found: simulated, and made of real footprints and real traces.

    python -m benchmarks.accuracy_one_photon [--data ../shared/data] [--seeds 1,2] [--only NAME] [--sub 2]

`--data` holds `simulate.py` and `real/semireal.py`; scored as in `accuracy_semireal`. `--sub` is the factor by which
the movie that is searched is made smaller in time, and in space where cells are large (sigma 3). Patches have rf 40
and stride 20.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from benchmarks.accuracy_semireal import Truth, compare
from gpucalcium.cnmf.cnmf import CNMF
from gpucalcium.cnmf.params import CNMFParams

RING = {"method_init": "corr_pnr", "center_psf": True, "k": None, "gnb": 0, "p": 1, "ring_size_factor": 1.4}
SEEDS = {"min_corr": 0.8, "min_pnr": 8, "merge_thresh": 0.7}
PATCHES = {"rf": 40, "stride": 20, "only_init_patch": True}
LARGE = 3.0  # pixels: sigma from which a cell may be sought in blocks of pixels


def recipes(data: Path) -> dict[str, Callable[[int], Truth]]:
    """Movie makers by name; each takes a seed."""
    semireal, simulate = _module(data / "real", "semireal"), _module(data, "simulate")
    real = data / "real"

    def truth(made: dict[str, Any], S: NDArray | None, fr: float, sigma: float) -> Truth:
        dims = made["rest"].shape
        order = np.arange(dims[0] * dims[1]).reshape(dims).ravel(order="F")
        A = csc_matrix(csc_matrix(made["A"]).tocsr()[order])
        return Truth(made["movie"], A, made["C"], S, made["snr"], fr, sigma, 0)

    def simulated(seed: int) -> Truth:
        made = simulate.one_photon(T=1000, seed=seed)
        snr = np.full(made["A"].shape[1], np.inf)
        return Truth(made["Y"], made["A"], made["C"], made["S"], snr, 10.0, 3.0, 0)

    def demo(which: str, noise: float) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            A, C, dims, _ = semireal.load_components(str(real / "components/demo_2p.npz"), which)
            made = semireal.make_movie(A, C, dims, T=1500, kind="1p", noise_scale=noise, seed=seed)
            return truth(made, None, 10.0, 3.0)

        return make

    def miniscope(seed: int) -> Truth:
        A, C, dims, _ = semireal.load_components(str(real / "components/miniscope_1p.npz"))
        part = C[:, 500 * seed : 500 * seed + 1500]
        part = 200 * part / np.maximum(part.max(1, keepdims=True), 1e-9)
        return truth(semireal.make_movie(A, part, dims, kind="1p", seed=seed), None, 20.0, 2.0)

    def cells(share: float, peak: float, side: int = 96) -> Callable[[int], Truth]:
        def make(seed: int) -> Truth:
            rng = np.random.default_rng(seed)
            A, dims = semireal.load_footprints(str(real / f"footprints/session_{1 + seed % 3}.npz"))
            corner = [int(rng.integers(20, n - 20 - side)) for n in dims]
            A, dims, _ = semireal.crop_components(A, dims, *corner, side, side)
            A = A[:, np.sort(rng.permutation(A.shape[1])[: round(share * A.shape[1])])]
            C, S, _ = semireal.real_traces(str(real / "spikes"), A.shape[1], 1200, 10.0, peak=peak, seed=seed)
            return truth(semireal.make_movie(A, C, dims, kind="1p", seed=seed), S, 10.0, 2.5)

        return make

    return {
        "simulated": simulated,
        "demo": demo("A", 1.0),
        "demo alt faint": demo("A_alt", 3.0),
        "miniscope": miniscope,
        "cells sparse": cells(0.25, 300),
        "cells half": cells(0.5, 300),
        "cells half faint": cells(0.5, 120),
        "cells dense": cells(1.0, 300),
    }


def _module(folder: Path, name: str) -> ModuleType:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def fitted(truth: Truth, way: str, sub: int) -> Any:
    """Estimates of a fit of the whole field, or of patches."""
    space = sub if truth.gSig >= LARGE else 1
    size = 4 * truth.gSig + 1
    smaller = {"p_ssub": space, "p_tsub": sub} if way == "patches" else {"ssub": space, "tsub": sub}
    options: dict[str, Any] = {**RING, **SEEDS, **smaller, "gSig": (truth.gSig,) * 2, "gSiz": (size,) * 2}
    options |= {"fr": truth.fr, "decay_time": 0.6} | (
        PATCHES if way == "patches" else {"only_init_patch": False}
    )
    return CNMF(1, params=CNMFParams(**options)).fit(truth.movie).estimates


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--only", help="names of recipes, with commas")
    parser.add_argument("--ways", default="full,patches")
    parser.add_argument("--sub", type=int, default=2)
    given = parser.parse_args()
    makers = recipes(given.data)
    head = ("cells", "comps", "precis.", "recall", "F1", "IoU", "r", "spikes", "s CPU")
    print(f"{'recipe':20}{'way':9}" + "".join(f"{h:>8}" for h in head))
    for name in given.only.split(",") if given.only else makers:
        for way in given.ways.split(","):
            lines = []
            for seed in map(int, given.seeds.split(",")):
                truth, start = makers[name](seed), time.process_time()
                found = fitted(truth, way, given.sub)
                taken = time.process_time() - start
                s = compare(truth, csc_matrix(found.A), found.C, found.S)
                parts = s.precision, s.recall, s.f1, s.iou, s.r, s.spikes
                lines.append([truth.A.shape[1], found.A.shape[1], *parts, taken])
            print(f"{name:20}{way:9}" + "".join(f"{x:8.3f}" for x in np.mean(lines, axis=0)), flush=True)


if __name__ == "__main__":
    main()
