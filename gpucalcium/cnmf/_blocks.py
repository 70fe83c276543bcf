"""Sums over blocks of pixels."""

from __future__ import annotations

from gpucalcium.backend import Array


def block_sums(frames: Array, axis: int, factor: int) -> Array:
    """Sums over blocks of `factor` along an axis; the last block has what there is."""
    if factor == 1:
        return frames
    phases = [
        frames[tuple(slice(phase, None, factor) if a == axis else slice(None) for a in range(frames.ndim))]
        for phase in range(min(factor, frames.shape[axis]))
    ]
    sums = phases[0].copy()
    for part in phases[1:]:
        short = tuple(slice(0, part.shape[a]) for a in range(frames.ndim))
        sums[short] += part
    return sums
