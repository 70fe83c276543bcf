"""Movies with known ground truth, rendered as a camera would have seen them.

Every generator returns a frozen `SimulatedMovie`. Its model is that of constrained matrix factorisation,

    expected frame t = displaced by motion[t] ( A C[:, t] + b f[:, t] )
    camera frame t   = gain * Poisson(expected / gain) + offset + Normal(0, read_noise),

rounded and clipped for integer cameras. Motion moves a canvas that is larger than the field of view, so what
enters at a border is tissue and not padding. The same seed and arguments give the same movie whatever the
number of threads.

References
----------
Pnevmatikakis et al. (2016), Neuron 89:285, eqs. 1-4 (the generative model); Vogelstein et al. (2010),
J. Neurophysiol. 104:3691 (autoregressive calcium).
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, signal, sparse, special

from gpucalcium import backend
from gpucalcium.errors import ParameterError

Float = NDArray[np.float32]

BLOCK_FRAMES = 64  # frames rendered and drawn at once; each block has its own random stream
EDGE_PX = 1.0  # width of a soma's rim as the microscope blurs it
FOOTPRINT_FLOOR = 0.005  # a footprint ends where it falls below this fraction of its peak
BURST_INTERVAL_S = 0.02  # mean interval between the spikes of one burst
DARTS = 2000  # attempts to place one more cell before the field counts as full


@dataclass(frozen=True, eq=False)
class SimulatedMovie:
    """A movie and everything that went into it; pixels are flattened in Fortran order."""

    movie: NDArray[np.generic]
    """(T, d1, d2) camera counts, uint16 or float32."""
    A: sparse.csc_matrix
    """(d1 * d2, K) float32 footprints at rest, each with peak 1: cells at least half inside the field."""
    C: Float
    """(K, T) float32 fluorescence at the footprint's peak in camera counts, resting level included."""
    S: Float
    """(K, T) float32 spikes in the units of `C`: ``C - resting`` is `S` filtered by `g`."""
    spike_counts: NDArray[np.int16]
    """(K, T) number of spikes in each frame."""
    resting: Float
    """(K,) float32 fluorescence without spikes, counts."""
    g: NDArray[np.float64]
    """(1,) or (2,) autoregressive coefficients of the calcium."""
    b: Float
    """(d1 * d2, nb) float32 background images."""
    f: Float
    """(nb, T) float32 background time courses, counts."""
    shifts: Float
    """(T, 2) float32 displacement that registers a frame, (row, column) px: minus `motion`."""
    centers: NDArray[np.float64]
    """(K, 2) row and column of each cell."""
    A_border: sparse.csc_matrix
    """(d1 * d2, n) float32 footprints of cells that the border cuts by more than half: in the movie, not in `A`."""
    frame_rate: float
    """Hz."""
    dims: tuple[int, int]
    """Rows and columns of the field of view."""
    noise: CameraNoise = field(repr=False)
    _canvas: _Canvas = field(repr=False)

    @property
    def motion(self) -> Float:
        """(T, 2) where the tissue went: a feature at p appears in frame t at ``p + motion[t]``."""
        return -self.shifts

    def expected(self, frames: slice = slice(None)) -> Float:
        """Frames before photon and read noise, moved as in the movie: (n, d1, d2) float32 counts."""
        return self._canvas.render(np.arange(len(self.movie))[frames]) + np.float32(self.noise.offset)

    def snr(self) -> NDArray[np.float64]:
        """(K,) peak of each trace over its resting level, in noise s.d. of its footprint-weighted mean.

        The noise is that of the camera at rest: photons of cell and background, and reading out.
        """
        rest = self.A @ self.resting + self.b @ self.f.mean(axis=1)
        variance = self.noise.gain * rest + self.noise.read_noise**2
        weighted = self.A.multiply(self.A).T @ variance  # variance of a'y; a'a is its gain on the trace
        energy = np.asarray(self.A.multiply(self.A).sum(axis=0)).ravel()
        return (self.C.max(axis=1) - self.resting) * energy / np.sqrt(weighted)


@dataclass(frozen=True, kw_only=True)
class CameraNoise:
    """How light becomes counts."""

    gain: float = 1.0
    """Counts per photon; > 0."""
    read_noise: float = 2.0
    """Standard deviation of reading a pixel, counts; >= 0."""
    offset: float = 0.0
    """Counts of a pixel without light; >= 0."""

    def __post_init__(self) -> None:
        if self.gain <= 0 or self.read_noise < 0 or self.offset < 0:
            raise ParameterError(f"{self}: gain must be > 0, read_noise and offset >= 0")

    def expose(self, expected: Float, rng: np.random.Generator) -> Float:
        """One draw of the camera for expected counts without offset; float32, may be negative."""
        photons = rng.poisson(np.maximum(expected, 0) / self.gain)
        counts = rng.standard_normal(expected.shape, np.float32)
        counts *= np.float32(self.read_noise)
        counts += photons * np.float32(self.gain) + np.float32(self.offset)
        return counts


@dataclass(frozen=True, kw_only=True)
class _Canvas:
    """The noise-free scene on a periodic canvas around the field of view."""

    A: sparse.csc_matrix  # (canvas pixels, cells), Fortran order
    C: Float
    b: Float
    f: Float
    motion: NDArray[np.float64]
    shape: tuple[int, int]
    margin: int

    def render(self, frames: NDArray[np.intp]) -> Float:
        """(n, d1, d2) float32 expected counts of some frames, displaced exactly by Fourier phases."""
        rows, columns = self.shape
        pixels = self.A @ self.C[:, frames] + self.b @ self.f[:, frames]
        images = np.ascontiguousarray(pixels.T).reshape(len(frames), columns, rows).transpose(0, 2, 1)
        if self.motion.any():
            spectrum = fft.rfft2(images, axes=(1, 2))
            row_phase = np.exp(-2j * np.pi * np.outer(self.motion[frames, 0], fft.fftfreq(rows)))
            column_phase = np.exp(-2j * np.pi * np.outer(self.motion[frames, 1], fft.rfftfreq(columns)))
            spectrum *= row_phase.astype(np.complex64)[:, :, None]
            spectrum *= column_phase.astype(np.complex64)[:, None, :]
            images = fft.irfft2(spectrum, s=self.shape, axes=(1, 2))
        m = self.margin
        return np.ascontiguousarray(images[:, m : rows - m, m : columns - m], dtype=np.float32)


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
    displacement = _motion(T, motion, motion_smooth_s * frame_rate, rng)
    reach = int(np.ceil(1.5 * radius))  # the farthest that a soma's light extends
    margin = int(np.ceil(motion)) + 2 * reach if motion else 0
    rows, columns = canvas = (shape[0] + 2 * margin, shape[1] + 2 * margin)

    centers = _place(K, shape, margin, reach, min_distance or 1.6 * radius, rng)
    somata = [_soma(c, canvas, radius, rng.random() < donut_fraction, rng) for c in centers]
    none = sparse.csc_matrix((rows * columns, 0), dtype=np.float32)
    footprints = sparse.csc_matrix(sparse.hstack([none, *somata]))
    counts = _spikes(len(centers), T, frame_rate, rate_hz, burst, rng)
    g, peak = ar_coefficients(frame_rate, decay_s, rise_s)
    S = counts * (amplitude * _spread(len(centers), 0.3, rng) / peak)[:, None]
    rest = resting * _spread(len(centers), 0.3, rng)
    C = signal.lfilter([1.0], np.r_[1.0, -g], S, axis=1) + rest[:, None]
    b, f = _neuropil(T, canvas, neuropil, neuropil_drift, frame_rate, rng)

    scene = _Canvas(
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
        movie=_expose(scene, noise, T, shape, np.dtype(dtype), np.random.SeedSequence(seed)),
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


def ar_coefficients(
    frame_rate: float, decay_s: float, rise_s: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Autoregressive coefficients g of calcium sampled at `frame_rate`, and the peak of its response.

    ``c[t] = g[0] c[t-1] (+ g[1] c[t-2]) + s[t]``; the characteristic roots are ``exp(-1 / (rate tau))``.
    """
    if decay_s <= 0 or (rise_s is not None and not 0 < rise_s < decay_s):
        raise ParameterError(f"decay_s={decay_s}, rise_s={rise_s}: need 0 < rise_s < decay_s")
    decay = np.exp(-1 / (frame_rate * decay_s))
    if rise_s is None:
        return np.array([decay]), 1.0
    rise = np.exp(-1 / (frame_rate * rise_s))
    steps = np.arange(1, 2 + int(5 * decay_s * frame_rate))
    response = (decay**steps - rise**steps) / (decay - rise)
    return np.array([decay + rise, -decay * rise]), float(response.max())


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


def _spread(n: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) positive factors of median 1; `sigma` is the s.d. of their logarithm."""
    return np.exp(sigma * rng.standard_normal(n))


def _smooth_noise(n: int, T: int, width: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, T) Gaussian processes of zero mean and unit variance with a Gaussian kernel of `width` frames."""
    pad = int(np.ceil(4 * width))
    x = ndimage.gaussian_filter1d(rng.standard_normal((n, T + 2 * pad)), width, axis=1)[:, pad : pad + T]
    x -= x.mean(axis=1, keepdims=True)
    deviation = x.std(axis=1, keepdims=True)
    return np.divide(x, deviation, out=np.zeros_like(x), where=deviation > 0)


def _motion(T: int, largest: float, width: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, 2) displacement of zero mean whose largest value on each axis is `largest`."""
    if largest < 0 or width < 0:
        raise ParameterError(f"motion={largest}: the largest displacement must be >= 0")
    path = _smooth_noise(2, T, max(width, 0.1), rng)
    peak = np.abs(path).max(axis=1, keepdims=True)
    return (np.divide(path, peak, out=np.zeros_like(path), where=peak > 0) * largest).T


def _place(
    K: int, shape: tuple[int, int], margin: int, reach: int, distance: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(n, 2) centres on the canvas: K in the field first, then the margin at the same density."""
    size = np.array(shape, float) + 2 * margin
    border = reach if margin == 0 else 0
    low, high = np.full(2, margin + border, float), size - 1 - margin - border
    around = round(K * (np.prod(size - 2 * reach) / np.prod(high - low + 1) - 1)) if margin else 0
    centers = np.empty((K + max(around, 0), 2))
    for n in range(len(centers)):
        for _ in range(DARTS):
            dart = rng.uniform(low, high) if n < K else rng.uniform(reach, size - 1 - reach)
            free = n < K or not np.all((dart >= low) & (dart <= high))
            if free and (n == 0 or ((centers[:n] - dart) ** 2).sum(axis=1).min() >= distance**2):
                centers[n] = dart
                break
        else:
            if n < K:
                raise ParameterError(
                    f"K={K} cells at least {distance:.1f} px apart do not fit {shape[0]}x{shape[1]} px: "
                    "ask for fewer cells, a smaller min_distance or a larger field"
                )
            return centers[:n]
    return centers


def _soma(
    center: NDArray[np.float64], shape: tuple[int, int], radius: float, donut: bool, rng: np.random.Generator
) -> sparse.csc_matrix:
    """(pixels, 1) float32 footprint of peak 1: a lobed outline, blurred rim, and a dark nucleus if `donut`."""
    reach = 1.5 * radius + 1
    low = np.maximum(np.floor(center - reach), 0).astype(int)
    high = np.minimum(np.ceil(center + reach) + 1, shape).astype(int)
    rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
    dy, dx = rows - center[0], columns - center[1]
    distance, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    order = np.arange(2, 5)
    lobes = rng.normal(0, 0.16 / order**1.5, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    outline = 1 + (lobes * np.cos(order * angle[..., None] + phase)).sum(axis=-1)
    outline = np.clip(radius * outline, 0.6 * radius, 1.35 * radius)
    image = 0.5 * special.erfc((distance - outline) / (np.sqrt(2) * EDGE_PX))
    nucleus = 0.5 * special.erfc((distance - 0.55 * outline) / (np.sqrt(2) * EDGE_PX))
    image *= 1 - (rng.uniform(0.5, 0.8) if donut else 0.0) * nucleus
    image /= image.max()
    keep = image > FOOTPRINT_FLOOR
    pixels = rows[keep] + shape[0] * columns[keep]
    column = (image[keep].astype(np.float32), (pixels, np.zeros_like(pixels)))
    return sparse.csc_matrix(column, shape=(shape[0] * shape[1], 1))


def _spikes(
    K: int, T: int, frame_rate: float, rate_hz: float, burst: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """(K, T) spike counts: Poisson events, each followed by a geometric number of further spikes."""
    rates = rate_hz * _spread(K, 0.35, rng)
    counts = rng.poisson(rates[:, None] / frame_rate, (K, T)).astype(np.int16)
    cells, frames = np.nonzero(counts)
    more = rng.geometric(1 - burst, len(cells)) - 1
    delay_s = rng.exponential(BURST_INTERVAL_S, (len(cells), int(more.max(initial=0)))).cumsum(axis=1)
    event, nth = np.nonzero(np.arange(delay_s.shape[1]) < more[:, None])
    late = frames[event] + np.rint(delay_s[event, nth] * frame_rate).astype(int)
    inside = late < T
    np.add.at(counts, (cells[event][inside], late[inside]), 1)
    return counts


def _neuropil(
    T: int, shape: tuple[int, int], level: float, drift: float, frame_rate: float, rng: np.random.Generator
) -> tuple[Float, Float]:
    """Two smooth images, periodic on the canvas, (pixels, 2), and their slow time courses (2, T)."""
    widths = (max(shape) / 6, max(shape) / 10)
    images = [ndimage.gaussian_filter(rng.standard_normal(shape), w, mode="wrap") for w in widths]
    scaled = [(i - i.min()) / max(np.ptp(i), np.finfo(float).tiny) for i in images]
    b = np.stack([0.6 + 0.8 * scaled[0], scaled[1]])
    slow = _smooth_noise(2, T, min(3 * frame_rate, T / 6), rng)
    share = np.array([0.8, 0.4]) * level  # the two images have means of about 1 and 1/2
    f = share[:, None] * np.maximum(1 + np.array([[1.0], [3.0]]) * drift * slow, 0.05)
    return b.transpose(0, 2, 1).reshape(2, -1).T.astype(np.float32), f.astype(np.float32)


def _crop_matrix(canvas: tuple[int, int], margin: int) -> sparse.csr_matrix:
    """(field pixels, canvas pixels) selection of the field of view, both in Fortran order."""
    numbered = np.arange(canvas[0] * canvas[1]).reshape(canvas, order="F")
    index = numbered[margin : canvas[0] - margin, margin : canvas[1] - margin].ravel(order="F")
    ones = np.ones(len(index), np.float32)
    return sparse.csr_matrix(
        (ones, (np.arange(len(index)), index)), shape=(len(index), canvas[0] * canvas[1])
    )


def _expose(
    scene: _Canvas,
    noise: CameraNoise,
    T: int,
    shape: tuple[int, int],
    dtype: np.dtype,
    seeds: np.random.SeedSequence,
) -> NDArray[np.generic]:
    """Render and draw the whole movie, a block of frames at a time, on the threads of the backend."""
    movie = np.empty((T, *shape), dtype)
    starts = range(0, T, BLOCK_FRAMES)

    def draw(start: int, seed: np.random.SeedSequence) -> None:
        frames = np.arange(start, min(start + BLOCK_FRAMES, T))
        counts = noise.expose(scene.render(frames), np.random.default_rng(seed))
        if dtype.kind == "u":
            np.clip(np.rint(counts, out=counts), 0, np.iinfo(dtype).max, out=counts)
        movie[frames] = counts

    with ThreadPoolExecutor(backend.threads()) as pool:
        list(pool.map(draw, starts, seeds.spawn(len(starts))))
    return movie
