"""The two halves of the full network: frames encoded, and windows of features decoded.

The bound is the input and output moved once, far off: what counts are the operations (`Plan.macs_per_frame`,
`Plan.macs_per_window`, two operations each), by which the rates are to be judged.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.harness import timed
from gpucalcium import nets

torch = pytest.importorskip("torch")
from gpucalcium.nets.layers import CinacModule  # noqa: E402 - only where PyTorch is

FRAMES = {"cpu": 512, "cuda": 65536}
WINDOWS = {"cpu": 32, "cuda": 2048}
PRECISIONS = {"cpu": ("float32", "bf16"), "cuda": ("float32", "tf32", "bf16")}


def network(wing, precision, gate="sigmoid"):
    """The full one, its weights drawn at random, on a device where the precision means something."""
    if precision not in PRECISIONS[wing.name]:
        pytest.skip(f"{precision} is float32 on {wing.name}")
    made = nets.build_network(nets.NetworkSpec(), precision=precision)
    if made.device.type != wing.name:
        pytest.skip("PyTorch sees no GPU")
    if gate == "sigmoid":
        return made
    plan = made.plan
    hard = [
        replace(layer, options={**layer.options, "gate": gate}) if layer.kind == "lstm" else layer
        for layer in plan.trunk
    ]
    module = CinacModule(replace(plan, trunk=tuple(hard)))
    return nets.Network(module, precision=precision)


@pytest.mark.benchmark(group="encoder, 25 x 25 px")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_encode(benchmark, wing, precision):
    net = network(wing, precision)
    frames = torch.randn(FRAMES[wing.name], 25, 25, device=net.device)
    size = frames.nbytes + len(frames) * net.n_features * net.feature_dtype.itemsize
    timed(benchmark, wing, net.encode, frames, bytes_moved=size, frames=len(frames))


@pytest.mark.benchmark(group="attention, LSTMs and head, windows of 100 frames")
@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_decode(benchmark, wing, precision, gate):
    net = network(wing, precision, gate)
    features = torch.randn(WINDOWS[wing.name], net.window_len, net.n_features, device=net.device)
    timed(
        benchmark,
        wing,
        lambda: net.decode([features] * len(net.inputs)).cpu(),
        bytes_moved=len(net.inputs) * features.nbytes,
        frames=len(features) * net.window_len,
    )
