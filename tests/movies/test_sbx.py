"""Reading of Scanbox recordings."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.errors import (
    MovieFileError,
    ParameterError,
)
from gpucalcium.movies import get_file_size, load, open_movie
from tests.movies import recordings

SAMPLES = np.random.default_rng(4).integers(0, 65536, (7, 3, 9, 8, 2)).astype(np.uint16)


@pytest.mark.parametrize("version", [2, 3, None])
@pytest.mark.parametrize("channel", [0, 1, -1])
def test_scanbox_channels_and_planes(tmp_path, version, channel):
    path = recordings.sbx(
        tmp_path / "a.sbx", SAMPLES, scanbox_version=version, channels=1, volscan=1, otparam=[0, 100, 3]
    )
    expected = np.moveaxis(SAMPLES[..., channel], 1, -1)
    assert_array_equal(load(path, channel=channel, outtype=np.uint16), expected)
    assert_array_equal(
        load(path, channel=channel, subindices=(slice(1, 6, 2), [3, 1])), expected[1:6:2][:, [3, 1]]
    )
    assert get_file_size(path, channel=0) == ((9, 8, 3), 7)
    assert load(path, channel=0).fr == pytest.approx(7930 / 9 / 3)
    with pytest.raises(ParameterError, match=r"has 2 channels.*channel=0"):
        open_movie(path)
    with pytest.raises(ParameterError, match="channel=2"):
        open_movie(path, channel=2)


def test_scanbox_defaults(tmp_path):
    one = SAMPLES[:, :1, :, :, :1]
    for name, info in {
        "chan": {"chan": {"nchan": 1}, "channels": 1},
        "two": {"channels": 2},
        "none": {},
    }.items():
        assert_array_equal(load(recordings.sbx(tmp_path / f"{name}.sbx", one, **info)), one[:, 0, :, :, 0])
    both_ways = recordings.sbx(tmp_path / "b.sbx", one, scanmode=0)
    assert load(both_ways).fr == pytest.approx(2 * 7930 / 9)
    whole_field = recordings.sbx(tmp_path / "f.sbx", np.zeros((2, 1, 512, 796, 1), np.uint16), sz=None)
    assert open_movie(whole_field).shape == (2, 512, 796)


def test_scanbox_files_that_do_not_fit(tmp_path, caplog):
    one = SAMPLES[:, :1, :, :, :1]
    path = recordings.sbx(tmp_path / "a.sbx", one, max_idx=8)
    with pytest.raises(MovieFileError, match=r"a\.sbx is truncated.*7\.00 planes of 9 x 8.*9 were expected"):
        open_movie(path)
    recordings.sbx(path, one, scanbox_version=4)
    with pytest.raises(MovieFileError, match="scanbox_version is 4"):
        open_movie(path)
    recordings.sbx(path, one, sz=[10**6, 10**6])
    with pytest.raises(MovieFileError, match=r"truncated.*0\.00 planes"):
        open_movie(path)
    recordings.sbx(path, one, volscan=1, otparam=[0, 100, 4])
    assert_array_equal(load(path)[0, ..., 3], one[3, 0, :, :, 0])
    assert "the last 3 planes make no whole volume" in caplog.text
    path.with_suffix(".mat").write_bytes(b"no such thing")
    with pytest.raises(MovieFileError, match=r"a\.mat, which describes a\.sbx"):
        open_movie(path)
    path.with_suffix(".mat").unlink()
    with pytest.raises(MovieFileError, match=r"expected in .*a\.mat"):
        open_movie(path)
