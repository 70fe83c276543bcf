"""Activity and types predicted in one pass, against one call of the network per cell and window."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

torch = pytest.importorskip("torch")
pytest.importorskip("shapely")

from gpucalcium import backend  # noqa: E402
from gpucalcium.cinac import engine, sizes  # noqa: E402
from gpucalcium.cinac.prediction import (  # noqa: E402
    predict_activity,
    predict_cell_type_from_model,
    predict_cell_types,
    predict_transient_from_model,
)
from gpucalcium.cinac.windows import most_active, window_starts  # noqa: E402
from gpucalcium.errors import (  # noqa: E402
    ArrayShapeError,
    MemoryBudgetError,
    MovieShapeError,
    ParameterError,
)
from tests.cinac.models import Brightest, Halved, WholeOnly  # noqa: E402
from tests.cinac.scenes import MIRRORS, predicted_by_loop, recording, windows_of  # noqa: E402

ROUNDING = {"rtol": 0, "atol": 1e-6}  # float32 results of sums in another order


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Threads of PyTorch that wait for each other cost more here than they bring."""
    monkeypatch.setenv("GPUCALCIUM_THREADS", "1")


def counted_frames(n_frames, dims=(30, 26)):
    """A movie whose pixels say which frame it is."""
    return np.broadcast_to(np.arange(n_frames, dtype=np.float32)[:, None, None], (n_frames, *dims)).copy()


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("n_frames", [10, 11, 37, 64])
def test_a_model_that_says_the_frame_gives_the_frame(wing, overlap, n_frames):
    rec = recording(movie=counted_frames(n_frames), normalized=True)
    found = predict_activity(rec, [3, 0], Brightest(), overlap=overlap)
    assert found.dtype == np.float32
    assert_array_equal(found[..., 0], np.tile(np.arange(n_frames), (2, 1)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mask_mode", ["legacy", "corrected"])
def test_equals_one_call_per_cell_and_window(wing, tied, mask_mode):
    rec, model = recording(), Halved(tied=tied)
    model.mask_mode = mask_mode
    found = predict_activity(rec, range(5), model, overlap=0.5)
    assert_allclose(found, predicted_by_loop(rec, range(5), model, 0.5), **ROUNDING)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("overlap", [0, 0.4])
def test_any_overlap_and_number_of_classes(overlap, classes):
    """No overlap with a length that does not divide the movie among them."""
    rec, model = recording(n_frames=43), Halved(n_classes=classes)
    found = predict_activity(rec, [1, 4], model, overlap=overlap)
    assert found.shape == (2, 43, classes)
    assert_allclose(found, predicted_by_loop(rec, [1, 4], model, overlap), **ROUNDING)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 60), st.floats(0, 0.99), st.integers(1, 13), st.booleans())
@pytest.mark.filterwarnings("ignore:recording")
def test_any_length_in_any_chunks(n_frames, overlap, chunk, tied):
    rec, model = recording(n_frames=n_frames), Halved(tied=tied)
    with backend.limit(chunk_frames=chunk):
        found = predict_activity(rec, [0, 2], model, overlap=overlap)
    assert_allclose(found, predicted_by_loop(rec, [0, 2], model, overlap), **ROUNDING)


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_batches_change_nothing(monkeypatch, batch):
    rec, model = recording(), Halved()
    whole = predict_activity(rec, range(5), model)
    for table in (sizes.ENCODE_BATCH, sizes.DECODE_BATCH):
        monkeypatch.setitem(table, "cpu", batch)
    assert_allclose(predict_activity(rec, range(5), model), whole, rtol=0, atol=1e-7)
    assert max(model.batches) >= min(batch, 20)


def test_whole_windows_and_halves_agree(wing):
    rec, model = recording(), Halved()
    assert_allclose(
        predict_activity(rec, [0, 1, 2], WholeOnly(model)),
        predict_activity(rec, [0, 1, 2], model),
        **ROUNDING,
    )


def test_every_cell_and_frame_is_encoded_once():
    """Two views of cells with neighbours (legacy, one encoder), three of others; whatever the overlap."""
    rec, model = recording(n_frames=40), Halved()
    near = [len(rec.cells.neighbours[cell]) > 0 for cell in range(5)]
    assert any(near)
    assert not all(near)
    predict_activity(rec, range(5), model, overlap=0.8)
    assert model.encoded == 40 * sum(2 if x else 3 for x in near) + 1  # and one blank, for its size


def test_mirrored_images_count_as_well():
    rec, model = recording(), Halved()
    found = predict_activity(rec, [0, 3], model, augment=True)
    assert_allclose(found, predicted_by_loop(rec, [0, 3], model, 0.5, mirrors=MIRRORS), **ROUNDING)
    assert (found > predict_activity(rec, [0, 3], model)).any()


@pytest.mark.parametrize("dims", [(6, 26), (26, 6), (8, 5)])
def test_mirrored_images_of_small_frames_stay_in_the_middle(dims):
    """The crop is mirrored, then put in the middle of the square."""
    movie = np.random.default_rng(1).normal(size=(12, *dims))
    rec = recording(movie=movie, dims=dims, n_cells=1, normalized=True)
    mirrored = recording(movie=movie[:, :, ::-1], dims=dims, n_cells=1, normalized=True)
    mirrored.set_rois_2d_array([[dims[1] - 1 - rec.cells.contours[0][0], rec.cells.contours[0][1]]], False)
    x, model = np.zeros((1, 9, 9)), Halved(n_inputs=1)
    x[0, (9 - dims[0]) // 2 if dims[0] < 9 else 0, (9 - dims[1]) // 2 if dims[1] < 9 else 0] = 1
    cut = engine.Cutouts(np.zeros((1, 2), np.int32), np.ones((1, 1, 9, 9), bool))
    run = engine.Pass(rec.movie, 12, model, cut, "h", sizes.Sizes(1, 1, 9, 9, 1, 9))
    left = (9 - dims[1]) // 2 if dims[1] < 9 else 0
    (_, _, column) = np.argwhere(run._mirrored(torch.from_numpy(x)).numpy())[0]
    assert column == (left + dims[1] - 1 if dims[1] < 9 else 8)


@pytest.mark.parametrize("n_frames", [1, 9])
def test_short_movies_do_not_wrap(wing, n_frames):
    """The missing frames are zeros: a bright last frame says nothing of the first."""
    movie = np.zeros((n_frames, 30, 26), np.float32)
    movie[-1] = 5
    rec = recording(movie=movie, normalized=True)
    with pytest.warns(UserWarning, match="zeros, the mean"):
        found = predict_activity(rec, [0], Brightest())
    assert_array_equal(found[0, :, 0], movie[:, 0, 0])


def test_missing_frames_and_constant_movies(wing):
    movie = np.random.default_rng(0).normal(size=(20, 30, 26)).astype(np.float32)
    movie[:, :3], movie[7] = np.nan, np.nan
    rec, model = recording(movie=movie), Halved()
    assert_allclose(
        predict_activity(rec, range(5), model), predicted_by_loop(rec, range(5), model, 0.5), **ROUNDING
    )
    same = recording(movie=np.full((20, 30, 26), 7, np.uint16))
    assert not predict_activity(same, [0, 1], Brightest()).any()


def test_fewer_frames_than_the_movie_has():
    rec, model = recording(), Halved()
    found = predict_activity(rec, [0], model, n_frames=23)
    assert_allclose(found, predicted_by_loop(rec, [0], model, 0.5, n_frames=23), **ROUNDING)


def test_buffer_is_the_model_s_unless_another_is_asked_for():
    rec, model = recording(), Halved()
    plain = predict_activity(rec, [0], model)
    grown = predict_activity(rec, [0], model, buffer=2)
    assert_allclose(grown, predicted_by_loop(rec, [0], model, 0.5, buffer=2), **ROUNDING)
    model.buffer = 2
    assert_array_equal(predict_activity(rec, [0], model), grown)
    assert (plain != grown).any()


# ---------------------------------------------------------------------------- memory


def test_little_memory_means_fewer_cells_at_a_time(monkeypatch):
    rec, model, passes = recording(n_cells=24), Halved(), []
    expected = predict_activity(rec, range(24), model)
    run = engine.Pass.run
    monkeypatch.setattr(
        engine.Pass, "run", lambda self, *args: (passes.append(self._views.n_cells), run(self, *args))
    )
    with backend.limit(memory="20KiB"):
        assert_allclose(predict_activity(rec, range(24), model), expected, rtol=0, atol=1e-7)
    assert sum(passes) == 24
    assert len(passes) > 1
    with backend.limit(memory="10KiB"), pytest.raises(MemoryBudgetError, match="a window of 10 frames"):
        predict_activity(rec, [0], model)


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_running_out_of_memory_halves_batches(monkeypatch, half):
    rec, model = recording(), Halved()
    expected = predict_activity(rec, range(5), model)
    step, sizes_seen = getattr(model, half), []

    def greedy(given, *args, **kwargs):
        n = len(given) if half == "encode" else len(given[0])
        if n > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        sizes_seen.append(n)
        return step(given, *args, **kwargs)

    monkeypatch.setattr(model, half, greedy)
    assert_allclose(predict_activity(rec, range(5), model), expected, rtol=0, atol=1e-7)
    assert 0 < max(sizes_seen) <= 3

    def never(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    if half == "decode":
        monkeypatch.setattr(model, half, never)
        with pytest.raises(MemoryBudgetError, match="can't allocate"):
            predict_activity(rec, [0], model)


def test_other_errors_pass_through(monkeypatch):
    model = Halved()
    monkeypatch.setattr(model, "decode", lambda features: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_activity(recording(), [0], model)


# ---------------------------------------------------------------------------- the documented functions


def test_one_cell_by_the_documented_function(caplog):
    rec, model = recording(), Halved(n_classes=3)
    with caplog.at_level(logging.INFO, "gpucalcium"):
        found = predict_transient_from_model(rec, 2, model, 37)
    assert found.shape == (37, 3)
    assert_array_equal(found, predict_activity(rec, [2], model, overlap=0.8)[0])
    assert "cell 2: activity predicted in" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "gpucalcium"):
        again = predict_transient_from_model(rec, 2, model, 37, pixels_around=3, time_verbose=False)
    assert_array_equal(again, found)
    assert caplog.messages == ["pixels_around=3 has no effect: `buffer` is what cells are grown by"]
    four = predict_transient_from_model(rec, 2, model, 37, 0.5, use_data_augmentation=True, buffer=1)
    assert_array_equal(four, predict_activity(rec, [2], model, augment=True, buffer=1)[0])


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("segments", [1, 2, 9])
def test_cell_types_of_the_most_active_windows(wing, segments, classes):
    rec = recording(n_frames=37)
    model = Halved(n_classes=classes, n_inputs=2, kind="cell_type")
    found = predict_cell_types(rec, [4, 1], model, n_segments=segments)
    candidates = window_starts(37, 10, 0)
    traces = rec.get_smooth_traces(normalized=True)
    for cell, values in zip([4, 1], found, strict=True):
        starts = most_active(traces[cell], candidates, 10, segments)
        assert values.shape == (min(segments, 4), classes)
        expected = [model.predict(windows_of(rec, cell, model, s, kind="cell_type"))[0] for s in starts]
        assert_allclose(values, np.reshape(expected, (-1, classes)), **ROUNDING)


def test_mirrored_images_follow_their_window():
    rec, model = recording(), Halved(n_classes=3, n_inputs=2, kind="cell_type")
    plain = predict_cell_type_from_model(rec, 0, model, 37, all_pixels=True)
    four = predict_cell_type_from_model(rec, 0, model, 37, all_pixels=True, use_data_augmentation=True)
    assert four.shape == (8, 3)
    assert_allclose(four[::4], plain, **ROUNDING)
    start = most_active(rec.get_smooth_traces(normalized=True)[0], window_starts(37, 10, 0), 10, 1)[0]
    for row, mirror in zip(four[:4], MIRRORS, strict=True):
        windows = windows_of(rec, 0, model, start, kind="cell_type", mirror=mirror)
        assert_allclose(row, model.predict(windows)[0], **ROUNDING)


def test_cell_type_without_peaks_and_of_short_movies(caplog):
    model = Halved(n_classes=3, n_inputs=1, kind="cell_type")
    flat = recording(movie=np.ones((37, 30, 26)), n_cells=2)
    with caplog.at_level(logging.INFO, "gpucalcium"):
        found = predict_cell_type_from_model(flat, 0, model, 37, verbose=1)
    assert found.shape == (2, 3)
    assert "cell 0: [[0." in caplog.text
    with pytest.warns(UserWarning, match="zeros"):
        (short,) = predict_cell_types(recording(n_frames=4), [0], model)
    assert short.shape == (1, 3)
    assert predict_cell_types(flat, [], model) == []


# ---------------------------------------------------------------------------- errors, and what must not change


def test_what_cannot_be_predicted_is_named():
    rec, model = recording(), Halved()
    with pytest.raises(ParameterError, match="cell 5: 'one' has 5 cells"):
        predict_activity(rec, [0, 5], model)
    with pytest.raises(ParameterError, match="whole numbers"):
        predict_activity(rec, [0.5], model)
    with pytest.raises(MovieShapeError, match="n_frames=38: the movie of 'one' has 37"):
        predict_activity(rec, [0], model, n_frames=38)
    with pytest.raises(ParameterError, match="of kind 'cell_type'; here 'activity'"):
        predict_activity(rec, [0], Halved(kind="cell_type"))
    with pytest.raises(ParameterError, match="kind 'activity'; here 'cell_type'"):
        predict_cell_types(rec, [0], model)
    with pytest.raises(ParameterError, match="overlap=1"):
        predict_activity(rec, [0], model, overlap=1)
    wrong = Halved()
    wrong.n_classes = 2
    with pytest.raises(ArrayShapeError, match="another kind"):
        predict_activity(rec, [0], wrong)
    wrong = Brightest()
    wrong.inputs = ("input_0", "input_9")
    with pytest.raises(ParameterError, match="wants the inputs input_0, input_9"):
        predict_activity(rec, [0], wrong)


def test_no_cells_are_an_empty_array():
    assert predict_activity(recording(), [], Halved(n_classes=3)).shape == (0, 37, 3)


def test_the_global_random_state_is_left_alone():
    rec = recording()
    before, torch_before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    predict_activity(rec, [0], Halved(), augment=True)
    predict_cell_types(rec, [0], Halved(kind="cell_type", n_inputs=1))
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert_array_equal(torch.random.get_rng_state(), torch_before)
