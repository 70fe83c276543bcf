"""A small network is trained: it learns, it can be trained on from Keras files, and bf16 keeps its raster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucalcium.nets import load_network, save_network
from tests.nets.fixtures import FOLDER, TINY

torch = pytest.importorskip("torch")
from gpucalcium.nets import Network, build_network  # noqa: E402 - only where PyTorch is

SPEC = replace(TINY, n_inputs=1, conv_filters=(8, 8, 8, 8), dropout=0.1, dropout_rnn=0.1)


def blinking(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows (n, L, P, P) of noise with a spot that is bright in some runs of frames, and which these are (n, L)."""
    rng = np.random.default_rng(seed)
    active = np.repeat(rng.random((n, SPEC.window_len // 2)) < 0.4, 2, axis=1)
    y, x = np.ogrid[: SPEC.patch_size, : SPEC.patch_size]
    spot = np.exp(-((y - 6) ** 2 + (x - 6) ** 2) / 8)
    brightness = active * rng.uniform(1.0, 3.0, (n, 1))
    frames = rng.normal(0, 0.7, (n, SPEC.window_len, SPEC.patch_size, SPEC.patch_size))
    frames += brightness[..., None, None] * spot
    return torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(active.astype(np.float32))


def train(network: Network, steps: int, rate: float = 4e-3) -> list[float]:
    """Losses of training steps on new windows each."""
    module = network.torch_module.train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=rate)
    losses = []
    for step in range(steps):
        windows, active = blinking(32, seed=1000 + step)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(module([windows], logits=True), active)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    module.eval()
    return losses


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a network that knows when the spot is bright."""
    before = torch.get_num_threads()
    state = torch.random.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of the dropouts
    network = build_network(SPEC, seed=1)
    losses = train(network, 150)
    torch.random.set_rng_state(state)
    torch.set_num_threads(before)
    assert np.mean(losses[-10:]) < 0.3 * losses[0]
    assert not any(
        parameter.any() for name, parameter in network.torch_module.named_parameters() if "bias_hh" in name
    )
    return save_network(network, tmp_path_factory.mktemp("trained") / "net")[0]


def test_it_has_learnt(trained: Path) -> None:
    windows, active = blinking(200, seed=1)
    raster = load_network(trained).predict({"input_0": windows.numpy()}) >= 0.5
    assert (raster == active.numpy().astype(bool)).mean() > 0.97


def test_bf16_keeps_the_raster(trained: Path) -> None:
    windows, _ = blinking(2500, seed=2)
    given = {"input_0": windows.numpy()}
    exact, rough = (
        load_network(trained, precision=precision).predict(given) for precision in ("float32", "bf16")
    )
    assert ((exact >= 0.5) == (rough >= 0.5)).mean() >= 0.999
    assert not np.array_equal(exact, rough)


@pytest.mark.parametrize("name", ["activity", "older", "batch_norm"])
def test_keras_networks_are_trained_on(name: str) -> None:
    network = load_network(FOLDER / f"{name}.json")
    module = network.torch_module.train()
    windows = [
        torch.randn(4, 8, 13, 13, generator=torch.Generator().manual_seed(k))
        for k in range(len(network.inputs))
    ]
    with torch.random.fork_rng(devices=[]):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            module(windows, logits=True), torch.ones(4, 8)
        )
    loss.backward()
    for parameter_name, parameter in module.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, parameter_name
