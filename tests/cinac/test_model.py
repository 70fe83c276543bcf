"""`CinacModel`: from annotated cells to a network that predicts, whatever of its parameters is set."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpucalcium import nets
from gpucalcium.cinac import CinacModel, CinacPredictor
from gpucalcium.cinac.cinac_file import CinacFileWriter
from gpucalcium.cinac.side_files import SideFiles
from gpucalcium.cinac.simulated import SimulationParams, simulate_recording
from gpucalcium.cinac.stratify import copies, events_of
from gpucalcium.cinac.training_params import TrainingParams
from gpucalcium.errors import (
    ArrayShapeError,
    MovieFileError,
    MovieNotFoundError,
    NotSupportedError,
    ParameterError,
)

TINY = {
    "window_len": 20,
    "max_width": 11,
    "max_height": 11,
    "conv_filters": (2, 2),
    "lstm_layers_size": (3,),
    "bin_lstm_size": 3,
    "overlap_value": 0.5,
    "keep_short_segments": 0,
    "n_epochs": 1,
    "patches_per_epoch": 16,
    "max_validation_patches": 6,
    "seed_value": 0,
}


@pytest.fixture(scope="module")
def made():
    return simulate_recording(
        0,
        SimulationParams(
            n_frames=240,
            dimensions=(60, 60),
            n_cells_of_interest=4,
            range_n_transient_cells_of_interest=(20, 30),
            cell_types={"pyramidal": 1.0, "interneuron": 1.0, "noise": 1.0},
        ),
    )


def model(folder, made=None, **more):
    one = CinacModel(results_path=folder, **{**TINY, **more})
    if made is not None:
        one.add_recording(made.recording("simulated"), made.raster, cell_types=made.cell_types)
    return one


def segment(writer, cell, first, n=200, **more):
    rng = np.random.default_rng([cell, first])
    raster = np.zeros(n, np.int8)
    for start in range(5, n - 5, 40):
        raster[start : start + 4] = 1
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    contour = 6 + 3 * np.stack([np.cos(angles), np.sin(angles)])
    trace = rng.normal(0, 0.1, n) + np.convolve(raster, np.exp(-np.arange(20) / 5))[:n]
    writer.add_segment_group(
        (cell, first, first + n - 1),
        raster_dur=raster,
        ci_movie=rng.normal(0, 1, (n, 13, 13)) + trace[:, None, None],
        cells_contour=[contour],
        invalid_cells=[False],
        smooth_traces=trace,
        raw_traces=trace,
        **more,
    )


@pytest.fixture
def folder(tmp_path):
    """Three files of annotated segments."""
    for k, name in enumerate(["mouse1_a", "mouse1_b", "Mouse2_a"]):
        with CinacFileWriter(tmp_path / f"{name}.cinac") as writer:
            segment(writer, 3, 0, cell_type="pyramidal")
            segment(writer, k + 4, 100, cell_type="INTERNEURON")
    return tmp_path


# ---------------------------------------------------------------------------- from data to a network


def test_activity_from_a_recording(made, tmp_path):
    one = model(tmp_path, made, per_frame_head=True)
    one.prepare_model()
    taken = {(w.cell, t) for w in one.training for t in range(w.index_movie, w.index_movie + 20)}
    assert not taken & {(w.cell, t) for w in one.validation for t in range(w.index_movie, w.index_movie + 20)}
    history = one.fit()
    assert len(history.accuracies) == 1 and set(history.values) >= {
        "loss",
        "val_loss",
        "val_f1",
        "learning_rate",
    }
    with np.load(tmp_path / "metrics_history.npz") as file:
        assert {name: list(file[name]) for name in file} == history.values
    files = (
        tmp_path / "transient_classifier_weights_01.json",
        tmp_path / "transient_classifier_weights_01.safetensors",
    )
    network = nets.load_network(*files)
    assert (network.kind, network.n_classes, network.mask_mode, network.buffer) == (
        "activity",
        1,
        "corrected",
        1.0,
    )
    predictor = CinacPredictor()
    predictor.add_recording(made.recording("again"), {(str(files[0]), str(files[1]), "mine"): [0, 1]})
    found = predictor.predict(None, overlap_value=0)["again", "mine"]
    assert found.shape == made.raster.shape and (found[:2] > 0).all() and not found[2:].any()


def test_cell_types_from_a_recording(made, tmp_path):
    one = model(tmp_path, made, cell_type_classifier_mode=True, with_all_pixels=True)
    one.prepare_model()
    assert not {w.cell for w in one.training} & {w.cell for w in one.validation}
    codes = [int(w.ground_truth) for w in one.training]
    assert set(codes) == {0, 1, 2}
    one.fit()
    network = nets.load_network(tmp_path / "cell_type_classifier_weights_01.json")
    assert (network.kind, network.n_classes, network.inputs) == ("cell_type", 3, ("input_0", "input_1"))


def test_rare_types_get_more_copies(made, tmp_path):
    one = model(tmp_path, cell_type_classifier_mode=True)
    names = ["pyramidal"] * 6 + ["noise"] * 2 + [None] * (len(made.raster) - 8)
    one.add_recording(made.recording("few"), made.raster, cells=range(8), cell_types=names)
    one.params = dataclasses.replace(one.params, split_values=(0.5, 0.5, 0.0))
    one.prepare_model()
    of = {code: copies([w for w in one.training if w.ground_truth == code]) for code in (1, 2)}
    assert of[1] == of[2] > 0


def test_segments_of_files(folder):
    one = model(folder / "results")
    one.add_input_data_from_dir(folder)
    one.prepare_model()
    assert {w.session_id for w in one.training} == {"mouse1_a", "mouse1_b", "Mouse2_a"}
    assert one.training[0].cinac_recording.get_n_frames() == 200
    one.fit()
    assert (folder / "results" / "transient_classifier_weights_01.json").is_file()


def test_side_files(folder):
    (folder / "my_session_ids.txt").write_text("mouse1: first mouse\n\nmouse2: second mouse\n")
    (folder / "only_for_training.txt").write_text("MOUSE2\n")
    (folder / "x_to_keep_x.txt").write_text("mouse1_a\n")
    (folder / "files_to_exclude.txt").write_text("1_b\n")
    one = model(folder / "results", with_augmentation_for_training_data=False)
    one.add_input_data_from_dir(folder)
    one.prepare_model()
    assert {w.session_id for w in one.training} == {"first mouse", "second mouse"}
    assert {w.session_id for w in one.validation} == {"first mouse"}
    kept = [w for w in one.training if w.session_id == "first mouse"]
    assert kept and all(w.to_keep_absolutely for w in kept)
    assert not any(w.to_keep_absolutely for w in one.training if w.session_id == "second mouse")
    assert copies(one.training) == len(one.training)


def test_bad_side_files_and_folders_are_named(tmp_path):
    (tmp_path / "session_ids.txt").write_text("mouse1 without a colon\n")
    with pytest.raises(MovieFileError, match="without a colon"):
        SideFiles.read(tmp_path)
    with pytest.raises(MovieNotFoundError, match=r"no \.cinac file"):
        model(tmp_path).add_input_data_from_dir(tmp_path)


def test_types_of_files_by_keywords_of_a_yaml_file(folder):
    (folder / "types.yaml").write_text(
        "cell_type_categories:\n  - pyramid: {keywords: [pyramidal]}\n"
        "  - gaba: {keywords: [interneuron], predicted_celll_type: true}\n"
    )
    one = model(folder / "results", cell_type_classifier_mode=True, split_values=(0.6, 0.4, 0.0),
                cell_type_categories_yaml_file=folder / "types.yaml")  # fmt: skip
    one.add_input_data_from_dir(folder)
    one.prepare_model()
    assert one.network.n_classes == 1
    truth = {w.cinac_recording.cell_type: w.ground_truth for w in one.training}
    assert truth == {"pyramidal": 0, "INTERNEURON": 1}


def test_three_classes_of_frames(made, tmp_path):
    one = model(tmp_path, made, using_multi_class=3)
    one.prepare_model()
    assert set(np.unique([w.ground_truth for w in one.training])) <= {0, 1, 2}
    assert one.network.per_frame and one.network.n_classes == 3
    one.fit()


# ---------------------------------------------------------------------------- parameters


def test_seeds_reproduce(made, tmp_path):
    def state(seed):
        one = model(tmp_path, made, seed_value=seed, with_model_check_point=False)
        one.prepare_model()
        one.fit()
        places = [(w.cell, w.index_movie, w.n_augmentations_to_perform) for w in one.training]
        return places, np.concatenate(
            [v.numpy().ravel() for v in one.network.torch_module.state_dict().values()]
        )

    first, again, other = state(1), state(1), state(2)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


def test_training_goes_on_from_a_network(made, tmp_path):
    one = model(tmp_path, made, save_only_the_weitghs=False)
    one.prepare_model()
    one.fit()
    start = tmp_path / "transient_classifier_full_model_01.json"
    assert start.with_suffix(".optimizer.safetensors").is_file()
    more = model(tmp_path / "more", made, partly_trained_model=start)
    more.prepare_model()
    for value, other in zip(
        one.network.torch_module.parameters(), more.network.torch_module.parameters(), strict=True
    ):
        np.testing.assert_array_equal(value.detach(), other.detach())
    assert len(more._trainer.optimizer.state_dict()["state"]) > 0
    with pytest.raises(ParameterError, match="window_len"):
        model(tmp_path, made, partly_trained_model=start, window_len=30).prepare_model()


def test_a_test_set(made, tmp_path):
    one = model(tmp_path, made, split_values=(0.6, 0.2, 0.2))
    with pytest.raises(ParameterError, match="prepare_model"):
        one.evaluate()
    one.prepare_model()
    assert one.test and set(one.evaluate()) == {"loss", "accuracy", "precision", "recall", "f1"}
    without = model(tmp_path, made)
    without.prepare_model()
    with pytest.raises(ParameterError, match="no test set"):
        without.evaluate()


def test_frames_to_avoid(made, tmp_path):
    one = model(tmp_path, made, cell_type_classifier_mode=True, frames_to_avoid_for_cell_type=(25, 110),
                n_windows_len_to_keep_by_cell=20)  # fmt: skip
    one.prepare_model()
    starts = {w.index_movie for w in one.training + one.validation}
    assert starts == {0, *range(40, 100, 20), *range(120, 240, 20)}


SEEN = {
    "n_epochs": 2,
    "batch_size": 3,
    "overlap_value": 0.0,
    "max_n_transformations": 0,
    "buffer": None,
    "split_values": (0.5, 0.5, 0.0),
    "optimizer_choice": "SGD",
    "learning_rate_start": 1e-2,
    "dropout_value": 0.0,
    "dropout_value_rnn": 0.0,
    "dropout_at_the_end": 0.5,
    "with_batch_normalization": True,
    "activation_fct": "relu",
    "without_bidirectional": True,
    "conv_filters": (3, 2),
    "lstm_layers_size": (2, 2),
    "bin_lstm_size": 2,
    "main_ratio_balance": (0.3, 0.3, 0.4),
    "crop_non_crop_ratio_balance": (0.5, 0.5),
    "non_crop_ratio_balance": (0.5, 0.5),
    "apply_attention": False,
    "apply_attention_before_lstm": False,
    "use_single_attention_vector": True,
    "with_augmentation_for_training_data": False,
    "with_shuffling": False,
    "weighted_windows": False,
    "clip_norm": 1e-3,
    "patches_per_epoch": 8,
    "per_frame_head": True,
    "seed_value": 3,
}


@pytest.fixture(scope="module")
def usual(made, tmp_path_factory):
    one = model(tmp_path_factory.mktemp("usual"), made)
    one.prepare_model()
    one.fit()
    return one


@pytest.mark.parametrize("name", SEEN)
def test_every_parameter_changes_what_is_learnt(made, usual, tmp_path, name):
    one = model(tmp_path, made, with_model_check_point=False, **{name: SEEN[name]})
    one.prepare_model()
    one.fit()
    old, new = usual.network.torch_module.state_dict(), one.network.torch_module.state_dict()
    assert (
        old.keys() != new.keys()
        or any(old[key].shape != new[key].shape or not np.array_equal(old[key], new[key]) for key in old)
        or usual.network.plan != one.network.plan
    )


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"max_width": 15}, NotSupportedError, "square"),
        ({"using_splitted_tiff_cinac_movie": True}, NotSupportedError, "splitted"),
        ({"use_bin_at_al_version": False}, NotSupportedError, "bin"),
        ({"using_multi_class": 2}, ParameterError, "using_multi_class"),
        ({"overlap_value": 1.0}, ParameterError, "overlap_value"),
        ({"optimizer_choice": "Adagrad"}, ParameterError, "optimizer"),
        ({"main_ratio_balance": (1, 1, 1)}, ParameterError, "main_ratio_balance"),
        ({"patches_per_epoch": 0}, ParameterError, "patches_per_epoch"),
        ({"cell_type_classifier_mode": True, "per_frame_head": True}, ParameterError, "per_frame_head"),
        ({"early_stopping": True}, TypeError, "early_stopping"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, values, error, named):
    with pytest.raises(error, match=named):
        model(tmp_path, **values)


def test_results_path_is_required():
    with pytest.raises(TypeError, match="results_path"):
        CinacModel(n_epochs=3)


def test_the_documented_defaults_make_the_published_network():
    params = TrainingParams(results_path="somewhere")
    plan = params.spec.plan()
    assert plan.macs_per_frame > 4e7 and plan.mask_mode == "corrected" and plan.buffer == 1
    assert (params.batch_size, params.overlap_value, params.split_values) == (8, 0.9, (0.8, 0.2, 0.0))


def test_order_of_calls_and_shapes(made, tmp_path):
    with pytest.raises(ParameterError, match="nothing to train on"):
        model(tmp_path).prepare_model()
    with pytest.raises(ParameterError, match="prepare_model"):
        model(tmp_path, made).fit()
    with pytest.raises(ArrayShapeError, match="raster"):
        model(tmp_path).add_recording(made.recording("one"), made.raster[:, :-1])


def test_windows_know_what_they_show(made, tmp_path):
    one = model(tmp_path, made)
    one.prepare_model()
    for window in one.training[:50]:
        truth = made.raster[window.cell, window.index_movie : window.index_movie + 20]
        np.testing.assert_array_equal(window.ground_truth, truth)
        assert (events_of(window).category < 2) == truth.any()


def test_no_windows_are_named(made, tmp_path):
    silent = model(tmp_path, main_ratio_balance=(1.0, 0.0, 0.0))
    silent.add_recording(made.recording("silent"), np.zeros_like(made.raster))
    with pytest.raises(ParameterError, match="no windows for training"):
        silent.prepare_model()
