"""Keras 2's layers in float64 NumPy, one function each, and a model of them run as its description says.

The judge of the networks: written from the formulas, in Keras's layouts (channels last, weights as in the file,
found by name), and sharing nothing with the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def sigmoid(x: Values) -> Values:
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x: Values) -> Values:
    return np.clip(0.2 * x + 0.5, 0, 1)


def softmax(x: Values) -> Values:
    exponents = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


FUNCTIONS = {
    "linear": lambda x: x,
    "swish": lambda x: x * sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "softmax": softmax,
    "tanh": np.tanh,
}


def conv(x: Values, kernel: Values, bias: Values, padding: str) -> Values:
    """(n, rows, columns, in) with kernel (k, k, in, out), odd k."""
    size = len(kernel)
    if padding == "same":
        edge = (size - 1) // 2
        x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    out = np.zeros((len(x), rows, columns, kernel.shape[-1])) + bias
    for i in range(size):
        for j in range(size):
            out += x[:, i : i + rows, j : j + columns] @ kernel[i, j]
    return out


def max_pool(x: Values) -> Values:
    """2 x 2, the odd row and column left out."""
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    x = x[:, : 2 * rows, : 2 * columns]
    return x.reshape(len(x), rows, 2, columns, 2, -1).max(axis=(2, 4))


def batch_norm(
    x: Values, gamma: Values, beta: Values, mean: Values, variance: Values, epsilon: float
) -> Values:
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def dense(x: Values, kernel: Values, bias: Values) -> Values:
    return x @ kernel + bias


def lstm(x: Values, kernel: Values, recurrent: Values, bias: Values, gate: str) -> Values:
    """(n, L, in) -> (n, L, units); gates in the order i, f, c, o."""
    units, gated = len(recurrent), FUNCTIONS[gate]
    hidden = np.zeros((len(x), units))
    cell = np.zeros((len(x), units))
    out = []
    for t in range(x.shape[1]):
        z = x[:, t] @ kernel + hidden @ recurrent + bias
        i, f, c, o = (z[:, k * units : (k + 1) * units] for k in range(4))
        cell = gated(f) * cell + gated(i) * np.tanh(c)
        hidden = gated(o) * np.tanh(cell)
        out.append(hidden)
    return np.stack(out, axis=1)


def bidirectional(x: Values, forward: list[Values], backward: list[Values], gate: str) -> Values:
    there = lstm(x, *forward, gate)
    back = lstm(x[:, ::-1], *backward, gate)[:, ::-1]
    return np.concatenate([there, back], axis=-1)


def attention(features: Values, kernel: Values, bias: Values, single: bool) -> Values:
    """F * A', A = softmax over t of (F'M + m)."""
    weights = softmax(features.transpose(0, 2, 1) @ kernel + bias)
    if single:
        weights = np.repeat(weights.mean(axis=1, keepdims=True), features.shape[2], axis=1)
    return features * weights.transpose(0, 2, 1)


class Reference:
    """A Keras 2 model in .json and .h5."""

    def __init__(self, model: Path, weights: Path) -> None:
        self.layers = json.loads(model.read_text())["config"]["layers"]
        self.output = json.loads(model.read_text())["config"]["output_layers"][0][0]
        self.weights: dict[str, dict[str, Values]] = {}
        with h5py.File(weights) as file:
            root = file.get("model_weights", file)
            for layer in root:
                found: dict[str, Values] = {}
                root[layer].visititems(
                    lambda path, item, found=found: (
                        found.__setitem__(path, np.asarray(item, np.float64))
                        if isinstance(item, h5py.Dataset)
                        else None
                    )
                )
                self.weights[layer] = found

    def predict(self, inputs: dict[str, NDArray[Any]]) -> Values:
        """Output of the model."""
        values: dict[str, Values] = {}
        for layer in self.layers:
            name = layer["name"]
            if layer["class_name"] == "InputLayer":
                values[name] = np.asarray(inputs[name], np.float64)[..., None]
                continue
            given = [values[node[0]] for node in layer["inbound_nodes"][0]]
            values[name] = self._apply(layer, given, self.weights.get(name, {}), place="model")
        return values[self.output]

    def _apply(
        self, layer: dict[str, Any], given: list[Values], weights: dict[str, Values], place: str
    ) -> Values:
        x, config, kind = given[0], layer["config"], layer["class_name"]
        if kind == "TimeDistributed":
            frames = x.reshape(-1, *x.shape[2:])
            out = self._apply(config["layer"], [frames], weights, place="frame")
            return out.reshape(*x.shape[:2], *out.shape[1:])
        if kind in ("Sequential", "Functional", "Model"):  # here always a chain
            for inner in config if isinstance(config, list) else config["layers"]:
                x = self._apply(inner, [x], weights, place="frame")
            return x
        own = {
            path.rsplit("/", 1)[1].split(":")[0]: value
            for path, value in weights.items()
            if place == "model" or f"{config['name']}/" in path
        }
        match kind:
            case "InputLayer" | "Dropout":
                return x
            case "Conv2D":
                out = conv(x, own["kernel"], own.get("bias", np.zeros(1)), config["padding"])
                return FUNCTIONS[config["activation"]](out)
            case "Activation":
                return FUNCTIONS[config["activation"]](x)
            case "Lambda":
                return FUNCTIONS["swish"](x) if place == "frame" else x.mean(axis=1)
            case "MaxPooling2D":
                return max_pool(x)
            case "BatchNormalization":
                statistics = own["moving_mean"], own["moving_variance"]
                gamma, beta = own.get("gamma", np.ones(1)), own.get("beta", np.zeros(1))
                return batch_norm(x, gamma, beta, *statistics, config["epsilon"])
            case "Flatten":
                return x.reshape(len(x), -1)
            case "Dense":
                kernel, bias = (
                    next(v for p, v in weights.items() if part in p) for part in ("kernel", "bias")
                )
                return FUNCTIONS[config["activation"]](dense(x, kernel, bias))
            case "Permute":
                return x.transpose(0, 2, 1)
            case "RepeatVector":
                return np.repeat(x[:, None], config["n"], axis=1)
            case "Multiply":
                return given[0] * given[1]
            case "Concatenate":
                return np.concatenate(given, axis=-1)
            case "LSTM":
                return lstm(x, *_lstm_weights(weights, ""), config["recurrent_activation"])
            case "Bidirectional":
                gate = config["layer"]["config"]["recurrent_activation"]
                return bidirectional(
                    x, _lstm_weights(weights, "forward"), _lstm_weights(weights, "backward"), gate
                )
        raise ValueError(kind)


def _lstm_weights(weights: dict[str, Values], end: str) -> list[Values]:
    names = ("/kernel", "recurrent_kernel", "bias")
    return [next((v for p, v in weights.items() if end in p and name in p), np.zeros(1)) for name in names]
