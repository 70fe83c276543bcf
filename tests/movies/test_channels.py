"""One of several channels."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
    MovieShapeError,
    ParameterError,
)
from gpucalcium.movies import load, open_movie
from tests.movies import files
from tests.movies.recordings import VOLUMES


def test_channels_of_any_movie():
    two = np.arange(5 * 2 * 4 * 3).reshape(5, 2, 4, 3)
    assert_array_equal(open_movie(two, channel=1).read(slice(None)), two[:, 1])
    assert_array_equal(open_movie([two, two], channel=0).read(slice(None)), np.concatenate([two, two])[:, 0])
    assert_array_equal(open_movie(two, channel=0, subindices=[3]).read(slice(None)), two[3:4, 0])
    with pytest.raises(ParameterError, match="has no channels"):
        open_movie(two[:, 0], channel=0)


def test_a_channel_keeps_what_the_file_says(tmp_path):
    path = files.npz(tmp_path / "a.npz", VOLUMES, fr=12.0)
    assert load(path, channel=1).fr == 12
    assert_array_equal(load(path, channel=1), VOLUMES[:, 1])


FIVE_AXES = np.random.default_rng(5).integers(0, 999, (5, 3, 2, 8, 6)).astype(np.uint16)
CHANNELLED = {
    "ImageJ": {"data": FIVE_AXES, "imagej": True, "axes": "TZCYX"},
    "OME": {"data": FIVE_AXES, "ome": True, "axes": "TZCYX"},
    "OME, channels first": {"data": np.moveaxis(FIVE_AXES, 2, 1), "ome": True, "axes": "TCZYX"},
    "compressed": {"data": FIVE_AXES, "compression": "zlib", "axes": "TZCYX"},
    "images": {"data": FIVE_AXES[:, 0], "imagej": True, "axes": "TCYX"},
    "one volume": {"data": FIVE_AXES[:1], "imagej": True, "axes": "TZCYX"},
}


@pytest.mark.parametrize("kind", CHANNELLED)
@pytest.mark.parametrize("channel", [0, 1, -2])
def test_channels_of_tiff_files(tmp_path, kind, channel):
    options = dict(CHANNELLED[kind])
    data, axes = options.pop("data"), options.pop("axes")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(data), metadata={"axes": axes}, **options)
    expected = data.take(channel, axis=axes.index("C"))
    expected = expected[0] if kind == "one volume" else expected  # an axis of length 1 is dropped
    source = open_movie(path, channel=channel)
    assert source.shape == expected.shape
    assert_array_equal(source.read(slice(None)), expected)
    assert_array_equal(load(path, channel=channel, subindices=slice(1, None, 2)), expected[1::2])
    with pytest.raises(ParameterError, match="channel=7"):
        open_movie(path, channel=7)
    if data.ndim == 5 and kind != "one volume":
        with pytest.raises(MovieShapeError, match=r"5 axes.*channel="):
            open_movie(path)


COLOURS = np.random.default_rng(6).integers(0, 255, (5, 8, 6, 3)).astype(np.uint8)
COLOURED = {
    "one image": (COLOURS[0], {}),
    "images": (COLOURS, {}),
    "compressed": (COLOURS, {"compression": "zlib"}),
    "planes apart": (np.moveaxis(COLOURS, -1, 1), {"planarconfig": "separate"}),
    "one image, planes apart": (np.moveaxis(COLOURS[0], -1, 0), {"planarconfig": "separate"}),
    "planes apart, compressed": (
        np.moveaxis(COLOURS, -1, 1),
        {"planarconfig": "separate", "compression": "zlib"},
    ),
    "ImageJ": (COLOURS, {"imagej": True}),
}


@pytest.mark.parametrize("kind", COLOURED)
def test_colours_of_tiff_files(tmp_path, kind):
    values, options = COLOURED[kind]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(values), photometric="rgb", **options)
    frames = COLOURS[:1] if "one image" in kind else COLOURS
    for channel in (0, 2, -2):
        assert_array_equal(load(path, channel=channel), frames[..., channel])
    assert_array_equal(load(path, channel=1, subindices=slice(None, None, 2)), frames[::2, ..., 1])
    with pytest.raises(ParameterError, match="channel=3"):
        open_movie(path, channel=3)
    whole = open_movie(path)  # colours are never taken for frames
    assert whole.shape == ((len(frames), 3, 8, 6) if "planes apart" in kind else (len(frames), 8, 6, 3))
    assert_array_equal(whole.read(slice(None)).ravel(), values.ravel())


def test_colours_of_volumes(tmp_path):
    values = np.stack([COLOURS, 255 - COLOURS], axis=1)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    assert_array_equal(load(tmp_path / "a.tif", channel=1), values[..., 1])
    with pytest.raises(MovieShapeError, match=r"5 axes.*channel="):
        open_movie(tmp_path / "a.tif")


def test_one_channel_after_the_other(tmp_path):
    channels = FIVE_AXES[:, :2, 0].swapaxes(0, 1)  # C, T, Y, X
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(channels), metadata={"axes": "CTYX"})
    assert_array_equal(load(tmp_path / "a.tif", channel=1), channels[1])
    with pytest.raises(ParameterError, match=r"2 channels, one after the other.*say which"):
        load(tmp_path / "a.tif")
