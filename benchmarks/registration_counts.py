"""Bytes and operations per frame of each step of registration on a GPU, and what a card's bounds make of them.

Bytes are those of the contracts above the kernels (DRAM; what L2 serves does not count); library transforms read and
write their array once per axis. Operations are single-precision additions and multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EVALUATIONS = 4  # of the correlation: Newton's three, and the last value
CLIMB = 16  # operations per frequency and evaluation: the phase, the product, and six sums
WARP_2D = 2 * 16 + 40  # taps of a pixel, and its weights


@dataclass(frozen=True)
class Card:
    """What a device can do."""

    name: str
    bytes_per_s: float
    """Read plus written, device memory."""
    flops: float
    """Single precision, multiply and add counted as two."""
    bus: float
    """Bytes/s from pinned host memory, each way."""


H200 = Card("H200", 4.3e12, 6e13, 5e10)


@dataclass(frozen=True)
class Step:
    """One step, per frame."""

    name: str
    bytes: float
    flops: float

    def seconds(self, card: Card) -> float:
        """The longer of the two bounds."""
        return max(self.bytes / card.bytes_per_s, self.flops / card.flops)


def _transform(values: float, axes: tuple[int, ...]) -> tuple[float, float]:
    """Bytes and operations of a real transform of float32 `values`: every axis reads and writes the array once."""
    return 8.0 * values * len(axes), 2.5 * values * math.log2(math.prod(axes))


def _search(patches: int, band: tuple[int, ...], bound: tuple[int, ...]) -> list[Step]:
    """From spectra to shifts: weights, the window by two matrix products, Newton."""
    kept = patches * math.prod(band)
    lags = [2 * m + 1 for m in bound]
    first, second = 8 * kept / band[0] * lags[0], 4.0 * patches * math.prod(lags)
    product = 8.0 * kept * lags[0] + 4.0 * patches * lags[0] * band[1] * lags[1]
    return [
        Step("weigh", 16.0 * kept, 6.0 * kept),
        Step("window", 8.0 * kept + 2 * first + 2 * second, product),
        Step("climb", 8.0 * kept, CLIMB * EVALUATIONS * kept),
    ]


def rigid(frame: tuple[int, int], pixel: int, band: tuple[int, ...], bound: tuple[int, ...]) -> list[Step]:
    """Finding a frame of `frame` pixels of `pixel` bytes; `band` is the shape of the kernel."""
    pixels = math.prod(frame)
    return [
        Step("prepare", pixels * (pixel + 4.0), pixels),
        Step("transform", *_transform(pixels, frame)),
        *_search(1, band, bound),
    ]


def moved(frame: tuple[int, int], pixel: int) -> list[Step]:
    """Displacing it, and adding it to the mean of its split."""
    pixels = math.prod(frame)
    return [
        Step("range", float(pixels * pixel), 2.0 * pixels),
        Step("warp", pixels * (pixel + 4.0), WARP_2D * pixels),
        Step("add_frames", 4.0 * pixels, 2.0 * pixels),
    ]


def patches(
    frame: tuple[int, int],
    pixel: int,
    width: tuple[int, ...],
    kernels: tuple[int, ...],
    bound: tuple[int, ...],
) -> list[Step]:
    """Finding its patches of `width` pixels; `kernels` is the shape of the kernels, the number of patches first."""
    count, band = kernels[0], kernels[1:]
    values = count * math.prod(width)
    return [
        Step("gather", math.prod(frame) * pixel + 4.0 * values, values),
        Step("transform of patches", *_transform(values, width)),
        *(Step(f"{s.name} of patches", s.bytes, s.flops) for s in _search(count, band, bound)),
        Step("settle", count * 18.0, 2 * 2 * 2.0 * count**2),
    ]


def table(title: str, steps: list[Step], card: Card, frame_bytes: float) -> list[str]:
    """Lines to be printed."""
    lines = [f"{title}: counted per frame, and what the bounds of an {card.name} make of it"]
    lines += [
        f"  {s.name:<22}{s.bytes / 1e6:8.2f} MB{s.flops / 1e6:9.2f} MFLOP{s.seconds(card) * 1e6:8.2f} us"
        for s in steps
    ]
    total = sum(s.seconds(card) for s in steps)
    lines.append(
        f"  all: {sum(s.bytes for s in steps) / 1e6:.1f} MB, {sum(s.flops for s in steps) / 1e6:.0f} MFLOP, "
        f"{1 / total:,.0f} frames/s on the device; from host memory at most {card.bus / frame_bytes:,.0f}"
    )
    return lines
