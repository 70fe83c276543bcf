"""One way to time everything: warmed up, device awaited, beside the bandwidth bound and the peers.

    @pytest.mark.benchmark(group="local_correlations 4000x512x512 int16")
    def test_local_correlations(benchmark, wing, movie):
        frames = wing.put(movie)
        timed(benchmark, wing, local_correlations, frames, bytes_moved=movie.nbytes, frames=len(movie),
              peers=[Peer("scikit-image", "skimage.filters", lambda filters: ...)])

Two ratios are reported: to the time in which this machine could have moved the same bytes, measured in the
same run, and to the fastest peer that is installed.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from gpucalcium import backend

SECONDS_PER_BENCHMARK = 2.0
ROUNDS = (3, 50)  # fewest and most
COPY_BYTES = 256 << 20  # far beyond the last-level cache


@dataclass(frozen=True)
class Wing:
    """A real device to benchmark on; the emulated one is never timed."""

    name: str
    """'cpu' or 'cuda'."""

    def put(self, array: np.ndarray) -> backend.Array:
        """`array` on the device of this wing."""
        return backend.put(array)


@dataclass(frozen=True)
class Peer:
    """Another implementation of the same operation, timed if it is installed."""

    name: str
    module: str
    """Dotted name that is imported."""
    call: Callable[[ModuleType], object]
    """Does the work once, given the module."""
    on_record: float | None = None
    """Frames/s that were measured elsewhere, shown where it is not installed."""


def timed(
    benchmark: Any,
    wing: Wing,
    function: Callable[..., Any],
    *args: Any,
    bytes_moved: int,
    frames: int | None = None,
    peers: Sequence[Peer] = (),
    **kwargs: Any,
) -> Any:
    """Time ``function(*args, **kwargs)`` with pytest-benchmark; returns what it returned.

    Parameters
    ----------
    benchmark : fixture of pytest-benchmark
    wing : Wing
        The device, awaited before the clock stops.
    bytes_moved : int
        Bytes that the operation cannot avoid reading and writing: the bound.
    frames : int, optional
        Frames of the movie, for a rate in frames/s.
    peers : sequence of Peer
        Timed by the same rule in the same run.
    """

    def once() -> Any:
        result = function(*args, **kwargs)
        _wait(wing)
        return result

    rounds = _rounds(once)
    result = benchmark.pedantic(once, rounds=rounds, iterations=1)
    bound = bytes_moved / bandwidth(wing.name)
    times: dict[str, float | None] = {peer.name: _peer_seconds(peer) for peer in peers}
    present = [seconds for seconds in times.values() if seconds is not None]
    median = benchmark.stats.stats.median
    benchmark.extra_info.update(
        device=str(backend.active()),
        bound_s=bound,
        bandwidth_bytes_per_s=bandwidth(wing.name),
        times_bound=median / bound,
        frames_per_s=frames / median if frames else None,
        bytes_per_s=bytes_moved / median,
        peers_s=times,
        on_record={p.name: p.on_record for p in peers if p.on_record and times[p.name] is None},
        speedup_over_fastest_peer=min(present) / median if present else None,
    )
    return result


@cache
def bandwidth(kind: str) -> float:
    """Bytes per second, read plus written, of a plain copy on the active device of that kind; measured once."""
    wing = Wing(kind)
    source = wing.put(np.ones(COPY_BYTES, np.uint8))
    target = wing.put(np.zeros(COPY_BYTES, np.uint8))
    workers = backend.threads() if kind == "cpu" else 1
    edges = np.linspace(0, COPY_BYTES, workers + 1).astype(int)
    pieces = [slice(a, b) for a, b in itertools.pairwise(edges)]

    def copy(piece: slice) -> None:
        target[piece] = source[piece]

    with ThreadPoolExecutor(workers) as pool:

        def once() -> None:
            list(pool.map(copy, pieces))
            _wait(wing)

        return 2 * COPY_BYTES / min(_seconds(once) for _ in range(8))


def _peer_seconds(peer: Peer) -> float | None:
    try:
        module = importlib.import_module(peer.module)
    except ImportError:
        return None

    def once() -> object:
        return peer.call(module)

    return statistics.median(_seconds(once) for _ in range(_rounds(once)))


def _rounds(once: Callable[[], object]) -> int:
    """How often to repeat: the first call compiles and is not counted, the second sets the pace."""
    once()
    return int(np.clip(SECONDS_PER_BENCHMARK / max(_seconds(once), 1e-9), *ROUNDS))


def _seconds(once: Callable[[], object]) -> float:
    start = time.perf_counter()
    once()
    return time.perf_counter() - start


def _wait(wing: Wing) -> None:
    if wing.name == "cuda":
        sys.modules["cupy"].cuda.Device().synchronize()
