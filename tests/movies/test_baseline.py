"""Levels of every pixel over time: percentiles against NumPy, baselines of movies in memory and in files."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    ArrayShapeError,
    ArrayTypeError,
    MemoryBudgetError,
    MovieValueError,
    ParameterError,
)
from gpucalcium.movies import baseline, load, movie


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 1, 1), (31, 5, 7), (12, 3, 4, 5)])
def test_percentile_is_numpys(wing, shape, dtype):
    frames = (np.random.default_rng(0).gamma(2, 30, shape)).astype(dtype)
    for quantile in (0, 8, 50.5, 100):
        found = baseline.percentile(frames, quantile)
        assert found.dtype == np.float32 and found.shape == shape[1:]
        assert_allclose(found, np.percentile(frames, quantile, axis=0), rtol=2e-7)


def test_pixels_with_nan_have_none(wing):
    frames = np.random.default_rng(0).random((9, 3, 4)).astype(np.float32)
    frames[4, 1, 2] = np.nan
    found = baseline.percentile(frames, 10)
    assert_array_equal(np.argwhere(np.isnan(found)), [(1, 2)])


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_bands_and_chunks_change_nothing(wing, dtype):
    frames = (np.random.default_rng(0).gamma(2, 30, (90, 13, 4))).astype(dtype)
    m = movie(frames, fr=10)

    def everything():
        return [
            baseline.percentile(frames, 8),
            m.bin_median(7),
            *m.computeDFF(1.7),
            *m.computeDFF(1.7, order="C"),
            m.removeBL(20),
            m.debleach(),
        ]

    whole = everything()
    with backend.limit(memory=20000, chunk_frames=11):  # 90 frames of one row are 720 to 1440 bytes
        for found, expected in zip(everything(), whole, strict=True):
            assert_array_equal(np.asarray(found), expected)


def test_levels_that_exceed_the_budget_are_refused():
    m = movie(np.ones((400, 8, 8), np.float32), fr=10)
    with backend.limit(memory="64KiB"), pytest.raises(MemoryBudgetError, match="longer windows"):
        m.removeBL(1)


@pytest.mark.parametrize("layout", ["C", "F", "time last"])
def test_any_layout_in_memory(wing, layout):
    frames = np.random.default_rng(0).gamma(2, 30, (40, 5, 7)).astype(np.float32)
    expected = movie(frames, fr=10)
    other = np.asfortranarray(frames) if layout != "C" else frames
    if layout == "time last":
        other = np.moveaxis(np.ascontiguousarray(np.moveaxis(frames, 0, 2)), 2, 0)
    got = movie(other, fr=10)
    assert_array_equal(got.bin_median(6), expected.bin_median(6))
    for a, b in zip(got.computeDFF(1), expected.computeDFF(1), strict=True):
        assert_array_equal(np.asarray(a), np.asarray(b))
    assert_array_equal(got.debleach(), np.asarray(expected.debleach()))


# ---------------------------------------------------------------------------- results in files


@pytest.fixture
def in_files(tmp_path):
    """A movie that lies in a file, and files of floats for two results."""
    frames = np.random.default_rng(0).gamma(4, 30, (60, 9, 5)).astype(np.uint16) + 1
    np.save(tmp_path / "movie.npy", frames)
    names = (tmp_path / "one.npy", tmp_path / "two.npy")
    results = [np.lib.format.open_memmap(name, "w+", np.float32, frames.shape) for name in names]
    return load(tmp_path / "movie.npy", fr=10, outtype=np.uint16), results, names


def test_results_go_where_they_are_wanted(wing, in_files):
    m, (one, two), names = in_files
    for method in baseline.DFF_METHODS:
        change, level = m.computeDFF(0.9, method=method, out=(one, two))
        expected = movie(np.array(m), fr=10).computeDFF(0.9, method=method)
        assert type(change) is movie and change.fr == 10
        assert np.shares_memory(change, one) and np.shares_memory(level, two)
        for found, truth in zip(names, expected, strict=True):
            assert_array_equal(np.load(found, mmap_mode="r"), np.asarray(truth))
    m.removeBL(20, out=one)
    assert_array_equal(one, movie(np.array(m), fr=10).removeBL(20))
    m.removeBL(20, returnBL=True, out=one)
    assert_array_equal(one, movie(np.array(m), fr=10).removeBL(20, returnBL=True))
    m.debleach(out=two)
    assert_array_equal(two, movie(np.array(m), fr=10).debleach())


def test_a_movie_of_floats_loses_its_baseline_in_place():
    frames = np.random.default_rng(0).gamma(4, 30, (60, 9, 5)).astype(np.float64)
    m = movie(frames.copy(), fr=10)
    level = m.removeBL(13, returnBL=True)
    assert_allclose(m.removeBL(13, in_place=True), frames - level, rtol=1e-12)
    assert m.dtype == np.float64


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.empty((3, 2, 2), np.int16), ArrayTypeError, "out is int16: expected"),
        ([1, 2], ArrayTypeError, "out is list: expected"),
        (
            np.empty((3, 2, 1), np.float32),
            ArrayShapeError,
            r"out has shape \(3, 2, 1\), the result \(3, 2, 2\)",
        ),
        (np.broadcast_to(np.float32(0), (3, 2, 2)), ArrayTypeError, "cannot be written to"),
    ],
)
def test_what_no_result_fits_into_is_refused(out, error, text):
    m = movie(np.ones((3, 2, 2), np.float32), fr=10)
    with pytest.raises(error, match=text):
        m.removeBL(2, out=out)
    with pytest.raises(error, match=text):
        m.debleach(out=out)
    with pytest.raises(error, match=text.replace("out", r"out\[1\]", 1)):
        m.computeDFF(out=(None, out))


def test_one_result_has_one_place():
    m = movie(np.ones((3, 2, 2), np.float32), fr=10)
    with pytest.raises(ParameterError, match="in_place=True and out"):
        m.removeBL(2, in_place=True, out=np.empty((3, 2, 2), np.float32))
    m.flags.writeable = False
    with pytest.raises(ArrayTypeError, match="cannot be written to"):
        m.removeBL(2, in_place=True)


# ---------------------------------------------------------------------------- brightness


def test_frames_without_numbers_do_not_stop_debleaching(wing):
    t = np.arange(200)
    frames = (50 * np.exp(-t / 60) + 100)[:, None, None] * np.ones((1, 5, 4))
    frames[17], frames[30, 2, 2] = np.nan, np.nan
    flat = np.asarray(movie(frames.astype(np.float32), fr=10).debleach())
    assert np.isnan(flat[17]).all() and np.isnan(flat).sum() == 21
    assert np.nanstd(flat) < 0.1
    with pytest.raises(MovieValueError, match="no frame holds a finite number"):
        movie(np.full((3, 2, 2), np.nan), fr=1).debleach()
