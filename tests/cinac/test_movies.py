"""Movies for networks: how they are normalised, whatever they are kept in."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cinac import CinacDataMovie, CinacSplitedNpyMovie, CinacSplitedTiffMovie, CinacTiffMovie
from gpucalcium.cinac.moments import movie_moments
from gpucalcium.cinac.movies import CinacFileReaderMovie
from gpucalcium.errors import (
    MemoryBudgetError,
    MovieFileError,
    MovieNotFoundError,
    MovieShapeError,
    MovieValueError,
    NotSupportedError,
    ParameterError,
)
from gpucalcium.movies import open_movie

DTYPES = ["uint8", "uint16", "int16", "int32", "float32", "float64"]


def noisy(shape=(37, 13, 17), dtype="float32", seed=0):
    return (
        np.random.default_rng(seed)
        .normal(1000, 40, shape)
        .clip(0, 250 if dtype == "uint8" else None)
        .astype(dtype)
    )


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


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_chunks_and_devices_change_no_bit(wing, chunk):
    movie = noisy()
    movie[3:9, 4] = np.nan
    with backend.use("cpu"):
        whole = movie_moments(movie)
    with backend.limit(chunk_frames=chunk):
        assert movie_moments(wing.put(movie)) == whole
        assert movie_moments(movie) == whole
    assert whole[2] == np.isnan(movie).sum()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e3, -1e6, 1e9]),
    st.sampled_from([1e-3, 1.0, 1e5]),
    st.floats(0, 0.9),
)
def test_moments_far_from_zero(seed, offset, spread, missing):
    rng = np.random.default_rng(seed)
    movie = offset + spread * rng.normal(size=(9, 3, 5))
    movie[rng.random(movie.shape) < missing] = np.nan
    movie[0, 0, 0] = offset
    mean, std, absent = movie_moments(movie)
    # differences from a pixel's first value are rounded to float32: 1e-7 of what they are at most
    reach = np.nanmax(np.abs(movie)) if missing else np.ptp(movie)
    assert_allclose([mean, std], [np.nanmean(movie), np.nanstd(movie)], rtol=1e-12, atol=2e-7 * reach + 1e-12)
    assert absent == np.isnan(movie).sum()


def test_constant_movies_are_zero():
    assert_array_equal(CinacDataMovie(np.full((4, 3, 3), 7, "uint16")).get_full_movie(True), 0)
    assert_array_equal(
        CinacDataMovie(np.full((4, 3, 3), 0.1)).get_frames_section([0, 2], 0, 2, 1, 2), np.zeros((2, 2, 3))
    )


@pytest.mark.parametrize(
    ("movie", "error", "text"),
    [
        (np.full((3, 4, 4), np.nan), MovieValueError, "nothing but NaN"),
        (np.array([[[1.0, np.inf]], [[2, 3]]]), MovieValueError, "infinite"),
        (np.array([[[1.0, 2]], [[-np.inf, 3]]]), MovieValueError, "infinite"),
        (np.zeros((0, 4, 4)), MovieShapeError, "empty"),
        (np.zeros((2, 4, 4, 4)), NotSupportedError, r"\(T, H, W\) is expected"),
    ],
)
def test_what_cannot_be_normalised(movie, error, text):
    with pytest.raises(error, match=text):
        CinacDataMovie(movie).mean  # noqa: B018


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


@pytest.mark.parametrize(("kind", "ending"), [(CinacSplitedTiffMovie, "tiff"), (CinacSplitedNpyMovie, "npy")])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_one_file_per_frame(tmp_path, kind, ending, dtype):
    movie = noisy(dtype=dtype)
    made = kind("Mouse_3", tmp_path / "all", tiff_movie=movie)
    folder = tmp_path / "all" / "mouse_3"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{i}.{ending}" for i in range(37)] + ["mean.npy", "std.npy"]
    )
    for seen in (
        made,
        kind("Mouse_3", tmp_path / "all"),
        kind("OUSE", tmp_path / "all", tiff_movie=movie[:2]),
    ):
        whole = CinacDataMovie(movie)
        assert (seen.mean, seen.std) == (whole.mean, whole.std)
        assert_array_equal(seen.get_full_movie(False), movie)
        assert_array_equal(seen.get_full_movie(True), whole.get_full_movie(True))
        assert_array_equal(
            seen.get_frames_section([5, 3], 1, 4, 2, 8), whole.get_frames_section([5, 3], 1, 4, 2, 8)
        )


def test_split_movies_without_moments_are_normalised(tmp_path):
    movie = noisy()
    made = CinacSplitedTiffMovie("a", tmp_path, already_normalized=True, tiff_movie=movie)
    assert not (tmp_path / "a" / "mean.npy").exists()
    assert_array_equal(made.get_full_movie(True), movie)
    assert_array_equal(CinacSplitedTiffMovie("a", tmp_path).get_full_movie(True), movie)
    raw = CinacSplitedTiffMovie("b", tmp_path, tiff_movie=movie)
    assert raw.std != 1
    assert_array_equal(
        CinacSplitedTiffMovie("b", tmp_path, already_normalized=True).get_full_movie(True), movie
    )


def test_folders_are_found_by_name(tmp_path):
    for name, level in (("ab", 0), ("abc", 1), ("xyz", 2)):
        CinacSplitedTiffMovie(name, tmp_path, tiff_movie=np.full((1, 2, 2), level, "uint8"))
    (tmp_path / "abcd.txt").write_text("no folder")
    assert CinacSplitedTiffMovie("AB", tmp_path).get_full_movie(False)[0, 0, 0] == 0
    assert CinacSplitedTiffMovie("bc", tmp_path).get_full_movie(False)[0, 0, 0] == 1
    assert CinacSplitedTiffMovie("y", tmp_path).get_full_movie(False)[0, 0, 0] == 2
    with pytest.raises(ParameterError, match="2 folders"):
        CinacSplitedTiffMovie("b", tmp_path)
    with pytest.raises(MovieNotFoundError, match="no folder for 'q'"):
        CinacSplitedTiffMovie("q", tmp_path)
    with pytest.raises(ParameterError, match="plain name"):
        CinacSplitedTiffMovie("../ab", tmp_path)


def test_split_movies_that_are_damaged(tmp_path):
    folder = tmp_path / "a"
    CinacSplitedNpyMovie("a", tmp_path, tiff_movie=noisy((4, 3, 5)))
    np.save(folder / "2.npy", np.zeros((3, 4), "float32"))
    with pytest.raises(MovieFileError, match=r"2\.npy is \(1, 3, 4\)"):
        CinacSplitedNpyMovie("a", tmp_path).get_full_movie(False)
    (folder / "2.npy").unlink()
    with pytest.raises(MovieFileError, match="frame 2 is missing"):
        CinacSplitedNpyMovie("a", tmp_path)
    np.save(folder / "2.npy", np.zeros((3, 5), "float32"))
    np.save(folder / "std.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(MovieFileError, match="must hold one number"):
        CinacSplitedNpyMovie("a", tmp_path)
    (folder / "std.npy").unlink()
    with pytest.raises(MovieFileError, match=r"std\.npy must hold one number"):
        CinacSplitedNpyMovie("a", tmp_path)
    with pytest.raises(MovieFileError, match="holds no frames"):
        CinacSplitedTiffMovie("a", tmp_path)


def test_interrupted_split_leaves_nothing(tmp_path):
    with pytest.raises(MovieValueError):
        CinacSplitedNpyMovie("a", tmp_path, tiff_movie=np.full((2, 3, 3), np.nan))
    assert list(tmp_path.iterdir()) == []


def test_patch_of_a_segment():
    class Reader:
        def get_segment_ci_movie(self, segment):
            assert segment == (3, 5, 8)
            return noisy((4, 5, 5))

    seen = CinacFileReaderMovie(Reader(), (3, 5, 8))
    assert seen.already_normalized
    assert_array_equal(seen.get_full_movie(True), noisy((4, 5, 5)))
