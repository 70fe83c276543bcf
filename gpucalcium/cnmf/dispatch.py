"""Work on patches in other processes, behind whatever scripts call `dview`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpucalcium.errors import ParameterError

Job = TypeVar("Job")
Result = TypeVar("Result")


def mapper(dview: Any) -> Callable[[Callable[[Job], Result], Sequence[Job]], list[Result]]:
    """``run(work, jobs)``, which does jobs behind `dview` and gives their results in the order of the jobs.

    Parameters
    ----------
    dview : object
        A view of a cluster (`map_sync`), an executor or a client (`submit`, futures), or a pool (`map`). `work` and
        the jobs are pickled where they go to other processes.

    Raises
    ------
    ParameterError
        It has neither of these methods.
    """
    if hasattr(dview, "map_sync"):
        return lambda work, jobs: list(dview.map_sync(work, jobs))
    if hasattr(dview, "submit"):
        return lambda work, jobs: [future.result() for future in [dview.submit(work, job) for job in jobs]]
    if hasattr(dview, "map"):
        return lambda work, jobs: list(dview.map(work, jobs))
    raise ParameterError(
        f"dview is a {type(dview).__name__}, which has none of map_sync, submit and map: give an executor "
        "(concurrent.futures), a pool, a view of a cluster, or None for threads"
    )
