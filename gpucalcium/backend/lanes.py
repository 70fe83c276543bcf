"""Independent pieces of work side by side: in threads, on a GPU each with a stream of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Event, Lock
from typing import TypeVar

from threadpoolctl import threadpool_limits

from gpucalcium.backend import device as _device

STREAMS = 4  # on a GPU: enough for the kernels of one piece to fill the gaps that another leaves

Item = TypeVar("Item")
Result = TypeVar("Result")


def lane_count(need: int) -> int:
    """How many pieces of work that need so many bytes each can run at once on the active device; at least 1."""
    place = _device.active()
    most = _device.threads() if place.kind == "cpu" else STREAMS
    return max(1, min(most, _device.budget() // max(1, need)))


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], lanes: int) -> list[Result]:
    """``[work(item) for item in items]``, `lanes` at a time.

    Parameters
    ----------
    work : callable
        Releases the GIL where it takes long; must be free of side effects on what others use, `backend.use` and
        `backend.limit` among it, so that the number of lanes cannot change a result. It sees what was written on the
        default stream before.
    items : sequence
    lanes : int
        With 1 everything runs in the calling thread.

    Raises
    ------
    Exception
        What `work` raised, once the lanes have stopped.
    """
    lanes = min(lanes, len(items))
    if lanes <= 1:
        return [work(item) for item in items]
    results: dict[int, Result] = {}
    turns, lock, failed = iter(enumerate(items)), Lock(), Event()

    def next_turn() -> tuple[int, Item] | None:
        with lock:
            return None if failed.is_set() else next(turns, None)

    def run() -> None:
        try:
            with _lane():
                while (turn := next_turn()) is not None:
                    results[turn[0]] = work(turn[1])
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(lanes, thread_name_prefix="gpucalcium-lane") as pool:
        running = [pool.submit(run) for _ in range(lanes)]
    for lane in running:
        lane.result()
    return [results[i] for i in range(len(items))]


def one_blas_thread() -> AbstractContextManager[object]:
    """BLAS without threads of its own, in all threads, until the end of a ``with`` statement.

    Those of several lanes wait for each other in busy loops; and their number, which may change the last bit of a
    product, must not follow that of the lanes.
    """
    return threadpool_limits(1, user_api="blas")


def _lane() -> AbstractContextManager[object]:
    place = _device.active()
    if place.kind == "cpu":
        return nullcontext()
    return importlib.import_module("gpucalcium.backend.cuda._lanes").lane(place.index)
