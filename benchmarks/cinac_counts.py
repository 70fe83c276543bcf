"""Operations and bytes of a CINAC prediction, and what a card's bounds make of them (``python -m`` prints them).

Multiply-adds are counted by the layers of the network, as two operations each; bytes are those of the encoder's
activations, each written by its convolution, read and written by its activation, and read by the next layer. The bound
of a card is never reached: the share that is needed for a goal is what to look at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpucalcium import nets
from gpucalcium.cinac.windows import window_starts

PASSES_OF_AN_ACTIVATION = 4
STEP_S = 25e-6  # one step of a recurrent layer on a GPU: a product too small to fill it, and its gates
WINDOWS_AT_ONCE = 512


@dataclass(frozen=True)
class Card:
    """What a device can do."""

    name: str
    bytes_per_s: float
    flops: float
    """In float32, a multiply-add counted as two."""
    tensor_flops: float
    """Products of bfloat16 with sums in float32."""


H200 = Card("H200", 4.3e12, 6.0e13, 9.9e14)


@dataclass(frozen=True)
class Work:
    """What a prediction takes."""

    encode: float
    """Operations."""
    decode: float
    """Operations."""
    bytes: float
    """Of activations, in float32."""
    steps: float
    """Of recurrent layers, one after the other."""

    @property
    def flops(self) -> float:
        """All operations."""
        return self.encode + self.decode


def cached(plan: nets.Plan, cells: int, frames: int, overlap: float, views: float) -> Work:
    """Each cell and frame encoded once, in so many different views."""
    windows = cells * len(window_starts(frames, plan.window_len, overlap))
    return _work(plan, cells * frames * views, windows, min(windows, WINDOWS_AT_ONCE))


def per_window(plan: nets.Plan, cells: int, frames: int, overlap: float) -> Work:
    """All inputs of every window encoded anew, one window at a time."""
    windows = cells * len(window_starts(frames, plan.window_len, overlap))
    return _work(plan, windows * plan.window_len * len(plan.inputs), windows, 1)


def _work(plan: nets.Plan, patches: float, windows: float, at_once: int) -> Work:
    values = sum(map(math.prod, plan.encoder_shapes()))
    layers = sum(layer.kind == "lstm" for layer in plan.trunk)
    return Work(
        2.0 * plan.macs_per_frame * patches,
        2.0 * plan.macs_per_window * windows,
        4.0 * PASSES_OF_AN_ACTIVATION * values * patches,
        plan.window_len * layers * windows / at_once,
    )


def main() -> None:
    """Print the counts for 1,000 cells and 12,500 frames, and what an H200 has to reach."""
    plan, cells, frames, overlap = nets.NetworkSpec().plan(), 1000, 12_500, 0.5
    before = per_window(plan, cells, frames, overlap)
    print(
        f"{cells} cells, {frames} frames, overlap {overlap}; windows one by one: {before.flops:.2e} operations"
    )
    for views, kind in ((2, "legacy, neighbours"), (3, "three views")):
        work = cached(plan, cells, frames, overlap, views)
        print(
            f"{kind:<20}{work.encode:.2e} + {work.decode:.2e} operations, {work.bytes / 1e12:.0f} TB of activations, "
            f"{before.flops / work.flops:.2f} times fewer operations"
        )
        for name, goal, rate, share in (
            ("float32", 360, H200.flops, 1.0),
            ("bf16", 120, H200.tensor_flops, 0.5),
        ):
            products = work.encode / rate + work.decode / (
                rate * share
            )  # the trunk's products are TF32, half as fast
            other = work.bytes * share / H200.bytes_per_s + work.steps * STEP_S
            print(
                f"  {name:<8}{products:6.1f} s of products at the {H200.name}'s bound + {other:.1f} s of activations "
                f"and steps; {goal} s need {100 * products / (goal - other):.1f} % of the bound"
            )


if __name__ == "__main__":
    main()
