"""One thread for PyTorch: these networks are too small to share among several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpucalcium import backend


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(backend, "threads", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
