"""What every reader gives: plain indexing, in any order, by several threads; and clear errors."""

from __future__ import annotations

import json
import sys
import threading

import numpy as np
import pytest
import scipy.io
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium.errors import (
    DatasetNotFoundError,
    GpuCalciumError,
    MissingExtraError,
    MovieFileError,
    MovieShapeError,
)
from gpucalcium.movies import get_file_size, load, load_iter, movie, open_movie
from tests.movies import files, recordings
from tests.movies.recordings import FRAMES, VOLUMES

SELECTIONS = [
    slice(3, 9),
    slice(None, None, 7),
    slice(30, None, 3),
    slice(None, None, -5),
    range(4, 9),
    [5, 39, 1, 1],
    np.arange(41) % 9 == 0,
    (slice(3, 30, 4), slice(1, None), slice(2, 9, 3)),
    ([7, 3], [0, 6], slice(1, 2)),
]


@pytest.fixture(scope="module", params=recordings.WRITERS)
def kept(request, tmp_path_factory):
    """A file of each kind, the options to read it, and what it holds."""
    path = recordings.WRITERS[request.param](tmp_path_factory.mktemp("kept"))
    factor = 250 if "deep" in request.param else 1
    return path, recordings.OPTIONS.get(request.param, {}), FRAMES.astype(np.uint16) * factor


def test_all_frames(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    assert source.shape == frames.shape
    assert source.dtype.isnative
    assert_array_equal(source.read(slice(None)), frames)
    assert_array_equal(load(path, **options), frames)
    assert get_file_size(path, **options) == (frames.shape[1:], len(frames))


@pytest.mark.parametrize("subindices", SELECTIONS, ids=str)
def test_part_equals_indexing(kept, subindices):
    path, options, frames = kept
    expected = frames
    for axis, selector in enumerate(subindices if isinstance(subindices, tuple) else (subindices,)):
        index = list(selector) if isinstance(selector, range) else selector
        expected = expected[(slice(None),) * axis + (index,)]
    assert_array_equal(load(path, subindices=subindices, **options), expected)
    assert_array_equal(list(load_iter(path, subindices, **options)), expected)


def test_any_order_of_reading(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    random = np.random.default_rng(3)
    for _ in range(30):
        start, step = int(random.integers(0, 40)), int(random.integers(1, 6))
        part = slice(start, start + int(random.integers(0, 20)), step)
        assert_array_equal(source.read(part), frames[part])


def test_several_threads_at_once(kept):
    path, options, frames = kept
    source = open_movie(path, **options)
    wrong = []

    def read(start):
        for k in range(4):
            part = slice((start + 10 * k) % 40, None, 1 + start % 3)
            if not np.array_equal(source.read(part), frames[part]):
                wrong.append(part)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.97, 0.999])
@pytest.mark.parametrize("kind", [k for k in recordings.WRITERS if not k.startswith(("zarr", "n5", "gzip"))])
def test_truncated_files(tmp_path, kind, share):
    path = recordings.WRITERS[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    try:
        frames = open_movie(path, **recordings.OPTIONS.get(kind, {})).read(slice(None))
    except GpuCalciumError as err:
        assert isinstance(err, MovieFileError)
        assert path.name in str(err)
    else:  # nothing but what comes after the frames was lost
        assert_array_equal(frames, FRAMES.astype(np.uint16) * (250 if "deep" in kind else 1))


@pytest.mark.parametrize(
    "kind", [k for k in recordings.WRITERS if not k.startswith(("zarr", "n5", "gzip", "sbx", "suite"))]
)
def test_noise_instead_of_a_file(tmp_path, kind):
    path = recordings.WRITERS[kind](tmp_path)
    path.write_bytes(np.random.default_rng(1).bytes(50_000))
    with pytest.raises(MovieFileError, match=path.name):
        open_movie(path).read(slice(None))


@pytest.mark.parametrize(("module", "suffix", "extra"), [("av", ".avi", "video"), ("zarr", ".zarr", "zarr")])
def test_missing_packages_name_the_extra(tmp_path, monkeypatch, module, suffix, extra):
    path = tmp_path / f"a{suffix}"
    path.mkdir() if suffix == ".zarr" else path.write_bytes(b"1234")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"gpucalcium\[{extra}\]"):
        open_movie(path)


def test_what_files_say_of_the_recording(tmp_path):
    rates = {
        recordings.WRITERS["ffv1 avi"](tmp_path): 20,
        recordings.WRITERS["zarr 2"](tmp_path): 7.5,
        recordings.WRITERS["suite2p"](tmp_path): 11,
        recordings.WRITERS["sbx"](tmp_path): 7930 / 18,
        recordings.WRITERS["nwb"](tmp_path): 15,
        files.npz(tmp_path / "a.npz", FRAMES, fr=12.0, start_time=3.0, meta_data=json.dumps({"a": 1})): 12,
        files.mat(tmp_path / "b.mat", FRAMES, fr=12.0, start_time=3.0, meta_data=json.dumps({"a": 1})): 12,
    }
    for path, rate in rates.items():
        loaded = load(path, subindices=slice(2))
        assert loaded.fr == pytest.approx(rate), path.name
        assert load(path, fr=99, subindices=slice(2)).fr == 99
        if path.suffix in (".npz", ".mat"):
            assert (loaded.start_time, loaded.meta_data) == (3.0, [{"a": 1}])
    assert load(tmp_path / "a.nwb").start_time == 2.5


@pytest.mark.parametrize("suffix", ["npz", "mat", "zarr", "n5"])
def test_names_of_arrays(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, one=FRAMES, two=FRAMES[:5])
    elif suffix == "mat":
        scipy.io.savemat(path, {n: np.moveaxis(m, 0, -1) for n, m in (("one", FRAMES), ("two", FRAMES[:5]))})
    else:
        for name, frames in (("one", FRAMES), ("two", FRAMES[:5])):
            (recordings.zarred if suffix == "zarr" else recordings.n5)(path, frames, name=name)
    assert_array_equal(load(path, var_name_hdf5="two"), FRAMES[:5])
    with pytest.raises(DatasetNotFoundError, match=r"'mov'.*one.*two.*var_name_hdf5"):
        open_movie(path)


@pytest.mark.parametrize("suffix", ["npz", "mat", "zarr", "n5"])
def test_images_and_volumes(tmp_path, suffix):
    write = {
        "npz": files.npz,
        "mat": files.mat,
        "zarr": recordings.zarred,
        "n5": lambda path, m: recordings.n5(path, m, blocks=(4, 3, 2, 2)[: m.ndim]),
    }[suffix]
    assert_array_equal(load(write(tmp_path / f"v.{suffix}", VOLUMES)), VOLUMES)
    if suffix == "mat":
        scipy.io.savemat(tmp_path / "i.mat", {"image": FRAMES[0]})
    else:
        write(tmp_path / f"i.{suffix}", FRAMES[0])
    assert_array_equal(load(tmp_path / f"i.{suffix}"), FRAMES[:1])


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4", "npz", "mat", "zarr", "h5", "tif"])
def test_what_is_saved_comes_back(tmp_path, suffix):
    path = movie(FRAMES, fr=12.5, start_time=2, meta_data={"a": 1}).save(
        tmp_path / f"a.{suffix}", q_min=None, q_max=None
    )
    back = load(path)
    assert_allclose(back, FRAMES, atol=1 if suffix in ("avi", "mkv", "mp4") else 0)
    assert (back.fr, back.start_time, back.meta_data) == (12.5, 2, [{"a": 1}])


def test_empty_movies_are_refused(tmp_path):
    with pytest.raises(MovieShapeError, match="is empty"):
        open_movie(files.npz(tmp_path / "a.npz", FRAMES[:0]))


@pytest.mark.parametrize("step", [1, 3, 11])
def test_no_chunk_is_read_twice(monkeypatch, step):
    """A chunk of a store is decoded whole each time a piece of it is asked for."""
    monkeypatch.setattr("gpucalcium.movies.arrays.PIECE", 20 * FRAMES[0].nbytes)
    asked = []

    class Store:
        shape, dtype, chunks = FRAMES.shape, FRAMES.dtype, (8, 18, 14)

        def __getitem__(self, key):
            found = range(len(FRAMES))[key]
            asked.extend({frame // 8 for frame in found})
            return FRAMES[key]

    assert_array_equal(open_movie(Store()).read(slice(3, None, step)), FRAMES[3::step])
    assert sorted(asked) == sorted({frame // 8 for frame in range(3, 41, step)})
