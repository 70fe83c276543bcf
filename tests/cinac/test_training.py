"""The training loop: networks learn what they are shown, and the same seeds learn the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gpucalcium import nets
from gpucalcium.cinac.augment import ANGLES, draw_affines, transformed
from gpucalcium.cinac.cutouts import cutouts
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.per_frame import PerFrameSpec
from gpucalcium.cinac.training import History, Schedule, Trainer
from gpucalcium.cinac.training_data import Annotated, WindowLoader
from gpucalcium.cinac.training_files import load_optimizer, save_optimizer
from gpucalcium.errors import ArrayShapeError, NetworkFileError, ParameterError
from tests.cinac.scenes import circle, recording, windows_of

SIZES = {
    "patch_size": 11,
    "window_len": 16,
    "conv_filters": (4, 4),
    "lstm_sizes": (12,),
    "bin_lstm_size": 12,
    "dropout": 0.0,
    "dropout_rnn": 0.0,
    "attention": False,
}


def network(seed=0, spec=PerFrameSpec, **more):
    return nets.build_network(spec(**{**SIZES, **more}), seed=seed, device="cpu")


@pytest.fixture(scope="module")
def blinking():
    """Twenty windows of a cell that brightens now and then, beside one that does so at other times."""
    rng = np.random.default_rng(0)
    movie = rng.normal(100, 4, (320, 20, 20))
    truth = np.zeros((2, 320), np.int8)
    for cell, (x, y) in enumerate([(8, 8), (13, 9)]):
        for start in rng.choice(np.arange(0, 316, 8), 14, replace=False):
            truth[cell, start : start + 4] = 1
        shape = np.hypot(*(np.indices((20, 20)) - np.array([y, x])[:, None, None])) < 3
        movie += 30 * truth[cell][:, None, None] * shape
    rec = recording(movie=movie.astype(np.float32), n_cells=1)
    rec.set_rois_2d_array([circle(8, 8, 3), circle(13, 9, 3)], from_matlab=False)
    return [
        MoviePatchData(rec, 0, start, 16, ground_truth=truth[0, start : start + 16])
        for start in range(0, 320, 16)
    ]


def trained(windows, epochs, seed=0, net=None, **more):
    net = network(seed) if net is None else net
    options = {"optimizer": "Adam", "learning_rate": 0.02, "batch_size": 10, **more}
    trainer = Trainer(net, Schedule(n_epochs=epochs, **options), seed)
    trainer.fit(windows, windows)
    return net, trainer


def test_twenty_windows_are_learnt_by_heart(blinking):
    assert len(blinking) == 20
    _, trainer = trained(blinking, 30)
    assert max(trainer.history.accuracies) > 0.95
    assert trainer.evaluate(blinking)["accuracy"] == max(
        trainer.history.accuracies
    )  # the best weights are back


def test_three_classes_are_learnt(blinking):
    windows = [window.copy() for window in blinking]
    for window in windows:
        window.ground_truth = np.where(window.ground_truth == 1, 0, 2)
    _, trainer = trained(windows, 30, net=network(n_classes=3))
    assert max(trainer.history.accuracies) > 0.95


def test_types_are_learnt(blinking):
    windows = [window.copy() for window in blinking]
    for window in windows:
        window.ground_truth = int(window.ground_truth.any())
    for classes in (1, 2):
        net = network(spec=nets.NetworkSpec, kind="cell_type", n_classes=classes, n_inputs=2)
        _, trainer = trained(windows, 30, net=net)
        assert max(trainer.history.accuracies) > 0.95


def test_the_whole_window_head_learns_too(blinking):
    _, trainer = trained(blinking, 40, net=network(spec=nets.NetworkSpec))
    assert max(trainer.history.accuracies) > 0.95


def with_copies(windows, n=1):
    out = [window.copy() for window in windows]
    for window in out:
        window.n_augmentations_to_perform = n
    return out


def test_seeds_reproduce(blinking):
    states = []
    for seed in (3, 3, 4):
        net, _ = trained(with_copies(blinking), 2, seed, net=network(0, dropout=0.3, dropout_rnn=0.3))
        states.append(torch.cat([value.flatten() for value in net.torch_module.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_global_random_states_are_not_touched(blinking):
    torch.manual_seed(1)
    before, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trained(with_copies(blinking), 1, net=network(0, dropout=0.3))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpys, np.random.get_state()[1])  # noqa: NPY002


def test_a_saved_network_says_the_same(blinking, tmp_path):
    net, _ = trained(blinking, 3)
    again = nets.load_network(*nets.save_network(net, tmp_path / "net"), device="cpu")
    windows = windows_of(blinking[0].cinac_recording, 0, net, 16)
    np.testing.assert_array_equal(net.predict(windows), again.predict(windows))


@pytest.mark.parametrize("kind", ["activity", "cell_type"])
def test_windows_are_those_of_prediction(blinking, kind):
    spec = PerFrameSpec if kind == "activity" else nets.NetworkSpec
    net = network(
        spec=spec, kind=kind, n_inputs=3 if kind == "activity" else 2, patch_size=25, conv_filters=(2, 2)
    )
    rec = blinking[0].cinac_recording
    loaded = WindowLoader(net.plan).load([MoviePatchData(rec, cell, 310, 16) for cell in (0, 1)])
    for cell in (0, 1):
        wanted = windows_of(rec, cell, net, 310, kind=kind, buffer=1.0)
        for values, name in zip(loaded[cell], net.inputs, strict=True):
            np.testing.assert_array_equal(values, wanted[name][0, ..., 0])


def test_corrected_masks_are_used(blinking):
    rec, net = blinking[0].cinac_recording, network()
    masks = cutouts(
        rec.cells, np.array([0]), (20, 20), 11, net.inputs, mask_mode="corrected", buffer=1.0
    ).masks[0]
    loaded = WindowLoader(net.plan).load(blinking[:1])[0]
    assert not loaded[:, 0][~masks].any()
    assert (loaded[:, 0][masks] != 0).mean() > 0.9


def test_weights_count(blinking):
    light, heavy = [w.copy() for w in blinking], [w.copy() for w in blinking]
    for window in heavy[:5]:
        window.weight = 20.0
    states = [trained(w, 1)[0].torch_module.state_dict()["trunk.head.weight"] for w in (light, heavy)]
    assert not torch.equal(*states)


def test_an_epoch_is_cut_short(blinking):
    seen = []
    trainer = Trainer(network(), Schedule(n_epochs=1, patches_per_epoch=7, batch_size=3), 0)
    loss = trainer._losses
    trainer._losses = lambda logits, truth: seen.append(len(truth)) or loss(logits, truth)
    trainer._epoch(with_copies(blinking, 4))
    assert sum(seen) == 7 and max(seen) == 3


@pytest.mark.parametrize("optimizer", ["RMSprop", "Adam", "SGD"])
def test_training_goes_on_from_the_state_of_the_optimiser(blinking, tmp_path, optimizer):
    net, trainer = trained(blinking, 2, optimizer=optimizer)
    trainer.optimizer.param_groups[0]["lr"] = 0.007
    path, _ = nets.save_network(net, tmp_path / "net")
    save_optimizer(trainer.optimizer, path)
    other = Trainer(network(), Schedule(optimizer=optimizer), 0)
    assert load_optimizer(other.optimizer, path)
    assert other.optimizer.param_groups[0]["lr"] == 0.007
    one, two = trainer.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert one.keys() == two.keys()
    for key in one:
        assert all(
            torch.equal(torch.as_tensor(one[key][name]), torch.as_tensor(two[key][name])) for name in two[key]
        )


def test_the_state_of_another_network_is_refused(blinking, tmp_path):
    _, trainer = trained(blinking, 1)
    save_optimizer(trainer.optimizer, tmp_path / "net.json")
    other = Trainer(network(bin_lstm_size=5), Schedule(optimizer="Adam"), 0)
    with pytest.raises(NetworkFileError, match="another network"):
        load_optimizer(other.optimizer, tmp_path / "net.json")
    assert not load_optimizer(other.optimizer, tmp_path / "absent.json")


def scripted(accuracies, **options):
    """A trainer whose epochs do nothing and have these validation accuracies."""
    trainer = Trainer(network(), Schedule(n_epochs=len(accuracies), **options), 0)
    left = iter(accuracies)
    trainer._epoch = lambda _: (0.0, 0.0)
    trainer.evaluate = lambda _: {"accuracy": next(left)}
    return trainer


def test_the_rate_is_halved_and_training_stops():
    accuracies = [0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.9]
    history = scripted(accuracies, reduce_after=2, stop_after=4).fit([], [])
    assert history.values["learning_rate"] == [1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4]
    history = scripted(accuracies, reduce_after=None, stop_after=None).fit([], [])
    assert history.accuracies == accuracies and set(history.values["learning_rate"]) == {1e-3}
    low = scripted([0.5] * 6, reduce_after=1, stop_after=None, learning_rate=1.5e-8)
    assert low.fit([], []).values["learning_rate"][-1] == 1e-8


def test_history_counts_from_the_first_best():
    history = History()
    for accuracy in (0.1, 0.5, 0.5, 0.4):
        history.add(val_accuracy=accuracy)
    assert history.since_best() == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"optimizer": "adam"}, "optimizer"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"stop_after": 0}, "stop_after"),
    ],
)
def test_schedules_that_cannot_work(values, named):
    with pytest.raises(ParameterError, match=named):
        Schedule(**values)


def test_truth_must_fit_the_movie(blinking):
    with pytest.raises(ArrayShapeError, match="320 frames"):
        Annotated(blinking[0].cinac_recording, 0, np.zeros(5, np.int8), "one")


# ---------------------------------------------------------------------------- changed copies


def test_copies_are_all_different():
    image = torch.randn(1, 1, 15, 15, generator=torch.Generator().manual_seed(0))
    affines = draw_affines(24, 15, torch.Generator().manual_seed(0))
    made = transformed(image.expand(24, -1, -1, -1), affines).flatten(1)
    assert len({tuple(row.tolist()) for row in made}) >= 23  # of 1,100 there are, 24 draws may meet


def test_mirrors_and_shifts_are_exact():
    image = torch.randn(60, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    affines = draw_affines(60, 9, torch.Generator().manual_seed(1), turns=False, shifts=False)
    made = transformed(image, affines)
    mirrors = [(), (2,), (1,), (1, 2)]
    found = [
        [k for k, axes in enumerate(mirrors) if torch.allclose(one, source.flip(axes), atol=1e-5)]
        for one, source in zip(made, image, strict=True)
    ]
    assert all(len(which) == 1 for which in found) and {which[0] for which in found} == {0, 1, 2, 3}
    affines = draw_affines(60, 9, torch.Generator().manual_seed(1), turns=False, flips=False)
    made, moves = transformed(image, affines), torch.round(affines[:, :, 2] * 4).int()
    assert moves.abs().max() == 2
    for one, source, (x, y) in zip(made, image, moves.tolist(), strict=True):
        torch.testing.assert_close(
            one[:, 2:7, 2:7], source[:, 2 + y : 7 + y, 2 + x : 7 + x], atol=1e-5, rtol=0
        )


def test_turns_are_those_listed():
    affines = draw_affines(400, 9, torch.Generator().manual_seed(1), flips=False, shifts=False)
    degrees = torch.rad2deg(torch.atan2(affines[:, 1, 0], affines[:, 0, 0])) % 360
    assert set(degrees.round().int().tolist()) == {0, *ANGLES}
    square = torch.randn(1, 1, 9, 9)
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0]]])
    torch.testing.assert_close(transformed(square, quarter), square.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_all_frames_of_a_window_are_changed_alike():
    frame = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    made = transformed(frame.expand(5, 6, -1, -1), draw_affines(5, 9, torch.Generator().manual_seed(2)))
    assert torch.equal(made, made[:, :1].expand_as(made))


def test_batch_normalisation_is_measured_anew(blinking):
    net = network(batch_norm=True, dropout=0.3)
    net.torch_module.encoders[0].norm_0.running_mean.fill_(50.0)
    trainer = Trainer(net, Schedule(norm_batches=2, batch_size=10, shuffle=False), 0)
    trainer._measure_norms(blinking)
    norm = net.torch_module.encoders[0].norm_0
    assert norm.momentum == pytest.approx(0.01) and not net.torch_module.training
    frames = torch.from_numpy(trainer._loader.load(blinking)).movedim(1, 0).flatten(0, 2)
    with torch.no_grad():
        seen = net.torch_module.encoders[0].conv_0(frames[:, None])
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
