"""Networks of a few lines, in the interface that prediction asks for."""

from __future__ import annotations

import numpy as np
import torch


class Brightest:
    """Whole windows only: says of each frame the largest pixel of the first input."""

    inputs = ("input_0",)

    def __init__(self, window_len=10, patch_size=9, n_classes=1):
        self.window_len, self.patch_size, self.n_classes = window_len, patch_size, n_classes
        self.sizes = []

    def predict(self, windows):
        (x,) = windows.values()
        assert x.shape[1:] == (self.window_len, self.patch_size, self.patch_size, 1)
        assert x.dtype == np.float32
        self.sizes.append(len(x))
        found = x.max(axis=(2, 3, 4))
        if self.n_classes == 1:
            return found
        return np.stack([found / (k + 1) for k in range(self.n_classes)], axis=-1)


class Halved:
    """Encodes frames into a few numbers and mixes them within a window, by fixed random weights.

    What it says of a frame depends on the whole window, on the input, and on the frame's place in the window.
    """

    mask_mode, buffer = "legacy", None
    device = torch.device("cpu")

    def __init__(
        self, window_len=10, patch_size=9, n_classes=1, *, n_inputs=3, tied=True, kind="activity", features=4
    ):
        rng = np.random.default_rng(7)
        self.window_len, self.patch_size, self.n_classes = window_len, patch_size, n_classes
        self.inputs, self.encoders_tied, self.kind = tuple(f"input_{k}" for k in range(n_inputs)), tied, kind
        scale = 1 / patch_size
        self._encoders = torch.from_numpy(rng.normal(0, scale, (n_inputs, patch_size**2, features)))
        self._mix = torch.from_numpy(rng.normal(0, 0.5, (window_len, window_len)))
        self._out = torch.from_numpy(rng.normal(0, 1, (n_inputs * features, n_classes)))
        self.encoded, self.batches = 0, []

    def encode(self, frames, which_input):
        self.encoded += len(frames)
        weights = self._encoders[0 if self.encoders_tied else which_input]
        return torch.tanh(frames.flatten(1).double() @ weights)

    def decode(self, features):
        self.batches.append(len(features[0]))
        mixed = self._mix @ torch.cat(list(features), dim=-1)
        if self.kind == "cell_type":
            return torch.softmax(mixed.mean(dim=1) @ self._out, dim=-1)
        found = torch.sigmoid(mixed @ self._out)
        return found[..., 0] if self.n_classes == 1 else found

    def predict(self, windows):
        """The same without the two halves."""
        features = [
            self.encode(
                torch.from_numpy(windows[name]).reshape(-1, self.patch_size, self.patch_size), k
            ).unflatten(0, (-1, self.window_len))
            for k, name in enumerate(self.inputs)
        ]
        return self.decode(features).float().numpy()


class WholeOnly:
    """Another model without its two halves."""

    def __init__(self, model):
        self._model = model
        for name in ("window_len", "patch_size", "n_classes", "inputs", "mask_mode", "buffer", "kind"):
            setattr(self, name, getattr(model, name))

    def predict(self, windows):
        return self._model.predict(windows)
