"""The PyTorch modules against the formulas in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gpucalcium.nets import Plan
from tests.nets import numpy_layers
from tests.nets.fixtures import TINY

torch = pytest.importorskip("torch")
from gpucalcium.nets import layers  # noqa: E402 - only where PyTorch is
from gpucalcium.nets.layers import (  # noqa: E402
    ACTIVATIONS,
    Attention,
    BatchNormLast,
    CinacModule,
    Conv,
    FlattenImage,
    Lstm,
    hard_sigmoid,
)

TOLERANCE = 2e-6  # float32 against float64, values of order 1


def drawn(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module with weights of order 1 / sqrt(width)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.7 / max(parameter.shape[-1], 4) ** 0.5, generator=generator)
            else:
                parameter.zero_()
    return module.eval()


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def keras_lstm(module: Lstm, end: str = "") -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias in Keras's layout."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    return [exact(getattr(module, name + end)).T for name in names]


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize(("n", "frames", "features", "units"), [(1, 1, 1, 1), (3, 7, 5, 2), (5, 11, 4, 9)])
def test_lstm(gate: str, n: int, frames: int, features: int, units: int) -> None:
    x = 2 * random(n, frames, features)
    one_way = drawn(Lstm(features, units, False, gate, 0.5))
    assert_allclose(
        exact(one_way(x)), numpy_layers.lstm(exact(x), *keras_lstm(one_way), gate), atol=TOLERANCE
    )
    both = drawn(Lstm(features, units, True, gate, 0.5))
    weights = keras_lstm(both), keras_lstm(both, "_reverse")
    assert_allclose(exact(both(x)), numpy_layers.bidirectional(exact(x), *weights, gate), atol=TOLERANCE)


@pytest.mark.parametrize("units", [1, 6])
def test_many_features_are_projected_first(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = 2 * random(3, 7, 20)
    lstm = drawn(Lstm(20, units, False, "sigmoid", 0))
    expected = torch.nn.LSTM.forward(lstm, x)[0]
    monkeypatch.setattr(layers, "WIDE", 19)
    monkeypatch.setattr(torch.nn.LSTM, "forward", None)
    torch.testing.assert_close(lstm(x), expected, atol=TOLERANCE, rtol=0)
    assert_allclose(exact(lstm(x)), numpy_layers.lstm(exact(x), *keras_lstm(lstm), "sigmoid"), atol=TOLERANCE)


def test_gates_differ() -> None:
    x = 3 * random(2, 6, 3)
    soft, hard = (drawn(Lstm(3, 4, True, gate, 0)) for gate in ("sigmoid", "hard_sigmoid"))
    assert np.abs(exact(soft(x)) - exact(hard(x))).max() > 1e-3


def test_lstm_trains_through_hard_gates() -> None:
    lstm = drawn(Lstm(3, 4, True, "hard_sigmoid", 0)).train()
    lstm(random(2, 6, 3)).square().sum().backward()
    for name, parameter in lstm.named_parameters():
        trained = not name.startswith("bias_hh")
        assert parameter.requires_grad is trained
        if trained:
            assert parameter.grad.abs().max() > 0


def test_lstm_drops_the_same_features_in_all_steps() -> None:
    lstm = drawn(Lstm(50, 4, False, "sigmoid", 0.5))
    seen = []
    original = torch.nn.LSTM.forward
    x = torch.ones(3, 9, 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.LSTM, "forward", lambda self, x: seen.append(x) or original(self, x))
        lstm(x)
        lstm.train()(x)
    assert torch.equal(seen[0], x)
    dropped = seen[1]
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(dropped[0], dropped[1])  # each window its own


@pytest.mark.parametrize(("n", "frames", "features", "units"), [(1, 1, 1, 1), (3, 7, 5, 2), (2, 31, 33, 17)])
@pytest.mark.parametrize("biased", [False, True])
def test_projection(
    n: int, frames: int, features: int, units: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = random(n, frames, features), random(units, features, seed=2)
    bias = random(units, seed=3) if biased else None
    expected = numpy_layers.dense(exact(x), exact(weight).T, exact(bias) if biased else np.zeros(1))
    found = layers.project(x, weight, bias)
    assert found.is_contiguous()
    assert_allclose(exact(found), expected, atol=1e-5)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert_allclose(exact(layers.project(x, weight, bias)), expected, atol=1e-5)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("n", "frames", "features"), [(1, 1, 1), (3, 7, 5), (2, 31, 33)])
def test_attention(single: bool, n: int, frames: int, features: int) -> None:
    module = drawn(Attention(frames, single))
    x = random(n, frames, features)
    expected = numpy_layers.attention(exact(x), exact(module.weight).T, exact(module.bias), single)
    assert_allclose(exact(module(x)), expected, atol=TOLERANCE)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.booleans(), st.floats(0.1, 30))
def test_attention_sums_to_1_over_time(
    n: int, frames: int, features: int, single: bool, scale: float
) -> None:
    weights = drawn(Attention(frames, single)).weights(scale * random(n, frames, features))
    assert weights.shape == (n, frames, 1 if single else features)
    assert_allclose(exact(weights.sum(dim=1)), 1, atol=1e-5)
    assert weights.min() >= 0


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("activation", ["linear", "swish", "relu", "tanh"])
@pytest.mark.parametrize("channels", [1, 2])
def test_convolution(padding: str, activation: str, channels: int) -> None:
    module = drawn(Conv(channels, 5, 3, padding, activation))
    x = random(4, channels, 7, 9)
    kernel = exact(module.weight).transpose(2, 3, 1, 0)
    expected = numpy_layers.conv(exact(x).transpose(0, 2, 3, 1), kernel, exact(module.bias), padding)
    expected = numpy_layers.FUNCTIONS[activation](expected)
    assert_allclose(exact(module(x)).transpose(0, 2, 3, 1), expected, atol=TOLERANCE)


def test_flatten_is_keras_order() -> None:
    x = random(3, 2, 4, 5)
    assert_allclose(exact(FlattenImage()(x)), exact(x).transpose(0, 2, 3, 1).reshape(3, -1))


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_batch_norm_over_the_last_axis(shape: tuple[int, ...]) -> None:
    module = drawn(BatchNormLast(5, eps=1e-3))
    module.running_mean.copy_(random(5))
    module.running_var.copy_(random(5).square() + 0.1)
    x = random(*shape)
    state = [exact(value) for value in (module.weight, module.bias, module.running_mean, module.running_var)]
    assert_allclose(exact(module(x)), numpy_layers.batch_norm(exact(x), *state, 1e-3), atol=TOLERANCE)


def test_hard_sigmoid_is_that_of_keras_2() -> None:
    x = torch.linspace(-4, 4, 81)
    assert_allclose(exact(hard_sigmoid(x)), numpy_layers.hard_sigmoid(exact(x)), atol=1e-7)


@pytest.mark.parametrize("name", sorted(numpy_layers.FUNCTIONS))
def test_activations(name: str) -> None:
    x = random(4, 9)
    assert_allclose(exact(ACTIVATIONS[name](x)), numpy_layers.FUNCTIONS[name](exact(x)), atol=TOLERANCE)


def test_logits_are_what_the_last_activation_is_given() -> None:
    for classes, last in ((1, torch.sigmoid), (3, lambda x: torch.softmax(x, dim=-1))):
        module = drawn(CinacModule(replace(TINY, n_classes=classes).plan()))
        x = [random(2, 8, 13, 13, seed=seed) for seed in range(3)]
        torch.testing.assert_close(last(module(x, logits=True)), module(x))


def test_forward_is_encode_then_decode() -> None:
    plan: Plan = TINY.plan()
    module = drawn(CinacModule(plan))
    x = [random(2, 8, 13, 13, seed=seed) for seed in range(3)]
    features = [
        torch.stack([module.encode(window, which) for window in windows]) for which, windows in enumerate(x)
    ]
    torch.testing.assert_close(module.decode(features), module(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_order_of_channels_changes_nothing(batch_norm: bool) -> None:
    module = drawn(CinacModule(replace(TINY, batch_norm=batch_norm).plan()))
    for name, value in module.named_buffers():
        value.fill_(0.5) if "running" in name else None
    frames = random(5, 13, 13)
    features = []
    for last in (True, False, True):
        module.lay_channels(last=last)
        features.append(module.encode(frames))
        assert module.encoders[0].conv_1.weight.is_contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
    torch.testing.assert_close(features[0], features[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(features[0], features[2], atol=0, rtol=0)
