"""Sizes of batches: what they take fits the budget, and no more cells wait than must."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucalcium import backend, nets
from gpucalcium.cinac.sizes import DECODE_BATCH, ENCODE_BATCH, Sizes, _widest_layer
from gpucalcium.errors import MemoryBudgetError

FEATURE_BYTES = 4 * 2048


def model(place="cpu"):
    return SimpleNamespace(
        window_len=100, patch_size=25, device=SimpleNamespace(type=place), plan=nets.NetworkSpec().plan()
    )


@given(
    st.integers(64, 40_000),
    st.integers(1, 5000),
    st.integers(1, 300),
    st.integers(1, 100),
    st.sampled_from(["cpu", "cuda"]),
)
def test_what_sizes_take_fits_the_budget(megabytes, cells, windows, step, place):
    budget = megabytes << 20
    with backend.limit(memory=budget):
        found = Sizes.make(model(place), cells, windows, step, FEATURE_BYTES, 3)
    assert 1 <= found.cells <= cells
    assert 1 <= found.windows <= windows
    assert 1 <= found.encode_batch <= ENCODE_BATCH[place]
    assert 1 <= found.decode_batch <= DECODE_BATCH[place]
    assert found.frames == 1 or found.frames * found.cells * 3 <= found.encode_batch
    ring = 3 * FEATURE_BYTES * found.cells * (100 + (found.windows - 1) * step)
    encoding = found.encode_batch * 4 * _widest_layer(model())
    decoding = found.decode_batch * 3 * 100 * FEATURE_BYTES
    assert ring + encoding + decoding + found.stream_bytes <= budget


def test_all_cells_go_together_where_there_is_room():
    with backend.limit(memory="6GiB"):
        found = Sizes.make(model("cuda"), 1000, 249, 50, FEATURE_BYTES, 3)
        assert (found.cells, found.windows) == (1000, 1)
        one = Sizes.make(model("cuda"), 1, 100, 50, FEATURE_BYTES, 3)
        assert (one.cells, one.windows) == (1, 100)


def test_the_widest_layer_is_the_largest_output_of_the_encoder():
    assert _widest_layer(model()) == 25 * 25 * 64
    assert _widest_layer(SimpleNamespace(patch_size=9)) == 81


def test_too_little_is_said_with_what_is_needed():
    with (
        backend.limit(memory="10MiB"),
        pytest.raises(MemoryBudgetError, match=r"needs 4\d\.\d MiB; the budget is 10\.0 MiB"),
    ):
        Sizes.make(model(), 1, 1, 1, FEATURE_BYTES, 3)
