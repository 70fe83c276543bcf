"""Networks in Keras 2 files: a description (.json) and weights (.h5), or both in one whole model (.h5)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import MissingWeightsError, NetworkFileError
from gpucalcium.nets.keras_graph import Translation, translate
from gpucalcium.nets.keras_layers import tensors_of
from gpucalcium.nets.plan import Plan

Tensors = dict[str, NDArray[Any]]


def is_whole_model(path: Path) -> bool:
    """Whether a file is HDF5, so that it may hold a description beside the weights."""
    return path.is_file() and h5py.is_hdf5(path)


def read_description(path: Path) -> dict[str, Any]:
    """Description of the model in a whole-model HDF5 file."""
    with _opened(path) as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise NetworkFileError(f"{path} holds weights only: give the .json file that describes the model too")
    try:
        about = json.loads(text)
    except ValueError as err:
        raise NetworkFileError(f"{path}: its model_config is not JSON ({err})") from err
    if not isinstance(about, dict):
        raise NetworkFileError(f"{path}: its model_config does not describe a model")
    return about


def read_keras(
    description: Mapping[str, Any], weights_file: Path, lambdas: Mapping[str, str]
) -> tuple[Plan, Tensors]:
    """Plan and weights of a Keras model, the weights named as in PyTorch's state.

    Encoders of equal layers and weights become one: Keras writes an encoder that inputs share once for each.

    Raises
    ------
    MissingWeightsError
        There is no such weights file.
    NetworkFileError
        Description or weights are of a kind that is not supported, or do not belong together.
    """
    translation = translate(description, lambdas)
    stored = _stored(weights_file)
    tensors = _assigned(translation, stored, weights_file)
    return _tied(translation.plan, tensors)


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise MissingWeightsError(f"there is no weights file {path}")
    if zipfile.is_zipfile(path):
        raise NetworkFileError(
            f"{path} is a Keras 3 archive, which is not supported: save the weights with Keras 2 "
            "(tf_keras), model.save_weights('weights.h5')"
        )
    try:
        return h5py.File(path, "r")
    except OSError as err:
        raise NetworkFileError(f"{path} is not HDF5, or truncated: {err}") from err


def _stored(path: Path) -> list[tuple[str, list[NDArray[Any]]]]:
    """Layers with weights, in the order of the file."""
    with _opened(path) as file:
        root = file.get("model_weights", file)
        names = _names(root, "layer_names")
        if names is None:
            newer = "; it is of Keras 3: save it with Keras 2 (tf_keras)" if "layers" in root else ""
            raise NetworkFileError(f"{path} holds no Keras 2 weights (no layer_names){newer}")
        layers = []
        try:
            for name in names:
                group = root[name]
                arrays = [np.asarray(group[weight]) for weight in _names(group, "weight_names") or ()]
                if arrays:
                    layers.append((name, arrays))
        except (KeyError, OSError, RuntimeError) as err:
            raise NetworkFileError(f"{path}: the weights of layer {name} cannot be read ({err})") from err
    return layers


def _names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Names in an attribute, which Keras cuts into numbered ones if there are many."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    else:
        numbered = takewhile(group.attrs.__contains__, (f"{attribute}{index}" for index in count()))
        values = [name for part in numbered for name in group.attrs[part]]
        if not values:
            return None
    return [name.decode() if isinstance(name, bytes) else str(name) for name in values]


def _assigned(translation: Translation, stored: list[tuple[str, list[NDArray[Any]]]], path: Path) -> Tensors:
    """Each stored weight where it belongs; layers are matched in order, as names carry counters."""
    wanted = {name: uses for name in translation.uses if any(uses := translation.slots(name))}
    if len(wanted) != len(stored):
        raise NetworkFileError(
            f"{path} has weights of {len(stored)} layers ({', '.join(name for name, _ in stored)}), the model has "
            f"{len(wanted)} ({', '.join(wanted)})"
        )
    weights: dict[str, Tensors] = {}
    for (name, uses), (there, arrays) in zip(wanted.items(), stored, strict=True):
        for slots in uses:
            if len(slots) != len(arrays):
                raise NetworkFileError(
                    f"{path}: layer {there} has {len(arrays)} weights, layer {name} of the model {len(slots)}"
                )
            for slot, array in zip(slots, arrays, strict=True):
                if array.shape != slot.shape or array.dtype.kind != "f":
                    raise NetworkFileError(
                        f"{path}: layer {there}: its {slot.name} is {array.dtype} {array.shape}, layer {name} of the "
                        f"model wants {slot.shape}"
                    )
                weights.setdefault(slot.prefix, {})[slot.name] = array.astype(np.float32)
    parts = [part for every in translation.uses.values() for use in every for part in use]
    return {
        f"{part.prefix}.{name}": tensor
        for part in parts
        if part.prefix in weights
        for name, tensor in tensors_of(part.layer, part.shape, weights[part.prefix]).items()
    }


def _tied(plan: Plan, tensors: Tensors) -> tuple[Plan, Tensors]:
    """One encoder for all inputs if theirs are equal in every bit."""
    first, *others = (
        {name.removeprefix(head): value for name, value in tensors.items() if name.startswith(head)}
        for head in (f"encoders.{which}." for which in range(len(plan.encoders)))
    )
    equal = all(layers == plan.encoders[0] for layers in plan.encoders) and all(
        np.array_equal(value, other[name]) for other in others for name, value in first.items()
    )
    if not equal:
        return plan, tensors
    kept = {name: value for name, value in tensors.items() if not name.startswith("encoders.")}
    return replace(plan, encoders=plan.encoders[:1]), kept | {
        f"encoders.0.{name}": value for name, value in first.items()
    }
