import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucalcium.backend.cpu._threads import share


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 5))
def test_every_item_is_worked_on_once_and_ranges_start_at_grains(n, grain, workers):
    seen = np.zeros(n, int)
    starts = []

    def work(first, last):
        starts.append(first)
        seen[first:last] += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUCALCIUM_THREADS", str(workers))
        share(n, work, grain)
    assert (seen == 1).all()
    assert all(first % grain == 0 for first in starts)


def test_an_error_reaches_the_caller(monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_THREADS", "2")

    def work(first, last):
        if first == 0:
            raise ZeroDivisionError("in a thread")

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        share(10, work)
    share(10, lambda first, last: None)
