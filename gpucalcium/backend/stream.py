"""Chunks of frames (first, plain form; the streaming one replaces it with the same signatures)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from gpucalcium.backend.arrays import Array, put, to_numpy


class FrameSource(Protocol):
    """Something that frames can be read from."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def read(self, frames: slice, out: np.ndarray | None = None) -> np.ndarray: ...


def stream(
    source: FrameSource, *, overlap: int = 0, frames: slice = slice(None), working: int = 0
) -> Iterator[Array]:
    start, stop, _ = frames.indices(len(source))
    size = 256
    for first in range(start, stop, size):
        yield put(source.read(slice(max(start, first - overlap), min(stop, first + size))))


def pipe(
    source: FrameSource, step: Callable, sink: Callable, *, frames: slice = slice(None), working: int = 0
) -> None:
    at = frames.indices(len(source))[0]
    for chunk in stream(source, frames=frames):
        out = step(chunk)
        sink(at, *map(to_numpy, out if isinstance(out, tuple) else (out,)))
        at += len(chunk)


def retry_halved(step: Callable[[Array], Any], frames: Array) -> list[Any]:
    return [step(frames)]


def hold(source: FrameSource, dtype: Any = None) -> Array:
    return put(source.read(slice(None)).astype(dtype or source.dtype, copy=False))
