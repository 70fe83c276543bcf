"""Balance of training sets: shares are as asked for, what must stay stays, what is dropped tells least."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucalcium.cinac.events import (
    CROPPED_FAKE,
    CROPPED_REAL,
    FAKE,
    FAKE_CODE,
    FULL_FAKE,
    FULL_REAL,
    NEUROPIL,
    OTHER_CODE,
    REAL,
    REAL_CODE,
    Events,
    WindowEvents,
)
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.cinac.stratify import Balance, copies, events_of, set_weights, stratified
from gpucalcium.errors import ParameterError
from tests.cinac.scenes import recording

REC = recording(10)


def window(category, *, count=1, longest=3, lowest=1.0, highest=1.0, session="one", keep=False, start=0):
    made = MoviePatchData(REC, 0, start, 5, session_id=session, to_keep_absolutely=keep)
    made.movie_info["events"] = WindowEvents(category, count, longest, lowest, highest)
    return made


def of(category, n, **more):
    rng = np.random.default_rng(n)
    highest = rng.uniform(1, 5, n) * (category != NEUROPIL)
    return [window(category, highest=float(high), start=k, **more) for k, high in enumerate(highest)]


def shares(patches):
    counts = [
        copies([p for p in patches if events_of(p).category in kinds]) for kinds in (REAL, FAKE, (NEUROPIL,))
    ]
    return np.array(counts) / sum(counts)


def balanced(patches, seed=0, **more):
    return stratified(patches, Balance(**more), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("real", "cropped", "fake", "other"),
    [(100, 20, 400, 300), (200, 10, 20, 5), (30, 0, 5, 900), (50, 50, 14, 7), (400, 3, 3, 2)],
)
@pytest.mark.parametrize("main", [(0.7, 0.2, 0.1), (0.5, 0.25, 0.25)])
def test_shares_are_as_asked_for(real, cropped, fake, other, main):
    patches = of(FULL_REAL, real) + of(CROPPED_REAL, cropped) + of(FULL_FAKE, fake) + of(NEUROPIL, other)
    made = balanced(patches, main=main)
    np.testing.assert_allclose(shares(made), main, atol=0.05)
    assert max(p.n_augmentations_to_perform for p in made) <= 6


def test_every_session_is_balanced_by_itself():
    patches = [
        *of(FULL_REAL, 90), *of(FULL_FAKE, 10), *of(NEUROPIL, 300),
        *of(FULL_REAL, 50, session="two"), *of(FULL_FAKE, 200, session="two"), *of(NEUROPIL, 9, session="two"),
    ]  # fmt: skip
    made = balanced(patches)
    for session in ("one", "two"):
        np.testing.assert_allclose(
            shares([p for p in made if p.session_id == session]), (0.7, 0.2, 0.1), atol=0.05
        )


def test_kinds_that_are_absent_leave_their_share_to_the_others():
    made = balanced(of(FULL_REAL, 70) + of(NEUROPIL, 200))
    np.testing.assert_allclose(shares(made), (0.875, 0, 0.125), atol=0.05)
    assert len(balanced(of(NEUROPIL, 20))) == 20
    assert balanced([]) == []


def test_a_share_of_none_drops_all():
    made = balanced(of(FULL_REAL, 70) + of(FULL_FAKE, 70) + of(NEUROPIL, 200), main=(0.8, 0.2, 0.0))
    np.testing.assert_allclose(shares(made), (0.8, 0.2, 0), atol=0.05)


def test_whole_transients_get_two_copies_each():
    made = balanced([window(FULL_REAL, count=c, start=c) for c in (1, 2, 5)], main=(1.0, 0.0, 0.0))
    assert {events_of(p).count: p.n_augmentations_to_perform for p in made} == {1: 2, 2: 4, 5: 6}


def test_the_lowest_fakes_are_dropped():
    fakes = of(FULL_FAKE, 300)
    made = balanced(of(FULL_REAL, 40) + fakes)
    kept = [events_of(p).highest for p in made if events_of(p).category == FULL_FAKE]
    assert 0 < len(kept) < 300
    np.testing.assert_array_equal(np.sort(kept), np.sort([events_of(p).highest for p in fakes])[-len(kept) :])


def test_what_must_stay_stays():
    kept = [window(FULL_FAKE, highest=0.0, keep=True, start=500 + k) for k in range(8)]
    kept += [window(NEUROPIL, keep=True, start=600 + k) for k in range(5)]
    made = balanced(of(FULL_REAL, 20) + of(FULL_FAKE, 300) + of(NEUROPIL, 300) + kept)
    assert {p.index_movie for p in kept} <= {p.index_movie for p in made if p.to_keep_absolutely}
    np.testing.assert_allclose(shares(made), (0.7, 0.2, 0.1), atol=0.05)
    only = balanced(of(FULL_REAL, 20) + kept, main=(1.0, 0.0, 0.0))
    assert sum(p.to_keep_absolutely for p in only) == len(kept)


def test_cropped_and_whole_ones_and_numbers_of_them_are_balanced():
    patches = of(FULL_REAL, 60) + of(FULL_REAL, 30, count=2) + of(CROPPED_REAL, 100)
    patches += of(FULL_FAKE, 200) + of(CROPPED_FAKE, 50) + of(NEUROPIL, 100)
    made = balanced(patches, crop_non_crop=(0.2, 0.8), non_crop=(0.5, 0.5))
    np.testing.assert_allclose(shares(made), (0.7, 0.2, 0.1), atol=0.05)
    count = {kind: copies([p for p in made if events_of(p).category == kind]) for kind in range(4)}
    np.testing.assert_allclose(count[CROPPED_REAL] / (count[CROPPED_REAL] + count[FULL_REAL]), 0.2, atol=0.05)
    np.testing.assert_allclose(count[CROPPED_FAKE] / (count[CROPPED_FAKE] + count[FULL_FAKE]), 0.2, atol=0.05)
    several = copies([p for p in made if events_of(p).category == FULL_REAL and events_of(p).count > 1])
    np.testing.assert_allclose(several / count[FULL_REAL], 0.5, atol=0.05)
    only_numbers = balanced(patches, non_crop=(0.3, 0.7))
    several = copies(
        [p for p in only_numbers if events_of(p).category == FULL_REAL and events_of(p).count > 1]
    )
    whole = copies([p for p in only_numbers if events_of(p).category == FULL_REAL])
    np.testing.assert_allclose(several / whole, 0.7, atol=0.05)


def test_seeds_reproduce_and_the_given_ones_are_not_changed():
    patches = of(FULL_REAL, 20) + of(NEUROPIL, 300)
    chosen = [
        {p.index_movie for p in balanced(patches, seed) if events_of(p).category == NEUROPIL}
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert all(p.n_augmentations_to_perform == 0 for p in patches)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.tuples(*[st.integers(0, 60)] * 5),
    most=st.integers(0, 6),
    seed=st.integers(0, 99),
    kept=st.integers(0, 5),
)
def test_nothing_is_made_up(counts, most, seed, kept):
    patches = [p for category, n in enumerate(counts) for p in of(category, n)]
    for k, patch in enumerate(patches):
        patch.to_keep_absolutely = k % 7 < kept
        patch.index_movie = k
    made = balanced(patches, seed, max_copies=most)
    places = [p.index_movie for p in made]
    assert len(set(places)) == len(places)
    assert {p.index_movie for p in patches if p.to_keep_absolutely} <= set(places)
    assert all(0 <= p.n_augmentations_to_perform <= most for p in made)


def test_weights():
    patches = [window(FULL_REAL, start=k, longest=k, lowest=float(k)) for k in range(21)]
    patches.append(window(FULL_REAL, count=2, longest=5, lowest=10.0, start=30))
    fakes = [window(FULL_FAKE, start=k, longest=k, highest=float(20 - k)) for k in range(21)]
    rest = [window(CROPPED_FAKE), window(CROPPED_REAL), window(NEUROPIL)]
    set_weights(patches + fakes + rest)
    assert [patches[k].weight for k in (0, 10, 20, 21)] == [4, 1, 4, 6]
    assert [fakes[k].weight for k in (0, 10, 20)] == [61, 51, 56]
    assert [p.weight for p in rest] == [6, 1, 1]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"main": (0.7, 0.2, 0.2)}, "main_ratio_balance"),
        ({"crop_non_crop": (0.5, 0.6)}, "crop_non_crop_ratio_balance"),
        ({"non_crop": (0.5,)}, "non_crop_ratio_balance"),
        ({"max_copies": -1}, "max_n_transformations"),
    ],
)
def test_balances_that_cannot_work(values, named):
    with pytest.raises(ParameterError, match=named):
        Balance(**values)


# ---------------------------------------------------------------------------- events


def bumps(n_frames, places, height=10.0):
    trace = np.zeros(n_frames)
    for first, last in places:
        trace[first : last + 1] += np.linspace(0, height, last - first + 1)
        trace[last + 1 : last + 1 + 6] += np.linspace(height, 0, 7)[1:]
    return trace + 0.01 * np.cos(np.arange(n_frames))


def test_events_are_real_fake_or_neither():
    trace = bumps(100, [(10, 14), (40, 44), (70, 74)])
    truth = np.zeros(100, int)
    truth[10:15] = 1
    seen = Events.of(truth, trace)
    np.testing.assert_array_equal(seen.real, [[10, 14]])
    assert len(seen.fake) == 2 and (seen.fake[:, 1] == [44, 74]).all()
    np.testing.assert_allclose(seen.fake_heights, 10, atol=0.1)
    codes = seen.codes(100)
    assert (codes[10:15] == REAL_CODE).all() and codes[44] == FAKE_CODE and codes[60] == OTHER_CODE


def test_a_window_is_the_first_that_applies():
    trace = bumps(200, [(10, 14), (40, 44), (70, 74)])
    truth = np.zeros(200, int)
    truth[10:15] = 1
    seen = Events.of(truth, trace)
    expected = {0: FULL_REAL, 12: CROPPED_REAL, 30: FULL_FAKE, 43: CROPPED_FAKE, 100: NEUROPIL}
    assert {start: seen.window(start, 20 if start != 43 else 10).category for start in expected} == expected
    both = seen.window(0, 60)
    assert (both.category, both.count, both.longest) == (FULL_REAL, 1, 5)
    assert seen.window(30, 60).count == 2


def test_a_silent_cell_has_no_events():
    seen = Events.of(np.zeros(30), np.zeros(30))
    assert len(seen.real) == len(seen.fake) == 0
    assert seen.window(0, 10).category == NEUROPIL
