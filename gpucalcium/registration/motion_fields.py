"""What `MotionCorrect` is told, in the terms of what carries it out, and what it finds."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ParameterError, UnknownParameterError
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseParams
from gpucalcium.registration.recordings import open_recordings, per_axis
from gpucalcium.registration.rigid import RigidParams, border_of
from gpucalcium.registration.saving import Saving
from gpucalcium.registration.sweep import FrameQuality

P = ParamSpec("P")


def _known_only(set_up: Callable[P, None]) -> Callable[P, None]:
    """The same, but a parameter that does not exist is named together with the nearest that does."""
    known = list(inspect.signature(set_up).parameters)[1:]

    @functools.wraps(set_up)
    def checked(*given: P.args, **named: P.kwargs) -> None:
        for name in named.keys() - set(known):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise UnknownParameterError(f"MotionCorrect has no parameter {name!r}; {hint}")
        set_up(*given, **named)

    return checked


class MotionFields:
    """Parameters and results of `MotionCorrect`, which documents them; each is an attribute."""

    @_known_only
    def __init__(
        self,
        fname: Any,
        min_mov: float | None = None,
        dview: Any = None,
        max_shifts: Sequence[int] | int = (6, 6),
        niter_rig: int = 1,
        splits_rig: int | None = 14,
        num_splits_to_process_rig: int | None = None,
        strides: Sequence[int] | int = (96, 96),
        overlaps: Sequence[int] | int = (32, 32),
        splits_els: int | None = 14,
        num_splits_to_process_els: int | None = None,
        upsample_factor_grid: int = 4,
        max_deviation_rigid: int | None = 3,
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
        save_format: str = "mmap",
        save_dtype: str = "float32",
        resume: bool = False,
        seed: int = 0,
    ) -> None:
        self.fname = fname if isinstance(fname, list) else [fname]
        if not self.fname:
            raise ParameterError("fname is an empty list: name at least one recording")
        self.min_mov, self.dview, self.seed = min_mov, dview, seed
        self.max_shifts, self.niter_rig, self.splits_rig = max_shifts, niter_rig, splits_rig
        self.num_splits_to_process_rig, self.num_frames_split = num_splits_to_process_rig, num_frames_split
        self.strides, self.overlaps, self.splits_els = strides, overlaps, splits_els
        self.num_splits_to_process_els = num_splits_to_process_els
        self.upsample_factor_grid, self.max_deviation_rigid = upsample_factor_grid, max_deviation_rigid
        self.pw_rigid, self.shifts_interpolate = pw_rigid, shifts_interpolate
        self.shifts_opencv, self.nonneg_movie, self.gSig_filt = shifts_opencv, nonneg_movie, gSig_filt
        self.use_cuda, self.border_nan, self.is3D = use_cuda, border_nan, is3D
        self.var_name_hdf5, self.indices = var_name_hdf5, indices
        self.saving = Saving(format=save_format, dtype=save_dtype, resume=resume)
        self._clear()

    def _clear(self) -> None:
        """Nothing is found yet."""
        self.shifts_rig: list[tuple[float, ...]] = []
        self.x_shifts_els: list[NDArray[np.float32]] = []
        self.y_shifts_els: list[NDArray[np.float32]] = []
        self.z_shifts_els: list[NDArray[np.float32]] = []
        self.coord_shifts_els: list[list[tuple[int, ...]]] = []
        self.templates_rig: list[NDArray[np.float32]] = []
        self.templates_els: list[NDArray[np.float32]] = []
        self.total_template_rig: NDArray[np.float32] | None = None
        self.total_template_els: NDArray[np.float32] | None = None
        self.fname_tot_rig: list[str | None] = []
        self.fname_tot_els: list[str | None] = []
        self.mmap_file: list[str | None] = []
        self.border_to_0 = 0
        self.frame_quality: FrameQuality | None = None
        self._field: NDArray[np.float32] | None = None
        self._grid: PatchGrid | None = None

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Work on the GPU where that is demanded, or where the frames are; else the device stays as it is."""
        with ExitStack() as stack:
            if self.use_cuda or any(hasattr(name, "__cuda_array_interface__") for name in self.fname):
                stack.enter_context(backend.use("cuda"))  # frames on a GPU are registered there
            yield

    def open(self, names: list[Any]) -> list[FrameSource]:
        """Recordings, as the parameters say how to read them."""
        return open_recordings(names, is3D=self.is3D, indices=self.indices, var_name_hdf5=self.var_name_hdf5)

    def rigid_params(self, dims: tuple[int, ...]) -> RigidParams:
        """For frames of shape `dims`."""
        return RigidParams(
            max_shifts=per_axis(self.max_shifts, dims, limit=True),
            niter_rig=self.niter_rig,
            splits_rig=self.splits_rig,
            num_splits_to_process_rig=self.num_splits_to_process_rig,
            num_frames_split=self.num_frames_split,
            gSig_filt=None if self.gSig_filt is None else per_axis(self.gSig_filt, dims),
            border=self.border(),
            fourier=not self.shifts_opencv,
            seed=self.seed,
        )

    def piecewise_params(self, dims: tuple[int, ...]) -> PiecewiseParams:
        """For frames of shape `dims`."""
        return PiecewiseParams(
            rigid=self.rigid_params(dims),
            strides=per_axis(self.strides, dims),
            overlaps=per_axis(self.overlaps, dims),
            splits_els=self.splits_els,
            num_splits_to_process_els=self.num_splits_to_process_els,
            max_deviation_rigid=self.max_deviation_rigid,
            upsample_factor_grid=self.upsample_factor_grid,
            shifts_interpolate=self.shifts_interpolate,
            border=self.border(),
            fourier=not self.shifts_opencv,
            seed=self.seed,
        )

    def border(self) -> str:
        """`border_nan` as `displace` has it."""
        return border_of(self.border_nan)
