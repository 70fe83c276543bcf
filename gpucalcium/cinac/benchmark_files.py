"""What a benchmark of activity compares: its YAML files, the truth of a session, and what a method says of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.cinac_file import CinacFileReader
from gpucalcium.cinac.transients import widened_to_transients
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    GpuCalciumError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
    UnknownParameterError,
)

YAML = (".yaml", ".yml")
HDF5 = (".h5", ".hdf5", ".nwb")
TRUTH = "groundtruth"
PREDICTIONS = "predictions"
"""Name of the array in files of predictions, and the word in their names, where nothing else is said."""


class _FromYaml:
    """A dataclass that is read from a mapping; a name that it lacks is an error."""

    @classmethod
    def read(cls, where: str, said: Any) -> Self:
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        if not isinstance(said, Mapping):
            raise MovieFileError(f"{where}: entries {', '.join(known)} are expected, not {said!r:.60}")
        for name in said:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise UnknownParameterError(
                    f"{where}: there is no entry {name!r}"
                    + (f"; {near[0]!r} is meant?" if near else f"; known are {known}")
                )
        try:
            return cls(**said)
        except GpuCalciumError:
            raise
        except (TypeError, ValueError) as err:  # something is missing, or is no number
            raise MovieFileError(f"{where}: {err}") from err


@dataclass(frozen=True)
class BenchmarkConfig(_FromYaml):
    """The YAML file beside the folders of the sessions."""

    inferences_to_benchmark: Sequence[str]
    """Methods that are compared, by the names that the sessions' files give them."""
    sessions_to_exclude: Sequence[str] = ()
    """Names of folders that are passed over."""
    predictions_keywords: Sequence[str] = (PREDICTIONS,)
    """A method that a session's file does not describe is the one file with its name and one of these in its own."""
    predictions_threshold: float = 0.5
    """From which probability on a cell is active, where a method does not say."""
    config_id: str = "benchmark"
    """Names the files of results."""

    def __post_init__(self) -> None:
        for name in ("inferences_to_benchmark", "sessions_to_exclude", "predictions_keywords"):
            given = getattr(self, name) or ()
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(map(str, given)))
        object.__setattr__(self, "predictions_threshold", float(self.predictions_threshold))
        if not self.inferences_to_benchmark:
            raise ParameterError("inferences_to_benchmark names no method: name one at least")


@dataclass(frozen=True)
class Method(_FromYaml):
    """One entry of a session's YAML file."""

    file_name: str
    """In the folder of the session: .npy .npz .mat .h5, or .cinac for the truth."""
    cells: Sequence[int] | None = None
    """Cells that it is of; default: those that are annotated."""
    prediction_threshold: float | None = None
    """The file holds probabilities; from this one on a cell is active."""
    attr_name: str | None = None
    """Array in the file. Without a threshold it is a raster, or spikes."""
    to_bin: bool = False
    """Whatever is above 0 in the array is activity; else it must hold 0 and 1 alone."""
    traces_file_name: str | None = None
    """Smooth traces: activity widens to the putative transient that holds it."""
    traces_attr_name: str | None = None
    """Array in that file."""
    caiman_fiji_mapping: str | Sequence[int] | None = None
    """For each cell of the truth its row in the arrays, -1 for none; or a file that says so. Default: the same."""

    def __post_init__(self) -> None:
        if self.cells is not None:
            object.__setattr__(self, "cells", tuple(int(cell) for cell in self.cells))
        if self.prediction_threshold is not None:
            object.__setattr__(self, "prediction_threshold", float(self.prediction_threshold))
        if not isinstance(self.to_bin, bool):
            raise TypeError(f"to_bin is true or false, not {self.to_bin!r}")


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames of a cell that were annotated."""

    cell: int
    first: int
    """First frame."""
    raster: NDArray[np.bool_]
    annotated: NDArray[np.bool_]
    """Frames that count: those that are not doubtful."""
    trace: NDArray[np.float64]
    """Smooth trace."""

    @property
    def frames(self) -> slice:
        """Of the recording."""
        return slice(self.first, self.first + len(self.raster))


def read_yaml(folder: Path) -> tuple[Path, Any]:
    """The only YAML file of a folder, and what it says.

    Raises
    ------
    MovieNotFoundError, ParameterError, MovieFileError
        There is none; there are several; it is no YAML.
    """
    yaml = optional("yaml", "benchmarks")
    found = (
        sorted(path for path in folder.iterdir() if path.suffix.lower() in YAML) if folder.is_dir() else []
    )
    if not found:
        raise MovieNotFoundError(f"{folder} holds no YAML file, which must say what is compared")
    if len(found) > 1:
        raise ParameterError(
            f"{folder} holds {len(found)} YAML files, {found[0].name} and {found[1].name}: leave one"
        )
    try:
        return found[0], yaml.safe_load(found[0].read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise MovieFileError(f"{found[0]} is no YAML file: {' '.join(str(err).split())}") from err


def read_truth(folder: Path, truth: Method) -> list[Piece]:
    """What was annotated in a session.

    Raises
    ------
    ParameterError
        Arrays without traces, in which what is not true would be sought.
    """
    wanted = None if truth.cells is None else set(truth.cells)
    path = folder / truth.file_name
    if path.suffix == ".cinac":
        return [piece for piece in _segments(CinacFileReader(path)) if wanted is None or piece.cell in wanted]
    if truth.traces_file_name is None:
        raise ParameterError(
            f"{path}: the truth needs traces_file_name, smooth traces of its cells, or to be a .cinac file"
        )
    raster = np.atleast_2d(read_array(path, truth.attr_name)) != 0
    traces = np.atleast_2d(read_array(folder / truth.traces_file_name, truth.traces_attr_name)).astype(
        np.float64
    )
    if traces.shape != raster.shape:
        raise ArrayShapeError(f"{folder}: the truth is {raster.shape} and its traces {traces.shape}")
    cells = range(len(raster)) if wanted is None else sorted(wanted)
    every = np.ones(raster.shape[1], bool)
    return [Piece(cell, 0, _row(raster, cell, path), every, traces[cell]) for cell in cells]


def _segments(reader: CinacFileReader) -> list[Piece]:
    pieces = []
    for segment in reader.get_all_segments():
        doubtful = reader.get_segment_doubtful_frames(segment)
        raster = reader.get_segment_raster_dur(segment) != 0
        annotated = np.ones(len(raster), bool) if doubtful is None else doubtful == 0
        trace = reader.get_segment_smooth_traces(segment)
        pieces.append(Piece(segment[0], segment[1], raster, annotated, trace))
    return pieces


class Inferred:
    """Activity that a method found in a session.

    Parameters
    ----------
    folder : Path
        Of the session.
    method : Method
    threshold : float
        From which probability on a cell is active, if the method does not say.
    """

    def __init__(self, folder: Path, method: Method, threshold: float) -> None:
        self._path = folder / method.file_name
        values = np.atleast_2d(read_array(self._path, method.attr_name))
        if values.ndim != 2:
            raise ArrayShapeError(f"{self._path}: the array is {values.shape}; (cells, frames) is expected")
        self._raster = _active(self._path, values, method, threshold)
        self._cells = None if method.cells is None else set(method.cells)
        self._rows = _mapping(folder, method.caiman_fiji_mapping)
        if method.traces_file_name is not None:
            traces = np.atleast_2d(read_array(folder / method.traces_file_name, method.traces_attr_name))
            if traces.shape != values.shape:
                raise ArrayShapeError(
                    f"{self._path}: the array is {values.shape} and its traces {traces.shape}"
                )
            pairs = zip(self._raster, traces, strict=True)
            self._raster = np.stack([widened_to_transients(row, trace) for row, trace in pairs])

    def of(self, piece: Piece) -> NDArray[np.bool_] | None:
        """The raster of a cell in the frames of a piece; None if the method is not of that cell.

        Raises
        ------
        ArrayShapeError
            There is no such row, or too few frames.
        """
        if self._cells is not None and piece.cell not in self._cells:
            return None
        row = piece.cell
        if self._rows is not None:
            if not piece.cell < len(self._rows):
                raise ArrayShapeError(
                    f"{self._path}: caiman_fiji_mapping is of {len(self._rows)} cells, not of cell {piece.cell}"
                )
            row = int(self._rows[piece.cell])
        if row < 0:
            return None
        found = _row(self._raster, row, self._path)[piece.frames]
        if len(found) < len(piece.raster):
            raise ArrayShapeError(
                f"{self._path} has {self._raster.shape[1]} frames; cell {piece.cell} is annotated up to frame "
                f"{piece.frames.stop - 1}"
            )
        return found


def found_by_name(folder: Path, name: str, keywords: Sequence[str]) -> Method:
    """The method whose file has its name and one of the keywords in its own.

    Raises
    ------
    ParameterError
        There is none, or several.
    """
    files = [
        path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix.lower() not in YAML
    ]
    fitting = [one for one in files if name in one and any(word in one for word in keywords)]
    if len(fitting) != 1:
        raise ParameterError(
            f"{folder}: {len(fitting)} files have {name!r} and one of {list(keywords)} in their names; describe "
            f"{name!r} in the YAML file of the session"
        )
    return Method(fitting[0])


def read_array(path: Path, name: str | None) -> NDArray:
    """An array of numbers in a .npy, .npz, .mat or HDF5 file.

    Parameters
    ----------
    path : Path
    name : str or None
        None: ``predictions``, or the only array.

    Raises
    ------
    MovieNotFoundError, MovieFileError, DatasetNotFoundError
        No such file; it cannot be read; no such array, or several of which none is named.
    """
    if not path.is_file():
        raise MovieNotFoundError(f"File {path} not found! The working directory is {Path.cwd()}")
    try:
        values = np.asarray(_stored(path, name))
    except (DatasetNotFoundError, MovieFileError):
        raise
    except Exception as err:  # each library fails in ways of its own, all of which mean the same here
        raise MovieFileError(f"{path} cannot be read as an array of numbers: {err}") from err
    if values.dtype.kind not in "biuf":
        raise MovieFileError(f"{path} holds {values.dtype} where numbers are expected")
    return values


def _stored(path: Path, name: str | None) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return archive[_chosen(path, list(archive), name)]
    if suffix in HDF5 or h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            there = [key for key, item in file.items() if isinstance(item, h5py.Dataset)]
            data = file[name] if name is not None and name in file else file[_chosen(path, there, name)]
            return data[...].T if "MATLAB_class" in data.attrs else data[...]
    if suffix == ".mat":
        variables = scipy.io.loadmat(path)
        return variables[_chosen(path, [key for key in variables if not key.startswith("__")], name)]
    raise MovieFileError(f"{path}: arrays are read from .npy .npz .mat .h5 .hdf5")


def _chosen(path: Path, there: list[str], name: str | None) -> str:
    if name is None:
        name = there[0] if len(there) == 1 else PREDICTIONS
    if name not in there:
        raise DatasetNotFoundError(f"{path} has no array {name!r}; there are: {', '.join(there) or 'none'}")
    return name


def _active(path: Path, values: NDArray, method: Method, threshold: float) -> NDArray[np.bool_]:
    if method.prediction_threshold is not None:
        return values >= method.prediction_threshold
    if method.attr_name is None and not method.to_bin:
        return values >= threshold
    if not method.to_bin and not np.isin(values, (0, 1)).all():
        raise ParameterError(
            f"{path}: the array holds something else than 0 and 1; say to_bin: true, if what is above 0 is activity, "
            "or prediction_threshold, if it holds probabilities"
        )
    return values > 0


def _mapping(folder: Path, said: Any) -> NDArray[np.int64] | None:
    if said is None:
        return None
    values = read_array(folder / said, None) if isinstance(said, str) else np.asarray(said)
    rows = np.ravel(values)
    if rows.dtype.kind not in "biuf" or not np.array_equal(rows, rows.astype(np.int64)):
        raise MovieFileError(f"{folder}: caiman_fiji_mapping must be whole numbers, rows or -1")
    return rows.astype(np.int64)


def _row(rows: NDArray, row: int, path: Path) -> NDArray:
    if not 0 <= row < len(rows):
        raise ArrayShapeError(f"{path} has {len(rows)} rows, and none for cell {row}")
    return rows[row]
