"""`CNMF.fit_file`: from the files that the parameters name to results, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpucalcium import backend
from gpucalcium.errors import ParameterError
from gpucalcium.images import local_correlations
from gpucalcium.movies import open_movie, save_memmap
from gpucalcium.movies.source import Source
from gpucalcium.registration.motion_correct import MotionCorrect

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF

IMAGE_FRAMES = 1000  # that the correlation image is made from, at least
DFF_PERCENTILE, DFF_FRAMES = 8, 250
MOTION_OPTIONS = (
    "max_shifts niter_rig splits_rig num_splits_to_process_rig num_frames_split strides overlaps splits_els "
    "num_splits_to_process_els upsample_factor_grid max_deviation_rigid shifts_opencv nonneg_movie gSig_filt "
    "border_nan pw_rigid is3D min_mov shifts_interpolate indices"
).split()


def fit_file(cnmf: CNMF, motion_correct: bool, indices: Sequence[slice] | None, include_eval: bool) -> CNMF:
    """Register if asked, write one memory map beside the first file, fit, and if asked evaluate and refit."""
    names = cnmf.params.get("data", "fnames")
    if not names:
        raise ParameterError("data.fnames is None: give the movie's files to the parameters")
    if len(names) == 1 and str(names[0]).endswith(".mmap") and "_order_C_" in str(names[0]):
        cnmf.mmap_file = str(names[0])
    else:
        files = _registered(cnmf, names) if motion_correct else list(names)
        stem = Path(str(names[0]))
        cnmf.mmap_file = save_memmap(
            files,
            base_name=str(stem.with_name(f"{stem.stem}_memmap_")),
            order="C",
            var_name_hdf5=cnmf.params.get("data", "var_name_hdf5"),
        )
    whole = (slice(None),)
    cnmf.fit(cnmf.mmap_file, whole if indices is None else indices)
    return _judged(cnmf) if include_eval else cnmf


def _registered(cnmf: CNMF, names: Sequence[Any]) -> list[str]:
    motion = cnmf.params.get_group("motion")
    corrected = MotionCorrect(
        list(names),
        var_name_hdf5=cnmf.params.get("data", "var_name_hdf5"),
        **{name: motion[name] for name in MOTION_OPTIONS},
    ).motion_correct(save_movie=True)
    cnmf.estimates.shifts = np.asarray(corrected.shifts_rig)
    return [str(name) for name in corrected.mmap_file or ()]


def _judged(cnmf: CNMF) -> CNMF:
    source = open_movie(cnmf.mmap_file)
    every = max(len(source) // IMAGE_FRAMES, 1)
    image = backend.to_numpy(local_correlations(_EveryNth(source, every), swap_dim=False))
    stem = Path(str(cnmf.mmap_file)).with_suffix("")
    cnmf.save(f"{stem}_init.hdf5")
    again = cnmf.refit(source)
    again.estimates.evaluate_components(source, again.params)
    again.estimates.detrend_df_f(quantileMin=DFF_PERCENTILE, frames_window=DFF_FRAMES)
    again.estimates.Cn = image
    again.estimates.shifts = cnmf.estimates.shifts
    again.save(f"{stem}.hdf5")
    return again


class _EveryNth(Source):
    """Every n-th frame of another source."""

    def __init__(self, source: Any, n: int) -> None:
        super().__init__((-(-len(source) // n), *source.shape[1:]), source.dtype, "every n-th frame")
        self._source, self._n = source, n

    def _fill(self, wanted: range, out: np.ndarray) -> None:
        n = self._n
        self._source.read(slice(wanted.start * n, (wanted.stop - 1) * n + 1, wanted.step * n), out)
