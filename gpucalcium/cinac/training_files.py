"""Files of a training run besides the networks: the history, and the state of the optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucalcium.cinac._optional import optional
from gpucalcium.errors import NetworkFileError
from gpucalcium.movies.files import written_whole

if TYPE_CHECKING:
    import torch

    from gpucalcium.cinac.training import History


def save_history(path: Path, history: History) -> None:
    """Write each series of the history, one value for each epoch, as .npz."""
    with written_whole(path) as temporary:
        series: dict[str, Any] = {name: np.array(values) for name, values in history.values.items()}
        np.savez(temporary, **series)


def optimizer_file(model_file: Path) -> Path:
    """Where the state of the optimiser lies, beside a network."""
    return model_file.with_suffix(".optimizer.safetensors")


def save_optimizer(optimizer: torch.optim.Optimizer, model_file: Path) -> None:
    """Write what an optimiser remembers of each weight, and its learning rate."""
    torch = optional("torch", "training", "nets")
    save = optional("safetensors.numpy", "training", "nets").save
    state = optimizer.state_dict()
    tensors = {
        f"{weight}.{name}": np.array(torch.as_tensor(value).cpu().numpy(), order="C")
        for weight, values in state["state"].items()
        for name, value in values.items()
        if value is not None
    }
    tensors["learning_rate"] = np.array([state["param_groups"][0]["lr"]])
    with written_whole(optimizer_file(model_file)) as temporary:
        temporary.write_bytes(save(tensors))


def load_optimizer(optimizer: torch.optim.Optimizer, model_file: Path) -> bool:
    """Take up what `save_optimizer` wrote beside a network; false if it is not there.

    Raises
    ------
    NetworkFileError
        It is of another network.
    """
    path = optimizer_file(model_file)
    if not path.is_file():
        return False
    torch = optional("torch", "training", "nets")
    tensors = optional("safetensors.numpy", "training", "nets").load(path.read_bytes())
    rate = float(tensors.pop("learning_rate")[0])
    state = optimizer.state_dict()
    shapes = [tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"]]
    found: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        weight, _, name = key.partition(".")
        if int(weight) >= len(shapes) or value.shape not in ((), shapes[int(weight)]):
            raise NetworkFileError(f"{path} is the state of the optimiser of another network")
        found.setdefault(int(weight), {})[name] = torch.from_numpy(np.array(value))
    for group in state["param_groups"]:
        group["lr"] = rate
    optimizer.load_state_dict({"state": found, "param_groups": state["param_groups"]})
    return True
