"""From the description of a Keras model to a plan: which layer feeds which, and where its weights go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpucalcium.errors import NetworkFileError, ParameterError
from gpucalcium.nets.keras_layers import KerasLayer, Slot, lambda_function, options_of, slots_of
from gpucalcium.nets.plan import ACTIVATIONS, WITH_WEIGHTS, Layer, Plan, Shape

MODELS = ("Model", "Functional")
_CHAINS = ("Sequential", *MODELS)


@dataclass(frozen=True)
class Part:
    """A layer of ours, the shape it reads, its name in PyTorch's state, and the Keras layer it comes from."""

    prefix: str
    layer: Layer
    shape: Shape
    keras: KerasLayer


@dataclass(frozen=True)
class Translation:
    """A plan, one encoder for each input, and for each Keras layer with weights the parts that take them."""

    plan: Plan
    uses: Mapping[str, list[list[Part]]]
    """By name of the Keras layer, in the order of the file: once for each input that goes through it."""

    def slots(self, name: str) -> list[list[Slot]]:
        """Where the weights of a Keras layer go, in the order of the file: all trained ones, then the others."""
        out = []
        for parts in self.uses[name]:
            slots = [
                slot for part in parts for slot in slots_of(part.prefix, part.layer, part.shape, part.keras)
            ]
            out.append(
                [slot for slot in slots if slot.trainable] + [slot for slot in slots if not slot.trainable]
            )
        return out


def translate(description: Mapping[str, Any], lambdas: Mapping[str, str]) -> Translation:
    """Plan of a Keras 2 model.

    Parameters
    ----------
    description : mapping
        What ``model.to_json()`` holds.
    lambdas : mapping
        What Lambda layers of some names do: an activation, or "mean".

    Raises
    ------
    ParameterError
        `lambdas` names a layer that is not there, or what no layer does.
    NetworkFileError
        It is not such a model, or has a layer that is not supported; the message names layer and field.
    """
    if str(description.get("keras_version", "2")).split(".")[0] not in ("1", "2"):
        raise NetworkFileError(
            f"written by Keras {description['keras_version']}: only descriptions of Keras 2 (TensorFlow up to 2.15, "
            "or tf_keras) are supported"
        )
    if description.get("class_name") not in MODELS:
        raise NetworkFileError(
            f"a Keras {description.get('class_name')}: only {' or '.join(MODELS)} is supported"
        )
    there = set(_lambda_names(description))
    for name, meaning in lambdas.items():
        if name not in there:
            raise ParameterError(
                f"lambdas: there is no Lambda layer {name}; there are {', '.join(sorted(there))}"
            )
        if meaning not in (*ACTIVATIONS, "mean"):
            raise ParameterError(
                f"lambdas: {name}={meaning!r}: it is 'mean' or one of {', '.join(ACTIVATIONS)}"
            )
    try:
        return _Walk(KerasLayer.read(description), lambdas).translation()
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as err:
        if isinstance(err, NetworkFileError):
            raise
        raise NetworkFileError(
            f"not a description as Keras 2 writes it ({type(err).__name__}: {err})"
        ) from err


def _lambda_names(value: Any) -> Iterator[str]:
    """Names of all Lambda layers, however deep."""
    if isinstance(value, dict) and value.get("class_name") == "Lambda":
        yield KerasLayer.read(value).name
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _lambda_names(item)


class _Walk:
    """Goes from the output back to the inputs."""

    def __init__(self, model: KerasLayer, lambdas: Mapping[str, str]) -> None:
        self.layers = {layer.name: layer for layer in map(KerasLayer.read, model.get("layers"))}
        self.lambdas = lambdas
        self.inputs = [self._input(end) for end in model.get("input_layers")]
        outputs = model.get("output_layers")
        if len(outputs) != 1:
            raise NetworkFileError(f"the model has {len(outputs)} outputs, expected one")
        self.output = self._end(outputs[0])
        self.trunk: list[Layer] = []
        self.sources: dict[str, KerasLayer] = {}  # by the name of our layer in the trunk
        self.encoders: dict[str, KerasLayer] = {}  # by the name of the input
        self.done: dict[tuple[str, int], str] = {}
        self.open: set[tuple[str, int]] = set()
        self.counts: Counter[str] = Counter()

    def _end(self, end: Any) -> tuple[str, int]:
        if not isinstance(end, list) or len(end) < 3 or end[0] not in self.layers or end[2] != 0:
            raise NetworkFileError(f"{end!r} is not the output of a layer")
        return str(end[0]), int(end[1])

    def _input(self, end: Any) -> str:
        name, _ = self._end(end)
        if self.layers[name].class_name != "InputLayer":
            raise NetworkFileError(f"{self.layers[name]} is named as an input")
        return name

    def _read_by(self, key: tuple[str, int]) -> list[tuple[str, int]]:
        """The outputs that a call of a layer reads."""
        layer, call = self.layers[key[0]], key[1]
        if not 0 <= call < len(layer.inbound) or not isinstance(layer.inbound[call], list):
            raise NetworkFileError(f"{layer}: its inbound_nodes are not those of Keras 2")
        return [self._end(end) for end in layer.inbound[call]]

    def translation(self) -> Translation:
        self.visit(self.output)
        absent = [name for name in self.inputs if name not in self.encoders]
        if absent:
            raise NetworkFileError(f"no frame encoder (TimeDistributed) reads {', '.join(absent)}")
        plan = self._plan()
        uses: dict[str, list[list[Part]]] = {}
        shapes = plan.trunk_shapes
        for which, name in enumerate(self.inputs):
            keras = self.encoders[name]
            inner = keras.inner().sublayers()
            parts = [
                Part(f"encoders.{which}.{layer.name}", layer, shape, source)
                for layer, shape, source in zip(
                    plan.encoders[which], plan.encoder_shapes(which)[:-1], inner, strict=True
                )
            ]
            uses.setdefault(keras.name, []).append(parts)
        for layer in self.trunk:
            part = Part(f"trunk.{layer.name}", layer, shapes[layer.inputs[0]], self.sources[layer.name])
            uses.setdefault(part.keras.name, []).append([part])
        in_order = {name: uses[name] for name in self.layers if name in uses}
        return Translation(plan, in_order)

    def _plan(self) -> Plan:
        first = self.layers[self.inputs[0]]
        shape = first.config.get("batch_input_shape") or first.config.get("batch_shape") or []
        for name in self.inputs:
            keras = self.layers[name]
            here = keras.config.get("batch_input_shape") or keras.config.get("batch_shape")
            if here != shape or len(shape) != 5 or shape[2] != shape[3] or shape[4] != 1 or None in shape[1:]:
                raise NetworkFileError(
                    f"{keras}: its shape is {here}, expected [null, L, P, P, 1], for all inputs"
                )
        try:
            return Plan(
                window_len=shape[1],
                patch_size=shape[2],
                inputs=tuple(self.inputs),
                encoders=tuple(self._encoder(self.encoders[name]) for name in self.inputs),
                trunk=tuple(self.trunk),
                mask_mode="legacy",
            )
        except ParameterError as err:
            raise NetworkFileError(str(err)) from err

    def _encoder(self, keras: KerasLayer) -> tuple[Layer, ...]:
        counts: Counter[str] = Counter()
        layers = []
        for source in keras.inner().sublayers():
            kind, options = options_of(source, self.lambdas)
            layers.append(Layer(f"{kind}_{counts[kind]}", kind, options))
            counts[kind] += 1
        return tuple(layers)

    def visit(self, key: tuple[str, int]) -> str:
        """Name of the input or layer of ours that gives what this call of a Keras layer gives."""
        if key not in self.done:
            if key in self.open:
                raise NetworkFileError(f"{self.layers[key[0]]} reads what it gives")
            self.open.add(key)
            self.done[key] = self._visit(key)
        return self.done[key]

    def _visit(self, key: tuple[str, int]) -> str:
        keras = self.layers[key[0]]
        if keras.class_name == "InputLayer":
            raise NetworkFileError(f"{keras} is read by something else than a TimeDistributed frame encoder")
        if keras.class_name == "Multiply":
            return self._attention(key)
        if keras.class_name == "TimeDistributed":
            inner = keras.inner()
            if inner.class_name in _CHAINS:
                return self._encoded(key)
            if inner.class_name != "Dense":
                raise NetworkFileError(
                    f"{keras} wraps {inner}: only Sequential, Model and Dense are supported"
                )
            return self._add(*options_of(inner, self.lambdas), keras, self._read_by(key))
        return self._add(*options_of(keras, self.lambdas), keras, self._read_by(key))

    def _add(
        self, kind: str, options: dict[str, Any], keras: KerasLayer, reads: list[tuple[str, int]]
    ) -> str:
        inputs = tuple(self.visit(source) for source in reads)
        if kind in WITH_WEIGHTS and any(keras is source for source in self.sources.values()):
            raise NetworkFileError(f"{keras} is used twice: only frame encoders may be shared")
        name = f"{kind}_{self.counts[kind]}"
        self.counts[kind] += 1
        self.trunk.append(Layer(name, kind, options, inputs))
        self.sources[name] = keras
        return name

    def _encoded(self, key: tuple[str, int]) -> str:
        keras, reads = self.layers[key[0]], self._read_by(key)
        name = reads[0][0]
        if len(reads) != 1 or name not in self.inputs or name in self.encoders:
            raise NetworkFileError(
                f"{keras} reads {name}: a frame encoder reads one input, and each input has one"
            )
        self.encoders[name] = keras
        return name

    def _attention(self, key: tuple[str, int]) -> str:
        """Multiply(F, Permute([RepeatVector(Lambda mean(] Dense softmax(Permute(F)) [))])), as one layer."""
        multiply, reads = self.layers[key[0]], self._read_by(key)
        permuted = [source for source in reads if self.layers[source[0]].class_name == "Permute"]
        if len(reads) != 2 or len(permuted) != 1:
            raise NetworkFileError(f"{multiply}: it does not multiply features by permuted attention weights")
        features = reads[1 - reads.index(permuted[0])]
        source = self._before(permuted[0], "Permute")
        single = self.layers[source[0]].class_name == "RepeatVector"
        if single:
            source = self._before(source, "RepeatVector")
            mean = self.layers[source[0]]
            source = self._before(source, "Lambda")
            if lambda_function(mean, self.lambdas, mean="mean") != "mean":
                raise NetworkFileError(
                    f"{mean}: between attention weights and RepeatVector it must be 'mean'"
                )
        dense = self.layers[source[0]]
        dense.check("activation", "softmax")
        if self._before(self._before(source, "Dense"), "Permute") != features:
            raise NetworkFileError(f"{multiply}: its attention weights are not those of what it multiplies")
        return self._add("attention", {"single": single}, dense, [features])

    def _before(self, key: tuple[str, int], class_name: str) -> tuple[str, int]:
        """The one output that a call of a layer reads, which must be of this class."""
        keras = self.layers[key[0]]
        reads = self._read_by(key)
        if keras.class_name != class_name or len(reads) != 1:
            raise NetworkFileError(f"{keras}: expected {class_name} here, as part of an attention")
        if class_name == "Permute":
            keras.check("dims", [2, 1])
        return reads[0]
