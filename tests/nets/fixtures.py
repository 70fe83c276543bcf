"""The Keras networks of tests/data/nets, and small networks of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.nets import NetworkSpec

FOLDER = Path(__file__).parents[1] / "data" / "nets"
NAMES = (
    "activity single_vector attention_after batch_norm per_frame cell_type cell_type_binary "
    "older newer untied nested bare"
).split()

TINY = NetworkSpec(window_len=8, patch_size=13, conv_filters=(3, 4, 5, 6), lstm_sizes=(5, 7), bin_lstm_size=6)


def stored(name: str) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Inputs of a network and what Keras gives for them."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        inputs = {key: arrays[key] for key in arrays.files if key.startswith("input")}
        return inputs, arrays["output"]


def description(name: str) -> dict[str, Any]:
    """What a network's JSON says, to be changed."""
    about: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return about


def windows(network: Any, n: int = 3, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random input for a network."""
    rng = np.random.default_rng(seed)
    shape = (n, network.window_len, network.patch_size, network.patch_size)
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name in network.inputs}
