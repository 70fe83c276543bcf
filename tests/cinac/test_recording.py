"""Recordings: what must be set before what, traces, and cells that were removed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cinac import CinacDataMovie, CinacRecording
from gpucalcium.cinac.recording import get_new_cell_indices_if_cells_removed
from gpucalcium.cinac.traces import mean_traces, smoothed, z_scored
from gpucalcium.errors import ArrayShapeError, ArrayTypeError, ParameterError
from gpucalcium.movies import open_movie

CONTOURS = [[[2, 6, 6, 2], [3, 3, 8, 8]], [[12], [4]], [[8, 11, 11], [8, 8, 11]]]


def noisy(shape=(41, 13, 17), dtype="float32"):
    return np.random.default_rng(0).normal(1000, 40, shape).astype(dtype)


def recording(movie=None, contours=CONTOURS):
    made = CinacRecording("one")
    made.set_movie(CinacDataMovie(noisy() if movie is None else movie))
    made.set_rois_2d_array(contours, from_matlab=False)
    return made


def test_the_movie_comes_first():
    made = CinacRecording("one")
    for ask in (made.get_n_frames, lambda: made.set_rois_2d_array(CONTOURS, False), lambda: made.movie):
        with pytest.raises(ParameterError, match="'one' has no movie: call set_movie"):
            ask()
    with pytest.raises(ArrayTypeError, match="CinacDataMovie"):
        made.set_movie(noisy())
    made.set_movie(CinacDataMovie(noisy()))
    for ask in (made.get_n_cells, lambda: made.get_raw_traces(True), lambda: made.cells):
        with pytest.raises(ParameterError, match="'one' has no cells"):
            ask()
    made.set_rois_2d_array(CONTOURS, False)
    assert (made.get_n_frames(), made.get_n_cells(), made.cell_type) == (41, 3, None)
    assert "3 cells" in repr(made)


def test_another_movie_drops_the_cells():
    made = recording()
    made.set_movie(CinacDataMovie(noisy((5, 8, 8))))
    with pytest.raises(ParameterError, match="no cells"):
        made.get_n_cells()


def test_cells_outside_are_named():
    with pytest.raises(
        ParameterError, match=r"cell 1 lies outside .*columns 3 to 3, rows 13 to 13 of 17 columns"
    ):
        recording(contours=[[[1], [1]], [[3], [13]]])
    with pytest.raises(ParameterError, match="given no cells"):
        recording(contours=[])
    assert recording(contours=[[[-3, 1, 1], [2, 2, 5]]]).get_n_cells() == 1  # partly inside


def test_every_setter_sets():
    made = recording()
    made.set_rois_using_pixel_mask([[(1, 2), (3, 4)]])
    assert made.get_n_cells() == 1
    A = np.zeros((13 * 17, 2))
    A[[14, 15, 27, 28], 0] = A[[100, 101], 1] = 1
    made.set_rois_from_footprints(A)
    assert made.get_n_cells() == 2


def test_source_profile_frames():
    made = recording()
    assert_array_equal(
        made.get_source_profile_frames([3, 5], (2, 6, 1, 4)),
        made.movie.get_frames_section([3, 5], 2, 6, 1, 4),
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "float32", "float64"])
def test_raw_traces_are_means_over_pixels(wing, dtype):
    movie = noisy(dtype=dtype)
    made = recording(wing.put(movie))
    traces = made.get_raw_traces(normalized=False)
    y = movie.astype("f8")
    triangle = np.triu(np.ones((4, 4), bool))
    expected = [y[:, 3:9, 2:7].mean((1, 2)), y[:, 4, 12], y[:, 8:12, 8:12][:, triangle].mean(1)]
    assert_allclose(traces, expected, rtol=1e-12)
    traces[:] = 0  # a copy
    assert_allclose(made.get_raw_traces(normalized=True), z_by_numpy(expected), atol=1e-9)


def z_by_numpy(traces):
    traces = np.asarray(traces)
    return (traces - traces.mean(-1, keepdims=True)) / traces.std(-1, keepdims=True)


def test_pixels_that_are_nan_are_left_out(wing):
    movie = noisy()
    movie[7:9, 3:5] = movie[20] = np.nan
    made = recording(wing.put(movie))
    raw = made.get_raw_traces(normalized=False)
    box = movie[:, 3:9, 2:7].reshape(41, -1).astype("f8")
    there = np.arange(41) != 20
    assert_allclose(raw[0, there], np.nanmean(box[there], 1))
    assert np.isnan(raw[:, 20]).all()
    normal = made.get_raw_traces(normalized=True)
    assert_array_equal(normal[:, 20], 0)
    assert_allclose(normal[0, there], z_by_numpy(raw[0, there]))
    assert np.isfinite(made.get_smooth_traces(normalized=True)).all()


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_change_no_trace(wing, chunk):
    movie = noisy()
    movie[11, 4] = np.nan
    pixels = [np.array([60, 61, 80]), np.array([], np.int64), np.arange(200)]
    with backend.use("cpu"):
        whole = mean_traces(open_movie(movie), pixels)
    with backend.limit(chunk_frames=chunk):
        assert_array_equal(mean_traces(open_movie(wing.put(movie)), pixels), whole)
    assert np.isnan(whole[1]).all()


def test_smooth_traces():
    made = recording()
    raw = made.get_raw_traces(normalized=False)
    weights = np.hamming(7) / np.hamming(7).sum()
    ends = np.concatenate([raw[:, 3:0:-1], raw, raw[:, -2:-5:-1]], 1)
    expected = np.stack([np.convolve(row, weights, "valid") for row in ends])
    assert_allclose(made.get_smooth_traces(normalized=False), expected, rtol=1e-12)
    assert_allclose(made.get_smooth_traces(normalized=True), z_by_numpy(expected) - 2, atol=1e-9)


def test_the_smooth_trace_of_one_cell():
    made = recording()
    for cell in range(3):
        assert_array_equal(made.smooth_trace(cell), made.get_smooth_traces(normalized=True)[cell])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_short_traces_are_smoothed(n):
    trace = np.arange(n, dtype=float)
    assert smoothed(trace).shape == (n,)
    assert_allclose(smoothed(np.full((2, n), 3.0)), 3)
    assert smoothed(trace).min() >= 0
    assert smoothed(trace).max() <= n - 1


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, -3.7])
def test_constant_traces_are_not_nan(value):
    made = recording(np.full((9, 13, 17), value))
    assert_array_equal(made.get_raw_traces(normalized=True), np.zeros((3, 9)))
    assert_array_equal(made.get_smooth_traces(normalized=True), np.full((3, 9), -2.0))


def test_z_scores_of_what_is_missing():
    assert_array_equal(z_scored(np.full((2, 4), np.nan)), 0)
    assert_allclose(z_scored(np.array([1.0, np.nan, 3])), [-1, 0, 1])


# ---------------------------------------------------------------------------- cells that were removed


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_removed_cells(kind):
    new, original = get_new_cell_indices_if_cells_removed(kind([0, 1, 3]), kind([0, -1, 1, 2]))
    assert_array_equal(new, [0, 2])
    assert_array_equal(original, [0, 3])


def test_without_mapping_there_are_two_copies():
    given = np.array([4, 2])
    new, original = get_new_cell_indices_if_cells_removed(given, None)
    new[0] = 9
    assert_array_equal(original, [4, 2])
    assert_array_equal(given, [4, 2])


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.data())
def test_what_is_left_is_where_the_mapping_says(kept, data):
    mapping = np.where(kept, np.cumsum(kept) - 1, -1)
    cells = data.draw(st.lists(st.integers(0, len(kept) - 1), max_size=25))
    new, original = get_new_cell_indices_if_cells_removed(cells, mapping)
    assert [(int(a), int(b)) for a, b in zip(new, original, strict=True)] == [
        (sum(kept[:cell]), cell) for cell in cells if kept[cell]
    ]


@pytest.mark.parametrize(
    ("cells", "mapping", "error", "text"),
    [
        ([0, 4], [0, 1, 2, 3], ParameterError, "cell 4: removed_cells_mapping is of 4 cells"),
        ([-1], [0, 1], ParameterError, "cell -1"),
        ([0.5], [0, 1], ParameterError, "whole numbers"),
        ([[0]], [0, 1], ArrayShapeError, "vector"),
        ([0], 3, ArrayShapeError, "removed_cells_mapping has shape"),
    ],
)
def test_impossible_indices(cells, mapping, error, text):
    with pytest.raises(error, match=text):
        get_new_cell_indices_if_cells_removed(cells, mapping)
