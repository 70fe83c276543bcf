"""What a movie says of itself before any cell is looked for: noise, motion, and the size of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.deconvolution import movie_noise
from gpucalcium.errors import MovieShapeError, NotSupportedError
from gpucalcium.images import correlation_pnr
from gpucalcium.images.blobs import Blobs, find_blobs
from gpucalcium.movies import open_movie
from gpucalcium.movies.chain import Selection
from gpucalcium.registration.rigid import RigidParams, register_rigid

FEWEST_FRAMES, MOST_FRAMES = 30, 1000  # looked at, evenly spaced
SAMPLE_SHARE = 8  # the registered sample takes at most this part of the memory budget
SMALLEST_FIELD = 16  # px
SEARCH_SHARE, FARTHEST = 5, 25  # displacements are looked for up to a fifth of the field, 25 px at most
FOUND_AT_LEAST = (
    0.95  # of the frames; where more lie at the end of the search, nothing that repeats was matched
)
SEEN_BY = 3.0  # px, s.d. of the filter that cells are made visible with; those of 2 to 8 px pass
HIGH_PASS_PX = 5  # s.d. of the high-pass that one-photon frames are registered with
CELL_PEAK = 5.0  # noise levels; white noise reaches 3.3 in a thousand frames
STRONGEST = 0.5  # of the blobs, and FEWEST_SEEDS to MOST_SEEDS: whose footprints are measured
FEWEST_SEEDS, MOST_SEEDS = 5, 40
CORE_PX = 1.5  # around the centre of a blob: whose mean trace stands for the cell
PEAK_PIXELS = 5  # brightest pixels of a footprint, whose mean is its height
DISC_TO_GSIG = 0.85  # gSig / radius at half height; a Gaussian is as wide at 1.18 s.d. = 1 / 0.85


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What `measure` found."""

    frames: int
    """Frames of the movie."""
    dims: tuple[int, ...]
    """Image size, pixels."""
    noise: float
    """Median noise s.d. of pixels, in units of the movie."""
    shifts: tuple[float, ...] | None
    """Largest displacement from the usual place per axis, pixels; None: frames do not match each other."""
    half_width: float | None
    """Median radius of cells at half their height, pixels; None: no cells stand out."""
    cells: int
    """Blobs whose trace rises well above the noise."""
    correlation: NDArray[np.float32] = field(repr=False)
    """Correlation of neighbours in the filtered, registered sample, (d1, d2)."""
    peak_to_noise: NDArray[np.float32] = field(repr=False)
    """Peak-to-noise ratio there, (d1, d2)."""

    @property
    def gSig(self) -> float | None:
        """The s.d. of the Gaussian as wide as cells are at half height, pixels."""
        return None if self.half_width is None else DISC_TO_GSIG * self.half_width


def measure(movie: object, one_photon: bool = False) -> Measured:
    """Noise, motion and cell size of a movie.

    At most 1000 evenly spaced frames are registered rigidly. Cells are the blobs of their local correlation after
    a filter of about the size of cells. The mean trace of each strong blob, less that of the ring around it, has a
    covariance with the pixels near it that shows the cell alone; its area above half of its height is that of a
    disc of the radius given back. Cells are counted after a filter of that size.

    Parameters
    ----------
    movie : (T, d1, d2) movie as `open_movie` takes it
        30 frames and 16 x 16 pixels or more; read in chunks. Constant movies have no cells.
    one_photon : bool
        Register high-pass filtered frames.

    Raises
    ------
    MovieShapeError
        Too few frames or pixels.
    NotSupportedError
        A volume.
    MovieValueError
        No pixel is a finite number.
    """
    source = open_movie(movie)
    _check(tuple(source.shape))
    noise = backend.to_numpy(movie_noise(source))
    frames, shifts = _registered(source, one_photon)
    correlation, ratio = _pictures(frames, SEEN_BY)
    width = _half_width(frames, find_blobs(correlation))
    cells = 0
    if width is not None:
        correlation, ratio = _pictures(frames, DISC_TO_GSIG * width)
        centers = find_blobs(correlation, (width,)).centers
        cells = int(np.count_nonzero(ratio[tuple(centers.T)] > CELL_PEAK))
    return Measured(
        frames=len(source),
        dims=tuple(source.shape[1:]),
        noise=float(np.median(noise[np.isfinite(noise)])) if np.isfinite(noise).any() else 0.0,
        shifts=shifts,
        half_width=width,
        cells=cells,
        correlation=correlation,
        peak_to_noise=ratio,
    )


def _pictures(frames: Array, gSig: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Correlation of neighbours and peak-to-noise ratio after a filter for cells of that size, on the host."""
    correlation, ratio = correlation_pnr(frames, gSig=gSig, swap_dim=False)
    return backend.to_numpy(correlation), backend.to_numpy(ratio)


def _check(shape: tuple[int, ...]) -> None:
    if len(shape) == 4:
        raise NotSupportedError(
            f"the movie is a volume {shape}: cell size and motion are measured in planes; give one, movie[..., z]"
        )
    if len(shape) != 3 or shape[0] < FEWEST_FRAMES or min(shape[1:]) < SMALLEST_FIELD:
        raise MovieShapeError(
            f"the movie has shape {shape}: measuring needs (T, d1, d2) with {FEWEST_FRAMES} frames and "
            f"{SMALLEST_FIELD} x {SMALLEST_FIELD} pixels or more"
        )


def _registered(source: FrameSource, one_photon: bool) -> tuple[Array, tuple[float, ...] | None]:
    """Evenly spaced frames of the movie, registered if they can be, and how far they lie apart."""
    room = backend.budget() // (SAMPLE_SHARE * 4 * math.prod(source.shape[1:]))
    most = min(MOST_FRAMES, max(FEWEST_FRAMES, room))
    sample = Selection(source, slice(None, None, -(-len(source) // most)))
    frames = backend.empty(sample.shape, np.float32)
    bound = tuple(min(FARTHEST, n // SEARCH_SHARE) for n in source.shape[1:])
    how = RigidParams(max_shifts=bound, border="copy", gSig_filt=(HIGH_PASS_PX,) * 2 if one_photon else None)
    found = register_rigid(sample, how, out=frames)
    if np.mean(found.quality.clamped) > 1 - FOUND_AT_LEAST:
        start = 0
        for chunk in backend.stream(sample):
            frames[start : start + len(chunk)] = chunk
            start += len(chunk)
        return frames, None
    apart = np.abs(found.shifts - np.median(found.shifts, axis=0)).max(axis=0)
    return frames, tuple(float(a) for a in apart)


def _half_width(frames: Array, blobs: Blobs) -> float | None:
    """Median radius at half height of the strongest blobs' footprints."""
    count = int(np.clip(STRONGEST * blobs.count, FEWEST_SEEDS, MOST_SEEDS))
    radii = [_radius(frames, center, blobs.radius) for center in blobs.centers[:count]]
    known = [radius for radius in radii if radius is not None]
    return float(np.median(known)) if known else None


def _radius(frames: Array, center: NDArray[np.int64], scale: float) -> float | None:
    """Radius of the disc as large as what goes up and down with the pixel `center`, above half of its height."""
    reach = math.ceil(3 * scale)
    low = np.maximum(center - reach, 0)
    high = np.minimum(center + reach + 1, frames.shape[1:])
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    near = backend.to_numpy(frames[:, *box]).astype(np.float64)
    near = np.where(np.isfinite(near), near, 0.0)
    rows, columns = np.ogrid[box]
    distance = np.hypot(rows - center[0], columns - center[1])
    core, ring = distance < CORE_PX, (distance >= 2 * scale) & (distance < 3 * scale)
    near -= np.median(near[:, ring], axis=1)[:, None, None]
    near -= near.mean(axis=0)
    cell = near[:, core].mean(axis=1)
    image = np.tensordot(cell, near, axes=1) / len(near)
    noise = np.square(np.diff(near, axis=0)).mean(axis=0) / 2
    image[core] -= noise[core] / core.sum()  # a pixel's noise goes up and down with itself
    image -= np.median(image[ring])
    height = np.sort(image[distance < scale])[-PEAK_PIXELS:].mean()
    pieces, _ = ndimage.label(image > height / 2)
    own = pieces[tuple(center - low)]
    if own == 0 or height <= 0:
        return None
    return float(np.sqrt(ndimage.binary_fill_holes(pieces == own).sum() / np.pi))
