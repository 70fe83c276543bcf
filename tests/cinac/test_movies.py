"""Movies for networks: how they are normalised, whatever they are kept in."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cinac import CinacDataMovie, CinacTiffMovie
from gpucalcium.cinac.movies import CinacFileReaderMovie
from gpucalcium.errors import (
    MemoryBudgetError,
    ParameterError,
)
from gpucalcium.movies import open_movie
from tests.cinac.given import noisy

DTYPES = ["uint8", "uint16", "int16", "int32", "float32", "float64"]


def normalised_by_numpy(movie):
    y = movie.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num((y - np.nanmean(y)) / np.nanstd(y), nan=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_mean_and_deviation_for_all(wing, dtype):
    movie = noisy(dtype=dtype)
    seen = CinacDataMovie(wing.put(movie))
    assert_allclose([seen.mean, seen.std], [movie.mean(dtype="f8"), movie.std(dtype="f8")], rtol=1e-9)
    assert_allclose(seen.get_full_movie(True), normalised_by_numpy(movie), atol=2e-6)
    assert_array_equal(seen.get_full_movie(False), movie)
    assert seen.get_full_movie(True).dtype == np.float32
    assert seen.get_dimensions() == (13, 17)
    assert seen.get_n_frames() == 37
    assert seen.source.dtype == dtype


def test_nan_are_left_out_and_become_the_mean(wing):
    movie = noisy()
    movie[:, :2] = movie[5] = movie[0, 7] = np.nan
    seen = CinacDataMovie(wing.put(movie))
    assert_allclose(
        [seen.mean, seen.std], [np.nanmean(movie.astype("f8")), np.nanstd(movie.astype("f8"))], rtol=1e-9
    )
    normal = seen.get_full_movie(True)
    assert_array_equal(normal[np.isnan(movie)], 0)
    assert_allclose(normal, normalised_by_numpy(movie), atol=2e-6)
    assert np.isnan(seen.get_full_movie(False)).sum() == np.isnan(movie).sum()


def test_constant_movies_are_zero():
    assert_array_equal(CinacDataMovie(np.full((4, 3, 3), 7, "uint16")).get_full_movie(True), 0)
    assert_array_equal(
        CinacDataMovie(np.full((4, 3, 3), 0.1)).get_frames_section([0, 2], 0, 2, 1, 2), np.zeros((2, 2, 3))
    )


def test_already_normalised(wing):
    movie = noisy()
    movie[2, 3, 4] = np.nan
    seen = CinacDataMovie(wing.put(movie), already_normalized=True)
    assert (seen.mean, seen.std) == (0, 1)
    assert_array_equal(seen.get_full_movie(True), np.nan_to_num(movie, nan=0))


@pytest.mark.parametrize(
    "frames", [slice(3, 9), slice(None, None, 4), range(5, 11, 2), [7, 2, 2], np.array([36])]
)
@pytest.mark.parametrize("box", [(0, 16, 0, 12), (3, 3, 5, 5), (2, 9, 11, 12)])
@pytest.mark.parametrize("in_file", [False, True])
def test_sections(wing, frames, box, in_file, tmp_path):
    movie = noisy()
    np.save(tmp_path / "a.npy", movie)
    minx, maxx, miny, maxy = box
    chosen = np.arange(37)[frames]
    seen = CinacDataMovie(tmp_path / "a.npy" if in_file else wing.put(movie))
    found = seen.get_frames_section(frames, *box)
    assert found.flags.c_contiguous
    assert found.flags.owndata
    assert_array_equal(seen.raw_section(frames, *box), movie[chosen, miny : maxy + 1, minx : maxx + 1])
    assert_allclose(found, normalised_by_numpy(movie)[chosen, miny : maxy + 1, minx : maxx + 1], atol=2e-6)


@pytest.mark.parametrize("frames", [[], range(4, 4), slice(5, 2)])
def test_no_frames(frames):
    assert CinacDataMovie(noisy()).get_frames_section(frames, 0, 1, 0, 2).shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([0], 0, 17, 0, 1), "columns 0 to 16"),
        (([0], -1, 3, 0, 1), "columns -1 to 3"),
        (([0], 0, 3, 5, 4), "rows 5 to 4"),
        (([37], 0, 3, 0, 1), "there are 0 to 36"),
        (([-1], 0, 3, 0, 1), "frames -1 to"),
        (([0.5], 0, 3, 0, 1), "whole numbers"),
    ],
)
def test_pixels_and_frames_that_are_not_there(arguments, text):
    with pytest.raises(ParameterError, match=text):
        CinacDataMovie(noisy()).get_frames_section(*arguments)


def test_full_movies_keep_to_the_budget():
    seen = CinacDataMovie(open_movie(noisy((50, 64, 64), "uint8")))
    with backend.limit(memory=1 << 19), pytest.raises(MemoryBudgetError, match="GPUCALCIUM_MEMORY"):
        seen.get_full_movie(True)


def test_tiff_keeps_its_source(tmp_path):
    movie = noisy(dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", movie)
    seen = CinacTiffMovie(tmp_path / "a.tif")
    assert_array_equal(seen.get_full_movie(False), movie)
    assert_allclose(seen.get_full_movie(True), normalised_by_numpy(movie), atol=2e-6)
    assert_array_equal(CinacTiffMovie(tmp_path / "a.tif", movie[:5]).get_full_movie(False), movie[:5])
    with pytest.raises(ParameterError, match="neither tiff_file_name nor tiff_movie"):
        CinacTiffMovie()


def test_patch_of_a_segment():
    class Reader:
        def get_segment_ci_movie(self, segment):
            assert segment == (3, 5, 8)
            return noisy((4, 5, 5))

    seen = CinacFileReaderMovie(Reader(), (3, 5, 8))
    assert seen.already_normalized
    assert_array_equal(seen.get_full_movie(True), noisy((4, 5, 5)))
