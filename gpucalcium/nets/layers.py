"""The PyTorch modules that a plan is built of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpucalcium.nets.plan import Layer, Plan, Shape

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
WIDE = 3500  # input features from which oneDNN's LSTM, there at 3/4 to 1/4 of its rate, loses to a product


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip(x / 5 + 1/2, 0, 1), Keras 2's; PyTorch's own has another slope."""
    return (x * 0.2 + 0.5).clamp(0, 1)


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "swish": functional.silu,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "softmax": lambda x: functional.softmax(x, dim=-1),
    "tanh": torch.tanh,
    "relu": functional.relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "exponential": torch.exp,
}


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for x (n, L, features).

    On a CPU as a convolution of one pixel: oneDNN's run at the full rate of any processor, where the product
    behind `functional.linear` runs at half of it on some.
    """
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return functional.linear(x, weight, bias)
    image = x.unsqueeze(2).permute(0, 3, 1, 2)
    return functional.conv2d(image, weight[:, :, None, None], bias).permute(0, 2, 3, 1).squeeze(2)


class Conv(nn.Conv2d):
    """Convolution of (n, channels, rows, columns), then an activation."""

    def __init__(self, channels: int, filters: int, kernel: int, padding: str, activation: str) -> None:
        super().__init__(channels, filters, kernel, padding=padding)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        single = x.shape[1] == 1 and x.device.type == "cpu"
        return self.activation(self._single(x) if single else super().forward(x))

    def _single(self, x: Tensor) -> Tensor:
        """The same for one channel, as a product of 9 x filters: oneDNN is several times slower, and leaves
        channels first, which the next layer would have to reorder."""
        size = self.kernel_size[0]
        if self.padding == "same":
            x = functional.pad(x, [(size - 1) // 2, size // 2] * 2)
        squares = x[:, 0].unfold(1, size, 1).unfold(2, size, 1).flatten(3)
        return functional.linear(squares, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class Dense(nn.Linear):
    """Dense layer over the last axis, then an activation."""

    def __init__(self, features: int, units: int, activation: str) -> None:
        super().__init__(features, units)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(super().forward(x))


class Activation(nn.Module):
    """An activation by itself."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = ACTIVATIONS[function]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class FlattenImage(nn.Module):
    """(n, channels, rows, columns) to (n, rows * columns * channels), in that order; a view if channels lie last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class BatchNormLast(nn.BatchNorm1d):
    """Batch normalisation over the last axis of (n, features) or (n, L, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Attention(nn.Module):
    """Features F (n, L, D) weighted over time: F * A, with A = softmax over t of (F'M + m), M (L, L).

    Parameters
    ----------
    frames : int
        L.
    single : bool
        One weight per frame, the mean of A over features.
    """

    def __init__(self, frames: int, single: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(frames, frames))  # M', (out, in) as in nn.Linear
        self.bias = nn.Parameter(torch.empty(frames))
        self.single = single

    def weights(self, features: Tensor) -> Tensor:
        """A, (n, L, D), or (n, L, 1) if single; sums to 1 over L.

        Computed as M'F + m, which is (F'M + m)' and needs no transposed copy of F.
        """
        batch = len(features)
        logits = torch.baddbmm(self.bias[:, None], self.weight.expand(batch, -1, -1), features)
        weights = functional.softmax(logits, dim=1)
        return weights.mean(dim=2, keepdim=True) if self.single else weights

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weights(features)


class Lstm(nn.LSTM):
    """LSTM (n, L, features) -> (n, L, units * directions), its gates sigmoid or Keras 2's hard sigmoid.

    The weights are PyTorch's (gates i, f, g, o). One bias is enough: the second is zero and not trained.
    In training a share `dropout` of the input features is dropped, the same ones in all steps of a window.
    """

    def __init__(self, features: int, units: int, bidirectional: bool, gate: str, dropout: float) -> None:
        super().__init__(features, units, batch_first=True, bidirectional=bidirectional)
        self.gate, self.drop_input = gate, dropout
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith("bias_hh"))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # an LSTM that gives its outputs only
        if self.training and self.drop_input > 0:
            x = x * functional.dropout(torch.ones_like(x[:, :1]), self.drop_input)
        if self.gate == "hard_sigmoid":
            return self._hard(x)
        wide = x.shape[2] > WIDE and not self.bidirectional and x.device.type == "cpu"
        return self._wide(x) if wide else super().forward(x)[0]

    def _wide(self, x: Tensor) -> Tensor:
        """The same for many features: one product projects them to the gates, and an LSTM whose input weights are
        the identity, which changes no bit, goes on from there."""
        kernel, *others = (cast(Tensor, getattr(self, f"{name}_l0")) for name in _WEIGHTS)
        # as a convolution of one pixel the product is oneDNN's, on some CPUs twice as fast as that of functional.linear
        columns = functional.conv2d(x.unsqueeze(1).permute(0, 3, 1, 2), kernel[:, :, None, None])
        gates = columns.permute(0, 2, 3, 1).squeeze(1)
        start = x.new_zeros(1, len(x), self.hidden_size)
        weights = [torch.eye(gates.shape[2], dtype=x.dtype), *others]
        return torch.lstm(gates, (start, start), weights, True, 1, 0.0, self.training, False, True)[0]

    def _hard(self, x: Tensor) -> Tensor:
        """The same with hard sigmoids, which neither cuDNN nor oneDNN have.

        One product projects the input of all steps and both directions; a step is then one batched product
        and a few elementwise operations. The slope and offset of the hard sigmoid go into the weights.
        """
        ends = ("", "_reverse") if self.bidirectional else ("",)
        units, n = self.hidden_size, len(x)
        scale, offset = x.new_full((4 * units,), 0.2), x.new_full((4 * units,), 0.5)
        scale[2 * units : 3 * units], offset[2 * units : 3 * units] = 1, 0  # the cell candidate takes a tanh
        given = [[getattr(self, f"{name}_l0{end}") for end in ends] for name in _WEIGHTS]
        kernel = torch.cat([weight * scale[:, None] for weight in given[0]])
        recurrent = torch.stack([(weight * scale[:, None]).T for weight in given[1]])
        bias = torch.cat([bias * scale + offset for bias in given[2]])
        projected = project(x, kernel, bias).unflatten(2, (len(ends), -1)).permute(1, 2, 0, 3)
        if self.bidirectional:  # (L, directions, n, 4 units), each in the order it is read
            projected = torch.stack([projected[:, 0], projected[:, 1].flip(0)], dim=1)
        cell = x.new_zeros(len(ends), n, units)
        hidden, steps = cell, []
        for step in projected:
            gates = torch.baddbmm(step, hidden, recurrent)
            i, f = gates[..., : 2 * units].clamp(0, 1).chunk(2, dim=-1)
            g, o = gates[..., 2 * units : 3 * units].tanh(), gates[..., 3 * units :].clamp(0, 1)
            cell = torch.addcmul(f * cell, i, g)
            hidden = o * cell.tanh()
            steps.append(hidden)
        out = torch.stack(steps)  # (L, directions, n, units)
        if not self.bidirectional:
            return out[:, 0].transpose(0, 1)
        return torch.cat([out[:, 0], out[:, 1].flip(0)], dim=-1).transpose(0, 1)


class CinacModule(nn.Module):
    """The network of a plan, for training and for `Network`, which runs it.

    ``encode`` gives the features of frames, ``decode`` the output of windows of features; ``forward`` both.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.channels_last = True
        self.encoders = nn.ModuleList(_encoder(plan, index) for index in range(len(plan.encoders)))
        shapes = plan.trunk_shapes
        self.trunk = nn.ModuleDict(
            {
                layer.name: _module(layer, shapes[layer.inputs[0]])
                for layer in plan.trunk
                if layer.kind != "concat"
            }
        )
        cast(Dense, self.trunk[plan.trunk[-1].name]).activation = ACTIVATIONS["linear"]  # `decode` applies it

    def lay_channels(self, *, last: bool) -> None:
        """Keep images with their channels last, as tensor cores and oneDNN want them, or first."""
        self.channels_last = last
        order = torch.channels_last if last else torch.contiguous_format
        for part in self.encoders.modules():
            if isinstance(part, Conv):
                part.weight.data = part.weight.data.contiguous(memory_format=order)

    def encode(self, frames: Tensor, which_input: int = 0) -> Tensor:
        """Features (n, D) of frames (n, P, P) of one input."""
        images = frames.unsqueeze(3).permute(
            0, 3, 1, 2
        )  # one channel, lying last: all layers then keep them last
        features: Tensor = self.encoders[self.plan.encoder_of(which_input)](images)
        return features

    def decode(self, features: Sequence[Tensor], *, logits: bool = False) -> Tensor:
        """Output (n, L), (n, L, K) or (n, K) for the features (n, L, D) of each input.

        With `logits`, what the last sigmoid or softmax would be given.
        """
        values = dict(zip(self.plan.inputs, features, strict=True))
        for layer in self.plan.trunk:
            given = [values[name] for name in layer.inputs]
            values[layer.name] = (
                torch.cat(given, dim=-1) if layer.kind == "concat" else self.trunk[layer.name](given[0])
            )
        out = values[self.plan.trunk[-1].name]
        return out if logits else ACTIVATIONS[self.plan.head_activation](out)

    def forward(self, windows: Sequence[Tensor], *, logits: bool = False) -> Tensor:
        """Output for windows (n, L, P, P) of each input."""
        features = [
            self.encode(frames.flatten(0, 1), which).unflatten(0, frames.shape[:2])
            for which, frames in enumerate(windows)
        ]
        return self.decode(features, logits=logits)


def _encoder(plan: Plan, index: int) -> nn.Sequential:
    layers, shapes = plan.encoders[index], plan.encoder_shapes(index)
    return nn.Sequential(
        OrderedDict(
            (layer.name, _module(layer, shape)) for layer, shape in zip(layers, shapes[:-1], strict=True)
        )
    )


def _module(layer: Layer, shape: Shape) -> nn.Module:
    """Module of a layer that reads arrays of this shape."""
    options = layer.options
    match layer.kind:
        case "conv":
            return Conv(shape[-1], **options)
        case "max_pool":
            return nn.MaxPool2d(options["size"])
        case "flatten":
            return FlattenImage() if len(shape) == 3 else nn.Flatten()
        case "activation":
            return Activation(options["function"])
        case "dropout":
            return nn.Dropout(options["rate"])
        case "batch_norm":
            make = nn.BatchNorm2d if len(shape) == 3 else BatchNormLast
            return make(shape[-1], eps=options["epsilon"], momentum=1 - options["momentum"])
        case "dense":
            return Dense(shape[-1], **options)
        case "attention":
            return Attention(shape[0], **options)
        case _:
            return Lstm(shape[-1], **options)
