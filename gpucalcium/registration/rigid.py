"""Rigid registration of a movie: one shift per frame, one pass over the frames, templates of temporal splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.backend.stencils import difference_kernel
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.registration.journal import Journal
from gpucalcium.registration.matching import Matcher, Noise
from gpucalcium.registration.record import SweepRecord
from gpucalcium.registration.sweep import FrameQuality, Sink, Sweep
from gpucalcium.registration.template import first_matcher, sample_of

_BORDERS: dict[object, str] = {True: "nan", "min": "min", "copy": "copy", False: "reflect"}
SHORTEST_SPLIT = 10  # frames, when the number of splits follows from their length


@dataclass(frozen=True, kw_only=True)
class RigidParams:
    """How frames are registered rigidly."""

    max_shifts: tuple[int, ...] = (6, 6)
    """Largest shift per axis, pixels; both ends belong to the window. 0 holds an axis still."""
    niter_rig: int = 1
    """Passes, each with the template of the one before; 0 returns the first template only."""
    splits_rig: int | None = 14
    """Temporal splits, one template each, at most one per frame; None: as `num_frames_split` says."""
    num_splits_to_process_rig: int | None = None
    """Passes before the last use, and templates come from, this many splits drawn at random; None: all."""
    num_frames_split: int = 80
    """Length of a split in frames (at least 10), where `splits_rig` is None."""
    gSig_filt: tuple[int, ...] | None = None
    """Standard deviation in pixels of the Gaussian of the high-pass for one-photon movies; None: no filter."""
    border: str = "nan"
    """See `displace`."""
    fourier: bool = False
    """Move frames by Fourier transform instead of bicubic interpolation; volumes always are."""
    seed: int = 0
    """Of the choice of splits."""

    def __post_init__(self) -> None:
        if any(m < 0 or m != int(m) for m in self.max_shifts):
            raise ParameterError(
                f"max_shifts={self.max_shifts}: whole numbers of pixels, 0 or more, one per axis"
            )
        if self.niter_rig < 0 or self.niter_rig != int(self.niter_rig):
            raise ParameterError(f"niter_rig={self.niter_rig}: a whole number of passes, 0 or more")
        for name in ("splits_rig", "num_splits_to_process_rig", "num_frames_split"):
            value = getattr(self, name)
            if value is not None and (value < 1 or value != int(value)):
                raise ParameterError(f"{name}={value}: a whole number, 1 or more")
        if self.gSig_filt is not None and min(self.gSig_filt, default=0) <= 0:
            raise ParameterError(f"gSig_filt={self.gSig_filt}: widths in pixels, greater than 0")
        check_moves(self.gSig_filt, self.fourier)

    def splits(self, frames: int) -> list[range]:
        """Near-equal, consecutive ranges of frames."""
        count = self.splits_rig or frames // max(self.num_frames_split, SHORTEST_SPLIT)
        return [
            range(int(p[0]), int(p[-1]) + 1)
            for p in np.array_split(np.arange(frames), min(max(count, 1), frames))
        ]

    def high_pass(self) -> NDArray[np.float64] | None:
        """Kernel of `gSig_filt`, or None."""
        if self.gSig_filt is None:
            return None
        return difference_kernel(self.gSig_filt, [int(3 * g) // 2 for g in self.gSig_filt])


@dataclass(frozen=True)
class RigidResult:
    """What rigid registration of one movie found."""

    shifts: NDArray[np.float32]
    """(T, ndim) displacement applied to each frame, pixels."""
    quality: FrameQuality
    split_templates: list[NDArray[np.float32]]
    """Mean registered image of each split."""
    template: NDArray[np.float32]
    """Median of these; what a further pass, or the next file, starts from."""
    used_template: NDArray[np.float32] = field(repr=False)
    """What the shifts refer to."""


def register_rigid(
    source: FrameSource,
    params: RigidParams,
    *,
    template: NDArray[np.float32] | None = None,
    sink: Sink | None = None,
    out: Array | None = None,
    offset: float = 0.0,
    journal: Journal | None = None,
    label: str = "rigid registration",
) -> RigidResult:
    """Find the rigid shift of every frame of a movie.

    Parameters
    ----------
    source : FrameSource
        (T, d1, d2[, d3]). Read once for a sample and once per pass; never held whole.
    params : RigidParams
    template : (d1, d2[, d3]) array, optional
        What to register to; default: made from the movie.
    sink : callable, optional
        ``sink(start, frames)`` receives the registered frames of the last pass, in order, float32, minus `offset`;
        what ``sink.prepare(frames)`` makes of them on the device, if there is such a method.
    out : (T, d1, d2[, d3]) float32 array, optional
        Filled with the same frames, without a way through host memory if it lies on the device that registers.
    offset : float
        Subtracted from registered frames.
    journal : Journal, optional
        Holds what an earlier, interrupted attempt found, which is not looked for again, and takes the rest. Frames
        are sent again to `sink` from the temporal split on that was not on the disk for certain, and all to `out`.
    label : str
        What progress bars say.

    Returns
    -------
    RigidResult

    Raises
    ------
    MovieShapeError, ArrayShapeError, ParameterError
        Wrong number of axes, a template or `out` of another shape, shifts larger than the frame allows.
    MovieValueError
        No pixel is a finite number.
    """
    given = None if template is None else check_template(template, source)
    check_out(out, source)
    matcher, _ = rigid_finder(source, sample_of(source), params, template=given, journal=journal, label=label)
    splits = params.splits(len(source))
    chosen = drawn(len(splits), params.num_splits_to_process_rig, params.seed)
    sweep = Sweep(source, border=params.border, fourier=params.fourier, offset=offset)
    kept = sink is None and out is None
    record = None if journal is None else SweepRecord(journal, "rigid", splits, kept=kept)
    final = sweep.run(matcher, splits, sink=sink, out=out, record=record, label=label)
    means = [final.means[i] for i in chosen] if params.niter_rig else [matcher.template]
    return RigidResult(
        final.shifts, final.quality, means, median_of(means, matcher.template), matcher.template
    )


def rigid_finder(
    source: FrameSource,
    sample: Array,
    params: RigidParams,
    *,
    template: NDArray[np.float32] | None = None,
    journal: Journal | None = None,
    label: str = "rigid registration",
) -> tuple[Matcher, Noise]:
    """What the last pass of `register_rigid` finds frames with: a filter for the first template, or for that which
    the passes before have made; and the noise that it was made for.

    Parameters
    ----------
    sample : (n, d1, d2[, d3])
        See `sample_of`.
    source, params, template, journal, label
        As in `register_rigid`.
    """
    bound, high_pass = check_bound(source, params.max_shifts), params.high_pass()
    _check_filter(source, params)
    matcher, noise = first_matcher(sample, bound, template=template, high_pass=high_pass)
    splits = params.splits(len(source))
    chosen = [splits[i] for i in drawn(len(splits), params.num_splits_to_process_rig, params.seed)]
    sweep = Sweep(source, border=params.border, fourier=params.fourier)
    for number in range(1, params.niter_rig):
        text = f"{label}, template {number} of {params.niter_rig}"
        image = _improved(sweep, matcher, chosen, f"template {number}", journal, text)
        matcher = Matcher.make(image, bound, noise, high_pass)
    return matcher, noise


def _improved(
    sweep: Sweep, matcher: Matcher, splits: list[range], name: str, journal: Journal | None, label: str
) -> NDArray[np.float32]:
    """Median over these splits of the frames registered by `matcher`."""
    if journal is not None and name in journal.kept:
        return journal.kept[name]
    means = []
    with stage(label, sum(map(len, splits))) as bar:
        for split in splits:
            means += sweep.run(matcher, [split], frames=split, bar=bar).means
    image = median_of(means, matcher.template)
    if journal is not None:
        journal.keep(name, image)
    return image


def check_bound(source: FrameSource, max_shifts: tuple[int, ...]) -> tuple[int, ...]:
    """`max_shifts` fit for the frames: 0 along axes of one pixel.

    Raises
    ------
    ParameterError
        Not one value per axis, or so large that frame and template need not overlap by half.
    """
    dims = source.shape[1:]
    if len(max_shifts) != len(dims):
        raise ParameterError(
            f"max_shifts={max_shifts} has {len(max_shifts)} values, but frames of shape {dims} have {len(dims)} axes: "
            "give one bound per axis"
        )
    bound = tuple(0 if n == 1 else int(m) for m, n in zip(max_shifts, dims, strict=True))
    if any(2 * m >= n for m, n in zip(bound, dims, strict=True)):
        raise ParameterError(
            f"max_shifts={max_shifts} is too large for frames of shape {dims}: along each axis it must be less than "
            "half of the frame"
        )
    return bound


def check_template(template: Any, source: FrameSource) -> NDArray[np.float32]:
    """A template that was given, as float32 in host memory.

    Raises
    ------
    ArrayShapeError, MovieValueError
        It is not of the frames' shape; it holds no number.
    """
    image = np.asarray(backend.to_numpy(template), np.float32)
    if image.shape != source.shape[1:]:
        raise ArrayShapeError(
            f"template has shape {image.shape}, the movie's frames {source.shape[1:]}: they must agree"
        )
    if not np.isfinite(image).any():
        raise MovieValueError(
            "the template holds no finite number: give the image that frames are to be registered to"
        )
    return image


def _check_filter(source: FrameSource, params: RigidParams) -> None:
    dims = source.shape[1:]
    if params.gSig_filt is not None and len(params.gSig_filt) != len(dims):
        raise ParameterError(f"gSig_filt={params.gSig_filt}: give one width per axis of the frames {dims}")


def check_out(out: Array | None, source: FrameSource) -> None:
    """Whether registered frames fit into `out`, if that is given.

    Raises
    ------
    ArrayShapeError
        They do not.
    """
    if out is not None and (out.shape != source.shape or out.dtype != np.float32):
        raise ArrayShapeError(
            f"out is {out.shape} {out.dtype}; the registered movie is {source.shape} float32"
        )


def check_moves(gSig_filt: tuple[int, ...] | None, fourier: bool) -> None:
    """Whether frames that are found in high-pass filtered images may be moved in this way.

    Raises
    ------
    ParameterError
        They are not, by Fourier transform.
    """
    if gSig_filt is not None and fourier:
        raise ParameterError(
            "gSig_filt with shifts_opencv=False: high-pass registration moves frames by interpolation only; "
            "use shifts_opencv=True"
        )


def border_of(border_nan: object) -> str:
    """Border of `displace` by its name in the documented interface.

    Raises
    ------
    ParameterError
        It is not True, False, 'min' or 'copy'.
    """
    if border_nan not in _BORDERS:
        raise ParameterError(f"border_nan={border_nan!r}: expected True, False, 'min' or 'copy'")
    return _BORDERS[border_nan]


def drawn(splits: int, wanted: int | None, seed: int) -> list[int]:
    """Which of so many splits templates come from, in order; None: all."""
    if wanted is None or wanted >= splits:
        return list(range(splits))
    return sorted(np.random.default_rng(seed).choice(splits, wanted, replace=False).tolist())


def median_of(means: list[NDArray[np.float32]], before: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median image over the splits that show a pixel; where none does (at the border), that of the template `before`.

    A split's smallest value there instead would draw an edge around the image, which frames of the next pass, or of
    the next recording, would be pulled to.
    """
    stack = np.stack(means)
    image = np.median(stack, axis=0)
    partly = np.isnan(image)
    values = np.sort(stack[:, partly], axis=0)  # NaN comes last
    count = (~np.isnan(values)).sum(axis=0)
    middle = [
        np.take_along_axis(values, k[None], axis=0)[0] for k in (np.maximum(count - 1, 0) // 2, count // 2)
    ]
    image[partly] = np.where(count > 0, (middle[0] + middle[1]) / 2, before[partly])
    return image
