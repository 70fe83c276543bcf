"""Files of real recordings and of other writers, read as their checksums say."""

import hashlib
import json
import logging

import h5py
import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium.movies import get_file_size, load, open_movie


@pytest.fixture(scope="module")
def real(shared):
    return shared / "data" / "real"


@pytest.fixture(scope="module")
def expected(real):
    return json.loads((real / "tiff" / "writers" / "expected.json").read_text())


def sha256(frames):
    little = frames.astype(frames.dtype.newbyteorder("<"))
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()


def test_tiffs_of_many_writers(real, expected, caplog):
    checked = 0
    for name, about in expected.items():
        path = real / "tiff" / "writers" / name
        caplog.clear()
        with caplog.at_level(logging.WARNING, "gpucalcium"):
            source = open_movie(path)
        frames = source.read(slice(None))
        with tifffile.TiffFile(path) as file:
            first = file.series[0].asarray()
            several = len(file.series) > 1
            joined = np.concatenate([series.asarray().reshape(-1) for series in file.series])
        if several and frames.size == sum(np.prod(shape) for shape, _ in about["series"]):
            first = joined
        elif several:
            assert "the first is read" in caplog.text, name
        assert_array_equal(frames.ravel(), first.ravel().astype(source.dtype), err_msg=name)
        assert frames.ndim in (3, 4), name
        if not several and about["dtypes"] == [str(source.dtype)]:
            assert sha256(frames) == about["pages_sha256"], name
            checked += 1
    assert checked > 40


def test_two_photon_movie(real):
    path = real / "movies" / "demo_2p_30x40.tif"
    source = open_movie(path)
    assert (source.shape, source.dtype) == ((1000, 30, 40), np.uint16)
    assert get_file_size(path) == ((30, 40), 1000)
    whole = tifffile.imread(path)
    assert_array_equal(source.read(slice(None)), whole)
    assert_array_equal(load(path, subindices=slice(5, 900, 7)), whole[5:900:7])


def test_the_same_recording_in_two_formats(real):
    folder = real / "movies" / "sima"
    stack = open_movie(folder / "example.tif")
    assert (stack.shape, stack.dtype) == ((20, 128, 256), np.uint16)
    turned = open_movie(folder / "example.h5", var_name_hdf5="imaging")  # stored as (rows, columns, time)
    assert_array_equal(np.moveaxis(turned.read(slice(None)), -1, 0), stack.read(slice(None)))
    named = open_movie(folder / "example.h5", var_name_hdf5="imaging", axes="YXT")
    assert_array_equal(named.read(slice(3, 9)), stack.read(slice(3, 9)))


def test_five_axes_are_refused_until_a_channel_is_taken(real):
    path = real / "movies" / "sima" / "example-volume.h5"  # its dimensions have labels
    with pytest.raises(ValueError, match=r"has 5 axes.*2 channels: say which"):
        open_movie(path)
    with h5py.File(path) as file:
        whole = file["imaging"][...]
        assert open_movie(file["imaging"][..., 0]).shape == (10, 3, 64, 64)
    for channel in (0, 1):
        assert_array_equal(open_movie(path, channel=channel).read(slice(None)), whole[..., channel])
    assert_array_equal(load(path, channel=1, subindices=slice(2, 5)), whole[2:5, ..., 1])


def test_images_with_a_broken_series_header(real):
    for path in sorted((real / "movies" / "sima" / "example-tiffs").glob("*.tif")):
        image = open_movie(path)
        assert image.shape == (1, 173, 173)
        assert_array_equal(image.read(slice(None))[0], tifffile.imread(path, key=0))


def test_float_images(real):
    path = real / "movies" / "nonrigid_pair_moved.tif"
    assert_array_equal(open_movie(path).read(slice(None))[0], tifffile.imread(path))
