"""`damaged_frames`: what transmission has broken, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import MovieShapeError, ParameterError
from gpucalcium.movies import damaged_frames, load, movie


def recording(shape=(61, 37, 29), seed=0):
    """A smooth picture, shot noise, and cells that blink."""
    random = np.random.default_rng(seed)
    rows = np.sin(np.arange(shape[1]) / 5)[:, None] + np.cos(np.arange(shape[2]) / 7)
    pictures = np.broadcast_to((100 + 20 * rows), shape).copy()
    pictures[10:20, 5:10, 5:10] += 40
    return random.poisson(pictures).astype(np.uint16)


def test_the_frames_known_to_be_damaged(shared):
    folder = shared / "data" / "real" / "movies"
    listed = json.loads((folder / "miniscope_corrupted.json").read_text())
    assert_array_equal(
        damaged_frames(folder / "miniscope_corrupted.avi"),
        sorted(listed["several_rows"] + listed["several_blocks"]),
    )


@pytest.mark.parametrize("name", ["demo_2p_30x40.tif", "sima/example.tif"])
def test_real_recordings_with_motion_are_whole(shared, name):
    assert len(damaged_frames(shared / "data" / "real" / "movies" / name)) == 0


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_blocks_of_rows_that_are_lost_or_displaced(wing, chunk):
    frames = recording()
    frames[5, 10:20] = 0
    frames[30, 8:16] = frames[30, 25:33]
    frames[60, 36:] = 255
    with backend.limit(chunk_frames=chunk):
        assert_array_equal(damaged_frames(wing.put(frames)), [5, 30, 60])


@settings(max_examples=20, deadline=None)
@given(
    bad=st.sets(st.integers(0, 60), max_size=6),
    scale=st.floats(0.01, 100),
    offset=st.floats(-100, 100),
)
def test_neither_offset_nor_scale_matters(bad, scale, offset):
    frames = recording().astype(np.float64)
    frames[sorted(bad), 12:20] = 0
    assert_array_equal(damaged_frames(frames * scale + offset), sorted(bad))


def test_volumes_and_values_that_are_no_numbers():
    volumes = np.stack([recording(seed=k) for k in range(3)], axis=-1).astype(np.float32)
    volumes[7, 10:20] = 0
    volumes[9, 3, 3, 1] = np.nan
    volumes[11] = np.inf
    assert_array_equal(damaged_frames(volumes), [7, 9, 11])
    assert_array_equal(damaged_frames(np.full((4, 3, 2), np.nan)), range(4))


def test_the_rest_can_be_loaded(tmp_path):
    frames = recording()
    frames[[4, 9], 5:10] = 0
    path = movie(frames, fr=10).save(tmp_path / "a.tif", to32=False)
    bad = damaged_frames(path)
    whole = np.setdiff1d(np.arange(len(frames)), bad)
    assert_array_equal(load(path, subindices=whole), np.delete(frames, [4, 9], axis=0))


def test_movies_without_noise_and_edges():
    assert len(damaged_frames(np.ones((5, 4, 3)))) == 0
    assert len(damaged_frames(recording((1, 37, 29)))) == 0
    assert len(damaged_frames(recording(), threshold=1e9)) == 0
    assert len(damaged_frames(recording(), threshold=0.1)) > 0
    with pytest.raises(MovieShapeError, match="two rows"):
        damaged_frames(np.ones((5, 1, 3)))
    with pytest.raises(ParameterError, match="positive"):
        damaged_frames(recording(), threshold=0)
