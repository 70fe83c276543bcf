"""One frame registered patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ArrayShapeError, MovieShapeError, ParameterError
from gpucalcium.registration.activity import white_level
from gpucalcium.registration.apply import displace, displace_field, shift_tiles, tiles_of
from gpucalcium.registration.matching import Matcher, Noise, isotropic, wave_number
from gpucalcium.registration.patch_matching import PatchMatcher
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseParams
from gpucalcium.registration.rigid import RigidParams, border_of, check_bound
from gpucalcium.registration.template import SAMPLE, mean_power, whole

Ints = Sequence[int]
FEWEST = 2.0  # frames in a template: where it is as noisy as one, all that it shows would count as noise


class TileResult(NamedTuple):
    """What `tile_and_correct` returns."""

    image: Array
    """(d1, d2[, d3]) float32, the registered frame."""
    shifts: NDArray[np.float32]
    """(n_patches, ndim) displacement applied at each patch (with Fourier shifts: tile), pixels; (ndim,) if rigid."""
    starts: list[tuple[int, ...]]
    """First pixel of each patch, C order."""
    grid: list[tuple[int, ...]]
    """Place of each patch in the grid."""


def tile_and_correct(
    img: ArrayLike | Array,
    template: ArrayLike | Array,
    strides: Ints,
    overlaps: Ints,
    max_shifts: Ints,
    newoverlaps: Ints | None = None,
    newstrides: Ints | None = None,
    upsample_factor_grid: int = 4,
    upsample_factor_fft: int = 10,
    *,
    max_deviation_rigid: float | None = 2,
    add_to_movie: float = 0.0,
    shifts_opencv: bool = False,
    gSig_filt: Ints | None = None,
    use_cuda: bool = False,
    border_nan: bool | str = True,
    shifts_interpolate: bool = False,
) -> TileResult:
    """Register one frame to a template, patch by patch.

    The frame is found as a whole, then each patch near it, by matched filters (docs/theory/registration.md) that take
    what the frame holds beside the template for noise; how much of that the template itself has is seen by its finest
    structure. `register_piecewise` does the same for a movie, and knows its noise better.

    Parameters
    ----------
    img, template : (d1, d2[, d3]) array, real
        Pixels that are not finite take the template's value; those of the template its mean.
    strides, overlaps : per axis
        Distance of patches, and pixels that neighbours share; a patch has ``strides + overlaps``.
    max_shifts : per axis
        Largest displacement of the frame, pixels, both ends included.
    newoverlaps, newstrides : per axis, optional
        Of the tiles that are shifted by Fourier transform; default: `overlaps`, and
        ``round(strides / upsample_factor_grid)``.
    upsample_factor_grid : int
        Distance of patches over that of tiles, where `newstrides` is not given.
    upsample_factor_fft : int
        Points per pixel at which displacements must at least be resolved, 1 or more. They are found on a
        continuous scale, which is finer than any grid: the result does not depend on it.
    max_deviation_rigid : float or None
        Largest distance of a patch's displacement from the frame's, pixels; 0: the frame moves as a whole.
        None: as far as `max_shifts`.
    add_to_movie : float
        Brightness added to frame and template for the matching alone. That takes no notice of either's mean, so the
        result does not depend on it.
    shifts_opencv : bool
        True: every pixel is interpolated at its own displacement. False: tiles are shifted by Fourier transform
        and blended.
    gSig_filt : per axis, optional
        Find displacements in high-pass filtered images; needs ``shifts_opencv=True``.
    use_cuda : bool
        True demands the GPU; else the arrays and ``backend.use`` decide.
    border_nan : True, 'min', 'copy' or False
        What pixels get that came in from outside: NaN, the minimum, the edge, the reflection.
    shifts_interpolate : bool
        Displacements by splines through the middles of the patches, instead of the grid stretched over the frame.

    Returns
    -------
    TileResult
        ``(image, shifts, starts, grid)``; the image is CuPy if `img` is.

    Raises
    ------
    ArrayShapeError, MovieShapeError
        Image and template of different shapes, or not of 2 or 3 axes.
    ParameterError
        Values that cannot work, named in the message.
    MovieValueError
        A template without a finite number.
    GpuUnavailable
        ``use_cuda=True`` without a usable GPU.
    """
    if upsample_factor_fft < 1 or not np.isfinite(add_to_movie):
        raise ParameterError(
            f"upsample_factor_fft={upsample_factor_fft}, add_to_movie={add_to_movie}: 1 or more points per pixel, "
            "and a finite brightness"
        )
    with backend.use("cuda") if use_cuda else nullcontext():
        frames = backend.put(img)[None]
        params = PiecewiseParams(
            rigid=RigidParams(
                max_shifts=tuple(max_shifts), gSig_filt=None if gSig_filt is None else tuple(gSig_filt)
            ),
            strides=tuple(strides),
            overlaps=tuple(overlaps),
            max_deviation_rigid=max_deviation_rigid,
            upsample_factor_grid=upsample_factor_grid,
            shifts_interpolate=shifts_interpolate,
            border=border_of(border_nan),
            fourier=not shifts_opencv,
        )
        finder = _finder(frames, template, params)
        if max_deviation_rigid == 0:
            found = finder.rigid.locate(frames).shifts
            moved = displace(frames, found, border=params.border, fourier=params.fourier)
            grid = PatchGrid.make(frames.shape[1:], frames.shape[1:], (0,) * (frames.ndim - 1))
        elif shifts_opencv:
            found, grid = finder.locate(frames).field, finder.grid
            moved = displace_field(frames, found, grid, border=params.border, interpolate=shifts_interpolate)
        else:
            tiling = tiles_of(
                finder.grid,
                upsample=upsample_factor_grid if newstrides is None else 1,
                strides=params.strides if newstrides is None else tuple(newstrides),
                overlaps=params.overlaps if newoverlaps is None else tuple(newoverlaps),
            )
            found, grid = (
                tiling.spread(finder.locate(frames).field, finder.grid, shifts_interpolate),
                tiling.grid,
            )
            moved = shift_tiles(frames, found, tiling, border=params.border)
    shifts = backend.to_numpy(found[0])
    return TileResult(
        backend.like(img, moved[0]),
        shifts.reshape(-1, shifts.shape[-1]) if max_deviation_rigid != 0 else shifts,
        [tuple(corner) for corner in grid.corners.tolist()],
        grid.indices,
    )


def tile_and_correct_3d(
    img: ArrayLike | Array,
    template: ArrayLike | Array,
    strides: Ints,
    overlaps: Ints,
    max_shifts: Ints,
    newoverlaps: Ints | None = None,
    newstrides: Ints | None = None,
    upsample_factor_grid: int = 4,
    upsample_factor_fft: int = 10,
    **options: Any,
) -> TileResult:
    """`tile_and_correct` of a volume (d1, d2, d3); parameters, results and errors are the same."""
    volume = backend.put(img)
    if volume.ndim != 3:
        raise MovieShapeError(
            f"tile_and_correct_3d takes a volume (d1, d2, d3), not {volume.shape}; use tile_and_correct"
        )
    return tile_and_correct(
        img,
        template,
        strides,
        overlaps,
        max_shifts,
        newoverlaps,
        newstrides,
        upsample_factor_grid,
        upsample_factor_fft,
        **options,
    )


def _frames_averaged(own: NDArray[np.float64], noise: Noise, shape: tuple[int, ...]) -> float:
    """Of how many frames a template of power `own` is the mean, by what is left of their noise at its high end.

    Taken for structure, that would be found in every frame that the template was made from, and in none besides.
    """
    radius = wave_number(shape)
    left, single = white_level(isotropic(own, shape), radius), white_level(noise.spectrum, radius)
    return float(np.clip(single / left, FEWEST, SAMPLE)) if left > 0 else float(SAMPLE)


def _finder(frames: Array, template: ArrayLike | Array, params: PiecewiseParams) -> PatchMatcher:
    """The template's filters, for the noise of one frame: what it has more than the template, at each frequency."""
    image = np.asarray(backend.to_numpy(template), np.float32)
    shape = frames.shape[1:]
    if len(shape) not in (2, 3) or 0 in shape:
        raise MovieShapeError(f"img has shape {shape}: an image (d1, d2) or a volume (d1, d2, d3) is needed")
    if image.shape != shape:
        raise ArrayShapeError(f"template has shape {image.shape}, img {shape}: they must agree")
    if params.rigid.gSig_filt is not None and len(params.rigid.gSig_filt) != len(shape):
        raise ParameterError(
            f"gSig_filt={params.rigid.gSig_filt}: give one width per axis of the image {shape}"
        )
    image = whole(image)
    bound, high_pass = check_bound(frames, params.rigid.max_shifts), params.rigid.high_pass()
    centred = image.astype(np.float64) - image.mean(dtype=np.float64)
    own = mean_power(backend.put(image[None]), image)
    power = np.maximum(mean_power(frames, image), own)
    noise = Noise.measured(power, centred, np.zeros(shape), SAMPLE)
    noise = Noise.measured(power, centred, np.zeros(shape), _frames_averaged(own, noise, shape))
    rigid = Matcher.make(image, bound, noise, high_pass)
    grid = PatchGrid.make(shape, params.strides, params.overlaps)
    return PatchMatcher.make(rigid, grid, params.deviation(), noise, high_pass)
