"""Methods compared on annotated sessions: what YAML files say, which arrays are read, which cells are common."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_allclose

from gpucalcium.cinac import CinacFileWriter
from gpucalcium.cinac.benchmarks import benchmark_activity
from gpucalcium.cinac.metrics import Scores, compute_stats_over_gt
from gpucalcium.errors import (
    ArrayShapeError,
    DatasetNotFoundError,
    MovieFileError,
    MovieNotFoundError,
    ParameterError,
    UnknownParameterError,
)

N, T = 4, 90
SPIKES = "file_name: caiman.npz, attr_name: S, to_bin: true"


def scene(seed):
    """Truth, smooth traces, and predictions that are mostly right."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((N, T), bool)
    for cell in range(N):
        for at in rng.choice(np.arange(4, T - 8, 9), 4, replace=False):
            truth[cell, at : at + 3] = True
    decay = 0.8 ** np.arange(20)
    traces = np.stack([np.convolve(row, decay)[:T] for row in truth.astype(float)]) + 0.1 * rng.random((N, T))
    predictions = np.clip(truth * 0.4 + 0.55 * rng.random((N, T)), 0, 1)
    return truth, traces, predictions


@pytest.fixture
def root(tmp_path):
    """Two sessions: the truth is a raster in the first, a .cinac file in the second."""
    (tmp_path / "benchmark.yaml").write_text("inferences_to_benchmark: [ours, caiman]\nconfig_id: first\n")
    for name, seed in (("m1", 1), ("m2", 2)):
        folder = tmp_path / name
        folder.mkdir()
        truth, traces, predictions = scene(seed)
        np.savez(folder / f"{name}_predictions_ours.npz", predictions=predictions, cells=np.arange(N))
        np.savez(folder / "caiman.npz", S=predictions * (predictions > 0.6), C=traces)
        np.save(folder / "traces.npy", traces)
        np.savez(folder / "truth.npz", raster=truth.astype("int8"), other=0)
        gt = "groundtruth: {file_name: truth.npz, attr_name: raster, traces_file_name: traces.npy}\n"
        if name == "m2":
            gt = "groundtruth: {file_name: a.cinac}\n"
            with CinacFileWriter(folder / "a.cinac") as writer:
                for segment in ((0, 0, 39), (0, 50, 89), (2, 10, 79)):
                    frames = slice(segment[1], segment[2] + 1)
                    doubtful = np.arange(frames.stop - frames.start) < 4
                    writer.add_segment_group(
                        segment, raster_dur=truth[segment[0], frames], ci_movie=np.zeros((len(doubtful), 5, 5)),
                        cells_contour=[[[2], [2]]], invalid_cells=[0], smooth_traces=traces[segment[0], frames],
                        raw_traces=traces[segment[0], frames], doubtful_frames=doubtful,
                    )  # fmt: skip
        (folder / "session.yml").write_text(
            gt + "caiman: {file_name: caiman.npz, attr_name: S, to_bin: true}\n"
        )
    return tmp_path


def described(root, session, **methods):
    path = root / session / "session.yml"
    lines = [line for line in path.read_text().splitlines() if line.split(":")[0] not in methods]
    path.write_text("\n".join([*lines, *(f"{name}: {{{said}}}" for name, said in methods.items())]))


def test_each_cell_is_scored_as_it_would_be_alone(root):
    found = benchmark_activity(root)
    truth, traces, predictions = scene(1)
    for cell in range(N):
        for method, raster in (("ours", predictions >= 0.5), ("caiman", predictions > 0.6)):
            alone = compute_stats_over_gt(truth[cell], raster[cell], traces[cell])
            assert found.scores[method]["m1", cell] == {
                "frames": alone.frames,
                "transients": alone.transients,
            }
    assert set(found.scores["ours"]) == {("m1", 0), ("m1", 1), ("m1", 2), ("m1", 3), ("m2", 0), ("m2", 2)}


def test_only_annotated_frames_that_are_not_doubtful_count(root):
    found = benchmark_activity(root).scores["ours"]
    truth, traces, predictions = scene(2)
    expected = Scores(0, 0, 0, 0)
    for first, last in ((0, 39), (50, 89)):
        frames, seen = slice(first, last + 1), np.arange(last + 1 - first) >= 4
        said = predictions[0, frames] >= 0.5
        expected += compute_stats_over_gt(
            truth[0, frames], said, traces[0, frames], annotated=seen
        ).transients
    assert found["m2", 0]["transients"] == expected
    frames = found["m2", 0]["frames"]
    assert frames.tp + frames.fp + frames.fn + frames.tn == 2 * 36


def test_summary_and_comparisons(root):
    found = benchmark_activity(root)
    values = found.values("ours", "frames", "F1")
    row = next(
        r for r in found.summary() if (r["method"], r["level"], r["metric"]) == ("ours", "frames", "F1")
    )
    assert row["cells"] == 6
    assert_allclose(
        [row["quartile_1"], row["median"], row["quartile_3"]], np.percentile(values, [25, 50, 75])
    )
    (pair,) = [r for r in found.comparisons() if (r["level"], r["metric"]) == ("frames", "PPV")]
    x, y = (found.values(name, "frames", "PPV") for name in ("ours", "caiman"))
    assert_allclose(pair["p"], scipy.stats.wilcoxon(x, y).pvalue)
    assert (pair["method"], pair["other"], pair["cells"]) == ("ours", "caiman", 6)
    assert_allclose([pair["median"], pair["other_median"]], [np.median(x), np.median(y)])


def test_methods_are_compared_on_common_cells(root):
    described(root, "m1", caiman="file_name: caiman.npz, attr_name: S, to_bin: true, cells: [1, 3]")
    found = benchmark_activity(root)
    assert set(found.scores["caiman"]) == {("m1", 1), ("m1", 3), ("m2", 0), ("m2", 2)}
    assert {row["cells"] for row in found.comparisons()} == {4}
    same = benchmark_activity(root, None)
    assert same.summary() == found.summary()


def test_methods_without_common_cells(root):
    for name, cells in (("m1", [1]), ("m2", [])):
        described(
            root,
            name,
            caiman=f"{SPIKES}, cells: {cells}",
            ours=f"file_name: {name}_predictions_ours.npz, cells: [0]",
        )
    rows = benchmark_activity(root).comparisons()
    assert {row["cells"] for row in rows} == {0}
    assert all(np.isnan(row["p"]) and np.isnan(row["median"]) for row in rows)


def test_equal_methods_do_not_differ(root):
    (root / "benchmark.yaml").write_text("inferences_to_benchmark: [ours, again]")
    for name in ("m1", "m2"):
        described(root, name, again=f"file_name: {name}_predictions_ours.npz")
    assert {row["p"] for row in benchmark_activity(root).comparisons()} == {1.0}


def test_tables_and_figures_are_written(root, tmp_path):
    benchmark_activity(root, tmp_path / "out" / "here")
    names = {path.name for path in (tmp_path / "out" / "here").iterdir()}
    assert names == {
        "first_summary.csv", "first_comparisons.csv", "first_cells.csv", "first_frames.png", "first_transients.png",
    }  # fmt: skip
    with (tmp_path / "out" / "here" / "first_cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 6
    assert {row["session"] for row in rows} == {"m1", "m2"}


def test_sessions_are_excluded(root):
    (root / "benchmark.yaml").write_text("inferences_to_benchmark: ours\nsessions_to_exclude: [m2]")
    assert {session for session, _ in benchmark_activity(root).scores["ours"]} == {"m1"}
    (root / "benchmark.yaml").write_text("inferences_to_benchmark: ours\nsessions_to_exclude: [m1, m2]")
    with pytest.raises(ParameterError, match="no folders of sessions"):
        benchmark_activity(root)


def test_thresholds(root):
    _, _, predictions = scene(1)

    def active():
        frames = benchmark_activity(root).scores["ours"]["m1", 0]["frames"]
        return frames.tp + frames.fp

    (root / "benchmark.yaml").write_text("inferences_to_benchmark: [ours]\npredictions_threshold: 0.2")
    assert active() == np.count_nonzero(predictions[0] >= 0.2)
    described(root, "m1", ours="file_name: m1_predictions_ours.npz, prediction_threshold: 0.9")
    assert active() == np.count_nonzero(predictions[0] >= 0.9)
    described(
        root, "m1", ours="file_name: m1_predictions_ours.npz, prediction_threshold: 0, attr_name: predictions"
    )
    assert active() == T


@pytest.mark.parametrize("in_file", [False, True])
def test_rows_of_other_cells(root, in_file):
    _, _, predictions = scene(1)
    np.savez(root / "m1" / "caiman.npz", S=predictions[[2, 0]] > 0.5)
    mapping = "[1, -1, 0, -1]"
    if in_file:
        np.save(root / "m1" / "mapping.npy", np.array([1, -1, 0, -1]))
        mapping = "mapping.npy"
    described(root, "m1", caiman=f"file_name: caiman.npz, attr_name: S, caiman_fiji_mapping: {mapping}")
    scores = benchmark_activity(root).scores["caiman"]
    assert {cell for session, cell in scores if session == "m1"} == {0, 2}
    frames = scores["m1", 2]["frames"]
    assert frames.tp + frames.fp == np.count_nonzero(predictions[2] > 0.5)


def test_spikes_widen_to_transients(root):
    trace = np.tile([5.0, 1, 2, 3, 4, 3, 2, 1, 0, 1], 9)
    spikes = np.zeros((N, T))
    spikes[0, 12] = 0.3
    np.savez(root / "m1" / "caiman.npz", S=spikes)
    np.savez(root / "m1" / "C.npz", C=np.tile(trace, (N, 1)))
    described(
        root, "m1",
        caiman="file_name: caiman.npz, attr_name: S, to_bin: true, traces_file_name: C.npz, traces_attr_name: C",
    )  # fmt: skip
    frames = benchmark_activity(root).scores["caiman"]["m1", 0]["frames"]
    assert frames.tp + frames.fp == 4  # from 11 to 14


# ---------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("inferences_to_benchmark: []", ParameterError, "names no method"),
        ("config_id: a", MovieFileError, "inferences_to_benchmark"),
        ("inference_to_benchmark: [a]", UnknownParameterError, "'inferences_to_benchmark' is meant"),
        ("- a", MovieFileError, "are expected"),
        ("a: [", MovieFileError, "is no YAML file"),
        ("inferences_to_benchmark: [a]\npredictions_threshold: high", MovieFileError, "'high'"),
        ("inferences_to_benchmark: 3", MovieFileError, "iterable"),
        ("inferences_to_benchmark: [nobody]", ParameterError, "0 files have 'nobody'"),
        (
            "inferences_to_benchmark: [ours]\npredictions_keywords: [what]",
            ParameterError,
            r"one of \['what'\]",
        ),
    ],
)
def test_bad_root_files(root, text, error, words):
    (root / "benchmark.yaml").write_text(text)
    with pytest.raises(error, match=words):
        benchmark_activity(root)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("file_name: none.npz", MovieNotFoundError, r"none\.npz not found"),
        ("file_name: caiman.npz, attr_name: X", DatasetNotFoundError, "no array 'X'; there are: S, C"),
        ("file_name: caiman.npz", DatasetNotFoundError, "no array 'predictions'"),
        ("file_name: caiman.npz, attr_name: S", ParameterError, "say to_bin: true"),
        ("file_name: caiman.npz, attr_nam: S", UnknownParameterError, "'attr_name' is meant"),
        ("cells: [1]", MovieFileError, "file_name"),
        ("file_name: caiman.npz, cells: [a]", MovieFileError, "caiman.*'a'"),
        ("file_name: caiman.npz, cells: 3", MovieFileError, "caiman.*iterable"),
        ("file_name: caiman.npz, prediction_threshold: high", MovieFileError, "caiman.*'high'"),
        ("file_name: caiman.npz, to_bin: maybe", MovieFileError, "to_bin is true or false"),
        (f"{SPIKES}, caiman_fiji_mapping: [0, 1]", ArrayShapeError, "not of cell 2"),
        (f"{SPIKES}, caiman_fiji_mapping: [9, 1, 2, 3]", ArrayShapeError, "none for cell 9"),
        (f"{SPIKES}, caiman_fiji_mapping: [0.5]", MovieFileError, "whole numbers"),
        ("file_name: short.npy", ArrayShapeError, "has 5 frames; cell 0 is annotated up to frame 89"),
        ("file_name: deep.npy", ArrayShapeError, r"\(cells, frames\) is expected"),
        ("file_name: names.npy", MovieFileError, "where numbers are expected"),
        ("file_name: short.npy, traces_file_name: traces.npy", ArrayShapeError, r"its traces \(4, 90\)"),
        ("file_name: objects.npy", MovieFileError, r"objects\.npy cannot be read"),
        ("file_name: notes.txt", MovieFileError, "arrays are read from"),
    ],
)  # fmt: skip
def test_bad_methods(root, said, error, words):
    np.save(root / "m1" / "short.npy", np.zeros((N, 5)))
    np.save(root / "m1" / "deep.npy", np.zeros((N, T, 2)))
    np.save(root / "m1" / "names.npy", np.array(["a", "b"]))
    np.save(root / "m1" / "objects.npy", np.array([{}]), allow_pickle=True)
    (root / "m1" / "notes.txt").write_text("a")
    described(root, "m1", caiman=said)
    with pytest.raises(error, match=words):
        benchmark_activity(root)


def test_bad_sessions(root):
    described(root, "m1", groundtruth="file_name: truth.npz, attr_name: raster")
    with pytest.raises(ParameterError, match="needs traces_file_name"):
        benchmark_activity(root)
    np.save(root / "m1" / "traces.npy", np.zeros((N, 3)))
    described(root, "m1", groundtruth="file_name: truth.npz, attr_name: raster, traces_file_name: traces.npy")
    with pytest.raises(ArrayShapeError, match=r"the truth is \(4, 90\) and its traces \(4, 3\)"):
        benchmark_activity(root)
    (root / "m1" / "session.yml").write_text("ours: {file_name: a}")
    with pytest.raises(MovieFileError, match="must have an entry groundtruth"):
        benchmark_activity(root)
    (root / "m1" / "more.yaml").write_text("")
    with pytest.raises(ParameterError, match="holds 2 YAML files"):
        benchmark_activity(root)
    with pytest.raises(MovieNotFoundError, match="holds no YAML"):
        benchmark_activity(root / "nowhere")
