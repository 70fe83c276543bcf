"""Which frames, or which cells, are trained on, and which ones tell how well that went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpucalcium.cinac.training_data import Annotated
from gpucalcium.errors import ParameterError

SETS = ("training", "validation", "test")
Part = tuple[Annotated, int, int]
"""Annotated frames of a cell, first frame, and the frame behind the last."""


@dataclass
class Split:
    """Parts of annotated segments: no frame of a cell is in two of the sets."""

    training: list[Part] = field(default_factory=list)
    validation: list[Part] = field(default_factory=list)
    test: list[Part] = field(default_factory=list)

    def sizes(self) -> dict[str, int]:
        """Frames in each set."""
        return {name: sum(stop - first for _, first, stop in getattr(self, name)) for name in SETS}


def split_activity(
    annotated: Sequence[Annotated],
    shares: tuple[float, float, float],
    window_len: int,
    rng: np.random.Generator,
    *,
    keep_short_segments: int = 2000,
    short_only_for_training: bool = True,
) -> Split:
    """Cut each segment in time; the order of the pieces is drawn.

    Segments shorter than a window, or with doubtful frames, are left out. A short one - of fewer than
    `keep_short_segments` frames, or whose share of a set would be shorter than a window - goes whole to one set: to
    training, or, unless `short_only_for_training`, to the one that has least of what it should have.

    Parameters
    ----------
    annotated : sequence of Annotated
    shares : (training, validation, test)
        Of the frames; they sum to 1.
    window_len : int
    rng : Generator
    keep_short_segments : int
        0: only those are short that cannot be cut.
    short_only_for_training : bool

    Raises
    ------
    ParameterError
        Shares that are none; nothing is left for training or validation.
    """
    _check_shares(shares)
    found = Split()
    smallest = min(share for share in shares if share > 0)
    for one in annotated:
        n = one.n_frames
        if n < window_len or one.has_doubtful_frames:
            continue
        if one.only_for_training:
            found.training.append((one, 0, n))
        elif n < keep_short_segments or n * smallest < window_len:
            name = "training" if short_only_for_training else _neediest(found, shares)
            getattr(found, name).append((one, 0, n))
        else:
            first = 0
            order = [int(i) for i in rng.permutation(3) if shares[i] > 0]
            for i in order:
                stop = n if i == order[-1] else first + round(n * shares[i])
                getattr(found, SETS[i]).append((one, first, stop))
                first = stop
    _check_filled(found, shares, keep_short_segments if short_only_for_training else 0)
    return found


def split_cell_types(
    annotated: Sequence[Annotated], shares: tuple[float, float, float], rng: np.random.Generator
) -> Split:
    """Share out whole cells, type by type, so that all sets have all types as far as there are enough cells.

    Raises
    ------
    ParameterError
        As `split_activity`.
    """
    _check_shares(shares)
    found = Split()
    for cell_type in sorted({one.cell_type for one in annotated if one.cell_type is not None}):
        groups: dict[object, list[Annotated]] = {}
        for one in annotated:
            if one.cell_type == cell_type:
                groups.setdefault(one.identity, []).append(one)
        cells = list(groups.values())
        free = [segments for segments in cells if not any(one.only_for_training for one in segments)]
        fixed = [segments for segments in cells if any(one.only_for_training for one in segments)]
        free = [free[i] for i in rng.permutation(len(free))]
        cuts = np.rint(np.cumsum(shares) * len(free)).astype(int)
        for name, members in zip(SETS, np.split(np.arange(len(free)), cuts[:2]), strict=True):
            for i in members:
                getattr(found, name).extend((one, 0, one.n_frames) for one in free[i])
        found.training.extend((one, 0, one.n_frames) for segments in fixed for one in segments)
    _check_filled(found, shares, 0)
    return found


def _neediest(found: Split, shares: tuple[float, float, float]) -> str:
    """The set that has the smallest part of what it should have."""
    sizes = found.sizes()
    total = max(sum(sizes.values()), 1)
    lack = [
        share - sizes[name] / total if share > 0 else -np.inf
        for name, share in zip(SETS, shares, strict=True)
    ]
    return SETS[int(np.argmax(lack))]


def _check_shares(shares: tuple[float, float, float]) -> None:
    if len(shares) != 3 or min(shares) < 0 or not np.isclose(sum(shares), 1) or min(shares[:2]) <= 0:
        raise ParameterError(
            f"split_values={shares}: shares of training, validation and test are expected, that sum to 1, the first "
            "two above 0"
        )


def _check_filled(found: Split, shares: tuple[float, float, float], short: int) -> None:
    sizes = found.sizes()
    for name, share in zip(SETS, shares, strict=True):
        if share > 0 and sizes[name] == 0:
            more = (
                f"; segments of fewer than {short} frames are trained on only: lower keep_short_segments, or set "
                "keep_short_segments_only_for_training=False"
                if short
                else ""
            )
            raise ParameterError(
                f"nothing is left for the {name} set: give more segments, longer ones, or other split_values{more}"
            )
