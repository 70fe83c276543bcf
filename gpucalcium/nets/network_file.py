"""Networks on disk: our own format (JSON and safetensors), and the choice between it and Keras files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
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
from gpucalcium.nets.keras_file import is_whole_model, read_description, read_keras
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

    model_file, weights_file = files_of(path)
    state = network.torch_module.state_dict()
    data = save({name: np.array(value.cpu().numpy(), order="C") for name, value in state.items()})
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


def files_of(path: str | Path) -> tuple[Path, Path]:
    """The two files of a network that is kept as `path`, with or without ``.json``."""
    path = Path(path)
    name = path.name.removesuffix(".json")
    return path.with_name(f"{name}.json"), path.with_name(f"{name}.safetensors")


def load_network(
    model_file: str | Path,
    weights_file: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "float32",
    lambdas: Mapping[str, str] | None = None,
) -> Network:
    """Read a network, from files of this library or of Keras 2.

    Parameters
    ----------
    model_file : path
        ``.json`` as `save_network` or Keras's ``model.to_json()`` wrote it, or a whole Keras model, ``.h5``.
    weights_file : path, optional
        ``.safetensors`` or Keras's ``.h5`` (weights, or a whole model). Default: the file that our JSON names,
        beside it; for Keras the file of the model's name with ``.h5``.
    device : str, optional
        "cpu", "cuda" or "cuda:1"; default: the active device of the library.
    precision : {"float32", "tf32", "bf16"}
        As in `Network`.
    lambdas : mapping, optional
        What Lambda layers of a Keras model do, by their names: "swish" or another activation, or "mean" (over
        features). Needed where their code does not tell it: code in files is read for names, never run.

    Returns
    -------
    Network
        A Keras model has mask_mode "legacy" and no buffer, as such classifiers were trained.

    Raises
    ------
    MissingWeightsError
        One of the files is not there.
    NetworkFileError
        A file is not what it should be; the message names file and layer.
    ParameterError
        `lambdas` is given for a network of ours, or names a layer that is not there.
    MissingExtraError
        PyTorch or safetensors is not installed.
    """
    model_file = Path(model_file)
    weights = None if weights_file is None else Path(weights_file)
    try:
        plan, tensors = _read(model_file, weights, lambdas or {})
        from gpucalcium.nets.cinac_network import network_from

        return network_from(plan, tensors, device=device, precision=precision)
    except NetworkFileError as err:
        raise NetworkFileError(f"{model_file}: {err}") from err
    except ModuleNotFoundError as err:
        if err.name != "torch":
            raise
        raise MissingExtraError("networks run on PyTorch: pip install 'gpucalcium[nets]'") from err


def _read(
    model_file: Path, weights: Path | None, lambdas: Mapping[str, str]
) -> tuple[Plan, dict[str, NDArray[Any]]]:
    if is_whole_model(model_file):
        return read_keras(read_description(model_file), weights or model_file, lambdas)
    about = _read_json(model_file)
    if about.get("format") != FORMAT:
        return read_keras(about, weights or model_file.with_suffix(".h5"), lambdas)
    if lambdas:
        raise ParameterError(
            f"lambdas={dict(lambdas)}: {model_file} is a network of ours and has no such layers"
        )
    return _read_native(model_file, about, weights)


def _read_json(model_file: Path) -> dict[str, Any]:
    if not model_file.is_file():
        raise MissingWeightsError(f"there is no model file {model_file}")
    if zipfile.is_zipfile(model_file):
        raise NetworkFileError(
            "it is a Keras 3 archive, which is not supported: save it with Keras 2 (tf_keras)"
        )
    try:
        about = json.loads(model_file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as err:
        raise NetworkFileError(f"it is not JSON ({err}): give the .json file of a network") from err
    if not isinstance(about, dict):
        raise NetworkFileError("it does not describe a network")
    return about


def _read_native(
    model_file: Path, about: dict[str, Any], weights: Path | None
) -> tuple[Plan, dict[str, NDArray[Any]]]:
    if about.get("version") != VERSION:
        raise NetworkFileError(
            f"it is of version {about.get('version')}, and this library reads {VERSION}: update the library"
        )
    try:
        plan = Plan.from_json(about["network"])
        named, digest = Path(about["weights"]["file"]).name, about["weights"]["sha256"]
    except (ParameterError, KeyError, TypeError) as err:
        raise NetworkFileError(str(err)) from err
    path = model_file.with_name(named) if weights is None else weights
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
