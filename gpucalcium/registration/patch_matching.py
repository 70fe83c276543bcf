"""Matched filters of all patches of a frame: where each patch lies beside where the frame as a whole lies.

The theory is that of `gpucalcium.registration.matching`: the template is whitened once, as a whole, and each patch's
filter is cut out of it. docs/theory/registration.md has the derivation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.registration.matching import (
    NO_SIGNAL,
    Located,
    Matcher,
    Noise,
    band_of,
    cut,
    multiplicity,
    settled,
    wave_number,
)
from gpucalcium.registration.pass_band import passed
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.smoothness import Evidence, Smoothness, patch_window

TAPER_SHARE = 0.2  # of the side of a patch, at either end
QUIET_SHARE = 0.1  # of the largest deviation: fields that may come in a recording whose sample is still
INFORMATION_KEPT = 0.985  # of what all patches tell of their place: 0.999 costs twice the time and gains 2 %


@dataclass(frozen=True)
class LocatedPatches(Located):
    """Where frames, and each of their patches, were found; arrays on the device of the frames."""

    field: Array
    """(n, *counts, ndim) float32, total displacement to be applied at the centre of each patch."""


@dataclass(frozen=True)
class Shown:
    """What the patches of frames show, each for itself; arrays on the device of the frames."""

    whole: Located
    """The frames."""
    apart: Array
    """(n, n_patches, ndim) float32, displacement beside that of the frame; 0 where nothing is seen."""
    seen: Array
    """(n, n_patches) bool, whether there is anything of the template in it."""


@dataclass(frozen=True)
class PatchMatcher:
    """Finds frames, and then their patches, against one template."""

    rigid: Matcher
    """Finds the frame as a whole."""
    grid: PatchGrid
    deviation: tuple[float, ...]
    """Largest distance of a patch's shift from the frame's, per axis, pixels."""
    kernels: NDArray[np.complex64]
    """(n_patches, b1, b2[, b3]) as `Matcher.kernel`, of each patch; zero where there is nothing to be found."""
    bias: NDArray[np.float32]
    """(n_patches, ndim) where each patch of the template finds itself."""
    smoothness: Smoothness
    """What patches tell of each other."""

    @classmethod
    def make(
        cls,
        rigid: Matcher,
        grid: PatchGrid,
        deviation: tuple[float, ...],
        noise: Noise,
        high_pass: NDArray[np.float64] | None = None,
    ) -> PatchMatcher:
        """Filters for the patches of the template of `rigid`; `noise` and `high_pass` as it was made with."""
        kernels = _kernels(rigid.fill.astype(np.float64), grid, noise, high_pass)
        fill, wing = backend.put(rigid.fill), backend.wing()
        bias, peaks = (
            backend.to_numpy(x)[0]
            for x in wing.patches.locate_patches(
                fill[None],
                fill,
                0.0,
                backend.zeros((1, len(grid.shape)), "int32"),
                grid.starts,
                grid.width,
                backend.put(kernels),
                _searched(deviation, grid.width),
            )
        )
        found = peaks > 0
        scale = np.where(found, 1 / np.where(found, peaks, 1), 0).astype(np.float32)
        kernels *= scale.reshape(-1, *(1,) * len(grid.shape))
        alone = Smoothness.none(grid.n, len(grid.shape))
        return cls(rigid, grid, deviation, kernels, bias * found[:, None], alone)

    def taught(self, shown: Shown, noise: Noise) -> PatchMatcher:
        """The same with what patches tell of each other, as learned from some frames."""
        evidence = Evidence.of(
            self.rigid.fill.astype(np.float64), self.kernels, self.grid, noise, TAPER_SHARE
        )
        good = ~backend.to_numpy(shown.whole.empty)
        apart = backend.to_numpy(shown.apart)[good].astype(np.float64)
        least = tuple(QUIET_SHARE * d for d in self.deviation)
        return replace(self, smoothness=Smoothness.learned(apart, evidence, self.grid, least))

    def locate(self, frames: Array) -> LocatedPatches:
        """Displacement that moves each patch of `frames` (n, d1, d2[, d3]), of any dtype, onto the template."""
        return self.settle(self.show(frames))

    def show(self, frames: Array) -> Shown:
        """What the patches of `frames` show, each for itself."""
        xp = backend.arrays.xp(frames)
        whole = self.rigid.locate(frames)
        moves = xp.round(-whole.shifts).astype(np.int32)
        offsets, peaks = backend.wing(frames).patches.locate_patches(
            frames,
            xp.asarray(self.rigid.fill),
            self.rigid.offset,
            moves,
            self.grid.starts,
            self.grid.width,
            xp.asarray(self.kernels),
            _searched(self.deviation, self.grid.width),
        )
        apart = (
            xp.asarray(self.bias) - offsets - moves[:, None, :].astype(np.float32) - whole.shifts[:, None, :]
        )
        seen = (peaks >= NO_SIGNAL) & ~whole.empty[:, None]
        return Shown(whole, apart * seen[:, :, None], seen)

    def settle(self, shown: Shown) -> LocatedPatches:
        """The displacement field of frames, from what their patches show."""
        whole, xp = shown.whole, backend.arrays.xp(shown.apart)
        learned, most = self.smoothness, xp.asarray(np.array(self.deviation, np.float32))
        apart = backend.wing(shown.apart).patches.settle(
            shown.apart,
            shown.seen,
            *(xp.asarray(x) for x in (learned.within, learned.at_centres, learned.limit)),
        )
        beyond = ((abs(apart) > most) & (most > 0)).any(axis=2).any(axis=1)
        field = settled(whole.shifts[:, None, :] + xp.clip(apart, -most, most) * ~whole.empty[:, None, None])
        return LocatedPatches(
            whole.shifts,
            whole.peaks,
            whole.missing,
            whole.clamped | beyond,
            whole.empty,
            (field + np.float32(0)).reshape(-1, *self.grid.counts, field.shape[-1]),
        )


def _searched(deviation: tuple[float, ...], width: tuple[int, ...]) -> tuple[int, ...]:
    """Whole pixels around where the frame was read: it lies up to half a pixel from there, and one more shows
    what lies beyond. Never half of a patch or more, since correlation is circular."""
    return tuple(
        min(math.ceil(d) + 1, (w - 1) // 2) if d else 0 for d, w in zip(deviation, width, strict=True)
    )


def _kernels(
    image: NDArray[np.float64], grid: PatchGrid, noise: Noise, high_pass: NDArray[np.float64] | None
) -> NDArray[np.complex64]:
    """Conjugated spectra of the whitened patches, scaled for an unnormalised inverse, within the band."""
    if high_pass is not None:
        image = passed(image, high_pass)
    whitened = scipy.fft.irfftn(scipy.fft.rfftn(image - image.mean()) * noise.weight, s=image.shape)
    whitened /= noise.deviation
    inside = patch_window(grid.width, TAPER_SHARE)
    axes = tuple(range(1, image.ndim + 1))
    filters = np.stack([whitened[patch] * inside for patch in grid.slices])
    filters -= inside * (filters.sum(axis=axes, keepdims=True) / inside.sum())
    if high_pass is not None:
        filters = passed(filters, high_pass)
    spectra = scipy.fft.rfftn(filters, axes=axes).conj()
    spectra[(slice(None), *(0,) * image.ndim)] = 0
    patches = np.stack([image[patch] for patch in grid.slices])
    told = np.abs(spectra * scipy.fft.rfftn(patches * inside, axes=axes)).sum(axis=0) * multiplicity(
        grid.width
    )
    told *= wave_number(grid.width) ** 2
    return cut(spectra, grid.width, band_of(told, grid.width, INFORMATION_KEPT))
