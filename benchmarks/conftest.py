"""Fixtures of all benchmarks, and the table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.harness import Wing
from gpucalcium import backend
from gpucalcium.errors import GpuUnavailable

ROWS: pytest.StashKey[list[tuple[str, ...]]] = pytest.StashKey()
HEAD = (
    "benchmark",
    "device",
    "median",
    "spread",
    "frames/s",
    "GB/s",
    "x bound",
    "% of it",
    "fastest peer",
    "x peer",
)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture(params=["cpu", "cuda"])
def wing(request: pytest.FixtureRequest) -> Iterator[Wing]:
    """Each real device of this machine in turn."""
    try:
        chosen = backend.use(request.param)
    except GpuUnavailable as err:
        pytest.skip(str(err))
    with chosen:
        yield Wing(request.param)


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest) -> Iterator[None]:
    benchmark = request.getfixturevalue("benchmark") if "benchmark" in request.fixturenames else None
    yield
    if benchmark is not None and benchmark.stats is not None and "bound_s" in benchmark.extra_info:
        request.config.stash[ROWS].append(_summary(request.node.name, benchmark))


def _summary(name: str, benchmark: pytest.FixtureRequest) -> tuple[str, ...]:
    stats, info = benchmark.stats.stats, benchmark.extra_info
    timings = {peer: seconds for peer, seconds in info["peers_s"].items() if seconds is not None}
    fastest = min(timings, key=timings.get, default=None)
    return (
        f"{benchmark.group or ''}: {name}",
        info["device"].split()[0],
        f"{stats.median * 1e3:.3f} ms",
        f"{stats.iqr * 1e3:.3f} ms",
        f"{info['frames_per_s']:,.0f}" if info["frames_per_s"] else "-",
        f"{info['bytes_per_s'] / 1e9:.2f}",
        f"{info['times_bound']:.2f}",
        f"{100 / info['times_bound']:.1f}",
        *_beside_peers(info, fastest, timings),
    )


def _beside_peers(info: dict[str, Any], fastest: str | None, timings: dict[str, float]) -> tuple[str, str]:
    """The fastest peer and the ratio to it; a figure on record where none is installed."""
    if fastest:
        return f"{fastest} {timings[fastest] * 1e3:.3f} ms", f"{info['speedup_over_fastest_peer']:.2f}"
    if info["on_record"] and info["frames_per_s"]:
        name, rate = max(info["on_record"].items(), key=lambda item: item[1])
        return f"{name} {rate:g}/s (on record)", f"{info['frames_per_s'] / rate:.2f}"
    return ("not installed" if info["peers_s"] else "-"), "-"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print time, ratio to the bandwidth bound and ratio to the fastest peer of every benchmark."""
    rows = config.stash[ROWS]
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    terminalreporter.section("time beside the bandwidth bound and the fastest peer")
    for row in [HEAD, *rows]:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        terminalreporter.write_line("  ".join(cells))
