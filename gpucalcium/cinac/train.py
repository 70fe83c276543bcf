"""Training of the classifiers that come with the library, on simulated movies.

    python -m gpucalcium.cinac.train activity RESULTS
    python -m gpucalcium.cinac.train cell_types RESULTS
    python -m gpucalcium.cinac.train activity RESULTS --full

The small networks take less than an hour on two CPU cores; ``--full`` trains networks of the published size, on a GPU.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucalcium import nets
from gpucalcium.cinac.model import CinacModel
from gpucalcium.cinac.simulated import SimulatedRecording, SimulationParams, simulate_recording

log = logging.getLogger(__name__)

TRAINING_SEEDS = range(10)
"""Of the movies that the shipped networks were trained on."""
HELD_OUT_SEEDS = range(1000, 1006)
"""Of those they are judged by; never trained on."""
SCENE_KEY = 77  # so that a scene's setting and its movie are drawn from different streams

SMALL: Mapping[str, Any] = {
    "max_width": 17,
    "max_height": 17,
    "conv_filters": (8, 8, 16, 16),
    "lstm_layers_size": (32,),
    "bin_lstm_size": 32,
    "dropout_value": 0.1,
    "dropout_value_rnn": 0.1,
    "with_batch_normalization": True,
    "apply_attention": False,
    "optimizer_choice": "Adam",
    "learning_rate_start": 3e-3,
    "learning_rate_reduction_patience": 3,
    "clip_norm": 1.0,
}
"""Small networks. Of activity with batch normalisation, which learns in far fewer steps."""
OF_ACTIVITY: Mapping[str, Any] = {
    "overlap_value": 0.5,
    "keep_short_segments": 0,
    "weighted_windows": False,
    "per_frame_head": True,
    "patches_per_epoch": 1000,
    "max_validation_patches": 200,
    "n_epochs": 25,
}
OF_TYPES: Mapping[str, Any] = {
    "cell_type_classifier_mode": True,
    "with_all_pixels": True,
    "window_len": 50,
    "with_batch_normalization": False,
    "learning_rate_start": 1e-3,
    "batch_size": 16,
    "n_windows_len_to_keep_by_cell": 4,
    "patches_per_epoch": 1600,
    "max_validation_patches": 200,
    "n_epochs": 14,
}
FULL: Mapping[str, Any] = {"n_epochs": 15, "batch_size": 64}
"""With ``--full``: networks of activity of the published size, and all else as `CinacModel` has it."""
FULL_OF_TYPES: Mapping[str, Any] = {
    **FULL,
    "max_width": 20,
    "max_height": 20,
    "window_len": 500,
    "conv_filters": (32, 32, 64, 64),
    "lstm_layers_size": (64, 32),
    "bin_lstm_size": 64,
}
"""Likewise of types of cells."""
DATA = (
    "overlap_value keep_short_segments cell_type_classifier_mode with_all_pixels n_windows_len_to_keep_by_cell"
).split()
"""Of these, what says how the movies are used, and holds for networks of any size."""
TYPE_SHARES = {"pyramidal": 1.0, "interneuron": 1.0, "noise": 1.0}


def scene(seed: int, n_frames: int, type_shares: Mapping[str, float] | None = None) -> SimulationParams:
    """How a movie is simulated: motion always; vessels, neuropil and noise as the seed says.

    Parameters
    ----------
    seed : int
    n_frames : int
    type_shares : mapping of type to share, optional
        Default: pyramidal cells only.

    Returns
    -------
    SimulationParams
        0 to 2 vessels, neuropil of 0 to 0.3 baselines, a noise variance of 0.005 to 0.04.
    """
    rng = np.random.default_rng([SCENE_KEY, seed])
    return SimulationParams(
        n_frames=n_frames,
        with_mvt=True,
        n_vessels=int(rng.integers(0, 3)),
        neuropil=float(rng.uniform(0, 0.3)),
        noise_variance=float(rng.uniform(0.005, 0.04)),
        non_overlap_by_cell_range=(1, 4),
        cell_types=dict(type_shares or {"pyramidal": 1.0}),
    )


def simulated(seeds: Sequence[int], n_frames: int, what: str = "activity") -> list[SimulatedRecording]:
    """Movies of `scene`; for "cell_types" with all types alike."""
    shares = TYPE_SHARES if what == "cell_types" else None
    return [simulate_recording(seed, scene(seed, n_frames, shares)) for seed in seeds]


def model(what: str, results: Path, *, full: bool, device: str | None = None, **more: Any) -> CinacModel:
    """The model that is trained, without data.

    Parameters
    ----------
    what : "activity" or "cell_types"
    results : Path
    full : bool
        Networks of the published size.
    device : str, optional
    **more
        Other parameters of `CinacModel`, that count more.
    """
    types = what == "cell_types"
    kind = OF_TYPES if types else OF_ACTIVITY
    if full:
        kind = {name: kind[name] for name in kind if name in DATA}
    sizes = (FULL_OF_TYPES if types else FULL) if full else SMALL
    chosen = {**sizes, **kind, "results_path": results, "seed_value": 0, "device": device}
    return CinacModel(**{**chosen, **more})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write ``{what}.json`` and ``{what}.safetensors`` of the best epoch."""
    parser = argparse.ArgumentParser(prog="gpucalcium.cinac.train", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("activity", "cell_types"))
    parser.add_argument("results", type=Path, help="folder for the networks and the history")
    parser.add_argument("--full", action="store_true", help="networks of the published size, for a GPU")
    parser.add_argument("--frames", type=int, default=1000, help="of each movie")
    parser.add_argument("--movies", type=int, default=len(TRAINING_SEEDS))
    parser.add_argument("--epochs", type=int, help="default: as set for the network")
    parser.add_argument("--device", help="cpu, cuda or cuda:1")
    asked = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    more = {} if asked.epochs is None else {"n_epochs": asked.epochs}
    trained = model(asked.what, asked.results, full=asked.full, device=asked.device, **more)
    for seed, made in enumerate(simulated(range(asked.movies), asked.frames, asked.what)):
        trained.add_recording(
            made.recording(f"simulated_{seed}"), made.raster, cell_types=dict(enumerate(made.cell_types))
        )
    trained.prepare_model()
    trained.fit()
    assert trained.network is not None
    files = nets.save_network(trained.network, asked.results / asked.what)
    log.info("written: %s and %s", *files)


if __name__ == "__main__":
    main()
