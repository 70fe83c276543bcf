"""Populations of cells under a two-photon microscope."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import signal, sparse

from gpucalcium.errors import ParameterError
from gpucalcium.simulate import parts
from gpucalcium.simulate.scene import CameraNoise, Canvas, SimulatedMovie, expose


def two_photon(
    T: int = 1500,
    shape: tuple[int, int] = (128, 128),
    K: int = 60,
    *,
    frame_rate: float = 20.0,
    radius: float = 4.5,
    donut_fraction: float = 0.5,
    min_distance: float | None = None,
    rate_hz: float = 0.25,
    burst: float = 0.3,
    decay_s: float = 0.6,
    rise_s: float | None = None,
    amplitude: float = 25.0,
    resting: float = 15.0,
    neuropil: float = 50.0,
    neuropil_drift: float = 0.08,
    motion: float = 0.0,
    motion_smooth_s: float = 0.25,
    gain: float = 1.0,
    read_noise: float = 2.0,
    offset: float = 0.0,
    dtype: str | np.dtype = "uint16",
    seed: int = 0,
) -> SimulatedMovie:
    """Two-photon population: filled and donut-shaped somata over smooth, drifting neuropil.

    Parameters
    ----------
    T, shape : int, (int, int)
        Frames; rows and columns of the field of view.
    K : int
        Cells whose centre lies inside the field of view. With motion, tissue outside it holds cells at the
        same density; those that reach into the field appear in the movie and, when at least half of their
        light falls inside, in the truth: it then has a few columns more or fewer than K.
    frame_rate : float
        Hz.
    radius : float
        Mean radius of a soma, px; outlines vary by about 15 %.
    donut_fraction : float
        Chance that a cell's nucleus is dark, 0 to 1.
    min_distance : float, optional
        Smallest distance between two centres, px; default 1.6 radii, so that neighbours may overlap.
    rate_hz, burst : float
        Mean rate of events of a cell (cells differ about two-fold), and the chance that an event goes on for
        one more spike, again and again (0 to below 1).
    decay_s, rise_s : float
        Time constants of calcium; without `rise_s` the process is AR(1), with it AR(2).
    amplitude, resting : float
        Median over cells of the fluorescence of one spike at its peak, and without spikes; counts.
    neuropil, neuropil_drift : float
        Mean background in counts, and the relative standard deviation of its slow changes.
    motion, motion_smooth_s : float
        Largest displacement on each axis, px, and its correlation time.
    gain, read_noise, offset : float
        The camera: counts per photon, s.d. of reading a pixel, counts without light.
    dtype : "uint16" or "float32"
        uint16 rounds and clips as a camera does; float32 keeps the continuous values.
    seed : int
        Same seed and arguments, same movie.

    Returns
    -------
    SimulatedMovie
        NumPy arrays; `SimulatedMovie.expected` renders frames again without noise.

    Raises
    ------
    ParameterError
        Impossible values, or K cells that do not fit the field.
    """
    noise = CameraNoise(gain=gain, read_noise=read_noise, offset=offset)
    _check(T, shape, K, frame_rate, radius, burst, np.dtype(dtype))
    rng = np.random.default_rng(seed)
    displacement = parts.motion(T, motion, motion_smooth_s * frame_rate, rng)
    reach = int(np.ceil(1.5 * radius))  # the farthest that a soma's light extends
    margin = int(np.ceil(motion)) + 2 * reach if motion else 0
    rows, columns = canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)

    centers = parts.place(K, shape, margin, reach, min_distance or 1.6 * radius, rng)
    somata = [parts.soma(c, canvas, radius, rng.random() < donut_fraction, rng) for c in centers]
    none = sparse.csc_matrix((rows * columns, 0), dtype=np.float32)
    footprints = sparse.csc_matrix(sparse.hstack([none, *somata]))
    counts = parts.spikes(len(centers), T, frame_rate, rate_hz, burst, rng)
    g, peak = parts.ar_coefficients(frame_rate, decay_s, rise_s)
    S = counts * (amplitude * parts.spread(len(centers), 0.3, rng) / peak)[:, None]
    rest = resting * parts.spread(len(centers), 0.3, rng)
    C = signal.lfilter([1.0], np.r_[1.0, -g], S, axis=1) + rest[:, None]
    b, f = parts.neuropil(T, canvas, neuropil, neuropil_drift, frame_rate, rng)

    scene = Canvas(
        A=footprints,
        C=C.astype(np.float32),
        b=b,
        f=f,
        motion=displacement,
        shape=canvas,
        margin=margin,
    )
    inside = _crop_matrix(canvas, margin)
    in_field = sparse.csc_matrix(inside @ footprints)
    light = np.asarray(in_field.sum(axis=0)).ravel()
    lit, seen = light > 0, light >= 0.5 * np.asarray(footprints.sum(axis=0)).ravel()
    return SimulatedMovie(
        movie=expose(scene, noise, T, shape, np.dtype(dtype), np.random.SeedSequence(seed)),
        A=sparse.csc_matrix(in_field[:, seen]),
        C=scene.C[seen],
        S=S[seen].astype(np.float32),
        spike_counts=counts[seen],
        resting=rest[seen].astype(np.float32),
        g=g,
        b=inside @ b,
        f=f,
        shifts=(-displacement).astype(np.float32),
        centers=centers[seen] - margin,
        A_border=sparse.csc_matrix(in_field[:, ~seen & lit]),
        frame_rate=frame_rate,
        dims=shape,
        noise=noise,
        _canvas=scene,
    )


def _check(
    T: int, shape: Iterable[int], K: int, frame_rate: float, radius: float, burst: float, dtype: np.dtype
) -> None:
    if T < 1 or min(shape) < 4 * radius or radius <= 0:
        raise ParameterError(
            f"T={T}, shape={shape}, radius={radius}: need T >= 1 and a field of 4 radii or more"
        )
    if K < 0 or frame_rate <= 0 or not 0 <= burst < 1:
        raise ParameterError(
            f"K={K}, frame_rate={frame_rate}, burst={burst}: K >= 0, rate > 0, 0 <= burst < 1"
        )
    if dtype not in (np.dtype("uint16"), np.dtype("float32")):
        raise ParameterError(f"dtype={dtype}: a simulated camera gives uint16 or float32")


def _crop_matrix(canvas: tuple[int, int], margin: int) -> sparse.csr_matrix:
    """(field pixels, canvas pixels) selection of the field of view, both in Fortran order."""
    numbered = np.arange(canvas[0] * canvas[1]).reshape(canvas, order="F")
    index = numbered[margin : canvas[0] - margin, margin : canvas[1] - margin].ravel(order="F")
    ones = np.ones(len(index), np.float32)
    return sparse.csr_matrix(
        (ones, (np.arange(len(index)), index)), shape=(len(index), canvas[0] * canvas[1])
    )
