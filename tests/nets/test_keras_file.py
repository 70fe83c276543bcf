"""Keras files are read in both dialects, to what Keras gives; what cannot be read is named."""

from __future__ import annotations

import base64
import json
import marshal
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.errors import MissingWeightsError, NetworkFileError, ParameterError
from gpucalcium.nets import Network, load_network
from tests.nets.fixtures import FOLDER, NAMES, description, stored
from tests.nets.numpy_layers import Reference

KERAS_TOLERANCE = 1e-5  # float32 sums in another order; outputs are probabilities


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any], str], Path]:
    """Writes a changed description beside the weights it came with."""

    def write(about: dict[str, Any], name: str) -> Path:
        shutil.copy(FOLDER / f"{name}.h5", tmp_path / "model.h5")
        path = tmp_path / "model.json"
        path.write_text(json.dumps(about))
        return path

    return write


def layers(about: dict[str, Any], class_name: str) -> list[dict[str, Any]]:
    """All layers of a class, however deep."""
    found = []
    stack: list[Any] = [about]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if value.get("class_name") == class_name and "config" in value:
                found.append(value)
            stack += value.values()
        elif isinstance(value, list):
            stack += value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_gives_what_keras_gives(name: str) -> None:
    inputs, output = stored(name)
    network = load_network(FOLDER / f"{name}.json")
    assert network.inputs == tuple(inputs)
    assert_allclose(network.predict(inputs), output, atol=KERAS_TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gives_what_the_formulas_give(name: str) -> None:
    inputs, output = stored(name)
    expected = Reference(FOLDER / f"{name}.json", FOLDER / f"{name}.h5").predict(inputs)
    assert_allclose(expected, output, atol=KERAS_TOLERANCE, rtol=0)  # the judge is right itself
    network = load_network(FOLDER / f"{name}.json")
    assert_allclose(network.predict(inputs), expected, atol=KERAS_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("name", "kind", "classes", "per_frame", "tied"),
    [
        ("activity", "activity", 1, False, True),
        ("per_frame", "activity", 3, True, True),
        ("cell_type", "cell_type", 3, False, True),
        ("cell_type_binary", "cell_type", 1, False, True),
        ("untied", "activity", 1, False, False),
    ],
)
def test_knows_what_it_read(name: str, kind: str, classes: int, per_frame: bool, tied: bool) -> None:
    network = load_network(FOLDER / f"{name}.json")
    assert (network.window_len, network.patch_size) == (8, 13)
    assert (network.kind, network.n_classes, network.per_frame) == (kind, classes, per_frame)
    assert network.encoders_tied is tied or len(network.inputs) == 1
    assert (network.mask_mode, network.buffer) == ("legacy", None)


def test_hard_sigmoid_counts() -> None:
    about = description("older")
    gates = layers(about, "LSTM")
    assert {gate["config"]["recurrent_activation"] for gate in gates} == {"hard_sigmoid"}
    assert all(isinstance(model["config"], list) for model in layers(about, "Sequential"))


def test_hard_sigmoid_is_not_taken_for_a_sigmoid(written: Callable[..., Path]) -> None:
    about = description("older")
    for layer in layers(about, "LSTM"):
        layer["config"]["recurrent_activation"] = "sigmoid"
    inputs, output = stored("older")
    changed = load_network(written(about, "older")).predict(inputs)
    assert np.abs(changed - output).max() > 1e-3


@pytest.mark.parametrize(
    "arguments", [("full.h5",), ("attention_after.json", "full.h5"), ("full.h5", "full.h5")]
)
def test_a_whole_model_is_its_weights_file(arguments: tuple[str, ...]) -> None:
    inputs, _ = stored("attention_after")
    whole = load_network(*(FOLDER / name for name in arguments))
    assert_array_equal(whole.predict(inputs), load_network(FOLDER / "attention_after.json").predict(inputs))


def test_tied_and_untied_copies(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written(description("activity"), "activity")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        kernels: list[str] = []
        file.visit(lambda name: kernels.append(name) if "conv2d/kernel" in name else None)
        assert len(kernels) == 3
        file[kernels[1]][:] += 1e-3
    untied = load_network(path)
    assert not untied.encoders_tied
    inputs, _ = stored("activity")
    expected = Reference(path, tmp_path / "model.h5").predict(inputs)
    assert_allclose(untied.predict(inputs), expected, atol=KERAS_TOLERANCE, rtol=0)


def hostile(marker: Path) -> str:
    """Marshalled code that would write a file if it were run."""
    code = compile(f"open({str(marker)!r}, 'w').close()", "lambda", "exec")
    return base64.b64encode(marshal.dumps(code)).decode()


@pytest.mark.parametrize("name", ["activity", "single_vector", "older", "newer"])
def test_foreign_code_raises_and_never_runs(
    name: str, written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = description(name)
    for layer in layers(about, "Lambda"):
        layer["config"]["function"] = [hostile(tmp_path / "ran"), None, None]

    def never(*_: object) -> None:
        raise AssertionError("code was unmarshalled")

    monkeypatch.setattr(marshal, "loads", never)
    with pytest.raises(NetworkFileError, match=r"layer lambda.*never run.*lambdas="):
        load_network(written(about, name))
    assert not (tmp_path / "ran").exists()


def test_names_are_read_whole(written: Callable[..., Path]) -> None:
    about = description("activity")
    for layer in layers(about, "Lambda"):
        layer["config"]["function"] = [base64.b64encode(b"\xda\x0chard_sigmoid").decode(), None, None]
    with pytest.raises(NetworkFileError, match="layer lambda"):
        load_network(written(about, "activity"))


@pytest.mark.parametrize("function", [b"u\x07\0\0\0sigmoid", b"\xda\x07sigmoid"])
@pytest.mark.parametrize("form", ["list", "dict", "bare"])
def test_code_of_older_and_newer_pythons(function: bytes, form: str, written: Callable[..., Path]) -> None:
    text = base64.encodebytes(b"\xe3\x01\0\0" + function + b"r\x02").decode()
    forms: dict[str, Any] = {
        "list": [text, None, None],
        "dict": {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}},
        "bare": text,
    }
    about = description("activity")
    for layer in layers(about, "Lambda"):
        layer["config"]["function"] = forms[form]
    inputs, output = stored("activity")
    assert_allclose(load_network(written(about, "activity")).predict(inputs), output, atol=KERAS_TOLERANCE)


def test_the_caller_may_say_what_code_does(written: Callable[..., Path]) -> None:
    about = description("activity")
    names = set()
    for layer in layers(about, "Lambda"):
        layer["config"]["function"] = ["", None, None]
        names.add(layer["config"]["name"])
    path = written(about, "activity")
    inputs, output = stored("activity")
    swish = load_network(path, lambdas=dict.fromkeys(names, "swish"))
    assert_allclose(swish.predict(inputs), output, atol=KERAS_TOLERANCE)
    tanh = load_network(path, lambdas=dict.fromkeys(names, "tanh"))
    assert np.abs(tanh.predict(inputs) - output).max() > 1e-3


@pytest.mark.parametrize("lambdas", [{"no_such": "swish"}, {"lambda": "cube"}])
def test_lambdas_are_checked(lambdas: dict[str, str]) -> None:
    with pytest.raises(ParameterError, match="lambdas"):
        load_network(FOLDER / "activity.json", lambdas=lambdas)


@pytest.mark.parametrize(
    ("class_name", "field", "value"),
    [
        ("Conv2D", "strides", [2, 2]),
        ("Conv2D", "data_format", "channels_first"),
        ("Conv2D", "dilation_rate", [2, 2]),
        ("Conv2D", "groups", 2),
        ("Conv2D", "kernel_size", [3, 5]),
        ("Conv2D", "activation", "cube"),
        ("Conv2D", "filters", 0),
        ("MaxPooling2D", "pool_size", [3, 3]),
        ("MaxPooling2D", "padding", "same"),
        ("LSTM", "return_sequences", False),
        ("LSTM", "stateful", True),
        ("LSTM", "go_backwards", True),
        ("LSTM", "activation", "relu"),
        ("LSTM", "recurrent_activation", "relu"),
        ("Bidirectional", "merge_mode", "sum"),
        ("Concatenate", "axis", 1),
        ("Permute", "dims", [1, 2]),
        ("Flatten", "data_format", "channels_first"),
        ("BatchNormalization", "axis", [1]),
    ],
)
def test_what_is_not_supported_names_layer_and_field(
    class_name: str, field: str, value: object, written: Callable[..., Path]
) -> None:
    about = description("batch_norm")
    for layer in layers(about, class_name):
        layer["config"][field] = value
    with pytest.raises(NetworkFileError, match=rf"layer \w+ \({class_name}\): {field} is"):
        load_network(written(about, "batch_norm"))


def test_unknown_classes_are_named(written: Callable[..., Path]) -> None:
    about = description("activity")
    layers(about, "Dropout")[0]["class_name"] = "GaussianNoise"
    with pytest.raises(NetworkFileError, match=r"GaussianNoise.*not supported"):
        load_network(written(about, "activity"))


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "activity.json", tmp_path / "model.json")
    shutil.copy(FOLDER / "activity.h5", tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        names = [name for name in file.attrs["layer_names"] if name != b"dense" and name != "dense"]
        file.attrs["layer_names"] = names
    with pytest.raises(NetworkFileError, match=r"weights of 13 layers .* the model has 14 .*dense"):
        load_network(tmp_path / "model.json")


def test_long_lists_of_names_are_cut_into_several(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "activity.h5", tmp_path / "cut.h5")
    with h5py.File(tmp_path / "cut.h5", "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        for index, first in enumerate(range(0, len(names), 7)):
            file.attrs[f"layer_names{index}"] = names[first : first + 7]
    inputs, output = stored("activity")
    network = load_network(FOLDER / "activity.json", tmp_path / "cut.h5")
    assert_allclose(network.predict(inputs), output, atol=KERAS_TOLERANCE)


def test_weights_of_another_network_are_named() -> None:
    with pytest.raises(NetworkFileError, match=r"weights of 11 layers .*, the model has 9 \(time"):
        load_network(FOLDER / "attention_after.json", FOLDER / "batch_norm.h5")


def test_a_wrong_size_is_named(written: Callable[..., Path]) -> None:
    about = description("activity")
    lstm = layers(about, "LSTM")[0]
    lstm["config"]["units"] += 1
    with pytest.raises(NetworkFileError, match=r"kernel is float32 \(.*\), layer .* wants \("):
        load_network(written(about, "activity"))


def test_keras_3_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "model.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(NetworkFileError, match="Keras 3 archive"):
        load_network(archive)
    with pytest.raises(NetworkFileError, match="Keras 3 archive"):
        load_network(FOLDER / "activity.json", archive)
    newer = tmp_path / "weights.h5"
    with h5py.File(newer, "w") as file:
        file.create_group("layers")
    with pytest.raises(NetworkFileError, match=r"layer_names.*Keras 3"):
        load_network(FOLDER / "activity.json", newer)
    about = description("activity") | {"keras_version": "3.4.1"}
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(NetworkFileError, match=r"Keras 3\.4\.1"):
        load_network(tmp_path / "model.json", newer)


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"no_such\.json"):
        load_network(tmp_path / "no_such.json")
    with pytest.raises(MissingWeightsError, match=r"no_such\.h5"):
        load_network(FOLDER / "activity.json", tmp_path / "no_such.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes((FOLDER / "activity.h5").read_bytes()[:20_000])
    with pytest.raises(NetworkFileError, match=r"cut\.h5"):
        load_network(FOLDER / "activity.json", cut)
    text = tmp_path / "text.json"
    for content in (
        "{",
        "[]",
        "3",
        '{"class_name": "Model"}',
        '{"class_name": "Sequential", "config": {}}',
        "{}",
    ):
        text.write_text(content)
        with pytest.raises(NetworkFileError, match=r"text\.json"):
            load_network(text, FOLDER / "activity.h5")
    with pytest.raises(NetworkFileError, match="weights only"):
        load_network(FOLDER / "activity.h5")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_description_is_an_error_of_ours(seed: int, written: Callable[..., Path]) -> None:
    about = description("single_vector")
    rng = np.random.default_rng(seed)
    value: Any = about["config"]
    for _ in range(int(rng.integers(2, 7))):  # go down at random, then spoil what is there
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        deeper = [key for key in keys if isinstance(value[key], (dict, list)) and len(value[key])]
        if not deeper:
            break
        value = value[deeper[int(rng.integers(len(deeper)))]]
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    value[keys[int(rng.integers(len(keys)))]] = rng.choice(["spoilt", -1, None, 3.5]) if seed % 2 else None
    try:
        network = load_network(written(json.loads(json.dumps(about, default=str)), "single_vector"))
    except NetworkFileError:
        return
    assert isinstance(network, Network)  # what was spoilt had no meaning for prediction
