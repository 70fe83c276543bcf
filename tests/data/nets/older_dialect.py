"""Descriptions of Keras models rewritten as Keras 2.2 wrote them."""

from __future__ import annotations

from typing import Any


def as_older(description: dict[str, Any]) -> dict[str, Any]:
    """The same description as Keras 2.2 writes it: Sequential models are bare lists, the class is Model."""

    def rewrite(value: Any) -> Any:
        if isinstance(value, list):
            return [rewrite(item) for item in value]
        if not isinstance(value, dict):
            return value
        value = {key: rewrite(item) for key, item in value.items()}
        if value.get("class_name") == "Functional":
            value["class_name"] = "Model"
        if value.get("class_name") == "Sequential":
            layers = value["config"]["layers"]
            value["config"] = [layer for layer in layers if layer["class_name"] != "InputLayer"]
        for newer in ("groups", "ragged", "sparse", "time_major"):
            value.pop(newer, None)
        return value

    return {**rewrite(description), "keras_version": "2.2.4"}
