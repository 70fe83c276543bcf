"""Starting and stopping workers, for scripts that do.

This library spreads work over threads or a GPU inside one process, so there is nothing to start: the calls check
their arguments, say so in the log, and return what the other functions accept as `dview`.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from gpucalcium.errors import NotSupportedError, ParameterError

BACKENDS = ("multiprocessing", "ipyparallel", "single")
NOTHING_STARTED = "no processes are started: work is spread over threads (GPUCALCIUM_THREADS) or the GPU"

log = logging.getLogger(__name__)


def setup_cluster(
    backend: str = "multiprocessing",
    n_processes: int | None = None,
    single_thread: bool = False,
    ignore_preexisting: bool = False,
    maxtasksperchild: int | None = None,
) -> tuple[None, None, int]:
    """What a script calls before it processes anything; nothing is started.

    Parameters
    ----------
    backend : {"multiprocessing", "ipyparallel", "single"}
    n_processes : int, optional
        Returned; default one less than the processors.
    single_thread : bool
        The same as the backend "single".
    ignore_preexisting, maxtasksperchild
        Accepted for old scripts; they concern processes.

    Returns
    -------
    client, dview : None
        Every function takes None as `dview`.
    n_processes : int
        1 for "single".

    Raises
    ------
    NotSupportedError
        Backend "SLURM".
    ParameterError
        Another backend, or fewer than 1 process.
    """
    if backend.lower() == "slurm":
        raise NotSupportedError("backend='SLURM' is not supported yet: run one process on each node")
    if backend not in BACKENDS:
        raise ParameterError(f"backend={backend!r}: must be one of {', '.join(map(repr, BACKENDS))}")
    if n_processes is not None and n_processes < 1:
        raise ParameterError(f"n_processes={n_processes}: must be 1 or more")
    if backend == "single" or single_thread:
        return None, None, 1
    log.info(NOTHING_STARTED)
    return None, None, n_processes or max((os.cpu_count() or 1) - 1, 1)


def start_server(
    slurm_script: str | None = None, ipcluster: str = "ipcluster", ncpus: int | None = None
) -> None:
    """What older scripts call to start engines; nothing is started.

    Raises
    ------
    NotSupportedError
        `slurm_script` is given.
    """
    if slurm_script is not None:
        raise NotSupportedError(
            f"slurm_script={slurm_script!r} is not supported yet: run one process on each node"
        )
    log.info(NOTHING_STARTED)


def stop_server(
    ipcluster: str = "ipcluster", pdir: str | None = None, profile: str | None = None, dview: Any = None
) -> None:
    """Stop workers that the script started itself; there are no others.

    Parameters
    ----------
    ipcluster, pdir, profile
        Accepted for old scripts; they concern engines of IPython.
    dview : multiprocessing.Pool, optional
        Terminated and joined.
    """
    if hasattr(dview, "terminate") and hasattr(dview, "join"):
        dview.terminate()
        dview.join()
