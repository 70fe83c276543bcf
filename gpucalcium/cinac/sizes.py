"""How large batches are, how many cells go through a movie together: by the budget of the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpucalcium import backend
from gpucalcium.backend.stream import size_text
from gpucalcium.errors import MemoryBudgetError

ENCODE_BATCH = {"cpu": 1024, "cuda": 8192}  # squares; beyond, nothing gets faster
DECODE_BATCH = {"cpu": 32, "cuda": 1024}  # windows
RING_SHARE, ENCODE_SHARE, DECODE_SHARE, STREAM_SHARE = 0.45, 0.2, 0.2, 0.1
"""Of the budget: for features, for what the two halves of the network compute, for frames on their way."""
LAYERS_ALIVE = 4  # of a layer's size: its input and output, and what is computed in between
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Sizes:
    """Sizes that bound what a pass keeps on the device; none of them changes a result beyond rounding."""

    cells: int
    """That go through the movie together."""
    windows: int
    """Of each cell, that are predicted together."""
    encode_batch: int
    """Squares."""
    decode_batch: int
    """Windows."""
    frames: int
    """Whose squares are cut out together."""
    stream_bytes: int
    """Budget of the frames that are on their way."""

    @classmethod
    def make(
        cls, model: Any, n_cells: int, n_windows: int, step: int, feature_bytes: int, n_inputs: int
    ) -> Sizes:
        """Sizes for a model and so many cells.

        Parameters
        ----------
        model : Halves
        n_cells, n_windows : int
            Cells, and windows of each.
        step : int
            Frames between the starts of windows.
        feature_bytes : int
            Of what a square is encoded as.
        n_inputs : int
            Views of a cell, at most.

        Raises
        ------
        MemoryBudgetError
            One window of one cell does not fit the budget.
        """
        place, allowed = model.device.type, backend.budget()
        encoding = LAYERS_ALIVE * FLOAT_BYTES * _widest_layer(model)
        decoding = LAYERS_ALIVE * n_inputs * model.window_len * feature_bytes
        encode_batch = min(ENCODE_BATCH[place], int(ENCODE_SHARE * allowed) // encoding)
        decode_batch = min(DECODE_BATCH[place], int(DECODE_SHARE * allowed) // decoding)
        frame = feature_bytes * n_inputs  # of the ring, for each cell
        fit = int(RING_SHARE * allowed) // (frame * model.window_len)
        if min(encode_batch, decode_batch, fit) < 1:
            need = max(
                encoding / ENCODE_SHARE, decoding / DECODE_SHARE, frame * model.window_len / RING_SHARE
            )
            raise MemoryBudgetError(
                f"a window of {model.window_len} frames through this network needs {size_text(math.ceil(need))}; the "
                f"budget is {size_text(allowed)}. Give more with GPUCALCIUM_MEMORY or backend.limit(memory=...)"
            )
        cells = min(n_cells, fit)
        windows = min(n_windows, max(1, decode_batch // cells))
        while (
            windows > 1 and frame * cells * (model.window_len + (windows - 1) * step) > RING_SHARE * allowed
        ):
            windows = max(1, windows // 2)
        frames = max(1, encode_batch // (cells * n_inputs))
        return cls(cells, windows, encode_batch, decode_batch, frames, int(STREAM_SHARE * allowed))


def _widest_layer(model: Any) -> int:
    """Numbers that the largest layer of a model's encoder gives for one square; the square itself if it has none."""
    plan = getattr(model, "plan", None)
    shapes = [] if plan is None else [s for k in range(len(plan.encoders)) for s in plan.encoder_shapes(k)]
    return max([model.patch_size**2, *map(math.prod, shapes)])
