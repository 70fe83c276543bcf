"""Training, validation and test sets: disjoint, of the sizes asked for, and never empty in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucalcium.cinac.split import SETS, split_activity, split_cell_types
from gpucalcium.cinac.training_data import Annotated
from gpucalcium.errors import ParameterError
from tests.cinac.scenes import recording

SHARES = (0.8, 0.2, 0.0)


def segments(lengths, **more):
    recordings = {n: recording(n, (6, 6), 1, movie=np.zeros((n, 6, 6), np.uint8)) for n in set(lengths)}
    return [
        Annotated(recordings[n], 0, np.zeros(n, np.int8), "one", identity=k, **more)
        for k, n in enumerate(lengths)
    ]


def split(annotated, shares=SHARES, seed=0, **more):
    options = {"keep_short_segments": 0, **more}
    return split_activity(annotated, shares, 10, np.random.default_rng(seed), **options)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(5, 300), min_size=1, max_size=8),
    shares=st.sampled_from([SHARES, (0.5, 0.5, 0.0), (0.6, 0.2, 0.2)]),
    seed=st.integers(0, 99),
)
def test_sets_are_disjoint_and_whole(lengths, shares, seed):
    annotated = segments([*lengths, 400])
    found = split(annotated, shares, seed)
    for one in annotated:
        frames = np.zeros(one.n_frames, int)
        for name in SETS:
            for member, first, stop in getattr(found, name):
                if member is one:
                    assert 0 <= first < stop <= one.n_frames and stop - first >= 10
                    frames[first:stop] += 1
        assert (frames == (one.n_frames >= 10)).all()


def test_shares_of_long_segments():
    sizes = split(segments([1000, 3000, 777]), (0.6, 0.3, 0.1)).sizes()
    total = sum(sizes.values())
    np.testing.assert_allclose([sizes[name] / total for name in SETS], (0.6, 0.3, 0.1), atol=0.01)


def test_the_order_in_time_is_drawn():
    found = split(segments([200] * 40))
    starts = [first for _, first, _ in found.validation]
    assert {0, 160} == set(starts)


def test_short_ones_go_whole_to_the_set_in_need():
    annotated = segments([40] * 50)  # a fifth of it is shorter than a window
    found = split(annotated, short_only_for_training=False)
    assert len(found.training) == 40 and len(found.validation) == 10
    with pytest.raises(ParameterError, match="validation"):
        split(annotated)
    found = split([*annotated, *segments([500])])
    assert len(found.training) == 51 and len(found.validation) == 1


def test_short_is_what_is_said_to_be():
    annotated = segments([150, 500])
    assert len(split(annotated).validation) == 2
    assert len(split(annotated, keep_short_segments=200).validation) == 1
    with pytest.raises(ParameterError, match="fewer than 2000 frames"):
        split(annotated, keep_short_segments=2000)


def test_doubtful_and_too_short_ones_are_left_out():
    doubtful = np.zeros(300, np.int8)
    doubtful[7] = 1
    annotated = [*segments([300, 9]), *segments([300], doubtful=doubtful)]
    assert {id(one) for one, _, _ in split(annotated).training} == {id(annotated[0])}


def test_only_for_training():
    annotated = [*segments([300]), *segments([300], only_for_training=True)]
    found = split(annotated)
    assert all(one is annotated[0] for one, _, _ in found.validation)
    assert (annotated[1], 0, 300) in found.training


def test_seeds_reproduce():
    annotated = segments([300] * 9)
    first, again, other = (split(annotated, seed=seed).validation for seed in (1, 1, 2))
    assert [part[1] for part in first] == [part[1] for part in again] != [part[1] for part in other]


def typed(counts, **more):
    annotated = segments([50] * sum(counts.values()), **more)
    names = [name for name, n in counts.items() for _ in range(n)]
    for one, name in zip(annotated, names, strict=True):
        object.__setattr__(one, "cell_type", name)
    return annotated


def test_cells_are_shared_out_whole_and_by_type():
    annotated = typed({"pyramidal": 20, "interneuron": 10, "noise": 5})
    for one in annotated[1:20:2]:  # the pyramidal ones are ten cells of two segments
        object.__setattr__(one, "identity", annotated[annotated.index(one) - 1].identity)
    found = split_cell_types(annotated, SHARES, np.random.default_rng(0))
    cells = {name: {one.identity for one, _, _ in getattr(found, name)} for name in SETS}
    assert not cells["training"] & cells["validation"]
    count = {
        kind: sum(one.cell_type == kind for one, _, _ in found.validation)
        for kind in ("pyramidal", "interneuron", "noise")
    }
    assert count == {"pyramidal": 4, "interneuron": 2, "noise": 1}
    assert len(found.training) == 28


def test_cells_for_training_only():
    annotated = typed({"a": 10}, only_for_training=False) + typed({"a": 10}, only_for_training=True)
    for k, one in enumerate(annotated):
        object.__setattr__(one, "identity", k)
    found = split_cell_types(annotated, SHARES, np.random.default_rng(0))
    assert not any(one.only_for_training for one, _, _ in found.validation) and len(found.validation) == 2


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.0), (1.0, 0.0, 0.0), (0.8, 0.4, -0.2), (0.8, 0.2)])
def test_shares_that_are_none(shares):
    with pytest.raises(ParameterError, match="split_values"):
        split(segments([300]), shares)
    with pytest.raises(ParameterError, match="split_values"):
        split_cell_types(typed({"a": 9}), shares, np.random.default_rng(0))


def test_an_empty_set_is_named():
    with pytest.raises(ParameterError, match="validation"):
        split_cell_types(typed({"a": 1, "b": 1}), SHARES, np.random.default_rng(0))
