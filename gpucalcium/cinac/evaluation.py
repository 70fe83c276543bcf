"""Classifiers against what was annotated in ``.cinac`` files: activity, and types of cells."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import nets
from gpucalcium.cinac.cell_types import CellTypes, read_cell_types
from gpucalcium.cinac.cinac_file import CinacFileReader, Segment
from gpucalcium.cinac.metrics import Scores, compute_stats_over_gt, frame_scores
from gpucalcium.cinac.output import checked_formats, results_folder, save_arrays
from gpucalcium.cinac.prediction import ACTIVE_FROM, activity_of, predict_activity, predict_cell_types
from gpucalcium.cinac.recording import create_cinac_recording_from_cinac_file_segment
from gpucalcium.errors import MovieFileError, MovieNotFoundError, ParameterError, UnknownParameterError
from gpucalcium.movies.files import written_whole

OVERLAP = 0.5
TYPE_SEGMENTS = 4
BINS = 20

log = logging.getLogger(__name__)


def activity_predictions_from_cinac_files(
    cinac_dir_name: str | Path,
    results_path: str | Path | None,
    json_file_name: str | Path,
    weights_file_name: str | Path | None,
    classifier_id: str | None = None,
    output_file_formats: str | Sequence[str] = "npy",
) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Scores]]]:
    """Predict the activity in every annotated segment of ``.cinac`` files, and compare it with the annotation.

    Parameters
    ----------
    cinac_dir_name : path
        Folder of ``.cinac`` files. Files that do not say how many cells and frames the recording has are left out.
    results_path : path or None
        Folder for a file of predictions for each; None: no files.
    json_file_name, weights_file_name : path
        The classifier, as `nets.load_network` takes it.
    classifier_id : str, optional
        Goes into the names of the files.
    output_file_formats : str or sequence of str
        "npy" (the array alone), "npz" or "mat" (as `predictions`).

    Returns
    -------
    predictions : dict of str to (N, T) float32
        By the name of the file without ending; 0 outside of segments.
    scores : dict of str to dict
        Of each file, over the frames that are annotated and not doubtful, ``frames`` and ``transients`` as
        `compute_stats_over_gt` counts them; from 0.5 on a prediction is activity.

    Raises
    ------
    MovieNotFoundError
        No such folder, or no ``.cinac`` file in it.
    """
    formats = checked_formats(output_file_formats)
    model = nets.load_network(json_file_name, weights_file_name)
    predictions: dict[str, NDArray[np.float32]] = {}
    scores: dict[str, dict[str, Scores]] = {}
    for reader in _readers(cinac_dir_name):
        base, n_cells, n_frames = reader.file_name.stem, reader.get_n_cells(), reader.get_n_frames()
        if n_cells is None or n_frames is None:
            log.warning("%s does not say how many cells and frames there are: left out", reader.file_name)
            continue
        predictions[base], scores[base] = _activity(reader, model, (n_cells, n_frames))
        log.info("%s: F1 of transients %.3f", base, scores[base]["transients"].f1)
        if results_path is not None:
            name = f"{base}_predictions" + ("" if classifier_id is None else f"_{classifier_id}")
            _save_activity(results_folder(results_path, stamped=False) / name, predictions[base], formats)
    return predictions, scores


def _activity(
    reader: CinacFileReader, model: Any, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], dict[str, Scores]]:
    """Predictions (N, T) in the segments of a file, and how good they are."""
    predictions = np.zeros(shape, np.float32)
    frames = transients = Scores(0, 0, 0, 0)
    for segment in reader.get_all_segments():
        cell, first, last = segment
        if cell >= shape[0] or last >= shape[1]:
            raise MovieFileError(
                f"{reader.file_name}: segment {segment} lies outside of the {shape[0]} cells and {shape[1]} frames "
                "that the file names"
            )
        recording = create_cinac_recording_from_cinac_file_segment(reader.file_name.stem, reader, segment)
        found = activity_of(predict_activity(recording, [0], model, overlap=OVERLAP))[0]
        here = predictions[cell, first : last + 1]
        np.maximum(here, found, out=here)
        doubtful = reader.get_segment_doubtful_frames(segment)
        stats = compute_stats_over_gt(
            reader.get_segment_raster_dur(segment),
            found >= ACTIVE_FROM,
            reader.get_segment_smooth_traces(segment),
            annotated=None if doubtful is None else doubtful == 0,
        )
        frames, transients = frames + stats.frames, transients + stats.transients
    return predictions, {"frames": frames, "transients": transients}


def _save_activity(stem: Path, predictions: NDArray[np.float32], formats: Sequence[str]) -> None:
    if "npy" in formats:
        with written_whole(stem.with_name(f"{stem.name}.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, predictions)
    save_arrays(stem, {"predictions": predictions}, [name for name in formats if name != "npy"])


def evaluate_cell_type_predictions(
    cinac_dir_name: str | Path,
    cell_type_yaml_file: str | Path | None,
    results_path: str | Path | None,
    json_file_name: str | Path,
    weights_file_name: str | Path | None,
    save_cell_type_distribution: bool,
    all_pixels: bool = False,
) -> dict[str, Any]:
    """Predict the type of the cell in every segment of ``.cinac`` files that names one, and compare.

    A cell's prediction is the mean over its four most active windows.

    Parameters
    ----------
    cinac_dir_name : path
        Folder of ``.cinac`` files.
    cell_type_yaml_file : path or None
        Types of cells; None: interneuron, pyramidal, noise.
    results_path : path or None
        Folder for figures; may be None without `save_cell_type_distribution`.
    json_file_name, weights_file_name : path
        The classifier, as `nets.load_network` takes it.
    save_cell_type_distribution : bool
        Draw ``hist_prediction_distribution_{type}.png`` for each type that occurs.
    all_pixels : bool
        Offer the whole square as second input.

    Returns
    -------
    dict
        ``cells``: (file, segment) of each; ``truth``: (n,) their codes; ``predictions``: (n, K); ``distribution``: by
        name of type the mean, std, min and max of what is predicted for its cells: of their own type, or for one
        probability of that. Then, for one probability, from 0.5 on: ``accuracy, sensitivity, specificity, ppv, npv``;
        for K types by the largest: ``accuracy``, ``confusion`` (true type, predicted type), ``precision``, ``recall``
        and ``f1`` (K,), and the numbers of cells ``without_class`` and ``with_several`` types at or above 0.5.
        A ratio of nothing is 1.

    Raises
    ------
    ParameterError
        The classifier predicts another number of types than the file lists; no folder for the figures.
    MovieNotFoundError
        No such folder, no ``.cinac`` file in it, or no segment of a known type.
    """
    if save_cell_type_distribution and results_path is None:
        raise ParameterError("save_cell_type_distribution=True: results_path must say where figures go")
    model = nets.load_network(json_file_name, weights_file_name)
    types = read_cell_types(cell_type_yaml_file, using_multi_class=1 if model.n_classes == 1 else 2)
    if int(model.n_classes) not in {types.n_classes, len(types.names)}:
        raise ParameterError(
            f"the classifier gives {model.n_classes} probabilities, and there are {len(types.names)} types: "
            f"{', '.join(types.names)}"
        )
    cells, truth, predictions = [], [], []
    for reader, segment, code in _typed_segments(cinac_dir_name, types):
        recording = create_cinac_recording_from_cinac_file_segment(reader.file_name.stem, reader, segment)
        (found,) = predict_cell_types(
            recording, [0], model, n_segments=TYPE_SEGMENTS, overlap=0, all_pixels=all_pixels
        )
        cells.append((reader.file_name.name, segment))
        truth.append(code)
        predictions.append(found.mean(axis=0))
    if not cells:
        raise MovieNotFoundError(f"no segment in the files of {cinac_dir_name} names a type that is known")
    result = type_scores(np.array(truth), np.array(predictions), types.names)
    log.info("types of %d cells: %s", len(cells), result)
    if save_cell_type_distribution and results_path is not None:
        _draw_distributions(results_folder(results_path, stamped=False), result, types.names)
    return {"cells": cells, **result}


def type_scores(
    truth: NDArray[np.integer], predictions: NDArray[np.floating], names: Sequence[str]
) -> dict[str, Any]:
    """How well types (n,) are predicted by probabilities (n, K), as `evaluate_cell_type_predictions` says."""
    own = (
        predictions[:, 0]
        if predictions.shape[1] == 1
        else np.take_along_axis(predictions, truth[:, None], 1)[:, 0]
    )
    distribution = {
        name: {"mean": float(v.mean()), "std": float(v.std()), "min": float(v.min()), "max": float(v.max())}
        for code, name in enumerate(names)
        if len(v := own[truth == code])
    }
    scores = {"truth": truth, "predictions": predictions, "distribution": distribution}
    if predictions.shape[1] == 1:
        counted = frame_scores(truth == 1, predictions[:, 0] >= ACTIVE_FROM)
        rates = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
        return scores | {name: getattr(counted, name) for name in rates}
    said, k = predictions.argmax(axis=1), predictions.shape[1]
    confusion = np.zeros((k, k), np.int64)
    np.add.at(confusion, (truth, said), 1)
    right = np.diag(confusion)
    precision, recall = _ratio(right, confusion.sum(axis=0)), _ratio(right, confusion.sum(axis=1))
    both = precision + recall
    likely = (predictions >= ACTIVE_FROM).sum(axis=1)
    return scores | {
        "accuracy": float((said == truth).mean()),
        "confusion": confusion,
        "precision": precision,
        "recall": recall,
        "f1": np.divide(2 * precision * recall, both, out=np.zeros(k), where=both > 0),
        "without_class": int((likely == 0).sum()),
        "with_several": int((likely > 1).sum()),
    }


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """`part / whole`; 1 of nothing."""
    return np.divide(part, whole, out=np.ones(np.shape(whole)), where=whole > 0)


def _readers(folder: str | Path) -> list[CinacFileReader]:
    """Readers of the files of a folder, in order of their names."""
    paths = sorted(Path(folder).glob("*.cinac")) if Path(folder).is_dir() else []
    if not paths:
        raise MovieNotFoundError(f"{folder} is no folder with .cinac files")
    return [CinacFileReader(path) for path in paths]


def _typed_segments(folder: str | Path, types: CellTypes) -> Iterator[tuple[CinacFileReader, Segment, int]]:
    """Segments whose cell's type is known, and its code."""
    for reader in _readers(folder):
        for segment in reader.get_all_segments():
            name = reader.get_segment_cell_type(segment)
            if name is None:
                continue
            try:
                code = types.code(name)
            except UnknownParameterError as err:
                log.warning("%s, segment %s is left out: %s", reader.file_name, segment, err)
                continue
            yield reader, segment, code


def _draw_distributions(folder: Path, scores: dict[str, Any], names: Sequence[str]) -> None:
    """Histograms of what is predicted for the cells of each type."""
    from gpucalcium.plotting.style import BLUE, ONE_COLUMN, new_figure, save_figure, tidy

    truth, predictions = scores["truth"], scores["predictions"]
    for code, name in enumerate(names):
        here = truth == code
        if not here.any():
            continue
        column = 0 if predictions.shape[1] == 1 else code
        figure = new_figure(ONE_COLUMN, 2.2)
        axes = figure.add_subplot()
        axes.hist(predictions[here, column], bins=BINS, range=(0, 1), color=BLUE)
        of = names[1] if predictions.shape[1] == 1 else name
        tidy(axes, f"predicted probability of {of}", "cells", f"{name}, {here.sum()} cells")
        save_figure(figure, folder / f"hist_prediction_distribution_{name}", ("png",))
