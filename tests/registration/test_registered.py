"""Movies that are displaced when they are read: the same frames however, and wherever, they are read."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.chain import Chain
from gpucalcium.registration import RegisteredMovie
from gpucalcium.registration.apply import displace, displace_field
from gpucalcium.registration.patches import PatchGrid
from tests.registration.scenes import moving_cells

SCENE = moving_cells(T=20, shape=(40, 36))
MOVIE = (SCENE.movie * 8).astype(np.int16)
GRID = PatchGrid.make(MOVIE.shape[1:], (16, 16), (8, 8))
FIELD = np.random.default_rng(0).uniform(-2, 2, (len(MOVIE), *GRID.counts, 2)).astype(np.float32)
KINDS = {"rigid": {"shifts": SCENE.shifts}, "fourier": {"shifts": SCENE.shifts, "fourier": True}}
KINDS["piecewise"] = {"field": FIELD, "grid": GRID, "interpolate": True}


@pytest.fixture(params=KINDS)
def lazy(request) -> RegisteredMovie:
    return RegisteredMovie(open_movie(MOVIE), **KINDS[request.param], border="copy", offset=3.0)


def test_frames_are_those_of_displace(wing):
    shifts, field = wing.put(SCENE.shifts.astype(np.float32)), wing.put(FIELD)
    rigid = displace(wing.put(MOVIE), shifts, border="min", offset=3.0)
    lazy = RegisteredMovie(open_movie(MOVIE), SCENE.shifts, border="min", offset=3.0)
    assert_array_equal(lazy.read(slice(None)), backend.to_numpy(rigid))
    piecewise = displace_field(wing.put(MOVIE), field, GRID, border="min")
    lazy = RegisteredMovie(open_movie(MOVIE), field=FIELD, grid=GRID, border="min")
    assert_array_equal(lazy.read(slice(None)), backend.to_numpy(piecewise))


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_any_part_in_any_chunks(lazy, chunk):
    whole = lazy.all_frames()
    assert whole.shape == lazy.shape == MOVIE.shape
    assert whole.dtype == lazy.dtype == np.float32
    with backend.limit(chunk_frames=chunk):
        streamed = np.concatenate(list(backend.stream(lazy)))
        part = lazy.read(slice(1, 18, 3))
    assert_array_equal(streamed, whole)
    assert_array_equal(part, whole[1:18:3])


class Threads:
    """A recording on disk, so to say: remembers who read it."""

    shape, dtype, name = MOVIE.shape, MOVIE.dtype, "film.tif"

    def __init__(self):
        self.readers = set()

    def __len__(self):
        return len(MOVIE)

    def read(self, frames, out=None):
        self.readers.add(threading.current_thread().name)
        out = np.empty((len(range(len(self))[frames]), *self.shape[1:]), self.dtype) if out is None else out
        out[...] = MOVIE[frames]
        return out


def test_a_stream_displaces_on_the_active_device(wing):
    source = Threads()
    lazy = RegisteredMovie(source, SCENE.shifts)
    for chunk in backend.stream(lazy):
        assert backend.is_cupy(chunk) == (wing.device == "cuda")
    assert all(name.startswith("gpucalcium-read") for name in source.readers)


def test_as_part_of_another_movie(lazy):
    twice = Chain([lazy, lazy])
    assert_array_equal(np.concatenate(list(backend.stream(twice))), np.tile(lazy.all_frames(), (2, 1, 1)))


def test_send_hands_over_all_frames_in_order(wing):
    got = np.empty(MOVIE.shape, np.float32)
    starts = []

    def sink(start, frames):
        starts.append(start)
        got[start : start + len(frames)] = frames

    lazy = RegisteredMovie(open_movie(MOVIE), SCENE.shifts, border="copy")
    with backend.limit(chunk_frames=7):
        lazy.send(sink)
    assert starts == [0, 7, 14]
    assert_array_equal(got, lazy.all_frames())


def test_without_negative():
    low = RegisteredMovie(open_movie(MOVIE - 1000), SCENE.shifts)  # with NaN at the borders
    plain = low.all_frames()
    above = low.without_negative().all_frames()
    assert_allclose(above, plain - np.nanmin(plain), atol=1e-3)
    high = RegisteredMovie(open_movie(MOVIE + 1000), SCENE.shifts)
    assert high.without_negative() is high


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"shifts": SCENE.shifts[:7]}, ArrayShapeError, r"\(7, 2\); 20 frames with 2 axes need \(20, 2\)"),
        ({"field": FIELD[:, :1], "grid": GRID}, ArrayShapeError, "field has shape"),
        ({"field": FIELD}, ParameterError, "together with its grid"),
        ({}, ParameterError, "either shifts"),
        ({"shifts": SCENE.shifts, "field": FIELD, "grid": GRID}, ParameterError, "either shifts"),
    ],
)
def test_errors_at_the_edge(given, kind, text):
    with pytest.raises(kind, match=text):
        RegisteredMovie(open_movie(MOVIE), **given)
