"""How well a raster agrees with the truth, frame by frame and transient by transient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac.traces import z_scored
from gpucalcium.cinac.transients import putative_transients, runs, without_active_frame
from gpucalcium.errors import ArrayShapeError

OUTCOMES = ("TP", "FP", "FN", "TN")


@dataclass(frozen=True)
class Scores:
    """How often a prediction was right and wrong, and the rates that follow; a rate of nothing is 1."""

    tp: int
    """Active, and said to be."""
    fp: int
    """Said to be active, and not."""
    fn: int
    """Active, and said not to be."""
    tn: int
    """Not active, and said not to be."""

    @property
    def sensitivity(self) -> float:
        """Share of what is active that was found (recall, TPR)."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of what is not active that was let alone (TNR)."""
        return _share(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float:
        """Share of what was said to be active that is (precision)."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float:
        """Share of what was said not to be active that is not."""
        return _share(self.tn, self.tn + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of what was right."""
        return _share(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        precision, recall = self.ppv, self.sensitivity
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def lr_plus(self) -> float:
        """Likelihood ratio of a positive: sensitivity / (1 - specificity)."""
        return _share(self.sensitivity, 1 - self.specificity)

    @property
    def lr_minus(self) -> float:
        """Likelihood ratio of a negative: (1 - sensitivity) / specificity."""
        return _share(1 - self.sensitivity, self.specificity)

    def as_dict(self) -> dict[str, float]:
        """Counts, rates, their complements and ratios, by their usual names."""
        return {
            **dict(zip(OUTCOMES, (self.tp, self.fp, self.fn, self.tn), strict=True)),
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "PPV": self.ppv,
            "NPV": self.npv,
            "ACC": self.accuracy,
            "FNR": 1 - self.sensitivity,
            "FPR": 1 - self.specificity,
            "FDR": 1 - self.ppv,
            "FOR": 1 - self.npv,
            "LR+": self.lr_plus,
            "LR-": self.lr_minus,
            "F1": self.f1,
        }

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


@dataclass(frozen=True, eq=False)
class ActivityStats:
    """What a raster is worth."""

    frames: Scores
    """Counted in frames."""
    transients: Scores
    """Counted in transients: true ones with a predicted frame, or none; and what could be one but is not, likewise."""
    found: NDArray[np.float64]
    """For each true transient that was found, which percentage of its frames was."""
    probabilities: Mapping[str, NDArray[np.float64]] | None
    """For the transients of each outcome (TP, FP, FN, TN), the largest probability in their frames; None: not given."""


def compute_stats_over_gt(
    raster_gt: ArrayLike,
    raster_to_evaluate: ArrayLike,
    traces: ArrayLike,
    raster_predictions: ArrayLike | None = None,
    fluorescence_threshold: float | None = None,
    *,
    annotated: ArrayLike | None = None,
) -> ActivityStats:
    """Compare a raster with the truth.

    Parameters
    ----------
    raster_gt, raster_to_evaluate : (N, T) or (T,)
        What is not 0 is active. Cells are pooled.
    traces : same shape
        Smooth traces, in which transients that are not true are sought, see `putative_transients`. Not changed.
    raster_predictions : same shape, optional
        Probability of activity.
    fluorescence_threshold : float, optional
        Peaks below it, in standard deviations of the trace above its mean, are not taken for transients.
    annotated : same shape, optional
        Frames that count: those that were annotated and are not doubtful. Default: all.

    Returns
    -------
    ActivityStats

    Raises
    ------
    ArrayShapeError
        Not all of one shape.
    """
    truth, predicted = (
        _raster(x, name) for x, name in ((raster_gt, "raster_gt"), (raster_to_evaluate, "raster_to_evaluate"))
    )
    signals = _alike(np.array(traces, np.float64), "traces", truth.shape)
    _alike(predicted, "raster_to_evaluate", truth.shape)
    counts = (
        np.ones(truth.shape, bool)
        if annotated is None
        else _alike(_raster(annotated, "annotated"), "annotated", truth.shape)
    )
    chances = None
    if raster_predictions is not None:
        chances = _alike(
            np.atleast_2d(np.asarray(raster_predictions, np.float64)), "raster_predictions", truth.shape
        )
    outcomes: list[tuple[str, float, float]] = []
    for cell, (true, said, trace, seen) in enumerate(zip(truth, predicted, signals, counts, strict=True)):
        could_be = putative_transients(z_scored(trace), fluorescence_threshold)
        places = runs(true), without_active_frame(could_be, true)
        outcomes += _outcomes(places, said, seen, None if chances is None else chances[cell])
    of = {name: [one for one in outcomes if one[0] == name] for name in OUTCOMES}
    return ActivityStats(
        frame_scores(truth[counts], predicted[counts]),
        Scores(*(len(of[name]) for name in OUTCOMES)),
        np.array([share for _, share, _ in of["TP"]]),
        None if chances is None else {name: np.array([best for _, _, best in of[name]]) for name in OUTCOMES},
    )


def frame_scores(truth: ArrayLike, predicted: ArrayLike) -> Scores:
    """How often frames are right and wrong; arrays of one shape, what is not 0 is active."""
    true, said = np.asarray(truth) != 0, np.asarray(predicted) != 0
    pairs = ((true & said), (~true & said), (true & ~said), (~true & ~said))
    return Scores(*(int(np.count_nonzero(pair)) for pair in pairs))


def _outcomes(
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    predicted: NDArray[np.bool_],
    annotated: NDArray[np.bool_],
    chances: NDArray[np.float64] | None,
) -> list[tuple[str, float, float]]:
    """For each transient, true or fake, its outcome, the percentage of its frames predicted, and the best chance."""
    found = []
    for ends, hit, missed in zip(places, ("TP", "FP"), ("FN", "TN"), strict=True):
        for first, last in ends:
            frames = first + np.flatnonzero(annotated[first : last + 1])
            if len(frames):
                share = 100 * float(predicted[frames].mean())
                best = float("nan") if chances is None else float(chances[frames].max())
                found.append((hit if share else missed, share, best))
    return found


def _raster(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    array = np.atleast_2d(np.asarray(values)) != 0
    if array.ndim != 2:
        raise ArrayShapeError(f"{name} has shape {array.shape}; (cells, frames) is expected")
    return array


def _alike(values: NDArray, name: str, shape: tuple[int, ...]) -> NDArray:
    array = np.atleast_2d(values)
    if array.shape != shape:
        raise ArrayShapeError(f"{name} has shape {np.shape(values)}; it must be that of raster_gt, {shape}")
    return array


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
