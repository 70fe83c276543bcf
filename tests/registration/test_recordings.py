"""Recordings: opened with one field of view, and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpucalcium.errors import MovieShapeError, MovieValueError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.registration.recordings import lowest_value, open_recordings, per_axis, stems

MOVIE = np.random.default_rng(0).normal(size=(6, 20, 18)).astype(np.float32)


def test_part_of_the_field_of_view():
    (source,) = open_recordings([MOVIE], indices=(slice(2, 10), slice(None, None, 2)))
    assert source.shape == (6, 8, 9)
    (source,) = open_recordings([MOVIE], indices=slice(3))  # rows alone
    assert source.shape == (6, 3, 18)
    volume = np.zeros((4, 8, 7, 3))
    (source,) = open_recordings([volume], is3D=True, indices=(slice(1, 8), slice(None)))
    assert source.shape == (4, 7, 7, 3)


@pytest.mark.parametrize(
    ("movies", "options", "kind", "text"),
    [
        ([MOVIE, MOVIE[:, :9]], {}, MovieShapeError, "FOVs with different sizes"),
        ([MOVIE], {"indices": (slice(9, 9), slice(None))}, ParameterError, "leaves nothing"),
        ([MOVIE], {"indices": (slice(None),) * 3}, ParameterError, "has 3 slices"),
        ([MOVIE], {"indices": (3, slice(None))}, ParameterError, "tuple of slices"),
        ([MOVIE], {"is3D": True}, MovieShapeError, "set is3D=False"),
    ],
)
def test_errors_at_the_edge(movies, options, kind, text):
    with pytest.raises(kind, match=text):
        open_recordings(movies, **options)


def test_names(tmp_path):
    np.save(tmp_path / "two.colours.npy", np.stack([MOVIE, MOVIE], axis=1))
    red = open_movie(tmp_path / "two.colours.npy", channel=1)
    names = ["a/film.tif", Path("b/film.h5"), ("c/frame0.tif", "c/frame1.tif"), red]
    assert stems(names, [open_movie(MOVIE)] * 4) == ["film", "film-1", "frame0", "two-channel-1"]


def test_names_of_arrays():
    source = open_movie(MOVIE)
    lasting = [stems([MOVIE], [source], lasting=True)[0] for _ in range(2)]
    assert lasting[0] == lasting[1] != stems([-MOVIE], [open_movie(-MOVIE)], lasting=True)[0]
    assert stems([MOVIE], [source]) != stems([MOVIE], [source])


def test_values_per_axis():
    assert per_axis(3, (40, 30)) == (3, 3)
    assert per_axis((3, 4), (40, 30, 9), limit=True) == (3, 4, 4)
    assert per_axis((3, 6), (40, 30, 5), limit=True) == (3, 6, 2)
    assert per_axis((3, 6), (40, 30, 5)) == (3, 6, 6)
    assert per_axis(np.array([3, 6]), (40, 30)) == (3, 6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_lowest_value(wing, dtype):
    movie = np.full((500, 3, 4), 9, dtype)
    movie[7, 1, 2], movie[450] = 5, 2  # the second beyond the frames that count
    if movie.dtype.kind == "f":
        movie[3, 0, 0], movie[4, 0, 0] = np.nan, -np.inf
    assert lowest_value(open_movie(wing.put(movie))) == 5


def test_no_lowest_value():
    with pytest.raises(MovieValueError, match="finite number"):
        lowest_value(open_movie(np.full((3, 4, 5), np.nan)))
