"""Accuracy of registration: every scene with known motion, and the real movies, in one table.

    python -m benchmarks.accuracy_registration [--data ../shared/data] [--seeds 12] [--quick]

Errors are RMS in pixels over frames and axes, one constant per axis taken off; the slope is estimated against true
displacement. The last column is what CaImAn 1.12.1 reaches on the same movies. Real movies are judged by the
correlation of frames with their mean (of a pair: with each other) and the crispness of the mean; both after
interpolation, as the last column is, and after a Fourier shift. Interpolation smooths the noise of frames that moved
by a fraction of a pixel, so the former grows, and the latter falls, without anything being registered.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from gpucalcium.movies import open_movie
from gpucalcium.registration import RigidParams, register_rigid
from gpucalcium.registration.apply import displace
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from tests.registration.scenes import (
    crispness,
    error,
    imposed,
    likeness,
    misses,
    pair_likeness,
    plainly_found,
    real_movies,
    slope,
)

DIM = {"baseline": 60.0, "resting": 0.4}
EDGE = {"sima": 10, "pair": 22}  # pixels left out where frames are judged: at least the largest shift
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
REAL = {  # correlation with the template / crispness relative to the raw movie: rigid, with gSig_filt, and piecewise
    "demo_2p": ("0.652 / 1.004", "0.658 / 0.969", "0.653 / 1.005"),
    "zebrafish 0": ("0.995 / 1.000", "0.995 / 1.000", "0.995 / 1.000"),
    "zebrafish 1": ("0.995 / 1.000", "0.995 / 1.000", "0.995 / 1.000"),
    "sima": ("0.382 / 1.000", "0.421 / 1.008", "0.381 / 1.010"),
    "pair": ("0.730 / 0.953", "0.745 / 0.887", "0.744 / 0.920"),
}
ALIKE = 0.2  # pixels along columns, by which all frames are moved to show what smoothing alone does
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


@dataclass(frozen=True)
class _Judge:
    """Correlation with the template, and crispness relative to the raw movie, of a movie when it is moved."""

    movie: np.ndarray
    edge: int
    pair: bool
    """Two frames: their correlation with each other."""

    def score(self, moved: np.ndarray) -> str:
        alike = pair_likeness if self.pair else likeness
        crisp = crispness(moved, self.edge) / crispness(self.movie, self.edge)
        return f"{alike(moved, self.edge):.3f} / {crisp:.3f}"

    def moved(self, shifts: np.ndarray) -> str:
        """By interpolation, which smooths noise; and by Fourier transform, which does not."""
        ways = (displace(self.movie, shifts, border="reflect", fourier=way) for way in (False, True))
        return ";  ".join(self.score(frames) for frames in ways)


def real(folder: Path) -> None:
    """Correlation with the template and crispness of registered movies, interpolated as theirs are, and moved without
    smoothing; whole-pixel shifts imposed on their frames."""
    for name, movie in real_movies(folder).items():
        judge = _Judge(movie, EDGE.get(name, OTHER_EDGE), pair=name == "pair")
        row(f"{name}, raw", judge.score(movie))
        together = np.tile(np.float32([0, ALIKE]), (len(movie), 1))
        row(f"{name}, nothing registered, all moved by {ALIKE}", judge.moved(together))
        row(f"{name}, plain correlation", judge.moved(plainly_found(movie, 10)))
        for filt, theirs in zip((None, (3, 3)), REAL[name][:2], strict=True):
            row(f"{name}, gSig_filt={filt}", judge.moved(rigid(movie, (10, 10), gSig_filt=filt)), theirs)
        width = min(48, min(movie.shape[1:]) // 2)
        params = PiecewiseParams(
            rigid=RigidParams(max_shifts=(10, 10), border="reflect"),
            strides=(width, width),
            overlaps=(width // 2, width // 2),
        )
        moved = np.empty(movie.shape, np.float32)
        register_piecewise(open_movie(movie), params, out=moved)
        row(f"{name}, piecewise {width}/{width // 2}", judge.score(moved), REAL[name][2])
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
