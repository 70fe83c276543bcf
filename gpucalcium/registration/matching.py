"""The matched filter that registration uses: a template, weighted by the noise it has to be found in.

A frame is the template displaced by d, plus activity, background changes and photon noise. For stationary
noise of power spectrum N(k) the best linear estimate of d is where the correlation of the frame with the
template divided by N(k) is largest (the whitened matched filter: Knapp & Carter 1976, IEEE Trans. ASSP
24:320, eq. 31, with a template for the second sensor). docs/theory/registration.md has the derivation and
what each of the steps here gains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gpucalcium import backend
from gpucalcium.backend import Array, fourier
from gpucalcium.registration.activity import Activity
from gpucalcium.registration.pass_band import passed

SPECTRUM_POWER = 0.65
"""Exponent of N(k). Part of what N counts as noise is cells that brighten in place: it weighs less than its power."""
DEVIATION_POWER = 0.5
"""Exponent of the local variance: half of what stationary theory would divide by, for the same reason."""
SMOOTHING = 2.0  # pixels; the variance of a single pixel is too uncertain a weight
WEIGHT_RANGE = (
    20.0  # no pixel counts more than this times, or less than one part in this of, the median pixel
)
NOISE_FLOOR = 1e-3  # of a frame's own power: without noise the filter must not become infinitely sharp
EMPTY_RING = (
    1e-12  # of the strongest ring: one without any power (planes that are all alike) gets no infinite weight
)
INFORMATION_KEPT = 0.99  # of sum k^2 S(k) / N(k), which is what the variance of the shift depends on
CURVATURE_KEPT = 0.999  # of sum k^2 |H(k) T(k)|, for filters that must stay orthogonal to activity
MARGIN_SHARE, TAPER_SHARE = 0.05, 0.1  # of the side of the frame
FEW = 20  # pixels: shorter axes have margins of so many pixels, see `few_ends`
FEW_MARGIN, FEW_MARGIN_SHARE = 1.25, 0.16
FEW_TAPER, FEW_TAPER_SHARE = 2.0, 0.25
REACH = 1.0  # pixels that the nearest maximum may lie from where the coarse filter found the frame
WHOLE = 1e-4  # pixels: nearer to whole ones than this is rounding, which would cost a line at the border
NO_SIGNAL = 1e-3  # of the template's correlation with itself: below, the frame shows nothing


def taper(length: int, margin: float, width: float) -> NDArray[np.float64]:
    """Zero on `margin` pixels at either end of an axis, rising to one as half a cosine over `width` more."""
    distance = np.minimum(np.arange(length), length - 1 - np.arange(length)) + 0.5 - margin
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / max(width, 1e-9), 0.0, 1.0))


def few_ends(length: int) -> tuple[float, float]:
    """Margin and width of the taper of an axis of few pixels, such as the planes of a volume.

    Shares of it would be less than the plane that comes in, and goes out, with a shift of one: shifts would be found
    a third too small.
    """
    return min(FEW_MARGIN, FEW_MARGIN_SHARE * length), min(FEW_TAPER, FEW_TAPER_SHARE * length)


def window(shape: tuple[int, ...], margins: tuple[float, ...]) -> NDArray[np.float64]:
    """Separable taper of an image."""
    result = np.ones(())
    for n, margin in zip(shape, margins, strict=True):
        result = np.multiply.outer(result, taper(n, margin, TAPER_SHARE * n))
    return result


@dataclass(frozen=True)
class Noise:
    """What a frame holds beside the displaced template."""

    spectrum: NDArray[np.float64]
    """N(k) on the grid of rfftn, the same in all directions."""
    signal: NDArray[np.float64]
    """Share of the mean image's power that is not noise itself, 0 to 1, on the same grid."""
    structure: NDArray[np.float64]
    """Power of the mean image without noise, on the same grid."""
    deviation: NDArray[np.float64]
    """Local standard deviation to the power that weights need, (d1, d2[, d3]); its median is one."""
    activity: Activity | None = None
    """Where what varies lies, if that was measured: then it, and not the spectrum, decides what frames are found by."""

    @cached_property
    def weight(self) -> NDArray[np.float64]:
        """What the template's spectrum is multiplied by."""
        divisor = self.spectrum**SPECTRUM_POWER
        return np.divide(self.signal, divisor, out=np.zeros_like(divisor), where=divisor > 0)

    @classmethod
    def unknown(cls, power: NDArray[np.float64], shape: tuple[int, ...]) -> Noise:
        """Before anything is registered: all of a frame's power (d1, d2//2+1) counts as noise."""
        spectrum = isotropic(power, shape)
        return cls(spectrum, np.ones_like(spectrum), spectrum, np.ones(shape))

    @classmethod
    def measured(
        cls,
        power: NDArray[np.float64],
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
        frames: float,
    ) -> Noise:
        """From the frames' mean power, and the mean image and variance once they are registered.

        N = <|Y|^2> - |<Y>|^2, of which the fraction 1/frames is left in the mean image.
        """
        shape = mean.shape
        coherent = np.abs(scipy.fft.rfftn(mean * window(shape, (0,) * mean.ndim))) ** 2
        spectrum = isotropic(np.maximum(power - coherent, 0) * frames / max(frames - 1, 1), shape)
        spectrum = np.maximum(spectrum, NOISE_FLOOR * isotropic(power, shape))
        image = isotropic(coherent, shape)
        structure = np.maximum(image - spectrum / frames, 0)
        share = np.divide(structure, image, out=np.zeros_like(image), where=image > 0)
        return cls(spectrum, share, structure, _local_weight(variance))


def _local_weight(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    smooth = gaussian_filter(variance, SMOOTHING)
    middle = np.median(smooth)
    if middle <= 0:
        return np.ones_like(smooth)
    return np.clip(smooth / middle, 1 / WEIGHT_RANGE, WEIGHT_RANGE) ** DEVIATION_POWER


def wave_number(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """|k| in cycles per pixel on the grid of rfftn."""
    axes = [scipy.fft.fftfreq(n) for n in shape[:-1]] + [scipy.fft.rfftfreq(shape[-1])]
    return np.sqrt(sum(k**2 for k in np.meshgrid(*axes, indexing="ij")))


@lru_cache(maxsize=4)
def _rings(shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """|k| in rings, one cycle wide; the ring nearest to each frequency; and how many are in each, the mean left out."""
    radius = wave_number(shape) * max(shape)
    rings = np.rint(radius).astype(np.int64)
    weight = multiplicity(shape) * np.ones(rings.shape)
    weight[(0,) * rings.ndim] = 0
    return radius, rings, np.bincount(rings.ravel(), weight.ravel()).astype(np.float64)


def isotropic(power: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A power spectrum averaged over directions, on the same grid; the mean of the image does not count."""
    radius, rings, count = _rings(shape)
    weighted = power * multiplicity(shape)
    weighted[(0,) * power.ndim] = 0
    total = np.bincount(rings.ravel(), weighted.ravel())
    if not (total > 0).any():
        return np.zeros_like(power)
    filled = np.flatnonzero(count)
    mean = total[filled] / count[filled]
    log_mean = np.log(np.maximum(mean, EMPTY_RING * mean.max()))
    return np.exp(np.interp(radius, filled, log_mean))


def multiplicity(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How often each column of rfftn stands for a frequency of the full transform."""
    columns = np.full(shape[-1] // 2 + 1, 2.0)
    columns[0] = 1
    if shape[-1] % 2 == 0:
        columns[-1] = 1
    return columns


@dataclass(frozen=True)
class Located:
    """Where frames were found; arrays on the device of the frames."""

    shifts: Array
    """(n, ndim) float32, displacement to be applied, within the bound."""
    peaks: Array
    """(n,) float32, height of the correlation: 1 for a frame that equals the template, 0 for none in common."""
    missing: Array
    """(n,) int32, pixels that were NaN or infinite."""
    clamped: Array
    """(n,) bool, the best match lay beyond the bound."""
    empty: Array
    """(n,) bool, nothing of the template in it: the shift is zero."""


@dataclass(frozen=True)
class Matcher:
    """Finds frames against one template."""

    template: NDArray[np.float32]
    """(d1, d2[, d3]) in the movie's units."""
    bound: tuple[int, ...]
    """Largest shift per axis, pixels."""
    offset: float
    """Brightness subtracted before transforms."""
    fill: NDArray[np.float32]
    """What stands for missing pixels, `offset` subtracted."""
    kernel: NDArray[np.complex64]
    """Weighted template spectrum within the band, scaled so that the template finds itself with peak 1."""
    bias: NDArray[np.float32]
    """(ndim,) where the template finds itself, pixels; taken off every result."""
    coarse: Matcher | None = None
    """Finds the frame to a pixel first, where the kernel knows little beyond the nearest maximum."""
    across: Matcher | None = None
    """Finds displacement along axes of few pixels, such as the planes of a volume: it looks at the inner ones alone."""

    @classmethod
    def make(
        cls,
        template: NDArray[np.float32],
        bound: tuple[int, ...],
        noise: Noise,
        high_pass: NDArray[np.float64] | None = None,
        *,
        clear: bool = False,
    ) -> Matcher:
        """Build the filter for `template`.

        Parameters
        ----------
        template : (d1, d2[, d3]) float32
            No NaN.
        bound : tuple of int
            Largest shift per axis.
        noise : Noise
            Measured on frames of the same recording.
        high_pass : array, optional
            Kernel that frames and template are to be correlated with first. Correlation is linear, so it acts
            here, twice, on the template alone (see `pass_band.passed`), and costs nothing per frame.
            `noise.activity` is then not used.
        clear : bool
            For displacement along axes of few pixels, see `few_ends`: it leaves their ends out. Along the other axes
            the ends are as good as the middle; then `across` is such a filter, if there are both kinds of axes.
        """
        offset = float(template.mean(dtype=np.float64))
        fill = (template - np.float32(offset)).astype(np.float32)
        image = fill.astype(np.float64)
        coarse = across = None
        if not clear and any(m and n < FEW for m, n in zip(bound, template.shape, strict=True)):
            across = cls.make(template, bound, replace(noise, activity=None), high_pass, clear=True)
        if noise.activity is None or high_pass is not None:
            weighted, band = _weighted(image, bound, noise, high_pass, clear), _band(noise)
        else:
            coarse = cls.make(template, bound, replace(noise, activity=None), clear=clear)
            weighted, band = _least_disturbed(image, noise, noise.activity)
        kernel = cut(weighted[None], template.shape, band)[0]
        shifts, peaks, _ = backend.wing().registration.locate(
            backend.put(fill[None]), backend.put(fill), 0.0, backend.put(kernel), _searched(bound, fill.shape)
        )
        bias, peak = backend.to_numpy(shifts)[0], float(backend.to_numpy(peaks)[0])
        if not peak > 0:
            bias, peak = np.zeros_like(bias), 1.0
        return cls(template, bound, offset, fill, (kernel / peak).astype(np.complex64), bias, coarse, across)

    def locate(self, frames: Array) -> Located:
        """Displacement that moves each of `frames` (n, d1, d2[, d3]), of any dtype, onto the template."""
        if self.across is not None:
            return self._crossed(replace(self, across=None).locate(frames), self.across.locate(frames))
        if self.coarse is not None:
            return self._refined(frames, self.coarse.locate(frames))
        xp = backend.arrays.xp(frames)
        shifts, peaks, missing = self._search(frames, _searched(self.bound, self.fill.shape))
        most = xp.asarray(np.array(self.bound, np.float32))
        raw = xp.asarray(self.bias) - shifts
        empty = (peaks < NO_SIGNAL) | (missing == self.fill.size)
        clamped = ((abs(raw) > most) & (most > 0)).any(
            axis=1
        ) & ~empty  # an axis may be held still on purpose
        kept = settled(xp.clip(raw, -most, most)) * ~empty[:, None]
        return Located(kept + np.float32(0), peaks, missing, clamped, empty)  # + 0: no negative zeros

    def _crossed(self, found: Located, across: Located) -> Located:
        """What this filter found along the long axes, and the other along those of few pixels."""
        xp = backend.arrays.xp(found.shifts)
        few = xp.asarray(np.array([n < FEW for n in self.fill.shape]))
        taken = few & ~found.empty[:, None]
        most = xp.asarray(np.array(self.bound, np.float32))
        beyond = across.clamped & (taken & (abs(across.shifts) >= most)).any(axis=1)
        shifts = xp.where(taken, across.shifts, found.shifts)
        return replace(found, shifts=shifts, clamped=found.clamped | beyond)

    def _refined(self, frames: Array, found: Located) -> Located:
        """What the coarse filter found, moved to the nearest maximum of the correlation with this one."""
        xp = backend.arrays.xp(frames)
        whole = xp.round(found.shifts)
        near = tuple(min(m, 1) for m in self.bound)
        shifts, _, _ = self._search(_rolled(frames, whole), near)
        rest = xp.asarray(self.bias) - shifts
        usable = (abs(whole + rest - found.shifts) <= REACH).all(axis=1) & ~found.empty & ~found.clamped
        most = xp.asarray(np.array(self.bound, np.float32))
        raw = xp.where(usable[:, None], whole + rest, found.shifts)
        clamped = found.clamped | ((abs(raw) > most) & (most > 0)).any(axis=1)
        kept = settled(xp.clip(raw, -most, most)) + np.float32(0)
        return Located(kept, found.peaks, found.missing, clamped, found.empty)

    def _search(self, frames: Array, window: tuple[int, ...]) -> tuple[Array, Array, Array]:
        xp = backend.arrays.xp(frames)
        return backend.wing(frames).registration.locate(
            frames, xp.asarray(self.fill), self.offset, xp.asarray(self.kernel), window
        )


def settled(shifts: Array) -> Array:
    """Displacements that are whole pixels but for rounding, made whole."""
    xp = backend.arrays.xp(shifts)
    nearest = xp.round(shifts)
    return xp.where(abs(shifts - nearest) < WHOLE, nearest, shifts)


def _rolled(frames: Array, shifts: Array) -> Array:
    """Each frame rolled by its own number of whole pixels, float32 (n, ndim)."""
    xp = backend.arrays.xp(frames)
    index = [xp.arange(len(frames)).reshape(-1, *(1,) * (frames.ndim - 1))]
    for axis, n in enumerate(frames.shape[1:]):
        places = (xp.arange(n) - shifts[:, axis : axis + 1].astype(np.int64)) % n
        index.append(places.reshape(-1, *(n if a == axis else 1 for a in range(frames.ndim - 1))))
    return frames[tuple(index)]


def _searched(bound: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """One pixel more than the bound where there is room: what lies beyond is then seen to lie beyond."""
    return tuple(m + 1 if m and 2 * (m + 1) < n else m for m, n in zip(bound, shape, strict=True))


def _weighted(
    image: NDArray[np.float64],
    bound: tuple[int, ...],
    noise: Noise,
    high_pass: NDArray[np.float64] | None,
    clear: bool,
) -> NDArray[np.complex128]:
    """Spectrum of the filter, conjugated: whitened image, cut to the inside of the frame so that nothing wraps; well
    clear of the ends of axes of few pixels, too, if that is said."""
    shape = image.shape
    if high_pass is not None:
        image = passed(image, high_pass)
    spectrum = scipy.fft.rfftn(image - image.mean())
    inside = _inside(shape, bound, clear) / noise.deviation
    weighted = scipy.fft.irfftn(spectrum * noise.weight, s=shape) * inside
    weighted -= inside * (weighted.sum() / inside.sum())
    if high_pass is not None:
        weighted = passed(weighted, high_pass)
    result = scipy.fft.rfftn(weighted).conj()
    result[(0,) * result.ndim] = 0
    return result


def _inside(shape: tuple[int, ...], bound: tuple[int, ...], clear: bool) -> NDArray[np.float64]:
    """One inside the frame, zero on a margin: the filter is not to meet what wraps around."""
    result = np.ones(())
    for n, m in zip(shape, bound, strict=True):
        margin, width = min(m / 2, MARGIN_SHARE * n), TAPER_SHARE * n
        if clear and m and n < FEW:
            margin, width = few_ends(n)
        result = np.multiply.outer(result, taper(n, margin, width))
    return result


def _least_disturbed(
    image: NDArray[np.float64], noise: Noise, activity: Activity
) -> tuple[NDArray[np.complex128], tuple[int, ...]]:
    """Spectrum of the filter that activity disturbs least, conjugated, and its band."""
    shape = image.shape
    image = image - image.mean()
    weighted = scipy.fft.rfftn(activity.filter(image, noise.signal, noise.spectrum)).conj()
    weighted[(0,) * image.ndim] = 0
    told = np.abs(weighted * scipy.fft.rfftn(image))
    return weighted, band_of(_rings(shape)[0] ** 2 * told * multiplicity(shape), shape, CURVATURE_KEPT)


def _band(noise: Noise) -> tuple[int, ...]:
    """Frequencies kept per axis (see `fourier.frequencies`): those that hold nearly all that is known of a shift."""
    shape = noise.deviation.shape
    information = _rings(shape)[0] ** 2 * noise.structure * noise.weight * multiplicity(shape)
    return band_of(information, shape, INFORMATION_KEPT)


def band_of(information: NDArray[np.float64], shape: tuple[int, ...], share: float) -> tuple[int, ...]:
    """Frequencies per axis (see `fourier.frequencies`) of the smallest band that holds, along each axis, this share
    of what stands at the frequencies of rfftn of images of `shape`."""
    kept = []
    for axis, n in enumerate(shape):
        along = information.sum(axis=tuple(a for a in range(len(shape)) if a != axis))
        lowest_first = np.bincount(np.minimum(np.arange(len(along)), n - np.arange(len(along))), along)
        highest = int(np.searchsorted(np.cumsum(lowest_first), share * along.sum()))
        kept.append(highest + 1 if axis == len(shape) - 1 else min(2 * highest + 1, n))
    return tuple(kept)


def cut(
    spectra: NDArray[np.complex128], shape: tuple[int, ...], band: tuple[int, ...]
) -> NDArray[np.complex64]:
    """Spectra (n, ...) of images of `shape` at the kept frequencies, scaled for an unnormalised inverse; without
    Nyquist, whose sign a shift leaves open."""
    last = len(shape) - 1
    scaled = spectra * (multiplicity(shape) / np.prod(shape))
    rows: list[NDArray[np.int64]] = [np.arange(len(spectra))]
    for axis, (n, b) in enumerate(zip(shape, band, strict=True)):
        if n % 2 == 0:
            scaled[(slice(None),) * (axis + 1) + (n // 2,)] = 0
        rows.append(fourier.frequencies(n, b, last=axis == last) % n)
    return np.ascontiguousarray(scaled[np.ix_(*rows)]).astype(np.complex64)
