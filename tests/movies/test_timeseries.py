"""`timeseries` and `movie`: the attributes go with the data, whatever is done to it."""

import copy
import pickle

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.errors import ArrayTypeError, ParameterError
from gpucalcium.movies import concatenate, movie, timeseries
from tests.movies import files

FRAMES = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


def example(**changes):
    about = {"fr": 12.5, "start_time": 3, "file_name": "film.tif", "meta_data": {"depth_um": 120}}
    return movie(FRAMES.copy(), **about | changes)


def assert_same_attributes(series, **changes):
    expected = {"fr": 12.5, "start_time": 3.0, "file_name": ["film.tif"], "meta_data": [{"depth_um": 120}]}
    for name, value in (expected | changes).items():
        assert getattr(series, name) == value


WAYS = {
    "slice": lambda m: m[1:],
    "pixel": lambda m: m[:, 1, 2],
    "mask": lambda m: m[m > 4],
    "list": lambda m: m[[1, 0]],
    "copy": lambda m: m.copy(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),  # noqa: S301 - our own bytes
    "sum": lambda m: m + 1,
    "right sum": lambda m: 1 + m,
    "product of movies": lambda m: m * m,
    "with an array": lambda m: np.ones((3, 4)) - m,
    "comparison": lambda m: m > 3,
    "negative": lambda m: -m,
    "function": np.sqrt,
    "two results": lambda m: np.divmod(m, 2)[1],
    "mean": lambda m: m.mean(axis=0),
    "nanmax": lambda m: np.nanmax(m, axis=0),
    "accumulate": lambda m: np.add.accumulate(m, axis=0),
    "outer": lambda m: np.multiply.outer(m[:, 0, 0], m[0, :, 0]),
    "astype": lambda m: m.astype(np.int16),
    "reshape": lambda m: m.reshape(2, 12),
    "transpose": lambda m: m.T,
    "view": lambda m: m.view(timeseries),
    "clip": lambda m: m.clip(2, 5),
    "movie of a movie": movie,
    "chosen": lambda m: np.where(m > 3, m, 0),
    "padded": lambda m: np.pad(m, 1),
    "rounded": lambda m: m.round(1),
    "sorted": lambda m: np.sort(m, axis=0),
    "percentile": lambda m: np.percentile(m, 8, axis=0),
    "rolled": lambda m: np.roll(m, 1, axis=0),
    "split": lambda m: np.split(m, 2)[1],
    "matrix product": lambda m: m @ np.ones((4, 2)),
    "where": lambda m: np.add(m, 1, where=m > 3, out=m.copy()),
}


@pytest.mark.parametrize("way", WAYS)
def test_attributes_survive(way):
    result = WAYS[way](example())
    assert isinstance(result, timeseries)
    assert_same_attributes(result)


def test_values_are_those_of_numpy():
    m = example()
    for way, function in WAYS.items():
        if way not in ("pickle", "view", "movie of a movie"):
            assert_array_equal(np.asarray(function(m)), function(FRAMES), err_msg=way)


def test_in_place_arithmetic():
    m = example()
    m += 1
    m *= example()
    np.subtract(m, 1, out=m)
    assert_same_attributes(m)
    assert_array_equal(np.asarray(m), (FRAMES + 1) * FRAMES - 1)


def test_reductions_to_a_number_are_numbers():
    assert isinstance(example().mean(), np.float32)
    assert np.median(example()) == np.median(FRAMES)


def test_arrays_are_not_copied():
    assert np.shares_memory(movie(FRAMES, fr=3), FRAMES)


def test_what_movies_are_made_from(tmp_path):
    with h5py.File(files.hdf5(tmp_path / "a.h5", FRAMES), "r") as file:
        assert_array_equal(movie(file["mov"], fr=4), FRAMES)
    with tifffile.TiffFile(files.tiff(tmp_path / "a.tif", FRAMES)) as file:
        assert_array_equal(movie(file, fr=4), FRAMES)
    mapped = np.load(files.npy(tmp_path / "a.npy", FRAMES), mmap_mode="r")
    assert np.shares_memory(movie(mapped, fr=4), mapped)
    with pytest.raises(ArrayTypeError, match="Input must be an ndarray, use load instead!"):
        movie("film.tif", fr=4)


def test_defaults_and_arguments():
    m = movie(FRAMES)
    assert (m.fr, m.start_time, m.file_name, m.meta_data) == (30.0, 0.0, [None], [None])
    changed = movie(example(), fr=5, meta_data=[1, 2])
    assert_same_attributes(changed, fr=5.0, meta_data=[1, 2])


@pytest.mark.parametrize("fr", [None, 0, -3, np.nan, np.inf])
def test_a_frame_rate_must_be_one(fr):
    with pytest.raises(ParameterError, match="frame rate"):
        movie(FRAMES, fr=fr)


def test_time_begins_at_the_start():
    assert_allclose(example().time, [3, 3 + 1 / 12.5])


def test_frame_rates_must_agree():
    with pytest.raises(ParameterError, match=r"12\.5, 13\.0 frames/s"):
        example() + example(fr=13)
    with pytest.raises(ParameterError, match=r"12\.5, 13\.0 frames/s"):
        concatenate([example(), example(fr=13)])


def test_different_starts_are_warned_of():
    with pytest.warns(UserWarning, match="different start_time"):
        total = example() + example(start_time=9)
    assert total.start_time == 3


def test_concatenate():
    first, second = example(), example(file_name=["b.tif", "c.tif"], start_time=5)
    joined = concatenate([first, second])
    assert_array_equal(joined, np.concatenate([FRAMES, FRAMES]))
    assert isinstance(joined, movie)
    assert_same_attributes(
        joined, file_name=["film.tif", "b.tif", "c.tif"], meta_data=[{"depth_um": 120}, {"depth_um": 120}]
    )
    assert first.file_name == ["film.tif"]
    assert concatenate(first, first, axis=1).shape == (2, 6, 4)
    with pytest.raises(ParameterError, match="empty list"):
        concatenate([])


@pytest.mark.parametrize("join", [np.concatenate, np.vstack, lambda ms: np.append(*ms, axis=0), np.stack])
def test_numpy_joins_recordings(join):
    first, second = example(), example(file_name="b.tif")
    joined = join([first, second])
    assert isinstance(joined, movie)
    assert_same_attributes(
        joined, file_name=["film.tif", "b.tif"], meta_data=[{"depth_um": 120}, {"depth_um": 120}]
    )
    assert_array_equal(np.asarray(joined), join([FRAMES, FRAMES]))
    assert first.file_name == ["film.tif"]
    for wrong in (lambda: join([first, example(fr=3)]), lambda: np.where(FRAMES > 3, first, example(fr=3))):
        with pytest.raises(ParameterError, match=r"3\.0, 12\.5 frames/s"):
            wrong()


def test_joining_into_given_memory():
    room = np.empty((4, 3, 4), np.float32)
    assert np.concatenate([example(), example()], out=room) is room
    assert_array_equal(room, np.concatenate([FRAMES, FRAMES]))
    assert np.concatenate([example(), example()], axis=None, dtype="f8").shape == (48,)


@pytest.mark.parametrize("way", ["copy", "slice", "deepcopy", "sum"])
def test_every_array_has_lists_of_its_own(way):
    original = example()
    WAYS[way](original).file_name.append("other.tif")
    assert_same_attributes(original)
    if way == "deepcopy":
        WAYS[way](original).meta_data[0]["depth_um"] = 0
        assert_same_attributes(original)


def test_what_holds_no_real_numbers_is_refused():
    with pytest.raises(ArrayTypeError, match="real numbers, not complex128"):
        movie(FRAMES.astype(complex))
    with pytest.raises(ArrayTypeError, match="real numbers, not <U1"):
        movie(np.full((2, 3, 4), "a"))
    with pytest.raises(ArrayTypeError, match="masks some values"):
        movie(np.ma.masked_greater(FRAMES, 3))
    assert_array_equal(movie(np.ma.masked_greater(FRAMES, 99)), FRAMES)
