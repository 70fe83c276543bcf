"""Calls of scripts that start and stop workers."""

from multiprocessing.dummy import Pool

import pytest

from gpucalcium.accel.cluster import setup_cluster, start_server, stop_server
from gpucalcium.errors import NotSupportedError, ParameterError


def test_setup_returns_what_functions_take_as_dview(caplog):
    caplog.set_level("INFO", "gpucalcium")
    assert setup_cluster(backend="multiprocessing", n_processes=3, single_thread=False) == (None, None, 3)
    assert "no processes are started" in caplog.text
    assert setup_cluster()[2] >= 1
    assert (
        setup_cluster("single") == setup_cluster("multiprocessing", 5, single_thread=True) == (None, None, 1)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"backend": "threads"}, ParameterError, "must be one of 'multiprocessing'"),
        ({"backend": "SLURM"}, NotSupportedError, "one process on each node"),
        ({"n_processes": 0}, ParameterError, "1 or more"),
    ],
)
def test_impossible_clusters(arguments, error, text):
    with pytest.raises(error, match=text):
        setup_cluster(**arguments)


def test_servers(caplog):
    caplog.set_level("INFO", "gpucalcium")
    start_server(ncpus=4)
    assert "no processes are started" in caplog.text
    with pytest.raises(NotSupportedError, match=r"slurm_script='run\.sh'"):
        start_server("run.sh")
    stop_server()
    pool = Pool(1)
    stop_server(dview=pool)
    with pytest.raises(ValueError, match="not running"):
        pool.map(str, [1])
