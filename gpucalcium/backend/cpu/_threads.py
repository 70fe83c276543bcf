"""Work shared among threads that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from gpucalcium.backend.device import threads

PIECES_PER_THREAD = 4  # so that a thread the system slows down does not hold up the rest


def share(n: int, work: Callable[[int, int], object], grain: int = 1) -> None:
    """Call ``work(first, last)`` on ranges that cover ``0..n``, on all worker threads; returns when all are done.

    Ranges start at multiples of `grain`. `work` must be free of side effects outside its range, so that
    the number of threads cannot change a result, and must not share in its turn. Usable from any thread.
    """
    workers = threads()
    step = grain * max(1, -(-n // (grain * workers * PIECES_PER_THREAD)))
    ranges = [(first, min(first + step, n)) for first in range(0, n, step)]
    if workers == 1 or len(ranges) < 2:
        for first, last in ranges:
            work(first, last)
        return
    list(_pool(workers, os.getpid()).map(lambda ends: work(*ends), ranges))


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay: to start them anew would cost more than many a call. A forked process has its own."""
    return ThreadPoolExecutor(workers, thread_name_prefix="gpucalcium-work")
