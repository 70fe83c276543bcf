"""Predictions of cell types put together, and classifiers of activity chosen by them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac.cell_types import CellTypes, read_cell_types
from gpucalcium.cinac.rois import PathLike
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies.files import written_whole

log = logging.getLogger(__name__)

Classifier = tuple[str, str, str]
"""File of the model, file of its weights, name of the classifier."""
ACTIONS = ("ignore", "default", "exception")
UNDECIDED = -1
"""Code of cells whose largest probability is that of several types."""


def fusion_cell_type_predictions(
    cell_type_pred_1: ArrayLike,
    cell_type_pred_2: ArrayLike,
    with_new_category: Sequence[tuple[int, int]] | None = None,
    cell_type_config_file: PathLike | None = None,
    filename_to_save: PathLike | None = None,
    cell_types_to_not_fusion_with_gt: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """Predictions of one classifier, replaced where another has a prediction.

    Parameters
    ----------
    cell_type_pred_1, cell_type_pred_2 : (N, K)
        Probabilities; rows of zeros in the second have no prediction. Neither is changed.
    with_new_category : sequence of (int, int), optional
        Columns of the second that are exchanged, in this order, before its rows are taken; columns of zeros are
        appended to both up to the largest that is named.
    cell_type_config_file : path, optional
        YAML file with the names of the types, for the log.
    filename_to_save : path, optional
        Where the result is written, as ``.npy``; the ending is added if it is not there.
    cell_types_to_not_fusion_with_gt : sequence of int, optional
        Cells of these types in the first keep their row.

    Returns
    -------
    predictions : (N, K or more) float64

    Raises
    ------
    ArrayShapeError
        The two are not matrices of one shape.
    ParameterError
        NaN; a negative column.
    """
    first, second = (
        _matrix(x, f"cell_type_pred_{k}") for k, x in ((1, cell_type_pred_1), (2, cell_type_pred_2))
    )
    if first.shape != second.shape:
        raise ArrayShapeError(
            f"cell_type_pred_1 is {first.shape} and cell_type_pred_2 {second.shape}: both must be of the same cells "
            "and types"
        )
    exchanged = [(int(a), int(b)) for a, b in with_new_category or ()]
    if any(column < 0 for pair in exchanged for column in pair):
        raise ParameterError(f"with_new_category={exchanged}: columns are counted from 0")
    kept = np.isin(first.argmax(axis=1), list(cell_types_to_not_fusion_with_gt or ()))
    replaced = (second.sum(axis=1) != 0) & ~kept
    width = max([first.shape[1], *(column + 1 for pair in exchanged for column in pair)])
    first, second = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (first, second))
    for a, b in exchanged:
        second[:, [a, b]] = second[:, [b, a]]
    fused = np.where(replaced[:, None], second, first)
    _tell_changes(cell_type_config_file, first, fused)
    _save(filename_to_save, fused)
    return fused


def fusion_cell_type_predictions_by_type(
    cell_type_preds_dict: Mapping[int, ArrayLike],
    default_cell_type_pred: ArrayLike,
    cell_type_to_skip_if_conflict: int | None = None,
    cell_type_config_file: PathLike | None = None,
    filename_to_save: PathLike | None = None,
) -> NDArray[np.float64]:
    """For each type of cell a classifier of its own; each cell goes to the one that claims it.

    Parameters
    ----------
    cell_type_preds_dict : mapping of int to (N, K)
        By the code of a type, the predictions that are believed of it: it claims the cells that they put there.
    default_cell_type_pred : (N, K)
        For cells that no type or several claim.
    cell_type_to_skip_if_conflict : int, optional
        Where this type and one other claim a cell, the other has it.
    cell_type_config_file : path, optional
        YAML file with the names of the types, for the log.
    filename_to_save : path, optional
        Where the result is written, as ``.npy``; the ending is added if it is not there.

    Returns
    -------
    predictions : (N, K) float64

    Raises
    ------
    ArrayShapeError
        The predictions are not matrices of one shape.
    ParameterError
        NaN; a type that has no column.
    """
    default = _matrix(default_cell_type_pred, "default_cell_type_pred")
    claims = np.zeros((len(cell_type_preds_dict), len(default)), bool)
    codes = np.array([int(code) for code in cell_type_preds_dict], np.int64)
    rows = np.empty((len(codes), *default.shape))
    for k, (code, given) in enumerate(cell_type_preds_dict.items()):
        rows[k] = _like_default(given, f"cell_type_preds_dict[{code}]", default.shape)
        if not 0 <= code < default.shape[1]:
            raise ParameterError(
                f"type {code} of cell_type_preds_dict has no column among {default.shape[1]}"
            )
        claims[k] = rows[k].argmax(axis=1) == code
    skipped = codes == (-1 if cell_type_to_skip_if_conflict is None else cell_type_to_skip_if_conflict)
    conflict = (claims.sum(axis=0) == 2) & claims[skipped].any(axis=0)
    claims &= ~(skipped[:, None] & conflict)
    result = default.copy()
    alone = np.flatnonzero(claims.sum(axis=0) == 1)
    result[alone] = rows[claims[:, alone].argmax(axis=0), alone] if len(codes) else default[alone]
    _tell_changes(cell_type_config_file, default, result)
    _save(filename_to_save, result)
    return result


def select_activity_classifier_on_cell_type_outputs(
    cell_type_config_file: PathLike | None,
    cell_type_predictions: ArrayLike,
    cell_type_to_classifier: Mapping[str, Classifier],
    default_classifier: Classifier,
    unknown_cell_type_action: str = "ignore",
    cell_type_threshold: float = 0.5,
    verbose: int = 1,
) -> dict[Classifier, NDArray[np.int64]]:
    """Which classifier predicts the activity of which cells, by the types of these.

    Parameters
    ----------
    cell_type_config_file : path or None
        YAML file of the types; None: interneuron, pyramidal, noise.
    cell_type_predictions : (N, K), or (N,) or (N, 1) where one probability is predicted for two types
        The type of a cell is the largest; none is, where several are largest, or all are zero.
    cell_type_to_classifier : mapping of str to (str, str, str)
        By the name or a keyword of a type: files of the model and of its weights, and name of the classifier.
    default_classifier : (str, str, str)
        For cells without a type.
    unknown_cell_type_action : "ignore", "default" or "exception"
        What becomes of cells of a type without classifier: left out, given to the default, or an error.
    cell_type_threshold : float
        From which on a single probability means the predicted type.
    verbose : int
        Above 0: the number of cells of each type is logged.

    Returns
    -------
    model_files_dict : dict of (str, str, str) to (n,) int64
        What `CinacPredictor.add_recording` takes: the cells of each classifier that has some, in order.

    Raises
    ------
    ParameterError
        An action that is none of the three; NaN; a cell of a type without classifier, for "exception".
    UnknownParameterError
        A type that the file does not list.
    ArrayShapeError
        The predictions do not fit the types of the file.
    """
    if unknown_cell_type_action not in ACTIONS:
        raise ParameterError(
            f"unknown_cell_type_action={unknown_cell_type_action!r}: choose one of {ACTIONS}"
        )
    columns = np.shape(cell_type_predictions)[1:]
    types = read_cell_types(cell_type_config_file, using_multi_class=1 if columns in ((), (1,)) else 2)
    codes = _types_of(cell_type_predictions, types, cell_type_threshold)
    classifiers = {types.code(name): classifier for name, classifier in cell_type_to_classifier.items()}
    if verbose > 0:
        for code, name in enumerate(types.names):
            log.info("%d cells of type %s", np.count_nonzero(codes == code), name)
        log.info("%d cells of no type", np.count_nonzero(codes == UNDECIDED))
    chosen: dict[Classifier, list[int]] = {}
    for cell, code in enumerate(codes.tolist()):
        classifier = default_classifier if code == UNDECIDED else classifiers.get(code)
        if classifier is None and unknown_cell_type_action == "exception":
            raise ParameterError(
                f"cell {cell} is of type {types.names[code]!r}, for which cell_type_to_classifier has no classifier"
            )
        if classifier is None and unknown_cell_type_action == "default":
            classifier = default_classifier
        if classifier is not None:
            model, weights, identifier = classifier
            chosen.setdefault((model, weights, identifier), []).append(cell)
    return {classifier: np.array(cells, np.int64) for classifier, cells in chosen.items()}


def _types_of(predictions: ArrayLike, types: CellTypes, threshold: float) -> NDArray[np.int64]:
    """Code of the type of each cell."""
    values = np.asarray(predictions, np.float64)
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        if len(types.names) != 2:
            raise ArrayShapeError(
                f"cell_type_predictions is {values.shape}, one probability per cell, and there are {len(types.names)} "
                "types: it must have a column for each"
            )
        return (_without_nan(values.ravel(), "cell_type_predictions") >= threshold).astype(np.int64)
    values = _matrix(values, "cell_type_predictions")
    if values.shape[1] != len(types.names):
        raise ArrayShapeError(
            f"cell_type_predictions has {values.shape[1]} columns; there are {len(types.names)} types: "
            f"{', '.join(types.names)}"
        )
    is_largest = values == values.max(axis=1, keepdims=True)
    return np.where(is_largest.sum(axis=1) == 1, is_largest.argmax(axis=1), UNDECIDED)


def _matrix(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ArrayShapeError(f"{name} is {array.shape}; (cells, types) is expected")
    return _without_nan(array, name)


def _like_default(values: ArrayLike, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = _matrix(values, name)
    if array.shape != shape:
        raise ArrayShapeError(
            f"{name} is {array.shape} and the default {shape}: both must be of the same cells and types"
        )
    return array


def _without_nan(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if np.isnan(values).any():
        raise ParameterError(f"{name} holds NaN, e.g. for cell {int(np.argwhere(np.isnan(values))[0, 0])}")
    return values


def _tell_changes(yaml_file: PathLike | None, before: NDArray, after: NDArray) -> None:
    """Log, by the names of the file, which cells are of another type than before."""
    if yaml_file is None:
        return
    names: dict[int, str] = dict(enumerate(read_cell_types(yaml_file).names))
    old, new = before.argmax(axis=1), after.argmax(axis=1)
    for cell in np.flatnonzero(old != new).tolist():
        was, now = (names.get(int(codes[cell]), f"type {codes[cell]}") for codes in (old, new))
        log.info("cell %d: %s, was %s", cell, now, was)


def _save(file_name: Any, values: NDArray) -> None:
    if file_name is None:
        return
    path = Path(file_name)
    with written_whole(path if path.suffix == ".npy" else path.with_name(f"{path.name}.npy")) as temporary:
        np.save(temporary, values)
