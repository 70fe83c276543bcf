"""Classifiers against annotated files: which frames and cells count, files, figures."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("torch")
pytest.importorskip("shapely")

from gpucalcium import nets
from gpucalcium.cinac import (
    CinacFileReader,
    CinacFileWriter,
    activity_predictions_from_cinac_files,
    create_cinac_recording_from_cinac_file_segment,
    evaluate_cell_type_predictions,
)
from gpucalcium.cinac.evaluation import type_scores
from gpucalcium.cinac.prediction import predict_cell_types
from gpucalcium.errors import MovieFileError, MovieNotFoundError, ParameterError
from tests.cinac.models import Brightest, Halved

SIDE = 9
SQUARE = [[3, 5, 5, 3], [3, 3, 5, 5]]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


def use(monkeypatch, model):
    asked = []
    monkeypatch.setattr(nets, "load_network", lambda *files: (asked.append(files), model)[1])
    return asked


def write(path, segments, size=(4, 100)):
    """Segments whose patch says in the cell's middle what `shown` says, by default the truth."""
    with CinacFileWriter(path) as writer:
        if size is not None:
            writer.create_full_data_group(n_cells=size[0], n_frames=size[1])
        for segment, said in segments.items():
            n = segment[2] - segment[1] + 1
            said = dict(said)
            shown = said.pop("shown", said.get("raster_dur", np.zeros(n)))
            movie = np.zeros((n, SIDE, SIDE), np.float32)
            movie[:, 4, 4] = 0.9 * np.asarray(shown)
            trace = np.asarray(said.pop("trace", shown), float)
            writer.add_segment_group(
                segment,
                **{
                    "raster_dur": np.zeros(n),
                    "ci_movie": movie,
                    "cells_contour": [SQUARE],
                    "invalid_cells": [False],
                    "smooth_traces": trace,
                    "raw_traces": trace,
                    **said,
                },
            )


def truth(n, seed=0):
    return np.repeat(np.random.default_rng(seed).random(n // 5) < 0.3, 5)


@pytest.mark.parametrize("classes", [1, 3])
def test_activity_lies_where_the_segments_are(monkeypatch, tmp_path, classes):
    parts = {(0, 10, 49): truth(40), (2, 0, 19): truth(20, 1), (2, 60, 99): truth(40, 2)}
    write(tmp_path / "one.cinac", {segment: {"raster_dur": raster} for segment, raster in parts.items()})
    write(tmp_path / "unknown.cinac", {(0, 0, 19): {}}, size=None)
    asked = use(monkeypatch, Brightest(n_classes=classes))
    out = tmp_path / "out" / "deep"
    found, scores = activity_predictions_from_cinac_files(
        tmp_path, out, "net.json", "net.h5", "v1", ["npy", "npz", "mat"]
    )
    assert asked == [("net.json", "net.h5")]
    assert list(found) == ["one"]
    expected = np.zeros((4, 100), np.float32)
    for (cell, first, last), raster in parts.items():
        expected[cell, first : last + 1] = (
            0.9 * raster if classes == 1 else 1
        )  # of zeros the first is the largest
    assert_allclose(found["one"], expected)
    if classes == 1:
        assert scores["one"]["frames"].f1 == scores["one"]["transients"].f1 == 1
        assert scores["one"]["frames"].tp + scores["one"]["frames"].tn == 100
    else:
        assert scores["one"]["frames"].fp == 100 - scores["one"]["frames"].tp > 0
    assert_array_equal(np.load(out / "one_predictions_v1.npy"), found["one"])
    assert_array_equal(np.load(out / "one_predictions_v1.npz")["predictions"], found["one"])
    assert_array_equal(scipy.io.loadmat(out / "one_predictions_v1.mat")["predictions"], found["one"])


def test_doubtful_frames_do_not_count_and_overlapping_segments_merge(monkeypatch, tmp_path):
    raster = truth(40)
    wrong = raster.copy()
    wrong[:7] = ~wrong[:7]
    doubtful = np.arange(40) < 7
    write(
        tmp_path / "a.cinac",
        {(1, 0, 39): {"raster_dur": raster, "shown": wrong, "doubtful_frames": doubtful}},
    )
    use(monkeypatch, Brightest())
    _, scores = activity_predictions_from_cinac_files(tmp_path, None, "net.json", None)
    assert scores["a"]["frames"].fp == scores["a"]["frames"].fn == 0
    assert scores["a"]["frames"].tp + scores["a"]["frames"].tn == 33
    on = {"raster_dur": np.ones(20), "trace": np.arange(20)}
    write(tmp_path / "a.cinac", {(1, 0, 19): on, (1, 10, 29): {}})
    found, _ = activity_predictions_from_cinac_files(tmp_path, None, "net.json", None)
    assert_array_equal(np.flatnonzero(found["a"][1]), np.arange(20))


def test_missing_files_and_segments_outside_are_named(monkeypatch, tmp_path):
    use(monkeypatch, Brightest())
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(MovieNotFoundError, match=r"no folder with \.cinac files"):
            activity_predictions_from_cinac_files(folder, None, "net.json", None)
    write(tmp_path / "a.cinac", {(7, 0, 19): {}})
    with pytest.raises(MovieFileError, match=r"segment \(7, 0, 19\) lies outside"):
        activity_predictions_from_cinac_files(tmp_path, None, "net.json", None)
    with pytest.raises(ParameterError, match="there are npy, npz, mat"):
        activity_predictions_from_cinac_files(tmp_path, None, "net.json", None, output_file_formats="csv")


def typed(folder, names, n=60):
    rng = np.random.default_rng(0)
    segments = {
        (cell, 0, n - 1): {"shown": rng.random(n), "cell_type": name} for cell, name in enumerate(names)
    }
    write(folder / "types.cinac", segments)
    return list(segments)


@pytest.mark.parametrize("all_pixels", [False, True])
def test_types_are_means_of_four_windows(monkeypatch, tmp_path, all_pixels):
    segments = typed(tmp_path, ["Interneuron", "pyramidal", None, "noise", "glia", "PYRAMIDAL"])
    model = Halved(n_classes=3, n_inputs=1 + all_pixels, kind="cell_type")
    use(monkeypatch, model)
    out = tmp_path / "figures"
    found = evaluate_cell_type_predictions(tmp_path, None, out, "net.json", None, True, all_pixels)
    known = [segments[k] for k in (0, 1, 3, 5)]
    assert found["cells"] == [("types.cinac", segment) for segment in known]
    assert_array_equal(found["truth"], [0, 1, 2, 1])
    reader = CinacFileReader(tmp_path / "types.cinac")
    for row, segment in zip(found["predictions"], known, strict=True):
        rec = create_cinac_recording_from_cinac_file_segment("x", reader, segment)
        (windows,) = predict_cell_types(rec, [0], model, n_segments=4)
        assert len(windows) == 4
        assert_allclose(row, windows.mean(axis=0))
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"hist_prediction_distribution_{x}.png" for x in ("interneuron", "noise", "pyramidal")]


def test_one_probability_of_two_types(monkeypatch, tmp_path):
    yaml = tmp_path / "types.yaml"
    yaml.write_text(
        "cell_type_categories:\n - Interneuron: {keywords: [INs], predicted_celll_type: true}\n - pyramidal:\n"
    )
    typed(tmp_path, ["ins", "pyramidal", "pyramidal"])
    use(monkeypatch, Halved(n_classes=1, n_inputs=1, kind="cell_type"))
    found = evaluate_cell_type_predictions(tmp_path, yaml, tmp_path / "out", "net.json", None, True)
    assert_array_equal(found["truth"], [1, 0, 0])
    assert set(found["distribution"]) == {"Interneuron", "pyramidal"}
    assert {"accuracy", "sensitivity", "specificity", "ppv", "npv"} < set(found)
    assert len(list((tmp_path / "out").iterdir())) == 2
    use(monkeypatch, Halved(n_classes=3, n_inputs=1, kind="cell_type"))
    with pytest.raises(
        ParameterError, match="gives 3 probabilities, and there are 2 types: Interneuron, pyramidal"
    ):
        evaluate_cell_type_predictions(tmp_path, yaml, None, "net.json", None, False)
    with pytest.raises(ParameterError, match="results_path must say where"):
        evaluate_cell_type_predictions(tmp_path, yaml, None, "net.json", None, True)


def test_no_known_type_is_an_error(monkeypatch, tmp_path):
    typed(tmp_path, ["glia", None])
    use(monkeypatch, Halved(n_classes=3, n_inputs=1, kind="cell_type"))
    with pytest.raises(MovieNotFoundError, match="names a type that is known"):
        evaluate_cell_type_predictions(tmp_path, None, None, "net.json", None, False)


def test_scores_of_types_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 200)
    predictions = rng.dirichlet([0.7] * 3, 200)
    found = type_scores(truth, predictions, ("a", "b", "c"))
    said = predictions.argmax(axis=1)
    assert_array_equal(found["confusion"], metrics.confusion_matrix(truth, said))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said)
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert_allclose(found[name], values)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert found["without_class"] == (predictions.max(axis=1) < 0.5).sum()
    assert found["with_several"] == 0
    both = type_scores(np.array([0]), np.array([[0.5, 0.5, 0]]), "abc")
    assert both["with_several"] == 1
    values = predictions[truth == 1, 1]
    assert found["distribution"]["b"]["std"] == pytest.approx(values.std())


def test_scores_of_one_probability_and_of_nothing():
    found = type_scores(np.array([1, 1, 0, 0, 1]), np.array([[0.9], [0.5], [0.6], [0.1], [0.4]]), ("a", "b"))
    rates = [found[name] for name in ("accuracy", "sensitivity", "specificity", "ppv", "npv")]
    assert_allclose(rates, [3 / 5, 2 / 3, 1 / 2, 2 / 3, 1 / 2])
    assert found["distribution"]["a"] == pytest.approx({"mean": 0.35, "std": 0.25, "min": 0.1, "max": 0.6})
    alone = type_scores(np.array([1]), np.array([[0.9]]), ("a", "b"))
    assert alone["specificity"] == 1
    assert set(alone["distribution"]) == {"b"}
