"""Greedy search for cells: one after the other where the filtered movie has most energy.

Twin: backend/cpu/greedy.py
"""

from __future__ import annotations

import math

import cupy as cp
import numpy as np

from gpucalcium.backend.cuda._launch import kernel

THREADS = 256
STRETCHES = 128  # threads of a block that share the time of one pixel
SEEKERS = 1024

_seek = kernel("greedy.cu", "seek")
_list_box = kernel("greedy.cu", "list_box")
_copy_trace = kernel("greedy.cu", "copy_trace")
_weigh = kernel("greedy.cu", "weigh")
_see = kernel("greedy.cu", "see")
_blur = kernel("greedy.cu", "blur")
_take_out = kernel("greedy.cu", "take_out")
_energy = kernel("greedy.cu", "energy")


def energy(filtered: cp.ndarray, pixels: cp.ndarray, window: int, out: cp.ndarray) -> None:
    """out[p] = the largest mean of filtered[p, t]^2 over `window` frames that end at t; the past is 0.

    As the twin says.
    """
    _energy(
        (),
        blocks=len(pixels),
        threads=STRETCHES,
        args=(filtered, np.int64(filtered.shape[1]), pixels, np.int64(window), out),
    )


def search(
    residual: cp.ndarray,
    filtered: cp.ndarray,
    dims: tuple[int, int, int],
    half: tuple[int, int, int],
    kernel: cp.ndarray,
    window: int,
    iterations: int,
    values: cp.ndarray,
    seeds: cp.ndarray,
    shapes: cp.ndarray,
    traces: cp.ndarray,
) -> None:
    """Find ``len(seeds)`` cells in turn, and take each out of `residual` and `filtered`.

    As the twin says. Nothing waits for the device: all launches of all cells are queued.
    """
    T = residual.shape[1]
    reach = tuple(h + side // 2 for h, side in zip(half, kernel.shape, strict=True))
    pixels = cp.empty(math.prod(2 * h + 1 for h in half), "int64")
    around = cp.empty(math.prod(2 * r + 1 for r in reach), "int64")
    raw = cp.empty(len(pixels), "float32")
    blurred = cp.empty(len(around), "float32")
    for k in range(len(seeds)):
        seed, shape, trace = seeds[k : k + 1], shapes[k], traces[k]
        _seek((), blocks=1, threads=SEEKERS, args=(values, np.int64(len(values)), seed))
        _pixels_around(seed, dims, half, pixels)
        _pixels_around(seed, dims, reach, around)
        _copy_trace((), blocks=-(-T // THREADS), threads=THREADS, args=(filtered, np.int64(T), seed, trace))
        _fit(residual, pixels, iterations, raw, shape, trace)
        _subtract(residual, pixels, shape, trace)
        _blur(
            (),
            blocks=-(-len(around) // THREADS),
            threads=THREADS,
            args=(
                shape,
                pixels,
                np.int32(len(pixels)),
                around,
                np.int32(len(around)),
                *map(np.int32, dims[1:]),
                kernel,
                *map(np.int32, kernel.shape),
                blurred,
            ),
        )
        _subtract(filtered, around, blurred, trace)
        energy(filtered, around, window, values)


def _pixels_around(seed: cp.ndarray, dims: tuple[int, ...], half: tuple[int, ...], out: cp.ndarray) -> None:
    _list_box(
        (),
        blocks=-(-len(out) // THREADS),
        threads=THREADS,
        args=(seed, *map(np.int32, dims), *map(np.int32, half), out),
    )


def _fit(
    residual: cp.ndarray,
    pixels: cp.ndarray,
    iterations: int,
    raw: cp.ndarray,
    shape: cp.ndarray,
    trace: cp.ndarray,
) -> None:
    T = np.int64(residual.shape[1])
    for _ in range(iterations):
        _weigh((), blocks=len(pixels), threads=STRETCHES, args=(residual, T, pixels, trace, raw))
        _see(
            (),
            blocks=-(-int(T) // THREADS),
            threads=THREADS,
            args=(residual, T, pixels, np.int32(len(pixels)), raw, shape, trace),
        )


def _subtract(movie: cp.ndarray, pixels: cp.ndarray, weights: cp.ndarray, trace: cp.ndarray) -> None:
    T = movie.shape[1]
    _take_out(
        (),
        blocks=(len(pixels), -(-T // (4 * THREADS))),
        threads=THREADS,
        args=(movie, np.int64(T), pixels, weights, trace),
    )
