"""Movies of one file per frame."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.cinac import CinacDataMovie, CinacSplitedNpyMovie, CinacSplitedTiffMovie
from gpucalcium.errors import (
    MovieFileError,
    MovieNotFoundError,
    MovieValueError,
    ParameterError,
)
from tests.cinac.given import noisy


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
    np.save(folder / "std.npy", np.nan)
    with pytest.raises(MovieFileError, match="holds nan"):
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
