"""What a movie says of itself before any cell is looked for: noise, motion, and the size of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.deconvolution import movie_noise
from gpucalcium.errors import MovieShapeError, NotSupportedError
from gpucalcium.images import correlation_pnr
from gpucalcium.images.blobs import Blobs, find_blobs
from gpucalcium.movies import open_movie
from gpucalcium.movies.chain import Selection
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from gpucalcium.registration.rigid import RigidParams, RigidResult, register_rigid

FEWEST_FRAMES, MOST_FRAMES = 30, 1000  # looked at, evenly spaced
SAMPLE_SHARE = 8  # the registered sample takes at most this part of the memory budget
SMALLEST_FIELD = 16  # px
SEARCH_SHARE, FARTHEST = 5, 25  # displacements are looked for up to a fifth of the field, 25 px at most
FOUND_AT_LEAST = (
    0.95  # of the frames; where more lie at the end of the search, nothing that repeats was matched
)
SEEN_BY = 3.0  # px, s.d. of the filter that cells are made visible with; those of 2 to 8 px pass
LOCAL_PATCH, LOCAL_SHARE = (
    96,
    3,
)  # px, and part of the field: side of the patches whose own displacement is measured
SMALLEST_PATCH = 32  # px; of fewer the displacement is not known well enough
LOCAL_QUANTILE = 0.95  # of patches and frames lie no farther than `local_shift` from where the frame lies
LOCAL_PX = 0.5  # px; rigid motion seems to differ by up to 0.26 px in places, by noise
HIGH_PASS_PX = 5  # s.d. of the high-pass that one-photon frames are registered with
CELL_PEAK = 5.0  # noise levels; white noise reaches 3.3 in a thousand frames
STRONGEST = 0.5  # of the blobs, and FEWEST_SEEDS to MOST_SEEDS: whose footprints are measured
FEWEST_SEEDS, MOST_SEEDS = 5, 40
TYPICAL = 0.4  # quantile of the radii: donuts look larger than filled cells, and a median may be of either
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
    local_shift: float | None
    """How far parts of a frame lie from where the frame lies, pixels (95 % lie nearer); None: not known."""
    half_width: float | None
    """Typical radius of cells at half their height, pixels; None: no cells stand out."""
    half_depth: float | None
    """The same across the planes of a volume."""
    cells: int
    """Blobs whose trace rises well above the noise."""
    correlation: NDArray[np.float32] = field(repr=False)
    """Correlation of neighbours in the filtered, registered sample, (d1, d2[, d3]); of a volume plane by plane."""
    peak_to_noise: NDArray[np.float32] = field(repr=False)
    """Peak-to-noise ratio there, (d1, d2[, d3])."""

    @property
    def gSig(self) -> float | None:
        """The s.d. of the Gaussian as wide as cells are at half height, pixels."""
        return None if self.half_width is None else DISC_TO_GSIG * self.half_width

    @property
    def gSig_across(self) -> float | None:
        """The same across the planes of a volume, planes."""
        return None if self.half_depth is None else DISC_TO_GSIG * self.half_depth


def measure(movie: object, one_photon: bool = False) -> Measured:
    """Noise, motion and cell size of a movie.

    At most 1000 evenly spaced frames are registered, rigidly, and in parts if these lie apart. Cells are the blobs of
    their local correlation after a filter of about the size of cells. The mean trace of each strong blob, less that of
    the ring around it, has a covariance with the pixels near it that shows the cell alone; its area above half of its
    height is that of a disc of the radius given back. Cells are counted after a filter of that size. Of a volume every
    plane is looked at, and blobs on top of each other are one cell.

    Parameters
    ----------
    movie : (T, d1, d2[, d3]) movie as `open_movie` takes it
        30 frames and 16 x 16 pixels or more; read in chunks. Constant movies have no cells.
    one_photon : bool
        Register high-pass filtered frames.

    Raises
    ------
    MovieShapeError
        Too few frames or pixels.
    NotSupportedError
        A one-photon volume.
    MovieValueError
        No pixel is a finite number.
    """
    source = open_movie(movie)
    _check(tuple(source.shape), one_photon)
    noise = backend.to_numpy(movie_noise(source))
    frames, shifts, local = _registered(source, one_photon)
    seen = _in_planes(frames)
    return Measured(
        frames=len(source),
        dims=tuple(source.shape[1:]),
        noise=float(np.median(noise[np.isfinite(noise)])) if np.isfinite(noise).any() else 0.0,
        shifts=shifts,
        local_shift=local,
        half_width=seen.width,
        half_depth=seen.depth,
        cells=seen.cells,
        correlation=seen.correlation,
        peak_to_noise=seen.ratio,
    )


class _Seen(NamedTuple):
    """Cells of a registered sample."""

    width: float | None
    depth: float | None
    cells: int
    correlation: NDArray[np.float32]
    ratio: NDArray[np.float32]


def _in_planes(frames: Array) -> _Seen:
    """Size and number of the cells in each plane of (T, d1, d2[, d3]) frames together."""
    volume = frames if frames.ndim == 4 else frames[..., None]
    planes = [backend.arrays.xp(frames).ascontiguousarray(volume[..., z]) for z in range(volume.shape[-1])]
    pictures = [_pictures(plane, SEEN_BY) for plane in planes]
    blobs = [find_blobs(correlation) for correlation, _ in pictures]
    radii = [r for plane, found in zip(planes, blobs, strict=True) for r in _radii(plane, found)]
    width = float(np.quantile(radii, TYPICAL)) if radii else None
    depth, cells = None, 0
    if width is not None:
        seeds = [_bright(found.centers, ratio) for found, (_, ratio) in zip(blobs, pictures, strict=True)]
        depth = _half_depth(volume, seeds, width) if frames.ndim == 4 else None
        pictures = [_pictures(plane, DISC_TO_GSIG * width) for plane in planes]
        places = []
        for z, (correlation, ratio) in enumerate(pictures):
            centers = _bright(find_blobs(correlation, (width,)).centers, ratio)
            places.append(np.column_stack([centers, np.full(len(centers), z)]))
        cells = _count(np.concatenate(places), width, depth)
    stacks = [np.stack(images, -1).reshape(frames.shape[1:]) for images in zip(*pictures, strict=True)]
    return _Seen(width, depth, cells, stacks[0], stacks[1])


def _bright(centers: NDArray[np.int64], ratio: NDArray[np.float32]) -> NDArray[np.int64]:
    """Blobs whose trace rises well above the noise."""
    return centers[ratio[tuple(centers.T)] > CELL_PEAK]


def _count(places: NDArray[np.int64], width: float, depth: float | None) -> int:
    """Cells at (row, column, plane), of which those of neighbouring planes on top of each other are one."""
    if depth is None or not len(places):
        return len(places)
    tree = cKDTree(
        places / [width, width, max(2 * depth, 1.5)]
    )  # planes that one cell reaches, and the next one
    return int(connected_components(tree.sparse_distance_matrix(tree, 1.0))[0])


def _pictures(frames: Array, gSig: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Correlation of neighbours and peak-to-noise ratio after a filter for cells of that size, on the host."""
    correlation, ratio = correlation_pnr(frames, gSig=gSig, swap_dim=False)
    return backend.to_numpy(correlation), backend.to_numpy(ratio)


def _check(shape: tuple[int, ...], one_photon: bool) -> None:
    if len(shape) == 4 and one_photon:
        raise NotSupportedError(
            f"the movie is a volume {shape}: one-photon cells are measured in planes only"
        )
    if shape[0] < FEWEST_FRAMES or min(shape[1:3]) < SMALLEST_FIELD:
        raise MovieShapeError(
            f"the movie has shape {shape}: measuring needs (T, d1, d2[, d3]) with {FEWEST_FRAMES} frames and "
            f"{SMALLEST_FIELD} x {SMALLEST_FIELD} pixels or more"
        )


def _registered(
    source: FrameSource, one_photon: bool
) -> tuple[Array, tuple[float, ...] | None, float | None]:
    """Evenly spaced frames of the movie, registered if they can be; how far they lie apart, and how far their parts."""
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
        return frames, None, None
    known = found.shifts[~found.quality.clamped]  # a frame at the end of the search was not found
    apart = np.abs(known - np.median(known, axis=0)).max(axis=0)
    return frames, tuple(float(a) for a in apart), _registered_in_parts(sample, how, found, frames)


def _registered_in_parts(
    sample: FrameSource, how: RigidParams, rigid: RigidResult, frames: Array
) -> float | None:
    """How far parts of frames lie from the frames; where that is far, `frames` are registered in parts."""
    dims = sample.shape[1:]
    if len(dims) == 3 or min(dims) < 2 * SMALLEST_PATCH:
        return None
    side = [min(LOCAL_PATCH, max(SMALLEST_PATCH, n // LOCAL_SHARE)) for n in dims]
    overlaps = tuple(n // 4 for n in side)
    strides = tuple(n - o for n, o in zip(side, overlaps, strict=True))
    parts = PiecewiseParams(rigid=how, strides=strides, overlaps=overlaps, border="copy")
    found = register_piecewise(sample, parts, template=rigid.template)
    away = found.field - found.shifts[:, None, None]
    away -= np.median(away, axis=0)  # what is bent in the template is not motion
    local = float(np.quantile(np.linalg.norm(away, axis=-1), LOCAL_QUANTILE))
    if local > LOCAL_PX:
        register_piecewise(sample, parts, template=found.template, out=frames)
    return local


def _half_depth(volume: Array, seeds: list[NDArray[np.int64]], scale: float) -> float | None:
    """Half width across planes, at half height, of cells in whose middle a seed lies; their median."""
    depths = []
    for z, centers in enumerate(seeds):
        for center in centers:
            near, distance, _ = _surroundings(volume, center, scale)
            core = near[:, distance < CORE_PX].mean(axis=1)
            ring = (distance >= 2 * scale) & (distance < 3 * scale)
            traces = core - np.median(near[:, ring], axis=1)
            traces -= traces.mean(axis=0)
            profile = traces[:, z] @ traces / len(traces)
            profile[z] -= np.square(np.diff(traces[:, z])).mean() / 2  # noise goes up and down with itself
            if abs(np.argmax(profile) - z) <= 1:
                depths += _half_widths(profile)
    return float(np.median(depths)) if depths else None


def _half_widths(profile: NDArray[np.float64]) -> list[float]:
    """Distance from the peak of a profile to where it falls to a half, on each side where it does."""
    top = int(np.argmax(profile))
    found = []
    for side in (profile[top:], profile[top::-1]):
        below = np.flatnonzero(side < profile[top] / 2)
        if len(below) and profile[top] > 0:
            i = int(below[0])
            found.append(i - 1 + float((side[i - 1] - profile[top] / 2) / (side[i - 1] - side[i])))
    return found


def _radii(frames: Array, blobs: Blobs) -> list[float]:
    """Radius at half height of each of the strongest blobs' footprints."""
    count = int(np.clip(STRONGEST * blobs.count, FEWEST_SEEDS, MOST_SEEDS))
    radii = [_radius(frames, center, blobs.radius) for center in blobs.centers[:count]]
    return [radius for radius in radii if radius is not None]


def _surroundings(
    frames: Array, center: NDArray[np.int64], scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(T, h, w[, d3]) pixels within three times `scale`, 0 where missing; distance of each; the corner of the box."""
    reach = math.ceil(3 * scale)
    low = np.maximum(center - reach, 0)
    high = np.minimum(center + reach + 1, frames.shape[1:3])
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    near = backend.to_numpy(frames[:, *box]).astype(np.float64)
    rows, columns = np.ogrid[box]
    return np.where(np.isfinite(near), near, 0.0), np.hypot(rows - center[0], columns - center[1]), low


def _radius(frames: Array, center: NDArray[np.int64], scale: float) -> float | None:
    """Radius of the disc as large as what goes up and down with the pixel `center`, above half of its height."""
    near, distance, low = _surroundings(frames, center, scale)
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
