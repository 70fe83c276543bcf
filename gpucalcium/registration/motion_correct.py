"""`MotionCorrect`: the documented interface of motion correction."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import MovieShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.chain import Chain, Selection
from gpucalcium.movies.movie import movie
from gpucalcium.registration.registered import RegisteredMovie, map_writer
from gpucalcium.registration.rigid import BORDERS, RigidParams, RigidResult, register_rigid
from gpucalcium.registration.sweep import FrameQuality

log = logging.getLogger(__name__)

FRAMES_FOR_MINIMUM = 400
PIECEWISE = "piecewise-rigid registration is not part of this version, which registers whole frames: use pw_rigid=False"


class MotionCorrect:
    """Motion correction of one or several recordings of a field of view.

    Parameters
    ----------
    fname : path, array, source; list of these; tuple of paths
        A list is several recordings, registered in sequence to templates that follow on from each other; a tuple
        is one recording whose frames lie in several files.
    min_mov : float, optional
        Subtracted from the saved movie (`nonneg_movie`); default: the minimum of the first 400 frames.
    dview
        Accepted and not used: threads or the GPU do the work.
    max_shifts : tuple of int, pixels
        Largest shift per axis, both ends included; must be less than half of the frame. One number is taken for
        every axis; a third axis without a value takes the last one, as far as its length allows.
    niter_rig : int
        Passes; each uses the template of the one before. 0: shifts from the first template, which is not updated.
    splits_rig : int or None
        Temporal splits, one template each; None: ``max(T // num_frames_split, 1)``.
    num_splits_to_process_rig : int or None
        Make templates from this many splits only, drawn at random (`seed`). All frames are registered in the end.
    strides, overlaps, splits_els, num_splits_to_process_els, upsample_factor_grid, max_deviation_rigid,
    shifts_interpolate
        Of piecewise registration, which raises `NotSupportedError`.
    shifts_opencv : bool
        True: bicubic interpolation; False: shift by Fourier transform. Volumes always use the latter.
    nonneg_movie : bool
        Save the movie minus `min_mov`; not done in one-photon mode.
    gSig_filt : tuple of int or int, optional
        One-photon mode: register by images high-pass filtered with this Gaussian width; unfiltered frames are moved.
    use_cuda : bool
        True demands the GPU; False leaves the choice to ``backend.use`` and GPUCALCIUM_DEVICE.
    border_nan : True, 'copy', 'min' or False
        Pixels that came in from outside: NaN, nearest line inside, minimum of the frame, or the reflection.
    pw_rigid : bool
        True raises `NotSupportedError`.
    num_frames_split : int
        Length of a split where `splits_rig` is None, at least 10.
    var_name_hdf5 : str
        Data set in HDF5 files.
    is3D : bool
        The movie is (T, d1, d2, d3).
    indices : tuple of slices
        Part of the field of view to work on.
    seed : int
        Of the random choice of splits.

    Attributes
    ----------
    shifts_rig : list of tuples
        Displacement applied to each frame, pixels, axis order; all recordings in sequence.
    templates_rig, total_template_rig
        Mean registered image of each split, and their median (one-photon mode: filtered).
    fname_tot_rig, mmap_file : list of str or None
        Memory maps written, ``<stem>_rig__d1_<rows>_..._order_F_frames_<T>.mmap``, one per recording.
    border_to_0 : int
        Largest shift, rounded up.
    frame_quality : FrameQuality
        Peak height and flags of each frame.
    """

    def __init__(
        self,
        fname: Any,
        min_mov: float | None = None,
        dview: Any = None,
        max_shifts: Sequence[int] | int = (6, 6),
        niter_rig: int = 1,
        splits_rig: int | None = 14,
        num_splits_to_process_rig: int | None = None,
        strides: Sequence[int] = (96, 96),
        overlaps: Sequence[int] = (32, 32),
        splits_els: int = 14,
        num_splits_to_process_els: int | None = None,
        upsample_factor_grid: int = 4,
        max_deviation_rigid: int = 3,
        shifts_opencv: bool = True,
        nonneg_movie: bool = True,
        gSig_filt: Sequence[int] | int | None = None,
        use_cuda: bool = False,
        border_nan: bool | str = True,
        pw_rigid: bool = False,
        num_frames_split: int = 80,
        var_name_hdf5: str = "mov",
        is3D: bool = False,
        indices: Any = (slice(None, None, None), slice(None, None, None)),
        *,
        shifts_interpolate: bool = False,
        seed: int = 0,
    ) -> None:
        self.fname = fname if isinstance(fname, list) else [fname]
        if not self.fname:
            raise ParameterError("fname is an empty list: name at least one recording")
        self.min_mov, self.dview, self.seed = min_mov, dview, seed
        self.max_shifts, self.niter_rig, self.splits_rig = max_shifts, niter_rig, splits_rig
        self.num_splits_to_process_rig, self.num_frames_split = num_splits_to_process_rig, num_frames_split
        self.strides, self.overlaps, self.splits_els = strides, overlaps, splits_els
        self.num_splits_to_process_els, self.upsample_factor_grid = (
            num_splits_to_process_els,
            upsample_factor_grid,
        )
        self.max_deviation_rigid, self.pw_rigid = max_deviation_rigid, pw_rigid
        self.shifts_interpolate = shifts_interpolate
        self.shifts_opencv, self.nonneg_movie, self.gSig_filt = shifts_opencv, nonneg_movie, gSig_filt
        self.use_cuda, self.border_nan, self.is3D = use_cuda, border_nan, is3D
        self.var_name_hdf5, self.indices = var_name_hdf5, indices
        self.shifts_rig: list[tuple[float, ...]] = []
        self.templates_rig: list[NDArray[np.float32]] = []
        self.total_template_rig: NDArray[np.float32] | None = None
        self.fname_tot_rig: list[str | None] = []
        self.mmap_file: list[str | None] = []
        self.border_to_0 = 0
        self.frame_quality: FrameQuality | None = None

    def motion_correct(self, template: NDArray | None = None, save_movie: bool = False) -> MotionCorrect:
        """Find the shifts of all recordings; with `save_movie` also write the registered movies.

        Parameters
        ----------
        template : (d1, d2[, d3]) array, optional
            Register to this image, which is never updated.
        save_movie : bool
            Write a float32 memory map per recording, whole or not at all.

        Returns
        -------
        self

        Raises
        ------
        NotSupportedError
            ``pw_rigid=True``.
        ParameterError, MovieShapeError, ArrayShapeError, MovieValueError
            Settings that do not fit the movie; a movie without a number in it.
        """
        if self.pw_rigid:
            return self.motion_correct_pwrigid(save_movie=save_movie, template=template)
        return self.motion_correct_rigid(template, save_movie)

    def motion_correct_pwrigid(
        self, save_movie: bool = True, template: NDArray | None = None, show_template: bool = False
    ) -> MotionCorrect:
        """Not part of this version; raises `NotSupportedError`."""
        raise NotSupportedError(PIECEWISE)

    def motion_correct_rigid(
        self, template: NDArray | None = None, save_movie: bool = False
    ) -> MotionCorrect:
        """`motion_correct` without looking at `pw_rigid`."""
        with self._device():
            sources = [self._open(name) for name in self.fname]
            params = self._params(sources[0])
            if self.min_mov is None:
                self.min_mov = _minimum(sources[0], params)
            offset = float(self.min_mov) if self.nonneg_movie and params.gSig_filt is None else 0.0
            current = template
            results: list[RigidResult] = []
            names: list[str | None] = []
            for source, base in zip(sources, self._bases(), strict=True):
                result, name = _register(source, params, current, offset, base if save_movie else None)
                results.append(result)
                names.append(name)
                current = result.template if template is None else template
        self._keep(results, names, params)
        return self

    def registered_movie(self) -> RegisteredMovie:
        """The recordings with their shifts, as one source of frames that displaces what is read; nothing is written.

        Values are those of the recording: `min_mov` is not subtracted.
        """
        return self._registered([self._open(name) for name in self.fname])

    def apply_shifts_movie(
        self,
        fname: Any,
        rigid_shifts: bool | None = None,
        save_memmap: bool = False,
        save_base_name: str = "MC",
        order: str = "F",
        remove_min: bool = True,
    ) -> movie | str:
        """Apply the shifts found to another recording of the same length (another channel, say).

        Parameters
        ----------
        fname : path, array, source, or list of these
        rigid_shifts : bool, optional
            False asks for piecewise shifts and raises `NotSupportedError`.
        save_memmap : bool
            Write a memory map, in bounded memory, and return its name; else return the movie.
        save_base_name : str
            How the name of the map begins; without a folder the file lies in that for temporary files.
        order : {'F', 'C'}
            Of the memory map.
        remove_min : bool
            Where the result has negative values, subtract the smallest.

        Returns
        -------
        movie, (T, d1, d2[, d3]) float32, or str

        Raises
        ------
        NotSupportedError, ParameterError, ArrayShapeError
            Piecewise shifts asked for; nothing found yet; another number of frames.
        """
        if rigid_shifts is False or (rigid_shifts is None and self.pw_rigid):
            raise NotSupportedError(PIECEWISE)
        with self._device():
            moved = self._registered(
                [self._open(name) for name in (fname if isinstance(fname, list) else [fname])]
            )
            if remove_min:
                moved = moved.without_negative()
            if save_memmap:
                return str(moved.write(save_base_name, order))
            return movie(moved.all_frames())

    # ------------------------------------------------------------------ inside

    @contextmanager
    def _device(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.use_cuda or any(hasattr(name, "__cuda_array_interface__") for name in self.fname):
                stack.enter_context(backend.use("cuda"))  # frames on a GPU are registered there
            yield

    def _open(self, name: Any) -> FrameSource:
        source = open_movie(name, var_name_hdf5=self.var_name_hdf5)
        axes = 4 if self.is3D else 3
        if len(source.shape) != axes:
            raise MovieShapeError(
                f"the movie has {len(source.shape)} axes, shape {source.shape}, but is3D={self.is3D} means {axes}: set "
                f"is3D={not self.is3D}, or check the file"
            )
        parts = self.indices if isinstance(self.indices, tuple | list) else (self.indices,)
        if all(part == slice(None) for part in parts):
            return source
        return Selection(source, (slice(None), *parts))

    def _params(self, source: FrameSource) -> RigidParams:
        if self.border_nan not in BORDERS:
            raise ParameterError(f"border_nan={self.border_nan!r}: expected True, False, 'min' or 'copy'")
        dims = source.shape[1:]
        return RigidParams(
            max_shifts=_per_axis(self.max_shifts, dims, limit=True),
            niter_rig=self.niter_rig,
            splits_rig=self.splits_rig,
            num_splits_to_process_rig=self.num_splits_to_process_rig,
            num_frames_split=self.num_frames_split,
            gSig_filt=None if self.gSig_filt is None else _per_axis(self.gSig_filt, dims),
            border=BORDERS[self.border_nan],
            fourier=not self.shifts_opencv or self.is3D,
            seed=self.seed,
        )

    def _bases(self) -> list[str]:
        """How the names of the memory maps begin; recordings of one stem are told apart by their number."""
        bases: list[str] = []
        for name in self.fname:
            first = name[0] if isinstance(name, tuple) and name else name
            stem = Path(first).stem if isinstance(first, str | Path) else f"movie-{secrets.token_hex(4)}"
            base = f"{stem}_rig_"
            bases.append(base if base not in bases else f"{stem}-{len(bases)}_rig_")
        return bases

    def _keep(self, results: list[RigidResult], names: list[str | None], params: RigidParams) -> None:
        shifts = np.concatenate([r.shifts for r in results])
        filtered = [_filtered(image, params) for r in results for image in r.split_templates]
        self.shifts_rig = [tuple(map(float, s)) for s in shifts]
        self.templates_rig = filtered
        self.total_template_rig = _filtered(results[-1].template, params)
        self.fname_tot_rig = self.mmap_file = names
        self.border_to_0 = math.ceil(float(np.abs(shifts).max()))
        quality = self.frame_quality = FrameQuality.joined([r.quality for r in results])
        for what, count in (
            ("moved by more than max_shifts", quality.clamped.sum()),
            ("show nothing of the template", quality.no_signal.sum()),
        ):
            if count:
                log.warning("%d of %d frames %s; see frame_quality", count, len(shifts), what)

    def _registered(self, sources: list[FrameSource]) -> RegisteredMovie:
        if not self.shifts_rig:
            raise ParameterError("there are no shifts yet: call motion_correct() first")
        source = sources[0] if len(sources) == 1 else Chain(sources)
        params = self._params(source)
        return RegisteredMovie(
            source, np.array(self.shifts_rig, np.float32), border=params.border, fourier=params.fourier
        )


def _register(
    source: FrameSource, params: RigidParams, template: NDArray | None, offset: float, base: str | None
) -> tuple[RigidResult, str | None]:
    if base is None:
        return register_rigid(source, params, template=template, offset=offset), None
    with map_writer(base, source.shape) as (path, sink):
        result = register_rigid(source, params, template=template, sink=sink, offset=offset)
    return result, str(path)


def _per_axis(value: Sequence[int] | int, dims: tuple[int, ...], limit: bool = False) -> tuple[int, ...]:
    """One value per axis from a number, or from a tuple that lacks the third axis."""
    values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,) * len(dims)
    if len(values) == len(dims) - 1 == 2:
        values = (*values, min(values[-1], (dims[-1] - 1) // 2) if limit else values[-1])
    return values


def _minimum(source: FrameSource, params: RigidParams) -> float:
    """Smallest number in the first frames (one-photon mode: of the filtered frames)."""
    kernel = params.high_pass()
    lowest = math.inf
    for frames in backend.stream(source, frames=slice(0, FRAMES_FOR_MINIMUM)):
        if kernel is not None:
            frames = backend.wing(frames).filters.correlate(frames, kernel, "reflect")
        xp = backend.arrays.xp(frames)
        lowest = min(lowest, float(xp.where(xp.isfinite(frames), frames, np.inf).min()))
    if lowest == math.inf:
        raise MovieValueError(
            f"none of the first {FRAMES_FOR_MINIMUM} frames holds a finite number: check how the movie was read, or "
            "give min_mov"
        )
    return lowest


def _filtered(image: NDArray[np.float32], params: RigidParams) -> NDArray[np.float32]:
    kernel = params.high_pass()
    return image if kernel is None else correlate(image, kernel.astype(np.float32), mode="reflect")
