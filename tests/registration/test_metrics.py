"""Measures of registration against formulas and stored results; what is written; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, OutputError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration.high_pass import high_pass_filter_space
from gpucalcium.registration.metrics import (
    compute_metrics_motion_correction,
    crispness,
    frame_correlations,
    mean_image,
)
from tests.registration.scenes import moving_cells

MOVIE = moving_cells(T=24, shape=(40, 37), largest=2.0).movie
FAST = {"winsize": 15, "iterations": 2}


def test_stored_results_are_met(reference):
    """Given the stored run's template, whose bins took frames from all over the movie; ours come in a row."""
    movie, stored = reference.inputs("motion")[0]["Y"], reference.load("motion")
    part = movie[:, 7:57, 6:54]
    template = np.median(part.reshape(10, 10, 50, 48).mean(axis=0), axis=0)
    found = compute_metrics_motion_correction(movie, 50, 48, winsize=30, template=template)
    assert_allclose(found.correlations, stored["compute_metrics_correlations"], atol=1e-6)
    assert_allclose(found.smoothness, stored["compute_metrics_crispness"], rtol=1e-6)
    norms = stored["compute_metrics_norms"]  # another treatment of the border: it makes them a tenth smaller
    assert np.corrcoef(found.norms, norms)[0, 1] > 0.99
    assert_allclose(found.norms / norms, 1.08, atol=0.16)


def test_flow_is_the_motion(reference):
    made = reference.inputs("motion")[0]
    found = compute_metrics_motion_correction(made["Y"], 50, 48, winsize=30)
    true = made["shifts"].reshape(20, 5, 2).mean(axis=1)
    ours = found.flows.mean(axis=(1, 2))[:, ::-1]
    assert_allclose(ours - ours.mean(0), true - true.mean(0), atol=0.5)
    assert_allclose(found.norms, np.sqrt((found.flows.astype(float) ** 2).sum(axis=(1, 2, 3))))


def test_file_holds_what_is_returned(tmp_path):
    path = tmp_path / "movie.npy"
    np.save(path, MOVIE)
    found = compute_metrics_motion_correction(str(path), 30, 31, **FAST)
    assert isinstance(found.flows, np.memmap)
    with np.load(tmp_path / "movie_metrics.npz", allow_pickle=False) as file:
        for name, value in found._asdict().items():
            assert_array_equal(file[name], value)
        assert file["smoothness_corr"] == crispness(file["img_corr"])
    in_memory = compute_metrics_motion_correction(MOVIE, 30, 31, **FAST)
    assert_array_equal(in_memory.flows, found.flows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["movie.npy", "movie_metrics.npz"]


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    def fails(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpucalcium.registration.metrics.optical_flow", fails)
    with pytest.raises(KeyboardInterrupt):
        compute_metrics_motion_correction(MOVIE, 30, 31, output=tmp_path / "x.npz", **FAST)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(OutputError, match="no folder"):
        compute_metrics_motion_correction(MOVIE, 30, 31, output=tmp_path / "no" / "x.npz", **FAST)


@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_change_nothing(chunk):
    whole = compute_metrics_motion_correction(MOVIE, 30, 31, resize_fact_flow=0.17, **FAST)
    with backend.limit(chunk_frames=chunk):
        parts = compute_metrics_motion_correction(MOVIE, 30, 31, resize_fact_flow=0.17, **FAST)
    for one, other in zip(parts, whole, strict=True):
        assert_array_equal(one, other)


def test_twins_agree(wing):
    found = compute_metrics_motion_correction(wing.put(MOVIE), 30, 31, **FAST)
    with backend.use("cpu"):
        expected = compute_metrics_motion_correction(MOVIE, 30, 31, **FAST)
    assert_allclose(found.correlations, expected.correlations, atol=1e-9)
    assert_allclose(found.flows, expected.flows, atol=1e-3)


def test_options():
    plain = compute_metrics_motion_correction(MOVIE, 30, 31, **FAST)
    last = compute_metrics_motion_correction(np.moveaxis(MOVIE, 0, -1), 30, 31, swap_dim=True, **FAST)
    assert_array_equal(last.correlations, plain.correlations)
    filtered = compute_metrics_motion_correction(MOVIE, 30, 31, gSig_filt=2, **FAST)
    central = high_pass_filter_space(MOVIE, 2)[:, 5:35, 3:34]
    assert_allclose(
        filtered.correlations, frame_correlations(open_movie(central), filtered.template), atol=1e-6
    )
    for change in ({"flags": 256}, {"winsize": 9}, {"resize_fact_flow": 0.5}, {"template": MOVIE[0]}):
        changed = compute_metrics_motion_correction(MOVIE, 30, 31, **FAST | change)
        assert changed.norms.shape != plain.norms.shape or (changed.norms != plain.norms).any()
    assert changed.correlations[0] == pytest.approx(1)  # with itself


# ---------------------------------------------------------------------------- the single measures


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
def test_correlation_is_pearsons(wing, dtype, offset):
    movie = (MOVIE + (offset if dtype[0] == "f" else 0)).astype(dtype)
    template = movie[:5].mean(axis=0)
    found = frame_correlations(open_movie(wing.put(movie)), template)
    expected = [np.corrcoef(f.astype(float).ravel(), template.astype(float).ravel())[0, 1] for f in movie]
    assert_allclose(found, expected, atol=1e-9)


def test_correlation_leaves_holes_out():
    movie, template = MOVIE.copy(), MOVIE.mean(axis=0)
    movie[0, :4] = np.nan
    movie[1] = np.inf
    movie[2] = 3.3
    template[:, -3:] = np.nan
    found = frame_correlations(open_movie(movie), template)
    assert_allclose(found[0], np.corrcoef(movie[0, 4:, :-3].ravel(), template[4:, :-3].ravel())[0, 1])
    assert_array_equal(found[1:3], 0)
    assert_array_equal(frame_correlations(open_movie(movie), template * np.nan), np.zeros(len(movie)))
    with pytest.raises(ArrayShapeError, match="they must agree"):
        frame_correlations(open_movie(movie), template[1:])


def test_crispness():
    ramp = np.outer(np.arange(5.0), np.ones(4))
    assert crispness(ramp) == pytest.approx(np.sqrt(20))
    assert crispness(np.ones((3, 4))) == 0
    assert crispness(np.ones((1, 1))) == 0
    assert crispness(ramp[:, :1]) == pytest.approx(np.sqrt(5))
    holed = ramp.copy()
    holed[0, 0] = np.nan
    assert crispness(holed) == pytest.approx(np.sqrt(18))  # without itself and the pixel below


def test_mean_image_is_nan_where_a_frame_is(wing):
    movie = MOVIE.copy()
    movie[3, 4, 5] = np.nan
    image = mean_image(open_movie(wing.put(movie)))
    assert_array_equal(np.argwhere(np.isnan(image)), [[4, 5]])
    assert_allclose(
        np.delete(image.ravel(), 4 * 37 + 5), np.delete(MOVIE.mean(0).ravel(), 4 * 37 + 5), rtol=1e-6
    )


def test_errors():
    holes = MOVIE.copy()
    holes[3, 0, 0] = holes[4, 20, 20] = np.nan
    with pytest.raises(MovieValueError, match="Movie contains NaN"):
        compute_metrics_motion_correction(holes, 30, 31)
    with pytest.raises(MovieValueError, match="template holds NaN"):
        compute_metrics_motion_correction(MOVIE, 30, 31, template=holes[4])
    with pytest.raises(ParameterError, match="final_size_y=38"):
        compute_metrics_motion_correction(MOVIE, 30, 38)
    with pytest.raises(ParameterError, match="flags=4"):
        compute_metrics_motion_correction(MOVIE, 30, 31, flags=4)
    with pytest.raises(ParameterError, match="resize_fact_flow=0"):
        compute_metrics_motion_correction(MOVIE, 30, 31, resize_fact_flow=0)
    with pytest.raises(ArrayShapeError, match="template has shape"):
        compute_metrics_motion_correction(MOVIE, 30, 31, template=MOVIE[0, :-1])
    with pytest.raises(NotSupportedError, match="movies of images"):
        compute_metrics_motion_correction(MOVIE[..., None], 30, 31)
