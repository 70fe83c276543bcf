"""Networks: weights at the start, encoding and decoding against the whole, devices, precision, global state."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, GpuUnavailable, ParameterError
from gpucalcium.nets import NetworkSpec, cpu_threads, load_network
from tests.nets.fixtures import FOLDER, NAMES, TINY, stored, windows

torch = pytest.importorskip("torch")
from gpucalcium.nets import Network, build_network  # noqa: E402 - only where PyTorch is
from gpucalcium.nets import cinac_network as module_under_test  # noqa: E402
from gpucalcium.nets._torch_state import _tf32_settings, tensor_cores  # noqa: E402

SPECS = {
    "default": TINY,
    "cell type": replace(TINY, kind="cell_type", n_classes=3, n_inputs=2),
    "per frame": replace(TINY, n_classes=3, n_inputs=1),
    "untied": replace(TINY, tied_encoders=False, batch_norm=True),
    "attention after": replace(TINY, attention_before_lstm=False, bidirectional=False),
    "plain": replace(TINY, attention=False, lstm_sizes=(), n_inputs=1),
}


@pytest.fixture(params=SPECS.values(), ids=list(SPECS))
def network(request: pytest.FixtureRequest) -> Network:
    return build_network(request.param, seed=3)


def cached(network: Network, given: dict[str, np.ndarray]) -> np.ndarray:
    """Output with each frame encoded once, by itself."""
    features = []
    for which, name in enumerate(network.inputs):
        frames = torch.from_numpy(given[name]).flatten(0, 1)
        encoded = torch.cat([network.encode(frame[None], which) for frame in frames])
        features.append(encoded.unflatten(0, (-1, network.window_len)))
    return network.decode(features).numpy()


def test_parameters_of_the_default() -> None:
    network = build_network(NetworkSpec())
    assert network.n_parameters == 33_399_424
    assert (network.n_features, network.window_len, network.patch_size) == (2048, 100, 25)


def test_encoding_once_is_encoding_each_window(network: Network) -> None:
    given = windows(network)
    whole = network.predict(given)
    with torch.no_grad():
        module = network.torch_module([torch.from_numpy(given[name]) for name in network.inputs])
    assert_allclose(whole, module.numpy(), atol=1e-6)
    assert_allclose(cached(network, given).reshape(whole.shape), whole, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_encoding_once_with_keras_networks(name: str) -> None:
    network = load_network(FOLDER / f"{name}.json")
    given = windows(network)
    whole = network.predict(given)
    assert_allclose(cached(network, given).reshape(whole.shape), whole, atol=1e-6)


def test_shapes(network: Network) -> None:
    given = windows(network, n=2)
    frames = torch.from_numpy(given["input_0"]).flatten(0, 1)
    features = network.encode(frames)
    assert features.shape == (16, network.n_features)
    assert features.dtype == network.feature_dtype == torch.float32
    out = network.decode([features.unflatten(0, (2, 8))] * len(network.inputs))
    expected = (2, 8, network.n_classes) if network.kind == "activity" else (2, network.n_classes)
    assert out.shape == expected
    if network.n_classes > 1:
        assert_allclose(out.sum(dim=-1).numpy(), 1, atol=1e-6)


def test_no_frames_and_no_windows(network: Network) -> None:
    assert network.encode(torch.empty(0, 13, 13)).shape == (0, network.n_features)
    empty = torch.empty(0, 8, network.n_features)
    assert len(network.decode([empty] * len(network.inputs))) == 0
    assert len(network.predict(windows(network, n=0))) == 0


def test_batches_change_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    given = windows(network, n=7)
    whole = network.predict(given)
    monkeypatch.setattr(module_under_test, "FRAMES_AT_ONCE", {"cpu": 5})
    monkeypatch.setattr(module_under_test, "WINDOWS_AT_ONCE", {"cpu": 2})
    assert_allclose(network.predict(given), whole, atol=1e-6)


def test_each_input_and_frame_counts(network: Network) -> None:
    given = windows(network, n=1)
    before = network.predict(given)
    for name in network.inputs:
        changed = {key: value.copy() for key, value in given.items()}
        changed[name][0, 3] += 1
        assert np.abs(network.predict(changed) - before).max() > 1e-6, name


def test_input_of_other_kinds() -> None:
    network = build_network(TINY)
    given = windows(network)
    expected = network.predict(given)
    with_channel = {name: np.asfortranarray(value[..., None]) for name, value in given.items()}
    assert_array_equal(network.predict(with_channel), expected)
    doubled = {name: value.astype(np.float64) for name, value in given.items()}
    assert_array_equal(network.predict(doubled), expected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda g: g.pop("input_2"), "the network wants input_0, input_1, input_2"),
        (lambda g: g.update(input_3=g["input_0"]), "the network wants input_0"),
        (
            lambda g: g.update(input_1=g["input_1"][:, :7]),
            r"input_1 has shape \(3, 7, 13, 13\).*8 frames of 13 x 13",
        ),
        (lambda g: g.update(input_1=g["input_1"][:2]), "the same n"),
        (lambda g: g.update(input_1=g["input_1"][..., None, None]), "input_1"),
    ],
)
def test_wrong_inputs_are_named(change: object, text: str) -> None:
    network = build_network(TINY)
    given = windows(network)
    change(given)  # type: ignore[operator]
    with pytest.raises(ArrayShapeError, match=text):
        network.predict(given)


def test_wrong_features_are_named() -> None:
    network = build_network(TINY)
    with pytest.raises(ArrayShapeError, match=r"expected \(n, 13, 13\)"):
        network.encode(torch.zeros(4, 12, 13))
    with pytest.raises(ArrayShapeError, match="2 inputs"):
        network.decode([torch.zeros(1, 8, network.n_features)] * 2)
    with pytest.raises(ArrayShapeError, match=r"input_0 are \(1, 7, "):
        network.decode([torch.zeros(1, 7, network.n_features)] * 3)


def test_weights_at_the_start() -> None:
    network = build_network(replace(TINY, batch_norm=True))
    state = network.torch_module.state_dict()
    recurrent = state["trunk.lstm_0_0.weight_hh_l0"]  # (4 u, u): orthonormal columns
    assert_allclose((recurrent.T @ recurrent).numpy(), np.eye(5), atol=1e-5)
    bias = state["trunk.lstm_0_0.bias_ih_l0_reverse"].numpy()
    assert_array_equal(bias, np.repeat([0, 1, 0, 0], 5))
    assert not state["trunk.lstm_0_0.bias_hh_l0"].any()
    for name, fans in {"trunk.head.weight": 8 * 6 + 8, "trunk.bin.weight_ih_l0": None}.items():
        weight = state[name]
        limit = (6 / (fans or sum(weight.shape))) ** 0.5
        assert 0.9 * limit < weight.abs().max() <= limit
    conv = state["encoders.0.conv_1.weight"]
    assert 0.8 * (6 / (9 * 3 + 9 * 4)) ** 0.5 < conv.abs().max() <= (6 / (9 * 3 + 9 * 4)) ** 0.5
    assert not state["trunk.attention_0.bias"].any()
    assert (state["encoders.0.norm_0.running_var"] == 1).all()
    assert network.torch_module.encoders[0].norm_0.momentum == pytest.approx(0.01)
    assert network.torch_module.encoders[0].norm_0.eps == 1e-3


def test_seeds() -> None:
    first, again, other = (build_network(TINY, seed=seed) for seed in (1, 1, 2))
    given = windows(first)
    assert_array_equal(first.predict(given), again.predict(given))
    assert np.abs(first.predict(given) - other.predict(given)).max() > 0
    assert np.abs(build_network(TINY, seed=None).predict(given) - first.predict(given)).max() > 0


def switches() -> list[object]:
    """What PyTorch's settings of TF32 are now, in the terms of its version."""
    return [getattr(owner, name) for owner, name, _ in _tf32_settings(True)]


def test_global_state_is_left_alone() -> None:
    def now() -> list[object]:
        return [torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(), *switches()]

    state = torch.random.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is what is looked at
    settings = now()
    network = build_network(TINY)
    network.predict(windows(network))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert now() == settings


def test_tensor_cores_are_allowed_or_not_for_a_while() -> None:
    before = switches()
    for allowed in (True, False):
        with tensor_cores(allowed):
            assert switches() == [value for *_, value in _tf32_settings(allowed)]
        assert switches() == before
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)  # the older switches can still be read
    with pytest.raises(RuntimeError, match="stop"), tensor_cores(True):
        raise RuntimeError("stop")
    assert switches() == before


def test_tensor_cores_of_older_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, matmul = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    for allowed in (True, False):
        with tensor_cores(allowed):
            assert cudnn.allow_tf32 is matmul.allow_tf32 is allowed
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, False)


def test_threads_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    network = build_network(TINY)
    network.torch_module.register_module("probe", torch.nn.Identity())
    original = network.torch_module.encode
    monkeypatch.setattr(
        network.torch_module,
        "encode",
        lambda *given: seen.append(torch.get_num_threads()) or original(*given),
    )
    monkeypatch.setattr(backend, "threads", lambda: before + 1)
    network.encode(torch.zeros(1, 13, 13))
    with cpu_threads():
        assert torch.get_num_threads() == before + 1
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_running_a_network_in_training_leaves_it_in_training() -> None:
    network = build_network(replace(TINY, dropout=0.9))
    given = windows(network)
    expected = network.predict(given)
    network.torch_module.train()
    assert_array_equal(network.predict(given), expected)  # no dropout
    assert network.torch_module.training


def test_precisions() -> None:
    with pytest.raises(ParameterError, match="precision='half'"):
        build_network(TINY, precision="half")
    exact, fast, rough = (build_network(TINY, precision=p) for p in ("float32", "tf32", "bf16"))
    given = windows(exact)
    assert_array_equal(fast.predict(given), exact.predict(given))  # a CPU has no TF32
    assert rough.feature_dtype == torch.bfloat16
    assert rough.encode(torch.zeros(1, 13, 13)).dtype == torch.bfloat16
    difference = np.abs(rough.predict(given) - exact.predict(given)).max()
    assert 0 < difference < 5e-3  # 8 bits of mantissa in the features, averaged over many


def test_devices() -> None:
    assert build_network(TINY, device="cpu").device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(GpuUnavailable, match="PyTorch"):
            build_network(TINY, device="cuda")


def test_the_active_device_is_followed(wing: object) -> None:
    network = build_network(TINY)
    where = "cuda" if torch.cuda.is_available() and wing.device == "cuda" else "cpu"  # type: ignore[attr-defined]
    assert network.device.type == where
    exact = build_network(TINY, device="cpu")
    given = windows(network)
    assert_allclose(network.predict(given), exact.predict(given), atol=1e-5)


@pytest.mark.parametrize("name", ["activity", "older", "batch_norm", "untied", "per_frame"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("tf32", 2e-3), ("bf16", 5e-3)])
def test_every_device_gives_what_keras_gives(
    wing: object, name: str, precision: str, tolerance: float
) -> None:
    inputs, output = stored(name)
    network = load_network(FOLDER / f"{name}.json", precision=precision)
    assert_allclose(network.predict(inputs), output, atol=tolerance, rtol=0)


def test_nan_stays_in_its_window() -> None:
    network = build_network(TINY)
    given = windows(network)
    expected = network.predict(given)
    given["input_1"][1, 2, 3, 4] = np.nan
    found = network.predict(given)
    assert np.isnan(found[1]).all()
    assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_it_says_what_it_is() -> None:
    text = repr(build_network(TINY))
    assert "activity, K=1, L=8, P=13" in text and "float32 on cpu" in text


@pytest.mark.parametrize("name", ["gpucalcium.nets", "gpucalcium"])
def test_importing_needs_no_torch(name: str) -> None:
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_absent_torch_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from gpucalcium import nets\n"
        "from gpucalcium.errors import MissingExtraError\n"
        f"calls = [lambda: nets.build_network, lambda: nets.load_network({str(FOLDER / 'activity.json')!r})]\n"
        "for call in calls:\n"
        "    try:\n        call()\n"
        "    except MissingExtraError as err:\n        assert 'gpucalcium[nets]' in str(err)\n"
        "    else:\n        raise SystemExit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
