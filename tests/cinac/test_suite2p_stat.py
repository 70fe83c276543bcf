"""suite2p's cells: pickles of which nothing is run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpucalcium.cinac.rois import (
    from_suite2p,
)
from gpucalcium.errors import (
    ArrayShapeError,
    MovieFileError,
    MovieNotFoundError,
)

STAT = [
    {
        "xpix": np.array(x, "i4"),
        "ypix": np.array(y, "i4"),
        "lam": np.ones(len(x), "f4"),
        "med": [3, 4],
        "overlap": np.zeros(len(x), bool),
        "npix": len(x),
        "skew": np.float32(1.5),
    }
    for x, y in ([(3, 4, 4), (7, 7, 8)], [(10,), (11,)], [(5, 6, 5, 6), (1, 1, 2, 2)])
]


def written(path, cells, protocol=None):
    if protocol is None:
        array = np.empty(len(cells), object)
        array[:] = cells
        np.save(path, array, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(cells, protocol))
    return path


@pytest.mark.parametrize("protocol", [None, 0, 2, 3, 4, 5])
def test_cells_of_suite2p(tmp_path, protocol):
    stat = written(tmp_path / "stat.npy", STAT, protocol)
    np.save(tmp_path / "iscell.npy", [[1, 0.9], [0, 0.1], [1, 0.7]])
    every = from_suite2p(None, stat)
    kept = from_suite2p(tmp_path / "iscell.npy", stat)
    assert_array_equal(every.bounds, [[3, 7, 4, 8], [10, 11, 10, 11], [5, 1, 6, 2]])
    assert_array_equal(kept.bounds, every.bounds[[0, 2]])
    assert_array_equal(kept.pixels(0, (20, 20)), [7 * 20 + 3, 7 * 20 + 4, 8 * 20 + 4])


class Evil:
    def __init__(self, sign):
        self.sign = str(sign)

    def __reduce__(self):
        return os.mkdir, (self.sign,)


@pytest.mark.parametrize("protocol", [None, 0, 2, 4, 5])
def test_hostile_stat_is_refused_and_not_run(tmp_path, protocol):
    sign = tmp_path / "sign"
    for cells in ([*STAT, Evil(sign)], [STAT[0] | {"lam": Evil(sign)}], [STAT[0] | {"xpix": Evil(sign)}]):
        stat = written(tmp_path / "stat.npy", cells, protocol)
        with pytest.raises(MovieFileError, match=r"stat\.npy.*refers to"):
            from_suite2p(None, stat)
        assert not sign.exists()


def test_hostile_iscell_is_refused(tmp_path):
    stat = written(tmp_path / "stat.npy", STAT)
    np.save(tmp_path / "iscell.npy", np.array([Evil(tmp_path / "sign")]), allow_pickle=True)
    with pytest.raises(MovieFileError, match=r"iscell\.npy must be"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    assert not (tmp_path / "sign").exists()


def test_damaged_files_of_suite2p(tmp_path):
    stat = written(tmp_path / "stat.npy", STAT)
    np.save(tmp_path / "iscell.npy", np.ones((2, 2)))
    with pytest.raises(ArrayShapeError, match=r"2 rows and .* 3 cells"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    np.save(tmp_path / "iscell.npy", np.ones((3, 2, 2)))
    with pytest.raises(MovieFileError, match="a row for each cell"):
        from_suite2p(tmp_path / "iscell.npy", stat)
    for name in ("iscell.npy", "stat.npy"):
        with pytest.raises(MovieNotFoundError, match="not found"):
            from_suite2p(
                tmp_path / "none" / name if name[0] == "i" else None,
                tmp_path / "none" / name if name[0] == "s" else stat,
            )
    stat.write_bytes(stat.read_bytes()[:-30])
    with pytest.raises(MovieFileError, match=r"stat\.npy cannot be read"):
        from_suite2p(None, stat)
    for cells, text in (
        ([{"xpix": np.arange(3)}], "cell 0 has no array ypix"),
        ([{"xpix": np.arange(3), "ypix": np.arange(2)}], "equally long"),
        ([{"xpix": np.arange(3.0), "ypix": np.arange(3)}], "whole numbers"),
        (["text"], "no list of dictionaries"),
    ):
        with pytest.raises(MovieFileError, match=text):
            from_suite2p(None, written(tmp_path / "stat.npy", cells))
