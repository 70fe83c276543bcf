"""What a network is made of, without its weights: the layers of the frame encoder and of what follows it.

Read from our own files and from Keras files alike, and the only thing the PyTorch modules are built from.
Needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from gpucalcium.errors import ParameterError

Shape = tuple[int, ...]

ACTIVATIONS = (
    "linear swish silu sigmoid hard_sigmoid softmax tanh relu elu selu gelu softplus softsign exponential"
).split()
WITH_WEIGHTS = ("conv", "dense", "attention", "lstm", "batch_norm")
MASK_MODES = ("legacy", "corrected")


@dataclass(frozen=True)
class Layer:
    """One layer: what it is, what it reads, and its options."""

    name: str
    kind: str
    """One of `KINDS`."""
    options: Mapping[str, Any]
    inputs: tuple[str, ...] = ()
    """Names of the inputs or layers it reads; empty in an encoder, where each layer reads the one before."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layers of a network that looks at windows of patches.

    Raises
    ------
    ParameterError
        The layers do not fit each other; the message names the first one that does not.
    """

    window_len: int
    """Frames in a window, L."""
    patch_size: int
    """Side of a patch, P, in pixels."""
    inputs: tuple[str, ...]
    """Names of the inputs, each (L, P, P), in the order the network reads them."""
    encoders: tuple[tuple[Layer, ...], ...]
    """Layers that turn a patch into features: one tuple for all inputs (tied), or one for each."""
    trunk: tuple[Layer, ...]
    """Layers that turn features into the output, each after those it reads; the last gives the output."""
    mask_mode: str = "corrected"
    """How patches are masked: "corrected", or "legacy" as those that older classifiers were trained on."""
    buffer: float | None = None
    """Pixels by which the mask of a cell is grown; None: not at all."""

    def __post_init__(self) -> None:
        if self.window_len < 1 or self.patch_size < 1:
            raise ParameterError(
                f"window_len={self.window_len}, patch_size={self.patch_size}: both must be 1 or more"
            )
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ParameterError(
                f"inputs={self.inputs}: a network has one or more inputs, each of its own name"
            )
        if len(self.encoders) not in (1, len(self.inputs)):
            raise ParameterError(
                f"{len(self.encoders)} encoders for {len(self.inputs)} inputs: one, or one each"
            )
        if self.mask_mode not in MASK_MODES:
            raise ParameterError(f"mask_mode={self.mask_mode!r}: it is 'legacy' or 'corrected'")
        self.check_head()

    @property
    def encoders_tied(self) -> bool:
        """Whether all inputs go through one encoder."""
        return len(self.encoders) == 1

    def encoder_of(self, which_input: int) -> int:
        """Index of the encoder that an input goes through."""
        return 0 if self.encoders_tied else which_input

    def encoder_shapes(self, encoder: int = 0) -> list[Shape]:
        """What goes into each layer of an encoder and, last, what comes out: (rows, columns, channels) or (D,)."""
        shapes: list[Shape] = [(self.patch_size, self.patch_size, 1)]
        names = [layer.name for layer in self.encoders[encoder]]
        for layer in self.encoders[encoder]:
            if names.count(layer.name) > 1 or "." in layer.name:
                raise ParameterError(f"layer {layer.name!r}: names are unique and hold no dot")
            shapes.append(_shape_of(layer, [shapes[-1]]))
        return shapes

    @cached_property
    def trunk_shapes(self) -> dict[str, Shape]:
        """Shape of what each input's encoder and each later layer gives: (L, features), or (features,)."""
        shapes: dict[str, Shape] = {}
        for which, name in enumerate(self.inputs):
            out = self.encoder_shapes(self.encoder_of(which))[-1]
            if len(out) != 1:
                raise ParameterError(f"the encoder of {name} gives {out}: it must end flat (a flatten layer)")
            shapes[name] = (self.window_len, *out)
        for layer in self.trunk:
            absent = [name for name in layer.inputs if name not in shapes]
            if absent or not layer.inputs:
                raise ParameterError(f"layer {layer.name} ({layer.kind}) reads {absent or 'nothing'}")
            if layer.name in shapes or "." in layer.name:
                raise ParameterError(f"layer {layer.name!r}: names are unique and hold no dot")
            shapes[layer.name] = _shape_of(layer, [shapes[name] for name in layer.inputs])
        return shapes

    @property
    def output_shape(self) -> Shape:
        """Shape of one window's output as Keras has it: (L,), (L, K) or (K,)."""
        return self.trunk_shapes[self.trunk[-1].name]

    @property
    def per_frame(self) -> bool:
        """Whether classes are given per frame, each frame for itself: output (L, K)."""
        return len(self.output_shape) == 2

    @property
    def kind(self) -> str:
        """'activity' (a value per frame) or 'cell_type' (a value per window)."""
        flat_activity = self.output_shape == (self.window_len,) and self.head_activation == "sigmoid"
        return "activity" if self.per_frame or flat_activity else "cell_type"

    @property
    def n_classes(self) -> int:
        """Classes K; 1 for a single probability."""
        return self.output_shape[-1] if self.per_frame or self.kind == "cell_type" else 1

    @property
    def head_activation(self) -> str:
        """Activation of the last layer."""
        return str(self.trunk[-1].options.get("activation", ""))

    def check_head(self) -> None:
        """Raise unless the output is one of those that stand for activity or for cell types."""
        head = self.trunk[-1] if self.trunk else None
        if head is None or head.kind != "dense" or head.options["activation"] not in ("sigmoid", "softmax"):
            raise ParameterError("the last layer must be dense with sigmoid or softmax")
        if self.kind == "cell_type" and head.options["activation"] == "sigmoid" and self.output_shape != (1,):
            raise ParameterError(
                f"the last layer, {head.name}, gives {self.output_shape} sigmoid values for windows of "
                f"{self.window_len} frames: expected {self.window_len} (activity) or 1 (cell type)"
            )

    @property
    def macs_per_frame(self) -> int:
        """Multiply-adds to encode one frame of one input (the most expensive encoder)."""
        return max(
            sum(
                macs(layer, [shape])
                for layer, shape in zip(layers, self.encoder_shapes(index)[:-1], strict=True)
            )
            for index, layers in enumerate(self.encoders)
        )

    @property
    def macs_per_window(self) -> int:
        """Multiply-adds to turn one window's features into its output."""
        shapes = self.trunk_shapes
        return sum(macs(layer, [shapes[name] for name in layer.inputs]) for layer in self.trunk)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Plan from what `to_json` gave, checked as any other."""
        try:
            known = dict(values)
            encoders = tuple(tuple(map(_layer_from, layers)) for layers in known.pop("encoders"))
            trunk = tuple(map(_layer_from, known.pop("trunk")))
            return cls(**{**known, "inputs": tuple(known["inputs"])}, encoders=encoders, trunk=trunk)
        except (KeyError, TypeError, AttributeError) as err:
            raise ParameterError(f"not the description of a network ({type(err).__name__}: {err})") from err

    def with_masks(self, mask_mode: str, buffer: float | None) -> Plan:
        """The same network, for patches masked in another way."""
        return replace(self, mask_mode=mask_mode, buffer=buffer)


def _layer_from(values: Mapping[str, Any]) -> Layer:
    layer = Layer(str(values["name"]), str(values["kind"]), dict(values["options"]), tuple(values["inputs"]))
    if layer.kind not in KINDS:
        raise ParameterError(f"layer {layer.name}: no kind {layer.kind!r}; there are {', '.join(KINDS)}")
    expected = KINDS[layer.kind].options
    if set(layer.options) != set(expected):
        raise ParameterError(
            f"layer {layer.name} ({layer.kind}) has options {sorted(layer.options)}, expected {sorted(expected)}"
        )
    for name, kind in expected.items():
        value = layer.options[name]
        if not _fits(value, kind):
            raise ParameterError(
                f"layer {layer.name} ({layer.kind}): {name} is {value!r}, expected {kind.__name__}"
            )
    return layer


def _fits(value: Any, kind: type) -> bool:
    """Whether an option is of its type; sizes are 1 or more."""
    if kind is int and isinstance(value, int) and value < 1:
        return False
    return type(value) is kind


def _shape_of(layer: Layer, shapes: list[Shape]) -> Shape:
    """Shape of what a layer gives."""
    kind = KINDS.get(layer.kind)
    if kind is None:
        raise ParameterError(f"layer {layer.name}: no kind {layer.kind!r}; there are {', '.join(KINDS)}")
    function = layer.options.get("activation", layer.options.get("function", "linear"))
    if function not in ACTIVATIONS:
        raise ParameterError(
            f"layer {layer.name}: no activation {function!r}; there are {', '.join(ACTIVATIONS)}"
        )
    if function == "softmax" and len(shapes[0]) == 3:
        raise ParameterError(f"layer {layer.name}: softmax is for flat features, not for images")
    out = kind.shape(layer, shapes)
    if min(out) < 1:
        raise ParameterError(
            f"layer {layer.name} ({layer.kind}) leaves nothing of {shapes[0]}: a larger patch"
        )
    return out


def macs(layer: Layer, shapes: Sequence[Shape]) -> int:
    """Multiply-adds of a layer that reads arrays of these shapes (elementwise work not counted)."""
    options, shape = layer.options, shapes[0]
    if layer.kind == "conv":
        return prod(_shape_of(layer, list(shapes))) * options["kernel"] ** 2 * shape[-1]
    if layer.kind == "dense":
        return prod(shape) * int(options["units"])
    if layer.kind == "attention":
        return shape[0] * prod(shape)
    if layer.kind == "lstm":
        units, directions = int(options["units"]), 1 + bool(options["bidirectional"])
        return shape[0] * 4 * units * (shape[1] + units) * directions
    return 0


def _same(layer: Layer, shapes: list[Shape]) -> Shape:
    if len(shapes) != 1:
        raise ParameterError(f"layer {layer.name} ({layer.kind}) reads {len(shapes)} arrays, expected one")
    return shapes[0]


def _axes(layer: Layer, shapes: list[Shape], count: int) -> Shape:
    shape = _same(layer, shapes)
    if len(shape) != count:
        raise ParameterError(f"layer {layer.name} ({layer.kind}) reads {shape}, expected {count} axes")
    return shape


def _conv(layer: Layer, shapes: list[Shape]) -> Shape:
    rows, columns, _ = _axes(layer, shapes, 3)
    if layer.options["padding"] not in ("same", "valid"):
        raise ParameterError(
            f"layer {layer.name}: padding {layer.options['padding']!r}, expected same or valid"
        )
    lost = layer.options["kernel"] - 1 if layer.options["padding"] == "valid" else 0
    return rows - lost, columns - lost, layer.options["filters"]


def _pool(layer: Layer, shapes: list[Shape]) -> Shape:
    rows, columns, channels = _axes(layer, shapes, 3)
    return rows // layer.options["size"], columns // layer.options["size"], channels


def _lstm(layer: Layer, shapes: list[Shape]) -> Shape:
    frames, _ = _axes(layer, shapes, 2)
    if layer.options["gate"] not in ("sigmoid", "hard_sigmoid"):
        raise ParameterError(f"layer {layer.name}: gate {layer.options['gate']!r}, expected (hard_)sigmoid")
    return frames, layer.options["units"] * (2 if layer.options["bidirectional"] else 1)


def _concat(layer: Layer, shapes: list[Shape]) -> Shape:
    if len({shape[:-1] for shape in shapes}) > 1:
        raise ParameterError(f"layer {layer.name} joins arrays of shapes {shapes}")
    return *shapes[0][:-1], sum(shape[-1] for shape in shapes)


@dataclass(frozen=True)
class Kind:
    """What a kind of layer has for options, and what it makes of a shape."""

    options: Mapping[str, type]
    shape: Callable[[Layer, list[Shape]], Shape]


KINDS: Mapping[str, Kind] = {
    "conv": Kind({"filters": int, "kernel": int, "padding": str, "activation": str}, _conv),
    "max_pool": Kind({"size": int}, _pool),
    "flatten": Kind({}, lambda layer, shapes: (prod(_same(layer, shapes)),)),
    "activation": Kind({"function": str}, _same),
    "batch_norm": Kind({"epsilon": float, "momentum": float}, _same),
    "dropout": Kind({"rate": float}, _same),
    "dense": Kind(
        {"units": int, "activation": str},
        lambda layer, shapes: (*_same(layer, shapes)[:-1], layer.options["units"]),
    ),
    "attention": Kind({"single": bool}, lambda layer, shapes: _axes(layer, shapes, 2)),
    "lstm": Kind({"units": int, "bidirectional": bool, "gate": str, "dropout": float}, _lstm),
    "concat": Kind({}, _concat),
}
"""The layers there are. conv, max_pool: channels last, stride 1 and `size`. batch_norm: over the last axis, with
Keras's momentum (share of the old mean kept). attention: over frames. lstm: all steps; `gate` is the activation of
its three gates; `dropout` that of its input, one mask for all steps. dense: over the last axis."""
