"""The networks that we build ourselves: every size of them, and the plan they come to. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from gpucalcium.errors import NotSupportedError, ParameterError
from gpucalcium.nets.plan import MASK_MODES, Layer, Plan

CONV_KERNEL, POOL = 3, 2
EPSILON, MOMENTUM = 1e-3, 0.99  # of batch normalisation, as Keras has them
INPUTS = ("input_0", "input_1", "input_2")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What `build_network` makes; the defaults are those of an activity classifier of 33,399,424 parameters.

    Each input's patches are encoded frame by frame (pairs of convolutions, "same" then "valid", and a pooling),
    weighted over time by attention, and read by LSTMs, each of which also passes its input on; the inputs are
    joined and read by one more LSTM and a dense layer.

    References
    ----------
    Denis et al. (2020), eNeuro 7(4), ENEURO.0038-20.2020.
    """

    kind: str = "activity"
    """'activity' (a probability per frame) or 'cell_type' (per window)."""
    n_classes: int = 1
    """Classes K: 1 is one probability; more are exclusive classes that sum to 1."""
    window_len: int = 100
    """Frames in a window, L."""
    patch_size: int = 25
    """Side of a patch, P, in pixels."""
    n_inputs: int = 3
    """Inputs, 1 to 3: the cell; its neighbours or the whole patch; the rest."""
    tied_encoders: bool = True
    """One encoder for all inputs, or one for each."""
    activation: str = "swish"
    """Activation of the convolutions."""
    conv_filters: tuple[int, ...] = (64, 64, 128, 128)
    """Filters of the convolutions, an even number of them."""
    lstm_sizes: tuple[int, ...] = (128, 256)
    """Units of the LSTMs of each input, per direction."""
    bin_lstm_size: int = 256
    """Units of the LSTM that joins the inputs."""
    bidirectional: bool = True
    """Whether the LSTMs of each input read both ways."""
    dropout: float = 0.5
    """Share of features dropped in training, after the encoder and before the last layer."""
    dropout_rnn: float = 0.5
    """Share of features dropped in training at the LSTMs of each input and the joining one, for a whole window."""
    dropout_at_the_end: float = 0.0
    """A further dropout right before the last layer; 0: none."""
    batch_norm: bool = False
    """Batch normalisation after convolutions 1, 2 and each last one, and before the last dropout."""
    attention: bool = True
    """Whether features are weighted over time."""
    attention_before_lstm: bool = True
    """Weighting before the LSTMs, or after the joining one."""
    single_attention_vector: bool = False
    """One weight per frame for all features, or one for each feature."""
    use_bin_lstm: bool = True
    """Must be true: without the joining LSTM the last layer would not have one output per frame."""
    mask_mode: str = "corrected"
    """How patches are masked: "corrected" or "legacy"."""
    buffer: float | None = 1.0
    """Pixels by which masks are grown; None: not at all."""

    def __post_init__(self) -> None:
        if self.kind not in ("activity", "cell_type"):
            raise ParameterError(f"kind={self.kind!r}: it is 'activity' or 'cell_type'")
        if self.mask_mode not in MASK_MODES:
            raise ParameterError(f"mask_mode={self.mask_mode!r}: it is 'legacy' or 'corrected'")
        if not 1 <= self.n_inputs <= len(INPUTS):
            raise ParameterError(f"n_inputs={self.n_inputs}: there are 1 to {len(INPUTS)}")
        if not self.conv_filters or len(self.conv_filters) % 2:
            raise ParameterError(f"conv_filters={self.conv_filters}: convolutions come in pairs")
        if not self.use_bin_lstm:
            raise NotSupportedError(
                "use_bin_lstm=False is not supported: without the LSTM that joins the inputs the last layer has "
                "no output of one value per frame"
            )
        whole = "n_classes window_len patch_size bin_lstm_size".split()
        counts = [(name, getattr(self, name)) for name in whole]
        counts += [("conv_filters", n) for n in self.conv_filters] + [
            ("lstm_sizes", n) for n in self.lstm_sizes
        ]
        for name, count in counts:
            if count < 1:
                raise ParameterError(f"{name}: {count} must be 1 or more")
        for name in ("dropout", "dropout_rnn", "dropout_at_the_end"):
            if not 0 <= getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)}: a share from 0 to below 1")

    def plan(self) -> Plan:
        """The layers, in order."""
        encoder = tuple(self._encoder())
        names = INPUTS[: self.n_inputs]
        return Plan(
            window_len=self.window_len,
            patch_size=self.patch_size,
            inputs=names,
            encoders=(encoder,) if self.tied_encoders else (encoder,) * len(names),
            trunk=tuple(self._trunk(names)),
            mask_mode=self.mask_mode,
            buffer=self.buffer,
        )

    def _encoder(self) -> list[Layer]:
        layers: list[Layer] = []
        last = len(self.conv_filters) - 1
        for index, filters in enumerate(self.conv_filters):
            options = {"filters": filters, "kernel": CONV_KERNEL, "activation": self.activation}
            padding = "valid" if index % 2 else "same"
            layers.append(Layer(f"conv_{index}", "conv", {**options, "padding": padding}))
            if self.batch_norm and index in (0, 1, last):
                layers.append(_batch_norm(f"norm_{index}"))
            if index % 2:
                layers.append(Layer(f"pool_{index // 2}", "max_pool", {"size": POOL}))
        layers.append(Layer("flatten", "flatten", {}))
        return layers + _dropouts("drop", self.dropout)

    def _trunk(self, names: tuple[str, ...]) -> list[Layer]:
        layers: list[Layer] = []
        branches = []
        for which, name in enumerate(names):
            source = name
            if self.attention and self.attention_before_lstm:
                source = f"attention_{which}"
                layers.append(Layer(source, "attention", {"single": self.single_attention_vector}, (name,)))
            last = source
            for depth, units in enumerate(self.lstm_sizes):
                lstm, joined = f"lstm_{which}_{depth}", f"join_{which}_{depth}"
                layers.append(Layer(lstm, "lstm", self._lstm(units, self.bidirectional), (last,)))
                layers.append(Layer(joined, "concat", {}, (lstm, source)))
                last = joined
            branches.append(last)
        if len(branches) > 1:
            layers.append(Layer("merge", "concat", {}, tuple(branches)))
        read = "merge" if len(branches) > 1 else branches[0]
        layers.append(Layer("bin", "lstm", self._lstm(self.bin_lstm_size, False), (read,)))
        return layers + self._head()

    def _lstm(self, units: int, bidirectional: bool) -> dict[str, object]:
        return {
            "units": units,
            "bidirectional": bidirectional,
            "gate": "sigmoid",
            "dropout": self.dropout_rnn,
        }

    def _head(self) -> list[Layer]:
        layers: list[Layer] = []
        if self.attention and not self.attention_before_lstm:
            layers.append(Layer("attention", "attention", {"single": self.single_attention_vector}))
        per_frame = self.kind == "activity" and self.n_classes > 1
        if not per_frame:
            layers.append(Layer("flatten", "flatten", {}))
        if self.batch_norm:
            layers.append(_batch_norm("norm"))
        layers += _dropouts("drop", self.dropout) + _dropouts("drop_at_the_end", self.dropout_at_the_end)
        units = self.window_len if self.kind == "activity" and self.n_classes == 1 else self.n_classes
        activation = "sigmoid" if self.n_classes == 1 else "softmax"
        layers.append(Layer("head", "dense", {"units": units, "activation": activation}))
        before = ["bin", *(layer.name for layer in layers)]
        return [
            Layer(layer.name, layer.kind, layer.options, (reads,))
            for layer, reads in zip(layers, before, strict=False)
        ]


def _batch_norm(name: str) -> Layer:
    return Layer(name, "batch_norm", {"epsilon": EPSILON, "momentum": MOMENTUM})


def _dropouts(name: str, rate: float) -> list[Layer]:
    """A dropout layer, or none for a rate of 0."""
    return [Layer(name, "dropout", {"rate": float(rate)})] if rate > 0 else []
