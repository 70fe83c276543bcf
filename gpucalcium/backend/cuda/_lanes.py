"""A stream of its own for work that runs beside other work on the same GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cupy as cp


@contextmanager
def lane(index: int) -> Iterator[None]:
    """Work of this thread goes to a stream of its own, and is done at the end.

    The stream waits for what the default stream was given before: it is not a "non-blocking" one.
    """
    with cp.cuda.Device(index), cp.cuda.Stream() as stream:
        yield
        stream.synchronize()
