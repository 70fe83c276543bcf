"""Settings of PyTorch that hold for the whole process, set for a while and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from gpucalcium import backend


@contextmanager
def cpu_threads() -> Iterator[None]:
    """PyTorch's CPU threads are `backend.threads` meanwhile.

    To set them empties oneDNN's store of compiled convolutions, so nothing is done if they are right already:
    a loop of many short calls stands inside one ``with cpu_threads()``.
    """
    before, wanted = torch.get_num_threads(), backend.threads()
    if before == wanted:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """float32 products on the GPU may, or may not, be rounded to TF32 meanwhile (PyTorch's default differs by kind)."""
    with ExitStack() as restore:
        for owner, name, value in _tf32_settings(allowed):
            restore.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _tf32_settings(allowed: bool) -> list[tuple[Any, str, object]]:
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # PyTorch 2.9 and later; reading the older switches beside these is an error
        value = "tf32" if allowed else "ieee"
        return [(part, "fp32_precision", value) for part in (cudnn.conv, cudnn.rnn, matmul)]
    return [(part, "allow_tf32", allowed) for part in (cudnn, matmul)]


@contextmanager
def inference(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """No gradients, and the settings above as they suit the device."""
    with torch.inference_mode(), tensor_cores(tf32) if device.type == "cuda" else cpu_threads():
        yield
