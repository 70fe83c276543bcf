"""How much memory a piece of work takes: ``python -m tests.memory_probe WORK FILE BUDGET SLACK``.

Prints the growth of the resident memory in bytes. Everything is compiled and loaded on a few frames first;
then the address space is limited to what is mapped already plus BUDGET plus SLACK.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpucalcium import backend
from gpucalcium.images import local_correlations
from gpucalcium.movies import open_movie, save_memmap
from gpucalcium.registration import MotionCorrect, compute_metrics_motion_correction, residual_motion

FEW_FRAMES = 64


def mean_image(source: backend.FrameSource) -> np.ndarray:
    sums = np.zeros(source.shape[1:])
    for frames in backend.stream(source):
        sums += frames.sum(axis=0, dtype=np.float64)
    return sums / len(source)


def register(source: backend.FrameSource) -> None:
    MotionCorrect(source, max_shifts=(6, 6)).motion_correct(save_movie=True)


def register_patches(source: backend.FrameSource) -> None:
    settings = {"pw_rigid": True, "strides": (48, 48), "overlaps": (24, 24), "save_format": "hdf5"}
    MotionCorrect(source, resume=True, **settings).motion_correct(save_movie=True)


def predict(source: backend.FrameSource) -> None:
    """Activity of 6 cells by a network of a few lines."""
    from gpucalcium.cinac import CinacDataMovie, CinacRecording, predict_activity
    from tests.cinac.models import Halved

    recording = CinacRecording("film")
    recording.set_movie(CinacDataMovie(source))
    square = np.array([(0, 4, 4, 0), (0, 0, 4, 4)])
    places = np.indices((2, 3)).reshape(2, -1) * 40 + 6
    recording.set_rois_2d_array([square + place[::-1, None] for place in places.T], from_matlab=False)
    predict_activity(recording, range(6), Halved(window_len=20, n_inputs=1, features=64))


WORK: dict[str, Callable[[backend.FrameSource], object]] = {
    "mean": mean_image,
    "local_correlations": lambda source: local_correlations(source, swap_dim=False),
    "register": register,
    "register_patches": register_patches,
    "judge": lambda source: compute_metrics_motion_correction(
        source, 100, 100, winsize=9, resize_fact_flow=0.001
    ),
    "residual": lambda source: residual_motion(source, components=5),
    "predict": predict,
    "transpose": lambda source: save_memmap([open_movie(source, subindices=slice(6000))], order="C"),
}


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main(work: str, file: str, budget: int, slack: int) -> None:
    source = open_movie(file)
    with backend.use("cpu"), backend.limit(memory=budget):
        with backend.limit(chunk_frames=16):
            WORK[work](open_movie(source, subindices=slice(FEW_FRAMES)))
        room = status("VmSize") + budget + slack
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = status("VmRSS")
        WORK[work](source)
        print(status("VmHWM") - before)  # noqa: T201


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[2]).parent) as folder:
        os.environ["GPUCALCIUM_TEMP"] = folder
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
