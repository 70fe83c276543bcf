"""What patches are found with: a template sharpened by the field itself, its noise, and how smooth the field is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucalcium.backend import Array
from gpucalcium.registration.apply import displace_field
from gpucalcium.registration.matching import Matcher, Noise
from gpucalcium.registration.patch_matching import PatchMatcher
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.template import mean_and_variance, mean_power


def first_patch_matcher(
    sample: Array,
    rigid: Matcher,
    noise: Noise,
    grid: PatchGrid,
    deviation: tuple[float, ...],
    *,
    keep: bool,
    high_pass: NDArray[np.float64] | None = None,
) -> PatchMatcher:
    """Register a sample of frames patch by patch, and learn from what was found.

    The sample gives the noise that is left, which is less than after rigid registration, and a sharper template.

    Parameters
    ----------
    sample : (n, d1, d2[, d3]), any real dtype
    rigid : Matcher
        Finds frames as a whole.
    noise : Noise
        What it was made with.
    grid : PatchGrid
    deviation : tuple of float
        Largest distance of a patch's shift from its frame's, per axis.
    keep : bool
        The template stays as it is, and only the rest is learned.
    high_pass : array, optional
        See `Matcher.make`.
    """
    finder = PatchMatcher.make(rigid, grid, deviation, noise, high_pass)
    if not any(deviation):
        return finder
    shown = finder.show(sample)
    field = finder.taught(shown, noise).settle(shown).field
    mean, variance = mean_and_variance(displace_field(sample, field, grid, interpolate=True))
    mean = np.where(np.isfinite(mean), mean, rigid.template)  # at borders that came into view in no frame
    left = Noise.measured(
        mean_power(sample, rigid.template),
        mean.astype(np.float64) - mean.mean(dtype=np.float64),
        variance,
        len(sample),
    )
    sharper = Matcher.make(rigid.template if keep else mean, rigid.bound, left, high_pass)
    return PatchMatcher.make(sharper, grid, deviation, left, high_pass).taught(shown, left)
