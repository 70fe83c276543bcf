"""A scene of cells over a background, and the camera that looks at it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from gpucalcium import backend
from gpucalcium.errors import ParameterError

Float = NDArray[np.float32]

BLOCK_FRAMES = 64  # frames rendered and drawn at once; each block has its own random stream


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
    _canvas: Canvas = field(repr=False)

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
class Canvas:
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


def expose(
    scene: Canvas,
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
