"""`timeseries`: an array whose first axis is time, and that knows its frame rate and where it came from."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ArrayTypeError, ParameterError
from gpucalcium.movies.save_options import SaveOptions
from gpucalcium.movies.writers import save

DEFAULT_FR = 30.0
"""Frames per second where nothing says otherwise."""
_INHERITED: Any = object()
_ATTRIBUTES = ("fr", "start_time", "file_name", "meta_data")
_AS_GIVEN = (np.where, np.pad)
"""Functions whose results are recordings still, but whose NumPy forgets it."""


class timeseries(np.ndarray):
    """An ndarray with time along axis 0 and the attributes of a recording.

    They go with it through slices, views, copies, arithmetic and pickling; `numpy.concatenate` and what builds on it
    join file names and metadata, as `concatenate` does. Every array has lists of its own.

    Parameters
    ----------
    input_arr : array-like, (T, ...)
        NumPy array or memory map (not copied), HDF5 or Zarr data set, open ``tifffile.TiffFile`` (read whole).
    fr : float
        Frames per second; default: that of `input_arr`, else 30.
    start_time : float
        Time of the first frame, in s.
    file_name, meta_data : object or list, optional
        Where the recording came from, and what is known of it; each is kept as a list.

    Raises
    ------
    ArrayTypeError
        `input_arr` is no array, holds no real numbers, or masks some of them.
    ParameterError
        `fr` is None, not positive, or not finite.
    """

    fr: float
    start_time: float
    file_name: list[Any]
    meta_data: list[Any]

    def __new__(
        cls,
        input_arr: Any,
        fr: Any = _INHERITED,
        start_time: float = _INHERITED,
        file_name: Any = _INHERITED,
        meta_data: Any = _INHERITED,
    ) -> Self:
        array = _as_array(input_arr)
        given = {"fr": fr, "start_time": start_time, "file_name": file_name, "meta_data": meta_data}
        series: Any = array.view(cls)
        for name, value in given.items():
            setattr(series, name, getattr(input_arr, name, None) if value is _INHERITED else value)
        if fr is _INHERITED and series.fr is None:
            series.fr = DEFAULT_FR
        if series.fr is None:
            raise ParameterError("You need to specify the frame rate: fr=..., in frames per second")
        series.fr, series.start_time = float(series.fr), float(series.start_time or 0.0)
        if not (np.isfinite(series.fr) and series.fr > 0):
            raise ParameterError(f"fr={series.fr}: the frame rate is a positive number of frames per second")
        series.file_name, series.meta_data = _as_list(series.file_name), _as_list(series.meta_data)
        return series

    def __array_finalize__(self, obj: Any) -> None:
        for name in _ATTRIBUTES:
            value = getattr(obj, name, None)
            setattr(self, name, list(value) if isinstance(value, list) else value)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any
    ) -> Any:
        series = [x for x in (*inputs, *out) if isinstance(x, timeseries)]
        _check_alike(series)
        result = getattr(ufunc, method)(
            *map(_plain, inputs),
            **{name: _plain(value) for name, value in kwargs.items()},
            **({"out": tuple(map(_plain, out))} if out else {}),
        )
        if out:
            return out[0] if len(out) == 1 else out
        return (
            tuple(series[0]._wrap(x) for x in result)
            if isinstance(result, tuple)
            else series[0]._wrap(result)
        )

    def __array_function__(
        self, func: Any, types: Iterable[type], args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func is np.concatenate and kwargs.get("out") is None and len(given := tuple(args)) < 3:
            return _joined(*given, **kwargs)
        result = super().__array_function__(func, types, args, kwargs)
        if func not in _AS_GIVEN or isinstance(result, timeseries):
            return result
        series = [x for x in args if isinstance(x, timeseries)]
        _check_alike(series)
        return series[0]._wrap(result)

    def round(self, decimals: Any = 0, out: Any = None) -> Any:
        """As `numpy.ndarray.round`, which forgets what it rounds."""
        result = np.asarray(self).round(decimals, out=None if out is None else _plain(out))
        return self._wrap(result) if out is None else out

    def _wrap(self, result: Any) -> Any:
        if not isinstance(result, np.ndarray):
            return result
        wrapped = result.view(type(self))
        wrapped.__array_finalize__(self)
        return wrapped

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: Any = super().__reduce__()
        make, arguments, state = reduced
        return make, arguments, (state, tuple(getattr(self, name) for name in _ATTRIBUTES))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        super().__setstate__(state[0])
        for name, value in zip(_ATTRIBUTES, state[1], strict=True):
            setattr(self, name, value)

    def __deepcopy__(self, memo: dict[int, Any] | None, /) -> Self:
        copied: Self = super().__deepcopy__(memo)
        for name in ("file_name", "meta_data"):
            setattr(copied, name, copy.deepcopy(getattr(self, name), memo))
        return copied

    @property
    def time(self) -> NDArray[np.float64]:
        """Time of each frame in s: ``start_time + k / fr``."""
        return self.start_time + np.arange(self.shape[0]) / self.fr

    def save(
        self,
        file_name: str | os.PathLike[str],
        to32: bool = True,
        order: str = "F",
        imagej: bool = False,
        bigtiff: bool = True,
        excitation_lambda: float = 488.0,
        compress: int = 0,
        q_max: float | None = 99.75,
        q_min: float | None = 1,
        var_name_hdf5: str = "mov",
        sess_desc: str = "some_description",
        identifier: str = "some identifier",
        imaging_plane_description: str = "some imaging plane description",
        emission_lambda: float = 520.0,
        indicator: str = "OGB-1",
        location: str = "brain",
        starting_time: float = 0.0,
        experimenter: str = "Dr Who",
        lab_name: str | None = None,
        institution: str | None = None,
        experiment_description: str = "Experiment Description",
        session_id: str = "Session ID",
        *,
        unit: str = "a.u.",
    ) -> str:
        """Write to a file, whose format follows from the extension. It appears only once it is complete.

        What a parameter does not apply to is said here; asked for nevertheless, it is named in the log.

        Parameters
        ----------
        file_name : path
            ``.tif .tiff .btf``: a page per frame. ``.h5 .hdf5 .zarr``: data set `var_name_hdf5` with attributes.
            ``.npy``: the array alone. ``.npz``: ``input_arr`` and the attributes. ``.mat``: the same, version 5, time
            last. ``.avi .mkv .mp4``: grey video. ``.nwb``: a TwoPhotonSeries. ``.mmap``: memory map; size and order are
            added to the name. Without a folder: in that for temporary files (setting GPUCALCIUM_TEMP).
        to32 : bool
            TIFF: convert to float32. Others keep the dtype; .mmap is always float32.
        order : {'F', 'C'}
            .mmap: frame after frame, or trace after trace.
        imagej, bigtiff : bool
            TIFF: ImageJ's format, or offsets of 64 bits.
        compress : int
            Level of zlib, 0 (none) to 9, except for .npy and .mmap; .avi and .mkv: above 0, lossless
            FFV1 in place of IYUV; .mp4 is always lossless H.264.
        q_max, q_min : float or None
            Video: percentiles of about 100 frames that become white and black; None: values are rounded to levels 0 to
            255 as they are. A video holds 256 grey levels and no units: it comes back as these, not as the values.
            ``levels = open_movie(file_name).about["levels"]`` has black and white, so that a value between them was
            ``levels[0] + grey / 255 * (levels[1] - levels[0])``, to half a level. To keep values: another format.
        var_name_hdf5 : str
            HDF5 and Zarr; .nwb: name of the series, "TwoPhotonSeries" unless given.
        sess_desc, identifier, experimenter, lab_name, institution, experiment_description, session_id : str
            .nwb: of the session, which begins at `start_time` seconds after 1970.
        imaging_plane_description, indicator, location : str
            .nwb: of the imaging plane.
        excitation_lambda, emission_lambda : float
            .nwb: wavelengths in nm.
        starting_time : float
            .nwb: of the first frame within the session, in s.
        unit : str
            .nwb: of the values.

        Returns
        -------
        name : str
            Of the file written.

        Raises
        ------
        UnknownFormatError
            "Extension Unknown": no such format can be written.
        ParameterError
            A parameter has a value that the format does not have.
        OutputError
            The folder cannot be written to, or the disk is full; nothing is left behind.
        """
        options = SaveOptions(
            to32=to32,
            order=order,
            imagej=imagej,
            bigtiff=bigtiff,
            excitation_lambda=excitation_lambda,
            compress=compress,
            q_max=q_max,
            q_min=q_min,
            var_name_hdf5=var_name_hdf5,
            sess_desc=sess_desc,
            identifier=identifier,
            imaging_plane_description=imaging_plane_description,
            emission_lambda=emission_lambda,
            indicator=indicator,
            location=location,
            starting_time=starting_time,
            experimenter=experimenter,
            lab_name=lab_name,
            institution=institution,
            experiment_description=experiment_description,
            session_id=session_id,
            unit=unit,
        )
        return save(self, file_name, options)


def concatenate(series: Sequence[NDArray] | NDArray, *more: NDArray, axis: int = 0) -> timeseries:
    """Join recordings of one frame rate along an axis; file names and metadata become those of all.

    Raises
    ------
    ParameterError
        Nothing to join, or different frame rates.
    """
    parts = [series, *more] if isinstance(series, np.ndarray) else [*series, *more]
    if not parts:
        raise ParameterError("concatenate: an empty list; give at least one movie")
    if not any(isinstance(part, timeseries) for part in parts):
        return np.concatenate(parts, axis=axis).view(timeseries)
    return _joined(parts, axis)


def _joined(parts: Sequence[Any], axis: int | None = 0, **options: Any) -> timeseries:
    """`numpy.concatenate` of arrays, some of which are recordings."""
    ours = [part for part in parts if isinstance(part, timeseries)]
    _check_alike(ours, same_start=axis != 0)
    result: timeseries = ours[0]._wrap(np.concatenate([_plain(part) for part in parts], axis, **options))
    result.file_name = [name for part in ours for name in part.file_name or ()]
    result.meta_data = [about for part in ours for about in part.meta_data or ()]
    return result


def _as_array(given: Any) -> NDArray:
    if np.ma.is_masked(given):
        raise ArrayTypeError(
            "the array masks some values, which a movie cannot: fill them first, e.g. with .filled(numpy.nan)"
        )
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "biuf":
            raise ArrayTypeError(
                f"a movie holds real numbers, not {given.dtype}: take abs() or .real of complex values"
            )
        return given
    if hasattr(given, "shape") and hasattr(given, "dtype") and hasattr(given, "__getitem__"):
        return _as_array(np.asarray(given[...]))
    if hasattr(given, "series") and hasattr(given, "asarray"):  # an open TIFF file
        return _as_array(given.asarray())
    raise ArrayTypeError(f"Input must be an ndarray, use load instead! (given: {type(given).__name__})")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, timeseries) else value


def _check_alike(series: Sequence[timeseries], same_start: bool = True) -> None:
    rates = {x.fr for x in series if x.fr is not None}
    if len(rates) > 1:
        raise ParameterError(
            f"Frame rates of {', '.join(map(str, sorted(rates)))} frames/s: resample to one rate first"
        )
    if same_start and len({x.start_time for x in series}) > 1:
        warnings.warn("recordings with different start_time: the first one's is kept", stacklevel=4)
