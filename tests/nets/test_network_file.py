"""Our own files: what is written is read back bit for bit; what is broken is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import MissingWeightsError, NetworkFileError, OutputError, ParameterError
from gpucalcium.nets import load_network, save_network
from tests.nets.fixtures import FOLDER, NAMES, TINY, stored, windows

pytest.importorskip("torch")
from gpucalcium.nets import build_network


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_network(build_network(TINY), tmp_path / "small")[0]


@pytest.mark.parametrize("path", ["net", "net.json", "net.v1", "a.b.json"])
def test_round_trip(path: str, tmp_path: Path) -> None:
    network = build_network(TINY, seed=5)
    model, weights = save_network(network, tmp_path / path)
    assert model.suffix == ".json" and weights.suffix == ".safetensors"
    assert model.stem == weights.stem == path.removesuffix(".json")
    again = load_network(model)
    assert again.plan == network.plan
    given = windows(network)
    assert_array_equal(again.predict(given), network.predict(given))
    assert_array_equal(load_network(str(model), str(weights)).predict(given), network.predict(given))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([model.name, weights.name])


@pytest.mark.parametrize("name", NAMES)
def test_keras_networks_are_converted(name: str, tmp_path: Path) -> None:
    network = load_network(FOLDER / f"{name}.json")
    again = load_network(save_network(network, tmp_path / name)[0])
    inputs, _ = stored(name)
    assert_array_equal(again.predict(inputs), network.predict(inputs))
    assert (again.mask_mode, again.buffer, again.encoders_tied) == ("legacy", None, network.encoders_tied)


def test_bf16_keeps_the_exact_weights(tmp_path: Path) -> None:
    exact, rough = (build_network(TINY, precision=precision) for precision in ("float32", "bf16"))
    again = load_network(save_network(rough, tmp_path / "net")[0])
    given = windows(exact)
    assert_array_equal(again.predict(given), exact.predict(given))


def test_files_moved_together_or_apart(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    weights = saved.with_suffix(".safetensors").rename(other / "weights.safetensors")
    with pytest.raises(MissingWeightsError, match=r"small\.safetensors"):
        load_network(saved)
    load_network(saved, weights)


def test_weights_of_another_network(saved: Path, tmp_path: Path) -> None:
    _, other = save_network(build_network(TINY, seed=9), tmp_path / "other")
    with pytest.raises(NetworkFileError, match=r"other\.safetensors.*not the weights"):
        load_network(saved, other)


def test_truncated_weights(saved: Path) -> None:
    weights = saved.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(NetworkFileError, match=r"small\.safetensors is truncated"):
        load_network(saved)


def rewritten(path: Path, change: object) -> None:
    about = json.loads(path.read_text())
    change(about)  # type: ignore[operator]
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a.update(version=99), "version 99"),
        (lambda a: a.pop("weights"), "weights"),
        (lambda a: a.pop("network"), "network"),
        (lambda a: a.update(weights=[]), "list"),
        (lambda a: a["network"].pop("trunk"), "trunk"),
        (lambda a: a["network"].update(window_len=9), "for windows of 9 frames: expected 9"),
        (
            lambda a: a["network"].update(patch_size=17),
            r"weight_ih_l0 has shape \(20, 6\), expected \(20, 24\)",
        ),
        (lambda a: a["network"]["trunk"].pop(0), "attention_0"),
        (
            lambda a: a["network"]["encoders"][0][0].update(name="first"),
            r"no weight encoders\.0\.first\.weight",
        ),
    ],
)
def test_spoilt_descriptions_are_named(change: object, text: str, saved: Path) -> None:
    rewritten(saved, change)
    with pytest.raises(NetworkFileError, match=text) as caught:
        load_network(saved)
    assert "small.json" in str(caught.value)


def test_sizes_beyond_all_memory_are_refused_before_any_is_taken(saved: Path) -> None:
    rewritten(saved, lambda about: about["network"]["encoders"][0][0]["options"].update(filters=10**9))
    with pytest.raises(NetworkFileError, match=r"conv_0\.weight has shape"):
        load_network(saved)


def test_weights_that_no_layer_has(saved: Path) -> None:
    def without_attention(about: dict) -> None:
        trunk = about["network"]["trunk"]
        about["network"]["trunk"] = [layer for layer in trunk if layer["name"] != "attention_0"]
        for layer in about["network"]["trunk"]:
            layer["inputs"] = ["input_0" if name == "attention_0" else name for name in layer["inputs"]]

    rewritten(saved, without_attention)
    with pytest.raises(NetworkFileError, match=r"no layer has: trunk\.attention_0"):
        load_network(saved)


def test_a_file_named_outside_the_folder_is_not_followed(saved: Path, tmp_path: Path) -> None:
    rewritten(saved, lambda about: about["weights"].update(file="../../small.safetensors"))
    load_network(saved)  # the name counts, the folder is that of the model file


def test_weights_that_are_no_safetensors(saved: Path) -> None:
    import hashlib

    weights = saved.with_suffix(".safetensors")
    weights.write_bytes(b"not weights")
    rewritten(saved, lambda a: a["weights"].update(sha256=hashlib.sha256(b"not weights").hexdigest()))
    with pytest.raises(NetworkFileError, match="not a safetensors file"):
        load_network(saved)


def test_lambdas_are_for_keras(saved: Path) -> None:
    with pytest.raises(ParameterError, match="lambdas"):
        load_network(saved, lambdas={"lambda": "swish"})


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        save_network(build_network(TINY), tmp_path / "none" / "net")
