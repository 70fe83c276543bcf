"""Simulated movies: what is asked for is there, the truth is that of the movie, seeds tell everything."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.io
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucalcium.cinac.simulated import SimulatedMovieGenerator, SimulationParams, simulate_recording
from gpucalcium.cinac.simulated_cells import KINDS, LEAST_DISTANCE, OTHER, OVERLAPPING, TARGET, random_outline
from gpucalcium.cinac.simulated_traces import ONSET_GAP, draw_raster, draw_trace, raster_of
from gpucalcium.cinac.transients import runs
from gpucalcium.errors import MovieFileError, ParameterError

QUIET = SimulationParams(n_frames=400, neuropil=0, noise_variance=0.01, n_overlap_by_cell_range=(0, 0),
                         non_overlap_by_cell_range=(0, 0), range_n_transient_cells_of_interest=(15, 20))  # fmt: skip
SMALL = SimulationParams(
    n_frames=60, dimensions=(60, 60), n_cells_of_interest=4, range_n_transient_cells_of_interest=(50, 90)
)


def changed(params, **values):
    return dataclasses.replace(params, **values)


@pytest.fixture(scope="module")
def small():
    return simulate_recording(3, SMALL)


def test_traces_are_those_of_rendered_cells():
    made = simulate_recording(0, QUIET)
    rendered = made.recording("quiet").get_raw_traces(normalized=False)
    assert len(rendered) == 16
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(rendered, made.traces, strict=True)]
    assert min(correlations) > 0.9


def test_shapes_and_types(small):
    n = len(small.contours)
    assert small.movie.shape == (60, 60, 60) and small.movie.dtype == np.uint8
    assert small.movie.min() == 0 and small.movie.max() == 255
    assert small.raster.shape == small.traces.shape == (n, 60)
    assert len(small.cell_types) == len(small.roles) == n
    assert not small.shifts.any()


def test_cells_lie_as_they_should(small):
    cells = small.recording("small").cells
    assert (small.roles == TARGET).sum() == 4 and (small.roles[:4] == TARGET).all()
    gaps = np.linalg.norm(cells.centroids[:, None] - cells.centroids[None], axis=2)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() > LEAST_DISTANCE * 0.9  # outlines are cut at the border
    touched = np.unique(np.concatenate([cells.neighbours[k] for k in range(4)]))
    assert set(np.flatnonzero(small.roles == OVERLAPPING)) <= set(touched)
    assert (small.roles == OTHER).any()


def test_the_baseline_of_a_trace_is_the_number_of_pixels():
    made = simulate_recording(1, changed(QUIET, range_n_transient_cells_of_interest=(0, 0)))
    cells = made.recording("silent").cells
    sizes = [len(cells.pixels(k, (120, 120))) for k in range(len(cells))]
    np.testing.assert_allclose(made.traces, np.repeat(np.array(sizes)[:, None], 400, axis=1))
    assert not made.raster.any()


def test_seeds_tell_everything(small):
    again, other = simulate_recording(3, SMALL), simulate_recording(4, SMALL)
    np.testing.assert_array_equal(small.movie, again.movie)
    np.testing.assert_array_equal(small.raster, again.raster)
    assert small.movie.shape != other.movie.shape or (small.movie != other.movie).any()


def test_the_global_random_state_is_not_touched():
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate_recording(0, SMALL)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    "values",
    [
        {"with_mvt": True, "n_frames": 300},
        {"n_vessels": 3},
        {"neuropil": 0.5},
        {"noise_variance": 0.0},
        {"n_overlap_by_cell_range": (6, 6)},
        {"non_overlap_by_cell_range": (0, 0)},
        {"range_n_transient_overlapping_cells": (0, 0)},
        {"range_n_transient_other_cells": (100, 100)},
        {"range_duration_transient": (3, 3)},
        {"decay_factor": 30},
        {"max_decay": 100},
        {"cell_types": {"interneuron": 1.0}},
        {"dimensions": (60, 90)},
        {"n_cells_of_interest": 2},
    ],
)
def test_every_parameter_changes_the_movie(small, values):
    made = simulate_recording(3, changed(SMALL, **values))
    assert made.movie.shape != small.movie.shape or (made.movie != small.movie).any()


def test_motion_moves_some_frames_by_up_to_two_pixels():
    made = simulate_recording(2, changed(SMALL, with_mvt=True, n_frames=2000, noise_variance=0))
    moved = made.shifts.any(axis=1)
    assert np.abs(made.shifts).max() == 2
    assert 0.005 < moved.mean() < 0.04


def test_a_moved_frame_is_the_still_one_displaced():
    params = changed(SMALL, with_mvt=True, n_frames=300, noise_variance=0, neuropil=0)
    made, still = simulate_recording(2, params), simulate_recording(2, changed(params, with_mvt=False))
    for frame in np.flatnonzero(made.shifts.any(axis=1)):
        y, x = made.shifts[frame]
        inner = made.movie[frame, 4 + y : 56 + y, 4 + x : 56 + x].astype(float)
        assert np.corrcoef(inner.ravel(), still.movie[frame, 4:56, 4:56].ravel())[0, 1] > 0.999


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_frames=st.integers(2, 3000),
    rate=st.integers(0, 400),
    top=st.integers(1, 12),
)
def test_transients_are_runs_of_their_own(seed, n_frames, rate, top):
    rng = np.random.default_rng(seed)
    onsets, durations = draw_raster(rng, n_frames, (rate, rate), (1, top))
    assert len(onsets) == min(round(rate * n_frames / 1000), (n_frames - 1) // ONSET_GAP)
    assert (np.diff(onsets) >= ONSET_GAP).all() and (durations >= 1).all() and (durations <= top).all()
    found = runs(raster_of(n_frames, onsets, durations))
    np.testing.assert_array_equal(found, np.stack([onsets, onsets + durations - 1], axis=1))
    assert len(onsets) == 0 or 1 <= onsets[0] <= found[-1, 1] < n_frames


def test_a_transient_peaks_in_its_last_active_frame_and_decays():
    trace = draw_trace(np.random.default_rng(0), 200, np.array([20]), np.array([4]), 10, 12)
    assert trace.argmax() == 23 and not trace[:20].any()
    np.testing.assert_allclose(np.diff(trace[19:24]), trace[23] / 4, rtol=1e-5)
    assert (np.diff(trace[23:100]) < 0).all()
    np.testing.assert_allclose(trace[63] / trace[23], np.exp(-3), rtol=1e-5)


def test_types_differ_in_size_and_activity():
    rng = np.random.default_rng(0)
    areas = {
        name: np.mean([np.ptp(random_outline(rng, kind), axis=1).prod() for _ in range(40)])
        for name, kind in KINDS.items()
    }
    assert areas["interneuron"] > 1.4 * areas["pyramidal"] > 1.4 * areas["noise"]
    made = simulate_recording(0, changed(QUIET, cell_types=dict.fromkeys(KINDS, 1.0), n_frames=1000))
    counts = {name: made.raster[[t == name for t in made.cell_types]].sum(axis=1) for name in KINDS}
    assert not counts["noise"].any()
    assert counts["interneuron"].mean() > 2 * counts["pyramidal"].mean() > 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"n_cells_of_interest": 5}, "n_cells_of_interest"),
        ({"n_frames": 1}, "n_frames"),
        ({"range_duration_transient": (0, 3)}, "range_duration_transient"),
        ({"n_overlap_by_cell_range": (3, 1)}, "n_overlap_by_cell_range"),
        ({"noise_variance": float("nan")}, "noise_variance"),
        ({"max_decay": 0}, "max_decay"),
        ({"cell_types": {"astrocyte": 1.0}}, "cell_types"),
    ],
)
def test_bad_parameters_are_named(values, named):
    with pytest.raises(ParameterError, match=named):
        changed(SMALL, **values)


def generator(folder, **more):
    return SimulatedMovieGenerator(
        40, folder, dimensions=(60, 60), n_cells_of_interest=4, time_str="now", seed=7, **more
    )


def test_the_generator_writes_what_it_made(tmp_path):
    made = generator(tmp_path / "new").generate_movie()
    folder = tmp_path / "new"
    np.testing.assert_array_equal(tifffile.imread(folder / "simulated_movie_now_7.tiff"), made.movie)
    coord = scipy.io.loadmat(folder / "map_coords_now_7.mat")["coord"].ravel()
    np.testing.assert_allclose(coord[0], made.contours[0])
    truth = scipy.io.loadmat(folder / "gui_data_now_7.mat")
    np.testing.assert_array_equal(truth["raster_dur"], made.raster)
    assert truth["onsets"].sum() == truth["peaks"].sum() == sum(len(runs(row)) for row in made.raster)
    np.testing.assert_array_equal(np.load(folder / "traces_now_7.npy"), made.traces)
    assert len((folder / "cells_now_7.txt").read_text().splitlines()) == 4


def test_the_next_movie_has_the_next_seed(tmp_path):
    one = generator(tmp_path)
    first, second = one.generate_movie(), one.generate_movie()
    assert len(list(tmp_path.glob("simulated_movie_*.tiff"))) == 2
    assert first.movie.shape != second.movie.shape or (first.movie != second.movie).any()


def test_outlines_of_a_file_are_used_again_and_again(tmp_path):
    outlines = np.empty(2, object)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    outlines[0] = 5 * np.stack([np.cos(angles), np.sin(angles)]) + 31
    outlines[1] = np.array([[0.0, 8, 0, 8], [0, 8, 8, 0]])  # crosses itself
    scipy.io.savemat(tmp_path / "map.mat", {"coord": outlines})
    one = generator(tmp_path)
    one.load_cell_coords(tmp_path / "map.mat", from_matlab=True)
    made = one.generate_movie()
    assert len(made.contours) > 4
    np.testing.assert_allclose(np.ptp(made.contours[0], axis=1), [10, 10])
    lax = generator(tmp_path, use_only_valid_cells=False)
    lax.load_cell_coords(tmp_path / "map.mat", from_matlab=True)
    assert {points.shape[1] for points in lax.generate_movie().contours} == {4, 12}


def test_bad_files_of_outlines_are_named(tmp_path):
    one = generator(tmp_path)
    scipy.io.savemat(tmp_path / "other.mat", {"something": np.zeros(3)})
    with pytest.raises(MovieFileError, match=r"other\.mat"):
        one.load_cell_coords(tmp_path / "other.mat", from_matlab=False)
    np.savez(tmp_path / "line.npz", coord=np.zeros((1, 2, 2)))
    with pytest.raises(ParameterError, match="no outline"):
        one.load_cell_coords(tmp_path / "line.npz", from_matlab=False)


def test_unknown_parameters_of_the_generator_raise(tmp_path):
    with pytest.raises(TypeError, match="n_cell"):
        SimulatedMovieGenerator(40, tmp_path, n_cell=3)
