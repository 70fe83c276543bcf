"""Plans and specs: shapes, counts, every knob, and what cannot work."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucalcium.errors import NotSupportedError, ParameterError
from gpucalcium.nets import Layer, NetworkSpec, Plan
from tests.nets.fixtures import TINY


def test_default_sizes() -> None:
    plan = NetworkSpec().plan()
    assert plan.encoder_shapes()[3:4] == [(11, 11, 64)]
    assert [shape for shape in plan.encoder_shapes() if len(shape) == 1] == [(2048,), (2048,)]
    assert [plan.trunk_shapes[f"join_0_{depth}"] for depth in (0, 1)] == [(100, 2304), (100, 2560)]
    assert plan.trunk_shapes["merge"] == (100, 7680)
    assert plan.trunk_shapes["bin"] == (100, 256)
    assert plan.output_shape == (100,)


def test_operations_of_the_default() -> None:
    plan = NetworkSpec().plan()
    assert plan.macs_per_frame == pytest.approx(40.7e6, rel=1e-3)
    assert 300 * plan.macs_per_frame + plan.macs_per_window == pytest.approx(15.3e9, rel=5e-3)


@pytest.mark.parametrize(
    ("changes", "kind", "shape", "classes", "per_frame"),
    [
        ({}, "activity", (8,), 1, False),
        ({"n_classes": 3}, "activity", (8, 3), 3, True),
        ({"n_classes": 2}, "activity", (8, 2), 2, True),
        ({"kind": "cell_type"}, "cell_type", (1,), 1, False),
        ({"kind": "cell_type", "n_classes": 8}, "cell_type", (8,), 8, False),  # K = L is no activity
        ({"kind": "cell_type", "n_classes": 3, "n_inputs": 2}, "cell_type", (3,), 3, False),
    ],
)
def test_heads(changes: dict[str, object], kind: str, shape: object, classes: int, per_frame: bool) -> None:
    plan = replace(TINY, **changes).plan()
    assert (plan.kind, plan.output_shape, plan.n_classes, plan.per_frame) == (kind, shape, classes, per_frame)


KNOBS = [
    ("kind", "cell_type"),
    ("n_classes", 3),
    ("window_len", 9),
    ("patch_size", 15),
    ("n_inputs", 2),
    ("tied_encoders", False),
    ("activation", "relu"),
    ("conv_filters", (3, 4)),
    ("lstm_sizes", (5,)),
    ("lstm_sizes", ()),
    ("bin_lstm_size", 4),
    ("bidirectional", False),
    ("dropout", 0.0),
    ("dropout_rnn", 0.1),
    ("dropout_at_the_end", 0.2),
    ("batch_norm", True),
    ("attention", False),
    ("attention_before_lstm", False),
    ("single_attention_vector", True),
    ("mask_mode", "legacy"),
    ("buffer", None),
]


@pytest.mark.parametrize(("name", "value"), KNOBS)
def test_every_knob_changes_the_plan(name: str, value: object) -> None:
    assert replace(TINY, **{name: value}).plan() != TINY.plan()


def test_no_knob_is_left_out() -> None:
    assert {name for name, _ in KNOBS} | {"use_bin_lstm"} == {field.name for field in fields(NetworkSpec)}


def test_batch_norm_and_dropout_places() -> None:
    plan = replace(TINY, batch_norm=True, dropout_at_the_end=0.1).plan()
    assert [layer.name for layer in plan.encoders[0]] == (
        "conv_0 norm_0 conv_1 norm_1 pool_0 conv_2 conv_3 norm_3 pool_1 flatten drop".split()
    )
    assert [layer.name for layer in plan.trunk][-5:] == "flatten norm drop drop_at_the_end head".split()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "spikes"}, "kind='spikes'"),
        ({"n_inputs": 4}, "n_inputs=4"),
        ({"n_inputs": 0}, "n_inputs=0"),
        ({"conv_filters": (3,)}, "pairs"),
        ({"conv_filters": ()}, "pairs"),
        ({"conv_filters": (3, 0)}, "conv_filters: 0"),
        ({"lstm_sizes": (0,)}, "lstm_sizes: 0"),
        ({"window_len": 0}, "window_len: 0"),
        ({"n_classes": 0}, "n_classes: 0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout_rnn": -0.1}, "dropout_rnn"),
        ({"mask_mode": "old"}, "mask_mode"),
    ],
)
def test_specs_that_cannot_work(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        replace(TINY, **changes)


def test_a_network_without_the_joining_lstm_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="use_bin_lstm"):
        replace(TINY, use_bin_lstm=False)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"patch_size": 5}, "conv_3.*leaves nothing"),
        ({"activation": "cube"}, "conv_0: no activation 'cube'"),
        ({"activation": "softmax"}, "softmax is for flat"),
    ],
)
def test_plans_that_cannot_work(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        replace(TINY, **changes).plan()


@given(
    st.sampled_from(["activity", "cell_type"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 6), max_size=3),
)
def test_json_and_back(
    kind: str, classes: int, inputs: int, tied: bool, norm: bool, after: bool, lstms: list[int]
) -> None:
    spec = replace(
        TINY, kind=kind, n_classes=classes, n_inputs=inputs, tied_encoders=tied, batch_norm=norm,
        attention_before_lstm=not after, lstm_sizes=tuple(lstms),
    )  # fmt: skip
    plan = spec.plan()
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert (plan.kind, plan.n_classes, len(plan.inputs)) == (kind, classes, inputs)
    assert plan.encoders_tied is (tied or inputs == 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.pop("trunk"),
        lambda v: v.pop("window_len"),
        lambda v: v.update(trunk=[]),
        lambda v: v.update(inputs=[]),
        lambda v: v.update(inputs=["input_0", "input_0", "input_1"]),
        lambda v: v.update(inputs=["input_0"]),
        lambda v: v.update(encoders=[[], []]),
        lambda v: v.update(unknown=1),
        lambda v: v.update(patch_size="big"),
        lambda v: v["trunk"][0].update(kind="transformer"),
        lambda v: v["trunk"][0].update(options={}),
        lambda v: v["trunk"][0].update(inputs=["nothing"]),
        lambda v: v["trunk"][0].update(inputs=[]),
        lambda v: v["trunk"][0].update(name="a.b"),
        lambda v: v["trunk"][1].update(name=v["trunk"][0]["name"]),
        lambda v: v["trunk"].pop(),
        lambda v: v["encoders"][0].pop(-2),
        lambda v: v["encoders"][0][1].update(name="conv_0"),
        lambda v: v["trunk"][-1]["options"].update(units=7),
        lambda v: v["trunk"][-1]["options"].update(activation="relu"),
        lambda v: v["trunk"][1]["options"].update(gate="relu"),
        lambda v: v["encoders"][0][0]["options"].update(padding="full"),
        lambda v: v.update(mask_mode="both"),
        lambda v: v["encoders"][0][0]["options"].update(filters="many"),
        lambda v: v["encoders"][0][0]["options"].update(kernel=0),
        lambda v: v["encoders"][0][-1]["options"].update(rate="half"),
        lambda v: v["trunk"][0]["options"].update(single=1),
    ],
)
def test_descriptions_that_cannot_work(spoil: object) -> None:
    values = json.loads(json.dumps(TINY.plan().to_json()))
    spoil(values)  # type: ignore[operator]
    with pytest.raises(ParameterError):
        Plan.from_json(values)


def test_layers_are_in_order() -> None:
    plan = TINY.plan()
    with pytest.raises(ParameterError, match="reads"):
        replace(plan, trunk=(*plan.trunk[1:-1], plan.trunk[0], plan.trunk[-1]))
    joined = Layer("join", "concat", {}, ("input_0", "flatten"))
    with pytest.raises(ParameterError, match="joins arrays"):
        replace(plan, trunk=(*plan.trunk[:-1], joined, plan.trunk[-1]))
