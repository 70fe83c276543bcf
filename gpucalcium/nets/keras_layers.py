"""Layers of Keras 2 in our terms, one by one: their options, what they must not be, and their weights.

Needs neither Keras nor PyTorch. Code that a file holds (Lambda layers) is never run or unmarshalled.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import NetworkFileError
from gpucalcium.nets.plan import ACTIVATIONS, Layer, Shape

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class KerasLayer:
    """A layer as the JSON describes it."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    inbound: Sequence[Any] = ()

    @classmethod
    def read(cls, value: object) -> KerasLayer:
        """From its JSON value."""
        if not isinstance(value, dict) or "class_name" not in value or "config" not in value:
            raise NetworkFileError("a layer is described without class_name and config")
        config = value["config"]
        if isinstance(config, list):  # a Sequential of Keras 2.2 and before
            config = {"name": value.get("name", "sequential"), "layers": config}
        name = value.get("name") or config.get("name", value["class_name"])
        return cls(str(name), str(value["class_name"]), config, value.get("inbound_nodes") or ())

    def __str__(self) -> str:
        return f"layer {self.name} ({self.class_name})"

    def get(self, field: str) -> Any:
        """A field that must be there."""
        if field not in self.config:
            raise NetworkFileError(f"{self}: there is no field {field}")
        return self.config[field]

    def check(self, field: str, *allowed: object) -> None:
        """Raise unless a field, if it is there, has one of these values."""
        value = self.config.get(field, allowed[0])
        if value not in allowed:
            raise NetworkFileError(
                f"{self}: {field} is {value!r}, and only {' or '.join(map(repr, allowed))} is supported"
            )

    def whole(self, field: str) -> int:
        """A field that is a whole number of 1 or more."""
        value = self.get(field)
        if not isinstance(value, int) or value < 1:
            raise NetworkFileError(f"{self}: {field} is {value!r}, expected a whole number of 1 or more")
        return value

    def square(self, field: str) -> int:
        """A field that is a pair of equal whole numbers."""
        value = self.get(field)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2 or pair[0] != pair[1] or not isinstance(pair[0], int):
            raise NetworkFileError(f"{self}: {field} is {value!r}, and only squares are supported")
        return pair[0]

    def activation(self, field: str = "activation") -> str:
        """A field that names an activation."""
        value = self.config.get(field, "linear")
        if isinstance(value, dict):  # a function of a name that Keras had been told of
            value = value.get("config")
        if value not in ACTIVATIONS:
            raise NetworkFileError(f"{self}: {field} is {value!r}; there are {', '.join(ACTIVATIONS)}")
        return str(value)

    def inner(self) -> KerasLayer:
        """The layer that this one wraps."""
        return KerasLayer.read(self.get("layer"))

    def sublayers(self) -> list[KerasLayer]:
        """Layers of a Sequential, or of a Model that is a chain, without its inputs."""
        layers = [KerasLayer.read(value) for value in self.get("layers")]
        if self.class_name != "Sequential":
            for before, layer in pairwise(layers):
                if [_name_of(node) for node in layer.inbound] != [before.name]:
                    raise NetworkFileError(
                        f"{self}: {layer} does not follow {before}; only chains are supported"
                    )
        return [layer for layer in layers if layer.class_name != "InputLayer"]


def _name_of(node: Any) -> object:
    """Name of the one layer that a call reads, or None."""
    return node[0][0] if isinstance(node, list) and len(node) == 1 and isinstance(node[0], list) else None


def options_of(layer: KerasLayer, lambdas: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Kind and options of a layer of ours that does what this one does.

    Raises
    ------
    NetworkFileError
        It does something that no layer of ours does; the message names layer and field.
    """
    read = _READERS.get(layer.class_name)
    if layer.class_name == "Lambda":
        return "activation", {"function": lambda_function(layer, lambdas, swish="sigmoid")}
    if read is None:
        raise NetworkFileError(f"{layer}: layers of this class are not supported")
    return read(layer)


def lambda_function(layer: KerasLayer, lambdas: Mapping[str, str], **meanings: str) -> str:
    """What a Lambda layer does, from its place and from the names in its code.

    Parameters
    ----------
    layer : KerasLayer
    lambdas : mapping
        What the caller says that layers of some names do.
    **meanings
        What a Lambda at this place does if its code holds a name: meaning=name.
    """
    if layer.name in lambdas:
        return lambdas[layer.name]
    code = b"".join(_decoded(text) for text in _texts(layer.get("function")))
    for meaning, name in meanings.items():
        # a marshalled name follows its length: one byte, or four in the files of older Pythons
        if re.search(re.escape(bytes([len(name)])) + rb"(?:\0{3})?" + name.encode(), code):
            return meaning
    raise NetworkFileError(
        f"{layer}: what its code does is not known, and code in files is never run. If you know, say it: "
        f"load_network(..., lambdas={{{layer.name!r}: 'swish'}}), or 'mean', or another activation"
    )


def _texts(value: object) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def _conv(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("strides", [1, 1], 1)
    layer.check("dilation_rate", [1, 1], 1)
    layer.check("groups", 1)
    layer.check("data_format", "channels_last")
    layer.check("padding", "valid", "same")
    return "conv", {
        "filters": layer.whole("filters"),
        "kernel": layer.square("kernel_size"),
        "padding": layer.config.get("padding", "valid"),
        "activation": layer.activation(),
    }


def _max_pool(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("pool_size", [2, 2], 2)
    layer.check("strides", None, [2, 2], 2)
    layer.check("padding", "valid")
    layer.check("data_format", "channels_last")
    return "max_pool", {"size": 2}


def _flatten(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("data_format", "channels_last")
    return "flatten", {}


def _batch_norm(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("renorm", False)
    return "batch_norm", {"epsilon": float(layer.get("epsilon")), "momentum": float(layer.get("momentum"))}


def _lstm(layer: KerasLayer, bidirectional: bool = False) -> tuple[str, dict[str, Any]]:
    layer.check("activation", "tanh")
    layer.check("recurrent_activation", "sigmoid", "hard_sigmoid")
    layer.check("return_sequences", True)
    for field in ("return_state", "go_backwards", "stateful", "time_major"):
        layer.check(field, False)
    return "lstm", {
        "units": layer.whole("units"),
        "bidirectional": bidirectional,
        "gate": layer.get("recurrent_activation"),
        "dropout": float(layer.config.get("dropout", 0)),
    }


def _bidirectional(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("merge_mode", "concat")
    layer.check("backward_layer", None)
    inner = layer.inner()
    if inner.class_name != "LSTM":
        raise NetworkFileError(f"{layer} wraps {inner}: only an LSTM is supported")
    return _lstm(inner, bidirectional=True)


def _concatenate(layer: KerasLayer) -> tuple[str, dict[str, Any]]:
    layer.check("axis", -1, 2)
    return "concat", {}


_READERS: Mapping[str, Callable[[KerasLayer], tuple[str, dict[str, Any]]]] = {
    "Conv2D": _conv,
    "MaxPooling2D": _max_pool,
    "Flatten": _flatten,
    "BatchNormalization": _batch_norm,
    "LSTM": _lstm,
    "Bidirectional": _bidirectional,
    "Concatenate": _concatenate,
    "Activation": lambda layer: ("activation", {"function": layer.activation()}),
    "Dropout": lambda layer: ("dropout", {"rate": float(layer.get("rate"))}),
    "Dense": lambda layer: ("dense", {"units": layer.whole("units"), "activation": layer.activation()}),
}


@dataclass(frozen=True)
class Slot:
    """One weight of a Keras layer: where it goes, and its shape in the file."""

    prefix: str
    """Name of our layer in PyTorch's state."""
    name: str
    shape: Shape
    trainable: bool


def slots_of(prefix: str, layer: Layer, shape: Shape, keras: KerasLayer) -> list[Slot]:
    """Weights of a layer that reads arrays of this shape, in Keras's order."""
    trained = bool(keras.config.get("trainable", True))
    inner = keras.inner() if "layer" in keras.config else keras
    biased = bool(inner.config.get("use_bias", True))
    options, wide = layer.options, shape[-1]
    if layer.kind == "batch_norm":
        axis = keras.config.get("axis", -1)
        if axis not in (-1, len(shape), [-1], [len(shape)]):
            raise NetworkFileError(f"{keras}: axis is {axis}, and only the last is supported")
        names = [
            name for field, name in (("scale", "gamma"), ("center", "beta")) if keras.config.get(field, True)
        ]
        return [Slot(prefix, name, (wide,), trained) for name in names] + [
            Slot(prefix, name, (wide,), False) for name in ("moving_mean", "moving_variance")
        ]
    if layer.kind == "lstm":
        four = 4 * options["units"]
        shapes = {"kernel": (wide, four), "recurrent": (options["units"], four)} | (
            {"bias": (four,)} if biased else {}
        )
        ends = ("", "_reverse") if options["bidirectional"] else ("",)
        return [Slot(prefix, name + end, size, trained) for end in ends for name, size in shapes.items()]
    if layer.kind == "conv":
        kernel: Shape = (options["kernel"], options["kernel"], wide, options["filters"])
    elif layer.kind == "dense":
        kernel = (wide, options["units"])
    elif layer.kind == "attention":
        kernel = (shape[0], shape[0])
    else:
        return []
    return [Slot(prefix, "kernel", kernel, trained)] + (
        [Slot(prefix, "bias", kernel[-1:], trained)] if biased else []
    )


def tensors_of(layer: Layer, shape: Shape, weights: Arrays) -> dict[str, NDArray[Any]]:
    """PyTorch's state of a layer from its Keras weights, by the names of their slots."""
    if layer.kind == "batch_norm":
        one, zero = np.ones(shape[-1], np.float32), np.zeros(shape[-1], np.float32)
        return {
            "weight": weights.get("gamma", one),
            "bias": weights.get("beta", zero),
            "running_mean": weights["moving_mean"],
            "running_var": weights["moving_variance"],
            "num_batches_tracked": np.array(0, np.int64),
        }
    if layer.kind == "lstm":
        out = {}
        for end in ("", "_reverse") if layer.options["bidirectional"] else ("",):
            zero = np.zeros(4 * layer.options["units"], np.float32)
            out[f"weight_ih_l0{end}"] = weights[f"kernel{end}"].T
            out[f"weight_hh_l0{end}"] = weights[f"recurrent{end}"].T
            out[f"bias_ih_l0{end}"] = weights.get(f"bias{end}", zero)
            out[f"bias_hh_l0{end}"] = zero
        return out
    kernel = weights["kernel"]
    turned = kernel.transpose(3, 2, 0, 1) if layer.kind == "conv" else kernel.T
    return {"weight": turned, "bias": weights.get("bias", np.zeros(len(turned), np.float32))}
