"""Makes the Keras networks of this folder: tiny ones, their weights drawn at random, with inputs and outputs.

    python -m venv keras && keras/bin/pip install "tensorflow-cpu==2.12.*"   # Keras 2; Python 3.10, 3.11
    keras/bin/python tests/data/nets/make_fixtures.py
    python -m venv newer && newer/bin/pip install "tensorflow-cpu==2.21.*" "tf_keras==2.21.*"
    newer/bin/python tests/data/nets/make_fixtures.py newer

For each network NAME: NAME.json (its layers), NAME.h5 (its weights) and NAME.npz (inputs under their names,
`output`, what Keras gives for them, and `versions`). "older" is written in the dialect of Keras 2.2: hard sigmoid
gates, Sequential models as bare lists; Keras gives its outputs before the description is rewritten. "newer" is in
the dialect of the last Keras 2. full.h5 is "attention_after" as a whole model in one file; "untied" was made
from its description and given other weights: Keras no longer shares its encoder.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from older_dialect import as_older  # beside this file

try:
    import tf_keras as keras  # Keras 2 beside a TensorFlow that comes with Keras 3
except ImportError:
    keras = tf.keras

HERE = Path(__file__).parent
WINDOW, PATCH, N_WINDOWS = 8, 13, 3
L = keras.layers

NETWORKS = {
    "activity": {"inputs": 3},
    "single_vector": {"single_vector": True},
    "attention_after": {"attention_after": True},
    "batch_norm": {"batch_norm": True, "activation": "relu"},
    "per_frame": {"classes": 3, "one_way": True},
    "cell_type": {"kind": "cell_type", "classes": 3},
    "cell_type_binary": {"kind": "cell_type", "inputs": 1, "no_attention": True},
    "older": {"gate": "hard_sigmoid", "single_vector": True, "batch_norm": True},
    "nested": {"batch_norm": True, "functional": True},
    "bare": {"batch_norm": True, "bare": True},
    "newer": {"batch_norm": True, "single_vector": True},
}


def pathless(function):
    """The function, its code free of the path of this file: Keras writes the code into its description."""
    function.__code__ = function.__code__.replace(co_filename="networks.py")
    return function


def encoder(activation: str, batch_norm: bool, functional: bool, bare: bool) -> keras.Model:
    """Frames (P, P, 1) to features, as a Sequential or a Model; if bare, some layers frozen, fewer weights."""
    model = keras.Sequential()
    for index, filters in enumerate((3, 4, 5, 6)):
        shape = {"input_shape": (PATCH, PATCH, 1)} if index == 0 else {}
        model.add(
            L.Conv2D(filters, (3, 3), padding="valid" if index % 2 else "same", use_bias=not bare, **shape)
        )
        if activation == "swish":
            model.add(L.Lambda(pathless(lambda x: x * keras.backend.sigmoid(x))))
        else:
            model.add(L.Activation(activation))
        if batch_norm and index in (0, 1, 3):
            model.add(L.BatchNormalization(scale=not bare, center=not (bare and index)))
        if index % 2:
            model.add(L.MaxPooling2D((2, 2)))
    model.add(L.Flatten())
    model.add(L.Dropout(0.5))
    for layer in model.layers[2:4] if bare else ():  # a normalisation, and the convolution after it
        layer.trainable = False
    if not functional:
        return model
    last = given = L.Input((PATCH, PATCH, 1))
    for layer in model.layers:
        last = layer(last)
    return keras.Model(given, last)


def attention(features, single_vector: bool):
    """Features (L, D) times a softmax over time."""
    size = features.shape[-1]
    weights = L.Permute((2, 1))(features)
    weights = L.Dense(features.shape[1], activation="softmax")(weights)
    if single_vector:
        weights = L.Lambda(pathless(lambda x: keras.backend.mean(x, axis=1)))(weights)
        weights = L.RepeatVector(size)(weights)
    return L.Multiply()([features, L.Permute((2, 1))(weights)])


def network(
    kind="activity", classes=1, inputs=2, activation="swish", gate="sigmoid", single_vector=False,
    attention_after=False, no_attention=False, batch_norm=False, one_way=False, functional=False,
    bare=False,
) -> keras.Model:  # fmt: skip
    """One network; its encoder is one object for all inputs."""
    shared = encoder(activation, batch_norm, functional, bare)
    given, branches = [], []
    for which in range(inputs):
        given.append(L.Input((WINDOW, PATCH, PATCH, 1), name=f"input_{which}"))
        features = L.TimeDistributed(shared)(given[-1])
        if not attention_after and not no_attention:
            features = attention(features, single_vector)
        last = features
        for units in (5, 7):
            lstm = L.LSTM(
                units, return_sequences=True, dropout=0.5, recurrent_activation=gate, use_bias=not bare
            )
            out = (lstm if one_way else L.Bidirectional(lstm))(last)
            last = L.Concatenate(axis=-1)([out, features])
        branches.append(last)
    merged = L.Concatenate(axis=-1)(branches) if inputs > 1 else branches[0]
    last = L.LSTM(6, return_sequences=True, recurrent_activation=gate)(merged)
    if attention_after:
        last = attention(last, single_vector)
    if kind == "activity" and classes > 1:
        out = L.TimeDistributed(L.Dense(classes, activation="softmax"))(L.Dropout(0.5)(last))
    else:
        flat = L.Flatten()(last)
        if batch_norm:
            flat = L.BatchNormalization()(flat)
        flat = L.Dropout(0.5)(flat)
        units = WINDOW if kind == "activity" else classes
        out = L.Dense(units, activation="softmax" if classes > 1 else "sigmoid")(flat)
    return keras.Model(inputs=given, outputs=out)


def draw(model: keras.Model, seed: int) -> None:
    """Weights large enough that an error shows; statistics away from 0 and 1."""
    rng = np.random.default_rng(seed)
    weights = []
    for weight, value in zip(model.weights, model.get_weights(), strict=True):
        values = rng.normal(0, 1.5 / np.sqrt(max(value.shape[0], 4)), value.shape)
        if "variance" in weight.name or "gamma" in weight.name:
            values = rng.uniform(0.5, 2, value.shape)
        elif value.ndim == 4:
            values = rng.normal(0, 1.2 / np.sqrt(np.prod(value.shape[:3])), value.shape)
        weights.append(values.astype(np.float32))
    model.set_weights(weights)


def store(name: str, model: keras.Model, description: str) -> None:
    """Write description, weights, inputs and outputs of a network."""
    rng = np.random.default_rng(len(name))
    given = {x.name: rng.normal(0, 1, (N_WINDOWS, *x.shape[1:])).astype(np.float32) for x in model.inputs}
    (HERE / f"{name}.json").write_text(description + "\n")
    model.save_weights(HERE / f"{name}.h5", save_format="h5")
    np.savez_compressed(
        HERE / f"{name}.npz",
        output=model.predict(given, verbose=0),
        versions=f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
        **{key: value[..., 0] for key, value in given.items()},
    )


def main(names: list[str]) -> None:
    """Make those of these names."""
    for seed, (name, options) in enumerate(NETWORKS.items()):
        if name not in names:
            continue
        model = network(**options)
        draw(model, seed)
        description = model.to_json()
        if name == "older":
            description = json.dumps(as_older(json.loads(description)))
        store(name, model, description)
        if name == "attention_after":
            model.compile("sgd", "binary_crossentropy")
            model.save(HERE / "full.h5", save_format="h5")
            untied = keras.models.model_from_json(
                re.sub(r',? *"shared_object_id": *\d+', "", model.to_json())
            )
            assert len(untied.weights) > len(model.weights)
            draw(untied, 99)
            store("untied", untied, untied.to_json())


if __name__ == "__main__":
    main(sys.argv[1:] or [name for name in NETWORKS if name != "newer"])
