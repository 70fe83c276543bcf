"""`CinacPredictor`: which cells, which rows, which files; going on after being stopped."""

from __future__ import annotations

import inspect
import logging
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("torch")
pytest.importorskip("shapely")

from gpucalcium import nets
from gpucalcium.cinac import CinacRecording, sizes
from gpucalcium.cinac import resume as resuming
from gpucalcium.cinac.prediction import predict_activity, predict_cell_types
from gpucalcium.cinac.predictor import CinacPredictor
from gpucalcium.errors import (
    ArrayShapeError,
    ArrayTypeError,
    OutputError,
    ParameterError,
)
from tests.cinac.models import Halved
from tests.cinac.scenes import recording


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


@pytest.fixture
def models(monkeypatch, tmp_path):
    """Model files that stand for networks of a few lines: name -> the path of the file; `loads` counts reading."""
    made, loads = {}, []

    def load(model_file, weights_file=None, *, device=None, precision="float32"):
        loads.append((model_file, weights_file, device, precision))
        return made[model_file]

    monkeypatch.setattr(nets, "load_network", load)

    def model_file(name, **options):
        path = tmp_path / f"{name}.json"
        path.write_text(name)
        made[str(path)] = Halved(**options)
        return str(path)

    model_file.loads, model_file.made = loads, made
    return model_file


def test_rows_of_cells_that_are_predicted(models, tmp_path):
    rec, file = recording(), models("a")
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(file, None, "a"): [3, 1, 3]})
    out = predictor.predict(tmp_path / "out", create_dir_for_results=False)
    assert list(out) == [("one", "a")]
    found = out["one", "a"]
    assert found.shape == (5, 37)
    assert_array_equal(found[[0, 2, 4]], 0)
    assert_array_equal(found[[1, 3]], predict_activity(rec, [1, 3], Halved())[..., 0])
    with np.load(tmp_path / "out" / "one_predictions_a.npz") as written:
        assert sorted(written) == ["cells", "predictions"]
        assert_array_equal(written["predictions"], found)
        assert_array_equal(written["cells"], [1, 3])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one_predictions_a.npz"]


@pytest.mark.parametrize("cells", [None, [], np.array([], int), np.arange(5), [2]])
def test_all_some_and_no_cells(models, cells):
    predictor = CinacPredictor()
    predictor.add_recording(recording(), {(models("a"), None, "a"): cells})
    (found,) = predictor.predict(None).values()
    expected = np.arange(5) if cells is None else np.asarray(cells, int)
    assert_array_equal(np.flatnonzero(found.any(axis=1)), expected)


def test_no_cells_are_zeros_and_an_empty_list(models, tmp_path):
    predictor = CinacPredictor()
    predictor.add_recording(recording(), {(models("a"), None, "a"): []})
    predictor.predict(tmp_path / "new", create_dir_for_results=False)
    with np.load(tmp_path / "new" / "one_predictions_a.npz") as written:
        assert not written["predictions"].any()
        assert written["cells"].shape == (0,)


def test_removed_cells_keep_their_rows(models, tmp_path):
    """Four original cells, the second removed, of which 0, 1 and 3 are asked for: rows 0 and 3 of 4."""
    rec = recording(n_cells=3)
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(models("a"), None, "a"): [0, 1, 3]}, [0, -1, 1, 2])
    (found,) = predictor.predict(tmp_path, create_dir_for_results=False).values()
    assert found.shape == (4, 37)
    assert_array_equal(found[[0, 3]], predict_activity(rec, [0, 2], Halved())[..., 0])
    assert not found[[1, 2]].any()
    with np.load(tmp_path / "one_predictions_a.npz") as written:
        assert_array_equal(written["cells"], [0, 3])
    for wrong in ([0, -1, 1], [0, 1, 2, 3], [0, 0, 1, 2], [0, -2, 1, 2], [[0, 1, 2]]):
        with pytest.raises(ArrayShapeError, match="removed_cells_mapping"):
            CinacPredictor().add_recording(rec, {(models("a"), None, "a"): [0]}, wrong)
    assert CinacPredictor.get_new_cell_indices_if_cells_removed([0, 1, 3], [0, -1, 1, 2])[1].tolist() == [
        0,
        3,
    ]


def test_two_classifiers_share_an_array(models, tmp_path, caplog):
    rec, first, second = recording(), models("a"), models("b", n_classes=3)
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(first, None, "a"): [0, 2], (second, None, "b"): [4, 1]})
    out = predictor.predict(tmp_path, create_dir_for_results=False)
    found = out["one", "a_b"]
    assert_array_equal(found[[0, 2]], predict_activity(rec, [0, 2], Halved())[..., 0])
    assert_array_equal(found[[1, 4]], predict_activity(rec, [1, 4], Halved(n_classes=3)).argmax(axis=2) == 0)
    with np.load(tmp_path / "one_predictions_a_b.npz") as written:
        assert_array_equal(written["cells"], [0, 1, 2, 4])
    assert "several classifiers" not in caplog.text
    predictor.add_recording(rec, {(first, None, "a"): [0], (second, None, "c"): [0]})
    assert "cell 0 is given to several classifiers: c counts" in caplog.text
    again = predictor.predict(None)["one", "a_c"]
    assert_array_equal(again[0], predict_activity(rec, [0], Halved(n_classes=3)).argmax(axis=2)[0] == 0)


def test_a_model_is_read_once(models, tmp_path):
    file = models("a")
    predictor = CinacPredictor(precision="tf32", device="cpu")
    for name in ("one", "two"):
        predictor.add_recording(recording(name=name), {(file, None, "a"): [0]})
    assert set(predictor.predict(None)) == {("one", "a"), ("two", "a")}
    predictor.predict(None)
    assert models.loads == [(file, None, "cpu", "tf32")]


def test_two_classes_are_active_from_one_half_on(models, monkeypatch):
    values = np.array([[[0.6, 0.3], [0.4, 0.3], [0.45, 0.9], [0.5, 0.2]]], np.float32)
    monkeypatch.setattr("gpucalcium.cinac.predictor.predict_activity", lambda *_, **__: values)
    predictor = CinacPredictor()
    predictor.add_recording(recording(n_frames=4, n_cells=1), {(models("a"), None, "a"): None})
    assert_array_equal(predictor.predict(None)["one", "a"], [[1, 0, 0, 1]])


@pytest.mark.parametrize("formats", ["npy", "npz", "mat", ["mat", "npy"], ("npz", "npy")])
def test_formats(models, tmp_path, formats):
    predictor = CinacPredictor()
    predictor.add_recording(recording(), {(models("a"), None, "a"): [1]})
    (found,) = predictor.predict(tmp_path / "a" / "b", output_file_formats=formats).values()
    (folder,) = (tmp_path / "a" / "b").iterdir()
    assert re.fullmatch(r"\d{4}_\d\d_\d\d\.\d\d-\d\d-\d\d", folder.name)
    names = {path.name for path in folder.iterdir()}
    given = {formats} if isinstance(formats, str) else set(formats)
    assert names == {f"one_predictions_a.{'mat' if x == 'mat' else 'npz'}" for x in given}
    if "mat" in given:
        read = scipy.io.loadmat(folder / "one_predictions_a.mat")
        assert_array_equal(read["predictions"], found)
        assert_array_equal(read["cells"].ravel(), [1])


def test_results_of_one_second_lie_in_folders_of_their_own(models, tmp_path):
    predictor = CinacPredictor()
    predictor.add_recording(recording(n_cells=1), {(models("a"), None, "a"): None})
    for _ in range(3):
        predictor.predict(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("segments", [1, 2, 9])
def test_cell_types(models, tmp_path, classes, segments):
    rec = recording()
    options = {"n_classes": classes, "n_inputs": 2, "kind": "cell_type"}
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(models("t", **options), None, "t"): [0, 3]})
    (found,) = predictor.predict(
        tmp_path,
        cell_type_classifier_mode=True,
        n_segments_to_use_for_prediction=segments,
        create_dir_for_results=False,
        cell_type_pred_fct=np.max,
        cell_buffer=1,
        overlap_value=0,
    ).values()
    assert found.shape == ((5,) if classes == 1 else (5, 3))
    expected = predict_cell_types(rec, [0, 3], Halved(**options), n_segments=segments, buffer=1)
    for row, values in zip([0, 3], expected, strict=True):
        assert_array_equal(found[row], values.max(axis=0) if classes > 1 else values.max())
    assert not found[[1, 2, 4]].any()
    with np.load(tmp_path / "one_cell_type_predictions_t.npz") as written:
        assert_array_equal(written["predictions"], found)


def test_options_count(models):
    rec, file = recording(), models("a")
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(file, None, "a"): [0]})
    plain = predictor.predict(None)["one", "a"]
    for options, same in (
        ({"overlap_value": 0.8}, {"overlap": 0.8}),
        ({"cell_buffer": 2}, {"buffer": 2}),
        ({"use_data_augmentation": True}, {"augment": True}),
    ):
        found = predictor.predict(None, **options)["one", "a"]
        assert_array_equal(found[0], predict_activity(rec, [0], Halved(), **same)[0, :, 0])
        assert (found != plain).any()


def test_what_was_done_is_logged_if_asked(models, caplog):
    caplog.set_level(logging.INFO, "gpucalcium")
    predictor = CinacPredictor()
    predictor.add_recording(recording(), {(models("a"), None, "a"): [0, 1]})
    predictor.predict(None, time_verbose=False)
    assert "predicted" not in caplog.text
    predictor.predict(None)
    assert "one: 2 cells predicted in" in caplog.text
    caplog.clear()
    predictor.verbose = 1
    predictor.predict(None, time_verbose=False)
    assert "one: 2 cells predicted in" in caplog.text


def test_signature_is_the_documented_one():
    parameters = inspect.signature(CinacPredictor.predict).parameters
    assert {name: p.default for name, p in parameters.items() if p.default is not p.empty} == {
        "overlap_value": 0.5,
        "output_file_formats": "npy",
        "cell_type_classifier_mode": False,
        "n_segments_to_use_for_prediction": 2,
        "cell_type_pred_fct": np.mean,
        "create_dir_for_results": True,
        "cell_buffer": None,
        "all_pixels": True,
        "time_verbose": True,
    }


def test_what_cannot_be_added_is_named(models):
    rec, file = recording(), models("a")
    add = CinacPredictor().add_recording
    for nothing in (None, {}):
        with pytest.raises(ParameterError, match="model_files_dict is empty"):
            add(rec, nothing)
    with pytest.raises(ParameterError, match="cell 5: 'one' has 5 cells"):
        add(rec, {(file, None, "a"): [5]})
    with pytest.raises(ParameterError, match="cell -1"):
        add(rec, {(file, None, "a"): [-1]})
    with pytest.raises(ParameterError, match="whole numbers"):
        add(rec, {(file, None, "a"): [0.5]})
    with pytest.raises(ArrayTypeError, match="is no classifier"):
        add(rec, {file: [0]})
    with pytest.raises(ArrayTypeError, match="a CinacRecording is expected"):
        add("recording", {(file, None, "a"): [0]})
    empty = CinacRecording("empty")
    with pytest.raises(ParameterError, match="'empty' has no movie"):
        add(empty, {(file, None, "a"): [0]})
    empty.set_movie(rec.movie)
    with pytest.raises(ParameterError, match="'empty' has no cells"):
        add(empty, {(file, None, "a"): [0]})
    add(rec, {(file, None, "a"): [0]})
    with pytest.raises(ParameterError, match="added already"):
        add(rec, {(file, None, "a"): [1]})


def test_what_cannot_be_predicted_is_named(models, tmp_path):
    rec, file = recording(), models("a")
    predictor = CinacPredictor()
    predictor.add_recording(rec, {(file, None, "a"): [0]})
    with pytest.raises(ParameterError, match="there are npy, npz, mat"):
        predictor.predict(None, output_file_formats="hdf5")
    with pytest.raises(TypeError, match="no parameter 'augment'"):
        predictor.predict(None, augment=True)
    with pytest.raises(ParameterError, match="kind 'activity'; here 'cell_type'"):
        predictor.predict(None, cell_type_classifier_mode=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        predictor.predict(tmp_path / "file")
    types = CinacPredictor()
    two, three = (models(f"t{k}", n_classes=k, n_inputs=1, kind="cell_type") for k in (2, 3))
    types.add_recording(rec, {(two, None, "t2"): [0], (three, None, "t3"): [1]})
    with pytest.raises(ParameterError, match="tell apart 2, 3 types"):
        types.predict(None, cell_type_classifier_mode=True)
    types = CinacPredictor()
    types.add_recording(rec, {(two, None, "t2"): [0]})
    with pytest.raises(ArrayShapeError, match="cell_type_pred_fct gives"):
        types.predict(None, cell_type_classifier_mode=True, cell_type_pred_fct=np.cumsum)


# ---------------------------------------------------------------------------- stopped, and gone on


class Stopped(Exception):
    """What ends a run in these tests."""


def stopping(model, after):
    """Make a model fail at its call number `after` of `decode`; returns how often it was called."""
    calls, decode = [], model.decode

    def wrapped(features):
        calls.append(len(features[0]))
        if len(calls) == after:
            raise Stopped
        return decode(features)

    model.decode = wrapped
    return calls


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("after", [1, 2, 6])
def test_stopped_and_gone_on_with_equals_uninterrupted(models, tmp_path, monkeypatch, after, augment):
    monkeypatch.setattr("gpucalcium.cinac.sizes.DECODE_BATCH", {"cpu": 4})
    monkeypatch.setattr(resuming, "SAVE_EVERY_S", -1)
    file = models("a")
    whole = CinacPredictor()
    whole.add_recording(recording(), {(file, None, "a"): [0, 1, 4]})
    (expected,) = whole.predict(None, use_data_augmentation=augment).values()
    model = models.made[file]
    counted = stopping(model, 10**9)
    whole.predict(None, use_data_augmentation=augment)
    in_all, out = len(counted), tmp_path / "out"
    model.decode = Halved().decode

    def attempt():
        predictor = CinacPredictor()
        predictor.add_recording(recording(), {(file, None, "a"): [0, 1, 4]})
        return predictor.predict(out, create_dir_for_results=False, use_data_augmentation=augment)["one", "a"]

    calls = stopping(model, after)
    with pytest.raises(Stopped):
        attempt()
    assert [path.name for path in out.iterdir()] == [".one_a.unfinished.npz"]
    model.decode = Halved().decode
    calls = stopping(model, 10**9)
    assert_allclose(attempt(), expected, rtol=0, atol=1e-7)
    assert len(calls) == in_all - after + 1
    assert [path.name for path in out.iterdir()] == ["one_predictions_a.npz"]


@pytest.mark.parametrize("change", ["model", "movie", "overlap", "torn"])
def test_what_was_kept_of_something_else_is_not_used(models, tmp_path, change):
    file, out = models("a"), tmp_path / "out"

    def attempt(seed=0, **options):
        predictor = CinacPredictor()
        predictor.add_recording(recording(seed=seed), {(file, None, "a"): None})
        return predictor.predict(out, create_dir_for_results=False, **options)["one", "a"]

    decode = models.made[file].decode
    stopping(models.made[file], 1)
    with pytest.raises(Stopped):
        attempt()
    models.made[file].decode = decode
    (kept,) = out.glob(".*")
    options = {"overlap_value": 0.8} if change == "overlap" else {}
    seed = 3 if change == "movie" else 0
    if change == "model":
        (tmp_path / "a.json").write_text("other")
    if change == "torn":
        kept.write_bytes(kept.read_bytes()[:50])
    expected = predict_activity(
        recording(seed=seed), range(5), Halved(), overlap=options.get("overlap_value", 0.5)
    )
    assert_array_equal(attempt(seed, **options), expected[..., 0])


KILLED = """
import sys, time
from gpucalcium import nets
from gpucalcium.cinac import CinacPredictor, resume, sizes
from tests.cinac.models import Halved
from tests.cinac.scenes import recording

file, out = sys.argv[1:]
model = Halved()
decode, calls = model.decode, []

def slow(features):
    calls.append(1)
    if len(calls) > 3:
        time.sleep(60)
    return decode(features)

model.decode = slow
nets.load_network = lambda *files, **how: model
sizes.DECODE_BATCH["cpu"], resume.SAVE_EVERY_S = 4, -1
predictor = CinacPredictor()
predictor.add_recording(recording(), {(file, None, "a"): [0, 1, 4]})
predictor.predict(out, create_dir_for_results=False)
"""


def test_killed_and_gone_on_with_equals_uninterrupted(models, tmp_path, monkeypatch):
    """Another process is killed in its fourth batch of windows; the first three are not predicted again."""
    monkeypatch.setitem(sizes.DECODE_BATCH, "cpu", 4)
    file, kept = models("a"), tmp_path / "out" / ".one_a.unfinished.npz"
    environment = {**os.environ, "GPUCALCIUM_DEVICE": "cpu"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, file, tmp_path / "out"], env=environment)
    try:
        for _ in range(600):
            if process.poll() is not None or (kept.exists() and np.load(kept)["at"].tolist() == [0, 3]):
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert kept.exists()
    calls = stopping(models.made[file], 10**9)
    predictor = CinacPredictor()
    predictor.add_recording(recording(), {(file, None, "a"): [0, 1, 4]})
    found = predictor.predict(tmp_path / "out", create_dir_for_results=False)["one", "a"]
    assert len(calls) == 7 - 3
    expected = predict_activity(recording(), [0, 1, 4], Halved())[..., 0]
    assert_allclose(found[[0, 1, 4]], expected, rtol=0, atol=1e-7)
