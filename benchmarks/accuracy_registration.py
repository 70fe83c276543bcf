"""Accuracy of registration: every scene with known motion, and the real movies, in one table.

    python -m benchmarks.accuracy_registration [--data ../shared/data] [--seeds 12] [--quick]

Errors are RMS in pixels over frames and axes, one constant per axis taken off; the slope is estimated against true
displacement. The last column is what CaImAn 1.12.1 reaches on the same movies; for the pair of frames it is the
correlation of the two, here it is that of each with their mean.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from gpucalcium.movies import open_movie
from gpucalcium.registration import RigidParams, register_rigid
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from tests.registration.scenes import (
    crispness,
    error,
    imposed,
    likeness,
    misses,
    real_movies,
    slope,
)

DIM = {"baseline": 60.0, "resting": 0.4}
EDGE = {
    "sima": 10
}  # pixels left out where correlation and crispness are measured: at least the largest shift
OTHER_EDGE = 5
RIGID = {
    "default": ({}, ("0.090", "0.282")),
    "niter_rig=3": ({"niter_rig": 3}, ("0.103", "0.363")),
    "gSig_filt=(3, 3)": ({"gSig_filt": (3, 3)}, ("0.048", "0.064")),
}
LONG = {
    "default": ({}, "0.106"),
    "gSig_filt=(3, 3)": ({"gSig_filt": (3, 3)}, "0.045"),
    "gSig_filt=(7, 7)": ({"gSig_filt": (7, 7)}, "0.107"),
    "niter_rig=3, Fourier": ({"niter_rig": 3, "fourier": True}, "0.122"),
}
PIECEWISE = {None: ("0.421", "0.917"), (3, 3): ("0.163", "0.256")}
REAL = {  # correlation with the template / crispness relative to the raw movie: rigid, and with gSig_filt
    "demo_2p": ("0.652 / 1.004", "0.658 / 0.969"),
    "zebrafish 0": ("0.995 / 1.000", "0.995 / 1.000"),
    "zebrafish 1": ("0.995 / 1.000", "0.995 / 1.000"),
    "sima": ("0.382 / 1.000", "0.421 / 1.008"),
    "pair": ("0.730 / 0.953", "0.745 / 0.887"),
}
IMPOSED = {
    "demo_2p": ("0.87, 5 %", "12 %"),
    "zebrafish 0": ("0.08-0.11", "0.05-0.09"),
    "zebrafish 1": ("0.08-0.11", "0.05-0.09"),
}


def row(what: str, here: str, theirs: str = "") -> None:
    """One line of the table."""
    print(f"{what:58} {here:28} {theirs}", flush=True)


def rigid(movie: np.ndarray, bound: tuple[int, ...], **params: object) -> np.ndarray:
    """Shifts of `movie`."""
    return register_rigid(open_movie(movie), RigidParams(max_shifts=bound, **params)).shifts


def large_scenes(simulate: ModuleType) -> None:
    """256 x 256, bright and dim, rigid."""
    for which, (name, scene) in enumerate({"bright": {}, "dim": DIM}.items()):
        made = simulate.moving_two_photon(T=300, shape=(256, 256), K=200, seed=6, **scene)
        for label, (params, theirs) in RIGID.items():
            found = rigid(made["Y"], (10, 10), **params)
            slopes = " ".join(f"{x:.3f}" for x in slope(found, -made["shifts"]))
            row(
                f"256x256 {name}, {label}",
                f"{error(found, -made['shifts']):.4f}  slope {slopes}",
                theirs[which],
            )


def piecewise_scenes(simulate: ModuleType) -> None:
    """256 x 256, patches of 48 + 24 pixels: the total field at their centres."""
    for which, (name, scene) in enumerate({"bright": {}, "dim": DIM}.items()):
        made = simulate.moving_two_photon(T=300, shape=(256, 256), K=200, seed=6, nonrigid=3.0, **scene)
        for filt, theirs in PIECEWISE.items():
            params = PiecewiseParams(
                rigid=RigidParams(max_shifts=(10, 10), gSig_filt=filt), strides=(48, 48), overlaps=(24, 24)
            )
            found = register_piecewise(open_movie(made["Y"]), params)
            rows, columns = (np.rint(c).astype(int) for c in found.grid.centres)
            modes = made["modes"][:, rows][:, :, columns]
            truth = made["shifts"][:, None, None] + np.einsum("tam,mij->tija", made["coef"], modes)
            row(
                f"256x256 {name}, piecewise 48/24, gSig_filt={filt}",
                f"{_field_error(found.field, -truth):.4f}",
                theirs[which],
            )


def _field_error(found: np.ndarray, truth: np.ndarray) -> float:
    return error(found.reshape(-1, 2), truth.reshape(-1, 2))


def long_scene(simulate: ModuleType) -> None:
    """1000 frames of 256 x 256."""
    made = simulate.moving_two_photon(T=1000, shape=(256, 256), K=200, seed=5)
    for label, (params, theirs) in LONG.items():
        row(
            f"256x256, T=1000, {label}",
            f"{error(rigid(made['Y'], (10, 10), **params), -made['shifts']):.4f}",
            theirs,
        )


def small_scenes(simulate: ModuleType, seeds: int) -> None:
    """64 x 60, twelve cells, shifts up to four pixels."""
    errors: dict[str, list[float]] = {"max_shifts 4": [], "max_shifts 6": [], "gSig_filt=(3, 3)": []}
    for seed in range(1, seeds + 1):
        made = simulate.moving_two_photon(T=100, shape=(64, 60), K=12, max_shift=4.0, seed=seed)
        errors["max_shifts 4"].append(error(rigid(made["Y"], (4, 4)), -made["shifts"]))
        errors["max_shifts 6"].append(error(rigid(made["Y"], (6, 6)), -made["shifts"]))
        errors["gSig_filt=(3, 3)"].append(error(rigid(made["Y"], (4, 4), gSig_filt=(3, 3)), -made["shifts"]))
    for label, values in errors.items():
        row(f"64x60, {seeds} seeds, {label}", f"mean {np.mean(values):.4f} max {max(values):.4f}")


def reference_inputs(reference: ModuleType) -> None:
    """The small movie and the volume that have stored results."""
    plane, _, volume = reference.inputs("motion")
    stored = reference.load("motion")
    for label, params, key in (
        ("default", {}, "MC_rigid_opencv_shifts"),
        ("gSig_filt=(3, 3)", {"gSig_filt": (3, 3)}, "MC_rigid_filt_shifts"),
    ):
        truth = -plane["shifts"]
        row(
            f"64x60, 14 cells, {label}",
            f"{error(rigid(plane['Y'], (8, 8), **params), truth):.4f}",
            f"{error(stored[key], truth):.3f}",
        )
    found, truth = rigid(volume["Y"], (4, 4, 2), splits_rig=3, fourier=True), -volume["shifts"]
    axes = [[error(x[:, [a]], truth[:, [a]]) for a in range(3)] for x in (found, stored["MC_3d_pw0_shifts"])]
    here, theirs = (" ".join(f"{e:.3f}" for e in values) for values in axes)
    row("40x36x8 volume, per axis", here, theirs)


def real(folder: Path) -> None:
    """Correlation with the template and crispness of registered movies; whole-pixel shifts imposed on their frames."""
    for name, movie in real_movies(folder).items():
        edge = EDGE.get(name, OTHER_EDGE)
        raw = likeness(movie, edge), crispness(movie, edge)
        for filt, theirs in zip((None, (3, 3)), REAL[name], strict=True):
            moved = np.empty(movie.shape, np.float32)
            params = RigidParams(max_shifts=(10, 10), gSig_filt=filt, border="reflect")
            register_rigid(open_movie(movie), params, out=moved)
            here = f"{raw[0]:.3f} -> {likeness(moved, edge):.3f} / {crispness(moved, edge) / raw[1]:.3f}"
            row(f"{name}, template correlation / crispness, gSig_filt={filt}", here, theirs)
    for name, movie in real_movies(folder).items():
        if name not in IMPOSED:
            continue  # moves itself, or has two frames
        for filt, theirs in zip((None, (3, 3)), IMPOSED[name], strict=True):
            found = []
            for seed in range(3):
                scene = imposed(movie, seed=seed)
                found.append(misses(rigid(scene.movie, (8, 8), gSig_filt=filt), scene.shifts))
            rms, share = np.mean(found, axis=0)
            row(
                f"{name}, imposed shifts, gSig_filt={filt}",
                f"{rms:.4f}, {100 * share:.1f} % beyond 0.5",
                theirs,
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--seeds", type=int, default=12, help="scenes of 64 x 60 pixels")
    parser.add_argument("--quick", action="store_true", help="without the scenes of 256 x 256 pixels")
    options = parser.parse_args()
    sys.path.insert(0, str(options.data))
    simulate, reference = (importlib.import_module(name) for name in ("simulate", "reference"))
    row("movie", "here", "CaImAn")
    small_scenes(simulate, options.seeds)
    reference_inputs(reference)
    real(options.data / "real/movies")
    if not options.quick:
        large_scenes(simulate)
        long_scene(simulate)
        piecewise_scenes(simulate)


if __name__ == "__main__":
    main()
