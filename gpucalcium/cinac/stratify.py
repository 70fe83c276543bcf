"""Balance of a training set: which windows are kept, how many changed copies are made of each, and what it weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpucalcium.cinac.events import CROPPED_FAKE, CROPPED_REAL, FAKE, FULL_FAKE, FULL_REAL, REAL, WindowEvents
from gpucalcium.cinac.patch_data import MoviePatchData
from gpucalcium.errors import ParameterError

OFF = (-1.0, -1.0)
COPIES_PER_TRANSIENT = 2
LOW, HIGH = 10, 90  # percentiles below and above which transients are weak, long or high
Shares = tuple[float, float]


@dataclass(frozen=True)
class Balance:
    """What a training set is to be made of."""

    main: tuple[float, float, float] = (0.7, 0.2, 0.1)
    """Shares of windows with real transients, with fake ones only, and with neither."""
    crop_non_crop: Shares = OFF
    """Of windows with real transients, and of those with fake ones: shares of those whose transients are all cut by
    the window's border, and of the others. Negative: as they come."""
    non_crop: Shares = OFF
    """Of the others: shares of those with one whole transient and with several. Negative: as they come."""
    max_copies: int = 6
    """Changed copies of a window, at most."""

    def __post_init__(self) -> None:
        if len(self.main) != 3 or min(self.main) < 0 or not np.isclose(sum(self.main), 1):
            raise ParameterError(
                f"main_ratio_balance={self.main}: shares of windows with real transients, fake ones and neither are "
                "expected, that sum to 1"
            )
        for name in ("crop_non_crop", "non_crop"):
            shares = getattr(self, name)
            if len(shares) != 2 or (min(shares) >= 0 and not np.isclose(sum(shares), 1)):
                raise ParameterError(
                    f"{name}_ratio_balance={shares}: two shares that sum to 1, or negative ones for none, are expected"
                )
        if self.max_copies < 0:
            raise ParameterError(f"max_n_transformations={self.max_copies}: it must not be negative")


def stratified(
    patches: Sequence[MoviePatchData], balance: Balance, rng: np.random.Generator
) -> list[MoviePatchData]:
    """Windows of a training set in the shares asked for, session by session.

    Windows with real transients get two changed copies for each whole one. The set is then made as large as these ask
    for, or as large as the other kinds can be made by changed copies: of kinds of which there is too much, the lowest
    fake transients and any windows with neither are dropped; of others copies are added.

    Parameters
    ----------
    patches : sequence of MoviePatchData
        With ``movie_info["events"]``, a `WindowEvents`. Not changed.
    balance : Balance
    rng : Generator
        For what is dropped at random.

    Returns
    -------
    list of MoviePatchData
        Copies of those kept, with `n_augmentations_to_perform` set; counting these copies, shares are as asked for to
        the rounding of whole windows, among the kinds that there are. Those `to_keep_absolutely` are always there.
    """
    sessions: dict[str | None, list[MoviePatchData]] = {}
    for patch in patches:
        sessions.setdefault(patch.session_id, []).append(patch.copy())
    return [patch for session in sessions.values() for patch in _session(session, balance, rng)]


def _session(
    patches: list[MoviePatchData], balance: Balance, rng: np.random.Generator
) -> list[MoviePatchData]:
    for patch in patches:
        seen = events_of(patch)
        wanted = COPIES_PER_TRANSIENT * seen.count if seen.category == FULL_REAL else 0
        patch.n_augmentations_to_perform = min(wanted, balance.max_copies)
    leaves = [leaf for leaf in _leaves(patches, balance) if leaf.share > 0]
    absent = [patch for leaf in _leaves(patches, balance) if leaf.share == 0 for patch in leaf.patches]
    total = _total(leaves, balance.max_copies)
    kept = [patch for patch in absent if patch.to_keep_absolutely]
    for leaf in leaves:
        kept += _fitted(leaf.patches, round(total * leaf.share), balance.max_copies, rng)
    return kept


@dataclass
class _Leaf:
    """Windows of one kind, and their share."""

    share: float
    patches: list[MoviePatchData]
    is_real: bool


def _leaves(patches: list[MoviePatchData], balance: Balance) -> list[_Leaf]:
    """The kinds that are balanced against each other; shares of kinds that are absent go to those that are there."""
    groups = [
        ([p for p in patches if events_of(p).category in REAL], balance.main[0], True),
        ([p for p in patches if events_of(p).category in FAKE], balance.main[1], False),
        ([p for p in patches if events_of(p).category not in REAL + FAKE], balance.main[2], False),
    ]
    present = sum(share for group, share, _ in groups if group)
    return [
        _Leaf(part_share, part, is_real)
        for members, share, is_real in groups
        if members
        for part, part_share in _parts(members, share / present if present > 0 else 0.0, balance)
    ]


def _parts(
    members: list[MoviePatchData], share: float, balance: Balance
) -> list[tuple[list[MoviePatchData], float]]:
    """Windows of one kind, apart where cropped and whole ones, or one and several, are balanced."""
    cropped = [p for p in members if events_of(p).category in (CROPPED_REAL, CROPPED_FAKE)]
    whole = [p for p in members if events_of(p).category in (FULL_REAL, FULL_FAKE)]
    if not (cropped or whole) or max(*balance.crop_non_crop, *balance.non_crop) < 0:
        return [(members, share)]
    found = []
    for part, part_share in _divided(share, (cropped, whole), balance.crop_non_crop):
        if part is whole and max(balance.non_crop) >= 0:
            one = [p for p in whole if events_of(p).count == 1]
            several = [p for p in whole if events_of(p).count > 1]
            found += _divided(part_share, (one, several), balance.non_crop)
        else:
            found.append((part, part_share))
    return found


def _divided(
    share: float, parts: tuple[list[MoviePatchData], list[MoviePatchData]], shares: Shares
) -> list[tuple[list[MoviePatchData], float]]:
    """Parts that are not empty, each with its part of the share: as asked for, or as many as there are."""
    sizes = [
        copies(part) if min(shares) < 0 else wanted * bool(part)
        for part, wanted in zip(parts, shares, strict=True)
    ]
    whole = sum(sizes) or 1
    return [(part, share * size / whole) for part, size in zip(parts, sizes, strict=True) if part]


def _total(leaves: Sequence[_Leaf], max_copies: int) -> float:
    """Windows and copies of the balanced set: what real transients ask for, if the rest can follow."""
    most = min((len(leaf.patches) * (1 + max_copies) / leaf.share for leaf in leaves), default=0.0)
    real = [leaf for leaf in leaves if leaf.is_real]
    asked = max((copies(leaf.patches) / leaf.share for leaf in real), default=None)
    if asked is None:
        asked = min((len(leaf.patches) / leaf.share for leaf in leaves), default=0.0)
    fixed = max(
        (sum(p.to_keep_absolutely for p in leaf.patches) / leaf.share for leaf in leaves), default=0.0
    )
    return min(max(asked, fixed), most)


def _fitted(
    patches: list[MoviePatchData], target: int, max_copies: int, rng: np.random.Generator
) -> list[MoviePatchData]:
    """As many windows and copies as `target`: the least telling ones dropped, or copies added to all in turn."""
    order = rng.permutation(len(patches))
    telling = sorted((patches[i] for i in order), key=_value, reverse=True)
    kept = telling[: max(target, sum(p.to_keep_absolutely for p in telling))]
    surplus = copies(kept) - target
    for patch in reversed(kept):
        fewer = min(max(surplus, 0), patch.n_augmentations_to_perform)
        patch.n_augmentations_to_perform -= fewer
        surplus -= fewer
    while surplus < 0:
        room = [p for p in kept if p.n_augmentations_to_perform < max_copies]
        if not room:
            break
        for patch in room[:-surplus]:
            patch.n_augmentations_to_perform += 1
        surplus += len(room[:-surplus])
    return kept


def _value(patch: MoviePatchData) -> tuple[bool, bool, float]:
    """What is kept first: what must be, whole transients, high ones."""
    seen = events_of(patch)
    return patch.to_keep_absolutely, seen.category in (FULL_REAL, FULL_FAKE), seen.highest


def copies(patches: Sequence[MoviePatchData]) -> int:
    """Windows and their changed copies."""
    return len(patches) + sum(patch.n_augmentations_to_perform for patch in patches)


def events_of(patch: MoviePatchData) -> WindowEvents:
    """What a window shows."""
    seen: WindowEvents = patch.movie_info["events"]
    return seen


def set_weights(patches: Sequence[MoviePatchData]) -> None:
    """Set what the loss of each window weighs.

    1; a window with whole real transients 5 more if several, 3 more if one is long, 3 more if one is weak; one with
    whole fake transients 50 more, 5 if one is long, 10 if one is high; with cut ones 5 more. Long and high: above
    the 90th percentile of windows of that category; weak: below the 10th.
    """
    for category in (FULL_REAL, FULL_FAKE, CROPPED_FAKE):
        members = [patch for patch in patches if events_of(patch).category == category]
        if not members:
            continue
        seen = [events_of(patch) for patch in members]
        long = np.percentile([one.longest for one in seen], HIGH)
        weak = np.percentile([one.lowest for one in seen], LOW)
        high = np.percentile([one.highest for one in seen], HIGH)
        for patch, one in zip(members, seen, strict=True):
            if category == FULL_REAL:
                more = 5 * (one.count > 1) + 3 * (one.longest > long) + 3 * (one.lowest < weak)
            elif category == FULL_FAKE:
                more = 50 + 5 * (one.longest > long) + 10 * (one.highest > high)
            else:
                more = 5
            patch.weight = 1.0 + more
