"""`CinacPredictor`: activity or types of the cells of recordings, by one or several classifiers, into files."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium import nets
from gpucalcium.cinac.output import checked_formats, results_folder, save_arrays
from gpucalcium.cinac.prediction import activity_of, predict_activity, predict_cell_types
from gpucalcium.cinac.recording import CinacRecording, get_new_cell_indices_if_cells_removed
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, ParameterError

TF_VERSION = "2.0.0"
"""What scripts look at to tell dialects of TensorFlow apart; it is never imported."""
OPTIONS = ("use_data_augmentation",)

log = logging.getLogger(__name__)

Classifier = tuple[str, str | None, str]


@dataclass(frozen=True, eq=False)
class _Task:
    """A recording, and which of its cells each classifier predicts."""

    recording: CinacRecording
    n_rows: int
    """Original cells."""
    cells: dict[Classifier, tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Indices now, and original ones."""

    @property
    def key(self) -> tuple[str, str]:
        """Identifier of the recording, and those of its classifiers."""
        return self.recording.identifier, "_".join(identifier for _, _, identifier in self.cells)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Original indices of the cells that are predicted."""
        return np.unique(np.concatenate([original for _, original in self.cells.values()]))


class CinacPredictor:
    """Predicts the activity or the types of cells.

    Parameters
    ----------
    verbose : int
        Above 0: what is done is logged.
    precision : {"float32", "tf32", "bf16"}
        How networks compute; see `nets.Network`.
    device : str, optional
        Where networks run: "cpu", "cuda" or "cuda:1"; default: the active device.
    """

    def __init__(self, verbose: int = 0, *, precision: str = "float32", device: str | None = None) -> None:
        self.verbose, self.precision, self.device = verbose, precision, device
        self._tasks: list[_Task] = []
        self._models: dict[tuple[str, str | None], tuple[Any, str]] = {}

    get_new_cell_indices_if_cells_removed = staticmethod(get_new_cell_indices_if_cells_removed)

    def add_recording(
        self,
        cinac_recording: CinacRecording,
        model_files_dict: Mapping[Classifier, ArrayLike | None] | None = None,
        removed_cells_mapping: ArrayLike | None = None,
    ) -> None:
        """Add a recording, and say which cells are predicted by which classifier.

        Parameters
        ----------
        cinac_recording : CinacRecording
            With movie and cells.
        model_files_dict : mapping of (model file, weights file, identifier) to cells
            Cells are original indices; None: all. The weights file may be None where the model file names it. Where
            two classifiers are given the same cell, the later one counts.
        removed_cells_mapping : (original number of cells,) array-like of int, optional
            For each original cell its index among the cells of the recording, -1 if it was removed.

        Raises
        ------
        ParameterError
            No classifier; no movie, no cells; a cell that is not there; a mapping of other cells.
        ArrayTypeError
            A key that is not three texts.
        """
        if not isinstance(cinac_recording, CinacRecording):
            raise ArrayTypeError(f"{type(cinac_recording).__name__} is given; a CinacRecording is expected")
        if not model_files_dict:
            raise ParameterError(
                "model_files_dict is empty: say what predicts, {(model file, weights file, identifier): cells or None}"
            )
        cinac_recording.movie  # noqa: B018 - raises if there is none
        mapping = _checked_mapping(removed_cells_mapping, cinac_recording.get_n_cells())
        n_rows = cinac_recording.get_n_cells() if mapping is None else len(mapping)
        task = _Task(cinac_recording, n_rows, {})
        taken: set[int] = set()
        for key, cells in model_files_dict.items():
            classifier = _checked_key(key)
            wanted = _checked_cells(cells, n_rows, cinac_recording.identifier)
            if twice := sorted(taken.intersection(wanted.tolist())):
                log.warning(
                    "cell %d is given to several classifiers: %s counts, the last one",
                    twice[0],
                    classifier[2],
                )
            taken.update(wanted.tolist())
            task.cells[classifier] = get_new_cell_indices_if_cells_removed(wanted, mapping)
        if task.key in [other.key for other in self._tasks]:
            raise ParameterError(
                f"recording {task.key[0]!r} with classifiers {task.key[1]!r} was added already; results go by these"
            )
        self._tasks.append(task)

    def predict(
        self,
        results_path: str | Path | None,
        overlap_value: float = 0.5,
        output_file_formats: str | Sequence[str] = "npy",
        cell_type_classifier_mode: bool = False,
        n_segments_to_use_for_prediction: int = 2,
        cell_type_pred_fct: Callable[..., Any] = np.mean,
        create_dir_for_results: bool = True,
        cell_buffer: float | None = None,
        all_pixels: bool = True,
        time_verbose: bool = True,
        **kwargs: Any,
    ) -> dict[tuple[str, str], NDArray[np.float32]]:
        """Predict all recordings that were added.

        A run that is stopped while it predicts activity goes on from where it was when the same is asked for again
        with the same `results_path`, which holds what is done in a hidden file meanwhile.

        Parameters
        ----------
        results_path : path or None
            Folder for the files, made if it is not there; None: no files.
        overlap_value : float
            Share of a window that the next one repeats, 0 <= overlap_value < 1.
        output_file_formats : str or sequence of str
            "npz", "npy" (the same) or "mat"; with `predictions`, and `cells`, the original indices of the cells that
            were predicted.
        cell_type_classifier_mode : bool
            Predict types of cells, not their activity.
        n_segments_to_use_for_prediction : int
            Windows of each cell that its type is predicted from.
        cell_type_pred_fct : callable
            ``fct(segments, axis=0)`` of the (S, K) predictions of a cell's windows.
        create_dir_for_results : bool
            Write into a new folder in `results_path`, named by date and time.
        cell_buffer : float, optional
            Pixels that cells are grown by; default: as the network was trained.
        all_pixels : bool
            Of cell types: offer the whole square as second input.
        time_verbose : bool
            Log how long each recording took.
        **kwargs
            `use_data_augmentation`: predict mirrored images as well.

        Returns
        -------
        dict of (recording, classifiers) to array
            Identifier of the recording, and those of its classifiers joined by "_". Activity: (N, T) for N original
            cells; 0 for those not predicted; for one class its probability; for several 1 where the first is the
            largest (of two: and no less than 0.5). Types: (N, K), or (N,) for one.

        Raises
        ------
        ParameterError
            An option, format, overlap or kind of network that does not fit.
        """
        if unknown := set(kwargs) - set(OPTIONS):
            raise TypeError(
                f"predict() has no parameter {sorted(unknown)[0]!r}; besides those named: {OPTIONS[0]}"
            )
        formats = checked_formats(output_file_formats)
        how = {"overlap": overlap_value, "buffer": cell_buffer, "augment": kwargs.get(OPTIONS[0], False)}
        types = {"n_segments": n_segments_to_use_for_prediction, "all_pixels": all_pixels}
        folder = None if results_path is None else results_folder(results_path, stamped=False)
        target = results_folder(folder, stamped=True) if folder and create_dir_for_results else folder
        found: dict[tuple[str, str], NDArray[np.float32]] = {}
        for task in self._tasks:
            began = time.perf_counter()
            if cell_type_classifier_mode:
                values = self._types(task, cell_type_pred_fct, {**how, **types})
            else:
                values = self._activity(task, folder, how)
            found[task.key] = values
            if time_verbose or self.verbose > 0:
                took = time.perf_counter() - began
                log.info("%s: %d cells predicted in %.1f s", task.key[0], len(task.predicted), took)
            if target is not None:
                what = "cell_type_predictions" if cell_type_classifier_mode else "predictions"
                stem = target / f"{task.key[0]}_{what}_{task.key[1]}"
                save_arrays(stem, {"predictions": values, "cells": task.predicted}, formats)
        for path in () if folder is None else self._unfinished(folder):
            path.unlink(missing_ok=True)
        return found

    def _unfinished(self, folder: Path) -> list[Path]:
        """Where what is done of each task is kept."""
        return [_kept(folder, task, classifier) for task in self._tasks for classifier in task.cells]

    def _activity(self, task: _Task, folder: Path | None, how: Mapping[str, Any]) -> NDArray[np.float32]:
        """(N, T) of the original cells."""
        values = np.zeros((task.n_rows, task.recording.get_n_frames()), np.float32)
        for classifier, (now, original) in task.cells.items():
            model, name = self._model(classifier)
            kept = None if folder is None else _kept(folder, task, classifier)
            found = predict_activity(task.recording, now, model, unfinished=kept, model_name=name, **how)
            values[original] = activity_of(found)
        return values

    def _types(self, task: _Task, summary: Callable[..., Any], how: Mapping[str, Any]) -> NDArray[np.float32]:
        """(N, K) of the original cells, or (N,)."""
        classes = {int(self._model(classifier)[0].n_classes) for classifier in task.cells}
        if len(classes) > 1:
            raise ParameterError(
                f"the classifiers of {task.key[0]!r} tell apart {', '.join(map(str, sorted(classes)))} types: predict "
                "their cells one classifier at a time"
            )
        values = np.zeros((task.n_rows, classes.pop()), np.float32)
        for classifier, (now, original) in task.cells.items():
            found = predict_cell_types(task.recording, now, self._model(classifier)[0], **how)
            for row, segments in zip(original, found, strict=True):
                summed_up = np.asarray(summary(segments, axis=0))
                if summed_up.shape != values.shape[1:]:
                    raise ArrayShapeError(
                        f"cell_type_pred_fct gives {summed_up.shape} for segments {segments.shape}; it is called as "
                        f"fct(segments, axis=0), so {values.shape[1:]} is expected"
                    )
                values[row] = summed_up
        return values[:, 0] if values.shape[1] == 1 else values

    def _model(self, classifier: Classifier) -> tuple[Any, str]:
        """The network of a classifier, read once, and a digest of its files."""
        files = classifier[:2]
        if files not in self._models:
            model = nets.load_network(*files, device=self.device, precision=self.precision)
            digest = hashlib.sha256(self.precision.encode())
            for file in files:
                digest.update(b"" if file is None else Path(file).read_bytes())
            self._models[files] = model, digest.hexdigest()
        return self._models[files]


def _kept(folder: Path, task: _Task, classifier: Classifier) -> Path:
    return folder / f".{task.key[0]}_{classifier[2]}.unfinished.npz"


def _checked_key(key: Any) -> Classifier:
    fine = isinstance(key, tuple) and len(key) == 3 and key[0] is not None and key[2] is not None
    if not fine:
        raise ArrayTypeError(
            f"{key!r:.80} is no classifier: keys of model_files_dict are (model file, weights file, identifier)"
        )
    model, weights, identifier = key
    return str(model), None if weights is None else str(weights), str(identifier)


def _checked_cells(cells: ArrayLike | None, n_rows: int, name: str) -> NDArray[np.int64]:
    """Original indices, each once, in order."""
    wanted = np.arange(n_rows) if cells is None else np.atleast_1d(np.asarray(cells))
    if wanted.size == 0:
        return np.empty(0, np.int64)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise ParameterError(f"the cells of a classifier are whole numbers, in one row; given: {cells!r:.60}")
    if wanted.min() < 0 or wanted.max() >= n_rows:
        wrong = wanted[(wanted < 0) | (wanted >= n_rows)][0]
        raise ParameterError(f"cell {wrong}: {name!r} has {n_rows} cells, counted from 0")
    return np.unique(wanted).astype(np.int64)


def _checked_mapping(mapping: ArrayLike | None, n_cells: int) -> NDArray[np.int64] | None:
    if mapping is None:
        return None
    found = np.asarray(mapping)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ArrayShapeError(
            f"removed_cells_mapping is {found.dtype} {found.shape}: whole numbers in a row are expected"
        )
    if sorted(found[found >= 0].tolist()) != list(range(n_cells)) or (found < -1).any():
        raise ArrayShapeError(
            f"removed_cells_mapping keeps {np.count_nonzero(found >= 0)} of {len(found)} cells, and the recording has "
            f"{n_cells}: for each original cell it must hold its index now, 0 to {n_cells - 1}, or -1"
        )
    return found.astype(np.int64)
