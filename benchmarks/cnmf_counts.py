"""Bytes, operations and serial steps of CNMF on a GPU, and what a card's bounds make of them.

Bytes are those of the contracts above the kernels, sums in double precision count as such. What runs one after the
other (seeds of the greedy search, samples of a trace, iterations of a lasso) counts by an assumed time for each; these
are assumptions, and nothing here was measured on a card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.registration_counts import H200, Card
from gpucalcium.cnmf.ring import ring_places

DOUBLE_SHARE = 0.5  # of single-precision operations, on data-centre cards
LAUNCH_S = 8e-6  # of a kernel that waits for the one before it
SEED_LAUNCHES = 12  # search, box, nIter of shape and trace, local updates
SAMPLE_S = 3e-8  # of a trace and pass: one pool is merged after the other
OASIS_PASSES = 40  # of the search for penalty and baseline
SUPPORT = 400  # pixels of a cell that may reach it, dilated
LASSO_SWEEPS = 12
L2_BYTES_S = 1.2e13


@dataclass(frozen=True)
class Step:
    """One step of a whole run."""

    name: str
    bytes: float = 0.0
    """To and from device memory."""
    cached: float = 0.0
    """From L1 and L2, bytes."""
    double: float = 0.0
    """Operations in double precision."""
    single: float = 0.0
    serial_s: float = 0.0

    def seconds(self, card: Card) -> float:
        """The longest bound, and what has to wait."""
        flops = self.double / (DOUBLE_SHARE * card.flops) + self.single / card.flops
        return max(self.bytes / card.bytes_per_s, self.cached / L2_BYTES_S, flops) + self.serial_s


def _sums(name: str, frames: float, entries: float, pixels: float, itemsize: int, times: int = 1) -> Step:
    """Products of the movie with footprints or traces on `entries` places: one pass over the movie."""
    return Step(
        name,
        times * frames * pixels * itemsize,
        times * frames * entries * itemsize,
        times * 2 * frames * entries,
    )


def two_photon(
    T: int, dims: tuple[int, int], K: int, itemsize: int, nb: int, sub: tuple[int, int], box: int
) -> list[Step]:
    """A fit of the whole field from the movie in host memory: `sub` is (ssub, tsub), `box` the side of a cell's."""
    d, movie = math.prod(dims), float(T) * math.prod(dims) * itemsize
    small_T, small_d, side = T / sub[1], d / sub[0] ** 2, box / sub[0]
    small = small_T * small_d
    entries = K * SUPPORT + (nb + 1) * d
    spectrum = min(T, 3072) * d
    local = ((2 * side) ** 2 * 3 + side**2 * 12) * small_T * 4
    steps = [
        Step("copy in", serial_s=movie / H200.bus),
        Step("noise: spectra", spectrum * (itemsize + 8 + 24), single=2.5 * spectrum * 12),
        Step("smaller movie, mean image", 2 * movie + 12 * small, single=T * d),
        Step("blur, energies", 4 * 8 * small, single=4 * (box + 1) * small),
        Step(
            "greedy search, twice",
            2 * K * local,
            single=2 * K * local,
            serial_s=2 * K * SEED_LAUNCHES * LAUNCH_S,
        ),
        Step("background: sketch, HALS", 4 * (nb + 8) * 4 * small, single=4 * (nb + 8) * 2 * small),
        _sums("HALS of the small movie", small_T, K * SUPPORT / sub[0] ** 2 + nb * small_d, small_d, 4, 10),
        _sums("footprints: sums, twice", T, entries, d, itemsize, 2),
        Step(
            "footprints: lasso",
            cached=2 * d * LASSO_SWEEPS * 10**2 * 8,
            double=2 * d * LASSO_SWEEPS * 10**2 * 2,
        ),
        _sums("traces: sums, twice", T, K * SUPPORT + nb * d, d, itemsize, 2),
    ]
    sweeps, colours = 4, 12
    waiting = sweeps * colours * T * OASIS_PASSES * SAMPLE_S
    steps.append(Step("traces: deconvolution", sweeps * OASIS_PASSES * K * T * 36, serial_s=waiting))
    return steps


def ring(T: int, dims: tuple[int, int], itemsize: int, ssub_B: int, radius: float, K: int) -> list[Step]:
    """Weights of the ring model, and one round of refinement beside it."""
    d = math.prod(dims)
    blocks = d / ssub_B**2
    places = ring_places(round(radius / ssub_B))
    n = len(places)
    apart = {tuple(b - a) for a in places for b in places}
    m = (len(apart) + 1) / 2  # a displacement and its opposite are one
    pair = 2 * blocks * m * T
    entries = K * SUPPORT + d
    beside = Step(
        "movie beside the ring, 6 passes",
        6 * T * (d * (itemsize + 8.0) + 8 * blocks),
        6 * 8 * blocks * n * T,
        single=6 * 2 * blocks * n * T,
    )
    return [
        Step("copy in", serial_s=T * d * itemsize / H200.bus),
        Step(
            f"pair sums, {n} places, {m:.0f} displacements",
            4 * blocks * T * m / 8,
            4.5 * blocks * m * T,
            pair,
        ),
        Step("Cholesky", cached=blocks * n**3 / 6 * 16, double=blocks * n**3 / 3),
        beside,
        _sums("footprints and traces: sums, 4 passes", T, entries, d, 4, 4),
    ]


def table(title: str, steps: list[Step], card: Card) -> list[str]:
    """Lines to be printed."""
    lines = [f"{title}: counted, and what the bounds of an {card.name} make of it"]
    lines += [
        f"  {s.name:<44}{s.bytes / 1e9:9.1f} GB{s.cached / 1e9:10.1f} GB cached"
        f"{(s.double + s.single) / 1e12:8.3f} TFLOP{s.seconds(card):9.3f} s"
        for s in steps
    ]
    return [*lines, f"  all: {sum(s.seconds(card) for s in steps):.2f} s"]


def main() -> None:
    """Print the counts of the two runs that have a goal of 30 s each."""
    whole = two_photon(10_000, (512, 512), 500, 2, 2, (2, 2), 9)
    print("\n".join(table("CNMF, 512 x 512 x 10,000 uint16, 500 cells", whole, H200)))
    for ssub_B in (1, 2):
        steps = ring(5_000, (256, 256), 2, ssub_B, 1.5 * 15, 200)
        print("\n".join(table(f"Ring model, 256 x 256 x 5,000 uint16, ssub_B={ssub_B}", steps, H200)))


if __name__ == "__main__":
    main()
