"""`MotionCorrect`: the documented interface of motion correction."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from gpucalcium.backend import FrameSource
from gpucalcium.errors import MissingExtraError, ParameterError
from gpucalcium.movies.chain import Chain
from gpucalcium.movies.movie import movie
from gpucalcium.registration.apply import tiles_of
from gpucalcium.registration.motion_fields import MotionFields
from gpucalcium.registration.piecewise import PiecewiseParams, PiecewiseResult, register_piecewise
from gpucalcium.registration.recordings import lowest_value, stems
from gpucalcium.registration.registered import RegisteredMovie
from gpucalcium.registration.rigid import RigidParams, register_rigid
from gpucalcium.registration.saving import Result, in_sequence
from gpucalcium.registration.sweep import FrameQuality

log = logging.getLogger(__name__)


class MotionCorrect(MotionFields):
    """Motion correction of one or several recordings of a field of view.

    Parameters
    ----------
    fname : path, array, source; list of these; tuple of paths
        A list is several recordings, registered in sequence to templates that follow on from each other; a tuple
        is one recording whose frames lie in several files. One channel of several: ``open_movie(path, channel=1)``.
    min_mov : float, optional
        Subtracted from the saved movie (`nonneg_movie`); default: the minimum of the first 400 frames.
    dview
        Accepted and not used: threads or the GPU do the work.
    max_shifts : tuple of int, pixels
        Largest shift per axis, both ends included; must be less than half of the frame. One number is taken for
        every axis; a third axis without a value takes the last one, as far as its length allows.
    niter_rig : int
        Passes; each uses the template of the one before. 0: shifts from the first template, which is not updated.
        Piecewise registration starts from the template that the last of them uses.
    splits_rig, splits_els : int or None
        Temporal splits of rigid and of piecewise registration, one template each, at most one per frame; None:
        ``max(T // num_frames_split, 1)``.
    num_splits_to_process_rig, num_splits_to_process_els : int or None
        Make templates from this many splits only, drawn at random (`seed`). All frames are registered in the end.
    strides, overlaps : tuple of int, pixels
        Piecewise: patches are ``strides + overlaps`` wide and `strides` apart. As with `max_shifts`, one number is
        taken for every axis, and a third axis takes the last.
    upsample_factor_grid : int
        Piecewise with ``shifts_opencv=False``: the grid that moves is this many times finer than that of the patches.
    max_deviation_rigid : int or None, pixels
        Largest difference of a patch's shift from that of the whole frame; 0: none, None: `max_shifts`.
    shifts_opencv : bool
        True: bicubic interpolation; False: shift by Fourier transform. Rigid shifts of volumes always use the latter.
    nonneg_movie : bool
        Save the movie minus `min_mov`; not done in one-photon mode.
    gSig_filt : tuple of int or int, optional
        One-photon mode: register by images high-pass filtered with this Gaussian width; unfiltered frames are moved.
    use_cuda : bool
        True demands the GPU; False leaves the choice to ``backend.use`` and GPUCALCIUM_DEVICE.
    border_nan : True, 'copy', 'min' or False
        Pixels that came in from outside: NaN, nearest line inside, minimum of the frame, or the reflection.
    pw_rigid : bool
        What `motion_correct` does: True piecewise, False rigid registration.
    num_frames_split : int
        Length of a split where their number is None, at least 10.
    var_name_hdf5 : str
        Data set in HDF5 files.
    is3D : bool
        The movie is (T, d1, d2, d3).
    indices : tuple of slices
        Part of the field of view to work on.
    shifts_interpolate : bool
        Piecewise: True draws the displacement between the true centres of patches as a cubic spline; False stretches
        the grid over the frame, linearly.
    save_format : {'mmap', 'hdf5', 'zarr', 'tiff'}
        What files registered movies are saved in.
    save_dtype : {'float32', 'float16', 'int16', 'uint16'}
        What they hold; memory maps float32 only. Integers are rounded and kept within their range, which is told if
        it changes a value, and NaN becomes 0 (see `border_nan`).
    resume : bool
        Keep a journal of the work beside the files it makes; after the process was killed, the same call goes on
        where it ended, with the same bits in the end. It starts anew, and says so, if a recording, a setting or the
        template is another. Files appear once all recordings are done.
    seed : int
        Of the random choice of splits.

    Attributes
    ----------
    shifts_rig : list of tuples
        Displacement applied to each frame, pixels, axis order; all recordings in sequence. Of piecewise registration
        the part that all patches of a frame have in common.
    x_shifts_els, y_shifts_els, z_shifts_els : list of (patches,) arrays
        Displacement applied to each patch along axis 0, 1 and 2 (empty for images), a frame each, patches in C order
        over the grid.
    coord_shifts_els : list of lists of tuples
        Place in the grid of each of these patches, a frame each.
    templates_rig, total_template_rig, templates_els, total_template_els
        Mean registered image of each split, and their median (one-photon mode: filtered). After piecewise
        registration alone, the rigid ones are what its template was made from.
    fname_tot_rig, fname_tot_els, mmap_file : list of str or None
        Files written, one per recording: ``<stem>_rig__d1_<rows>_..._order_F_frames_<T>.mmap`` and
        ``<stem>_els__...``, or with the extension of `save_format`, among the temporary files (GPUCALCIUM_TEMP);
        `mmap_file` is of the registration that came last.
    border_to_0 : int
        Largest shift, rounded up.
    frame_quality : FrameQuality
        Peak height and flags of each frame.
    """

    def motion_correct(self, template: NDArray | None = None, save_movie: bool = False) -> MotionCorrect:
        """Find the shifts of all recordings; with `save_movie` also write the registered movies.

        Parameters
        ----------
        template : (d1, d2[, d3]) array, optional
            Register to this image, which is never updated.
        save_movie : bool
            Write each registered recording into a file, as `save_format` and `save_dtype` say.

        Returns
        -------
        self

        Raises
        ------
        ParameterError, MovieShapeError, ArrayShapeError, MovieValueError
            Settings that do not fit the movie; a movie without a number in it.
        """
        if self.pw_rigid:
            return self.motion_correct_pwrigid(save_movie, template)
        return self.motion_correct_rigid(template, save_movie)

    def motion_correct_rigid(
        self, template: NDArray | None = None, save_movie: bool = False
    ) -> MotionCorrect:
        """`motion_correct` without looking at `pw_rigid`: one displacement per frame."""
        with self.on_device():
            sources = self.open(self.fname)
            params = self.rigid_params(sources[0].shape[1:])
            register = partial(register_rigid, params=params)
            results, names = self._in_sequence(
                register, sources, params, template, save_movie, "_rig_", "rigid registration"
            )
        self.fname_tot_rig = self.mmap_file = names
        self._field = self._grid = None
        self.templates_rig = [_filtered(image, params) for r in results for image in r.split_templates]
        self.total_template_rig = _filtered(results[-1].template, params)
        shifts = np.concatenate([r.shifts for r in results])
        self._keep(shifts, shifts, [r.quality for r in results])
        return self

    def motion_correct_pwrigid(
        self, save_movie: bool = True, template: NDArray | None = None, show_template: bool = False
    ) -> MotionCorrect:
        """`motion_correct` without looking at `pw_rigid`: one displacement per frame and patch.

        Parameters
        ----------
        save_movie, template
            As in `motion_correct`. Without a template, the one that rigid registration would use is made first.
        show_template : bool
            Draw the updated template with Matplotlib.

        Raises
        ------
        MissingExtraError
            Matplotlib is not installed.
        """
        with self.on_device():
            sources = self.open(self.fname)
            params = self.piecewise_params(sources[0].shape[1:])
            register = partial(register_piecewise, params=params)
            results, names = self._in_sequence(
                register, sources, params, template, save_movie, "_els_", "piecewise registration"
            )
        self.fname_tot_els = self.mmap_file = names
        field = self._keep_piecewise(results, params)
        self._keep(np.concatenate([r.shifts for r in results]), field, [r.quality for r in results])
        if show_template and self.total_template_els is not None:
            _show(self.total_template_els)
        return self

    def registered_movie(self) -> RegisteredMovie:
        """The recordings with what displaces them, as one source of frames that displaces what is read.

        Nothing is written: a later stage streams from it, on the device where it works. Values are those of the
        recording: `min_mov` is not subtracted.
        """
        return self._registered(self.fname, self._field is not None, fourier=not self.shifts_opencv)

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

        Rigid shifts are applied as they were found; piecewise ones always by interpolation.

        Parameters
        ----------
        fname : path, array, source, or list of these
        rigid_shifts : bool, optional
            One displacement per frame, or one per patch; default: as in the registration that came last.
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
        ParameterError, ArrayShapeError
            No such shifts found yet; another number of frames.
        """
        piecewise = self._field is not None if rigid_shifts is None else not rigid_shifts
        names = fname if isinstance(fname, list) else [fname]
        with self.on_device():
            moved = self._registered(names, piecewise, fourier=not piecewise and not self.shifts_opencv)
            if save_memmap:
                moved = moved.without_negative() if remove_min else moved
                return str(moved.write(save_base_name, order=order))
            frames = moved.all_frames()
            if remove_min:
                frames -= np.fmin.reduce(frames, axis=None, initial=0.0)
            return movie(frames, **{k: v for k, v in moved.about.items() if k in ("fr", "start_time")})

    # ------------------------------------------------------------------ inside

    def _keep_piecewise(self, results: list[PiecewiseResult], params: PiecewiseParams) -> NDArray[np.float32]:
        self.templates_els = [_filtered(image, params.rigid) for r in results for image in r.split_templates]
        self.total_template_els = _filtered(results[-1].template, params.rigid)
        if (started_from := results[0].rigid_template) is not None:
            self.total_template_rig = _filtered(started_from, params.rigid)
            self.templates_rig = [self.total_template_rig]
        self._field, self._grid = np.concatenate([r.field for r in results]), results[0].grid
        moved, grid = self._field, self._grid
        if params.fourier:  # what was applied are displacements of finer tiles
            tiling = tiles_of(
                grid, strides=params.strides, overlaps=params.overlaps, upsample=params.upsample_factor_grid
            )
            moved, grid = tiling.spread(moved, grid, params.shifts_interpolate), tiling.grid
        by_axis = [list(moved[..., axis].reshape(len(moved), -1)) for axis in range(moved.shape[-1])]
        self.x_shifts_els, self.y_shifts_els, self.z_shifts_els = (*by_axis, [])[:3]
        self.coord_shifts_els = [grid.indices] * len(moved)
        return self._field

    def _in_sequence(
        self,
        register: Callable[..., Result],
        sources: list[FrameSource],
        params: RigidParams | PiecewiseParams,
        template: NDArray | None,
        save_movie: bool,
        suffix: str,
        label: str,
    ) -> tuple[list[Result], list[str | None]]:
        rigid = params if isinstance(params, RigidParams) else params.rigid
        if self.min_mov is None:
            self.min_mov = lowest_value(sources[0], rigid.high_pass())
        elif not math.isfinite(self.min_mov):
            raise ParameterError(f"min_mov={self.min_mov}: a finite number, or None")
        subtracted = self.nonneg_movie and rigid.gSig_filt is None
        return in_sequence(
            register,
            list(zip(stems(self.fname, sources, lasting=self.saving.resume), sources, strict=True)),
            suffix=suffix,
            label=label,
            saving=self.saving,
            save=save_movie,
            settings=params,
            template=template,
            offset=float(self.min_mov) if subtracted else 0.0,
        )

    def _keep(
        self, shifts: NDArray[np.float32], moves: NDArray[np.float32], quality: list[FrameQuality]
    ) -> None:
        """What both kinds of registration find, and a word about frames that went wrong."""
        self.shifts_rig = [tuple(map(float, s)) for s in shifts]
        self.border_to_0 = math.ceil(float(np.abs(moves).max()))
        found = self.frame_quality = FrameQuality.joined(quality)
        for what, count in (
            ("moved by more than they may", found.clamped.sum()),
            ("show nothing of the template", found.no_signal.sum()),
        ):
            if count:
                log.warning("%d of %d frames %s; see frame_quality", count, len(shifts), what)

    def _registered(self, names: list[Any], piecewise: bool, *, fourier: bool) -> RegisteredMovie:
        """These recordings as one, displaced by what was found."""
        if not self.shifts_rig or (piecewise and self._field is None):
            kind, call = (
                ("piecewise ", "motion_correct_pwrigid") if self.shifts_rig else ("", "motion_correct")
            )
            raise ParameterError(f"there are no {kind}shifts yet: call {call}() first")
        sources = self.open(names)
        source = sources[0] if len(sources) == 1 else Chain(sources)
        if not piecewise:
            shifts = np.array(self.shifts_rig, np.float32)
            return RegisteredMovie(source, shifts, border=self.border(), fourier=fourier)
        params = replace(self.piecewise_params(source.shape[1:]), fourier=fourier)
        return RegisteredMovie(
            source, field=self._field, grid=self._grid, border=params.border, **params.how()
        )


def _filtered(image: NDArray[np.float32], params: RigidParams) -> NDArray[np.float32]:
    kernel = params.high_pass()
    return image if kernel is None else correlate(image, kernel.astype(np.float32), mode="reflect")


def _show(image: NDArray[np.float32]) -> None:
    try:
        from matplotlib import pyplot
    except ImportError as err:
        raise MissingExtraError(
            "show_template draws with Matplotlib: pip install 'gpucalcium[plot]'"
        ) from err
    pyplot.imshow(image if image.ndim == 2 else image.max(axis=-1), cmap="gray")
    pyplot.title("template")
    pyplot.show()
