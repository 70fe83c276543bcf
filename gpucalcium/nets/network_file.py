"""Networks on disk: our own format (JSON and safetensors), and the choice between it and Keras files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import (
    MissingExtraError,
    MissingWeightsError,
    NetworkFileError,
    ParameterError,
)
from gpucalcium.movies.files import written_whole
from gpucalcium.nets.plan import Plan

if TYPE_CHECKING:
    from gpucalcium.nets.cinac_network import Network

FORMAT, VERSION = "gpucalcium network", 1


def save_network(network: Network, path: str | Path) -> tuple[Path, Path]:
    """Write a network as ``path.json`` (its layers) and ``path.safetensors`` (its weights).

    Each file takes the place of an older one only when it is whole, and the first names the second's digest, so
    that files of two networks are not taken for one.

    Parameters
    ----------
    network : Network
    path : path
        With or without ``.json``; the folder must be there.

    Returns
    -------
    model_file, weights_file : Path
        What `load_network` takes.
    """
    from safetensors.numpy import save

    path = Path(path)
    stem = path.with_suffix("") if path.suffix == ".json" else path
    model_file, weights_file = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.safetensors")
    state = network.torch_module.state_dict()
    data = save({name: np.ascontiguousarray(value.cpu().numpy()) for name, value in state.items()})
    about = {
        "format": FORMAT,
        "version": VERSION,
        "weights": {"file": weights_file.name, "sha256": hashlib.sha256(data).hexdigest()},
        "network": network.plan.to_json(),
    }
    with written_whole(weights_file) as temporary:
        temporary.write_bytes(data)
    with written_whole(model_file) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
    return model_file, weights_file


def load_network(
    model_file: str | Path,
    weights_file: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "float32",
) -> Network:
    """Read a network.

    Parameters
    ----------
    model_file : path
        ``.json``, as `save_network` wrote it.
    weights_file : path, optional
        ``.safetensors``; default: the file that the JSON names, beside it.
    device : str, optional
        "cpu", "cuda" or "cuda:1"; default: the active device of the library.
    precision : {"float32", "tf32", "bf16"}
        As in `Network`.

    Raises
    ------
    MissingWeightsError
        One of the files is not there.
    NetworkFileError
        A file is not what it should be; the message names file and layer.
    MissingExtraError
        PyTorch or safetensors is not installed.
    """
    model_file = Path(model_file)
    about = _read_json(model_file)
    plan, tensors = _read_native(model_file, about, weights_file)
    try:
        from gpucalcium.nets.cinac_network import network_from
    except ImportError as err:
        raise MissingExtraError("networks run on PyTorch: pip install 'gpucalcium[nets]'") from err
    try:
        return network_from(plan, tensors, device=device, precision=precision)
    except NetworkFileError as err:
        raise NetworkFileError(f"{model_file}: {err}") from err


def _read_json(model_file: Path) -> dict[str, Any]:
    if not model_file.is_file():
        raise MissingWeightsError(f"there is no model file {model_file}")
    try:
        about = json.loads(model_file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as err:
        raise NetworkFileError(f"{model_file} is not JSON ({err}): give the .json file of a network") from err
    if not isinstance(about, dict):
        raise NetworkFileError(f"{model_file} does not describe a network")
    return about


def _read_native(
    model_file: Path, about: dict[str, Any], weights_file: str | Path | None
) -> tuple[Plan, dict[str, NDArray[Any]]]:
    if about.get("format") != FORMAT:
        raise NetworkFileError(f"{model_file} does not describe a network of this library")
    if about.get("version") != VERSION:
        raise NetworkFileError(
            f"{model_file} is of version {about.get('version')}, this library reads {VERSION}: update it"
        )
    try:
        plan = Plan.from_json(about["network"])
        named, digest = Path(about["weights"]["file"]).name, about["weights"]["sha256"]
    except (ParameterError, KeyError, TypeError) as err:
        raise NetworkFileError(f"{model_file}: {err}") from err
    path = model_file.with_name(named) if weights_file is None else Path(weights_file)
    if not path.is_file():
        raise MissingWeightsError(f"there is no weights file {path} (of {model_file})")
    return plan, _read_safetensors(path, digest)


def _read_safetensors(path: Path, digest: str) -> dict[str, NDArray[Any]]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as err:
        raise MissingExtraError("weights are read with safetensors: pip install 'gpucalcium[nets]'") from err
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise NetworkFileError(f"{path} is truncated, or not the weights that belong to the model file")
    try:
        return load(data)
    except SafetensorError as err:
        raise NetworkFileError(f"{path} is not a safetensors file: {err}") from err
