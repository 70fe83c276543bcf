"""Quality of components: SNR, spatial correlation with the movie, shape, and what is accepted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal, sparse

from gpucalcium.cnmf._movie import PixelMovie, images_movie, pixel_movie
from gpucalcium.cnmf.snr import trace_snr
from gpucalcium.errors import ArrayShapeError, MissingWeightsError, ParameterError

PEAK_RANGE = 0.3
"""Peaks count above this fraction of the trace's range."""
PEAKS = 10
OVERLAP = 0.1
"""Footprints with a larger cosine disturb each other's spatial correlation."""
BRIEF_PEAK = (-1, 4)
"""Frames around a peak that are surely of its transient, in a movie that may have been made smaller in time."""
LEAST_PIXELS = 3
LEAST_RELIABILITY = 0.2
"""Of the variance of a mean image over a footprint, at least this fraction is taken for light, the rest for noise."""

log = logging.getLogger(__name__)


class Quality(NamedTuple):
    """What `evaluate` measured and decided, one value for each of K components."""

    accepted: NDArray[np.intp]
    rejected: NDArray[np.intp]
    snr: NDArray[np.float64]
    r: NDArray[np.float64]
    cnn: NDArray[np.float64]
    ecc: NDArray[np.float64] | None
    contrast: NDArray[np.float64] | None
    """`r` with what transients add to the mean image, None unless `rval_contrast` asks for it."""


def evaluate(
    images: Any,
    A: sparse.csc_matrix,
    C: NDArray[np.floating],
    YrA: NDArray[np.floating],
    dims: tuple[int, ...],
    fr: float,
    decay_time: float,
    quality: Mapping[str, Any],
    sn: NDArray[np.floating] | None = None,
) -> Quality:
    """Measure every component and decide which to accept.

    Parameters
    ----------
    images : movie, (T, d1, d2[, d3])
        Registered frames; read once, in chunks.
    A : (d, K)
        Footprints, pixels in Fortran order.
    C, YrA : (K, T)
        Denoised traces and their residuals.
    dims : tuple of int
        Image size.
    fr, decay_time : float
        Frames per second; length of a transient in seconds.
    quality : mapping
        Thresholds and switches, the group `quality` of CNMFParams.
    sn : (d,), optional
        Noise level of each pixel, for `rval_contrast`; without it the noise of mean images is taken for light.

    Raises
    ------
    MissingWeightsError
        ``use_cnn`` is set.
    ArrayShapeError
        `images` does not go with `dims` or with the traces.
    """
    check_classifier(quality)
    if C.shape[0] == 0:
        log.warning("there are no components to evaluate")
        none = np.zeros(0, np.intp)
        empty = np.zeros(0)
        ecc, contrast = (empty if quality[key] else None for key in ("use_ecc", "rval_contrast"))
        return Quality(none, none, empty, empty, empty, ecc, contrast)
    movie = _movie(images, dims, C.shape[1])
    snr = np.nan_to_num(trace_snr(C + YrA, fr, decay_time), nan=0.0)
    seen = _Transients.of(movie, A, C, OVERLAP, PEAKS, *peak_window(fr), PEAK_RANGE)
    r, contrast = seen.correlation(), seen.contrast(sn) if quality["rval_contrast"] else None
    ecc = eccentricity(A, dims) if quality["use_ecc"] else None
    accepted, rejected = decide(snr, r, np.zeros(0), quality, ecc, contrast)
    return Quality(accepted, rejected, snr, r, np.zeros(0), ecc, contrast)


def check_classifier(quality: Mapping[str, Any]) -> None:
    """MissingWeightsError if the classifier is asked for."""
    if quality["use_cnn"]:
        raise MissingWeightsError(
            "quality.use_cnn=True asks for the classifier of footprints, whose weights are not part of gpucalcium "
            "and cannot be converted by this version. Set use_cnn=False to judge by SNR and spatial correlation: "
            "params.change_params({'quality': {'use_cnn': False}})"
        )


def _movie(images: Any, dims: tuple[int, ...], frames: int) -> PixelMovie:
    movie = images_movie(images, hold=False)
    if movie.dims != tuple(dims) or frames != movie.T:
        raise ArrayShapeError(
            f"the movie has shape {(movie.T, *movie.dims)}; components of a {tuple(dims)} image with {frames} frames "
            f"need {(frames, *dims)}"
        )
    return movie


def decide(
    snr: NDArray[np.floating],
    r: NDArray[np.floating],
    cnn: NDArray[np.floating],
    quality: Mapping[str, Any],
    ecc: NDArray[np.floating] | None = None,
    contrast: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Accepted and rejected components.

    Accepted is what is good by one measure and not too bad by any: r >= rval_thr, SNR > min_SNR or
    cnn >= min_cnn_thr, and neither r <= rval_lowest, SNR <= SNR_lowest nor cnn <= cnn_lowest; with `use_ecc` also
    ecc < max_ecc. An empty `cnn` leaves the classifier out; with `contrast` the larger of that and `r` counts as r.
    """
    r = r if contrast is None or not quality["rval_contrast"] else np.fmax(r, contrast)
    good = (r >= quality["rval_thr"]) | (snr > quality["min_SNR"])
    bad = (r <= quality["rval_lowest"]) | (snr <= quality["SNR_lowest"])
    if len(cnn):
        good |= cnn >= quality["min_cnn_thr"]
        bad |= cnn <= quality["cnn_lowest"]
    if ecc is not None and quality["use_ecc"]:
        bad |= ~(ecc < quality["max_ecc"])
    accepted = good & ~bad
    return np.flatnonzero(accepted), np.flatnonzero(~accepted)


def peak_window(fr: float) -> tuple[int, int]:
    """Frames before (negative) and after a peak that belong to it, at frame rate `fr`."""
    return min(-2, int(np.floor(-fr / 6))), max(5, int(np.ceil(25 * fr / 30)))


def classify_components_ep(
    Y: Any,
    A: Any,
    C: NDArray[np.floating],
    b: Any = None,
    f: Any = None,
    Athresh: float = OVERLAP,
    Npeaks: int = 5,
    tB: int = -3,
    tA: int = 10,
    thres: float = PEAK_RANGE,
) -> tuple[NDArray[np.float64], list[NDArray[np.intp]]]:
    """Correlation of each footprint with the mean movie around the peaks of its trace.

    Parameters
    ----------
    Y : (d, T)
        Movie, pixels in Fortran order; read once, in chunks.
    A : (d, K)
        Footprints.
    C : (K, T)
        Denoised traces.
    b, f
        Accepted for old scripts and not used: the movie is taken as it is.
    Athresh : float
        Frames of components whose footprints have a larger cosine are left out, if any other frame remains.
    Npeaks : int
        Highest peaks of a trace that are looked at.
    tB, tA : int
        From which frame before (negative) to which after a peak (excluded).
    thres : float
        Peaks count above this fraction of the trace's range.

    Returns
    -------
    r : (K,) float64
        Pearson correlation over the footprint's pixels; 0 with fewer than 3 pixels, without a peak, or where the
        mean movie or the footprint is constant.
    frames : list of K int arrays
        The frames that were averaged.
    """
    seen = _Transients.of(pixel_movie(Y), A, C, Athresh, Npeaks, tB, tA, thres)
    return seen.correlation(), [np.flatnonzero(row) for row in seen.active]


def transient_contrast(movie: PixelMovie, A: Any, C: NDArray[np.floating]) -> NDArray[np.float64]:
    """How well each footprint agrees with what the transients of its trace add to the mean image, r of (K,).

    Frames are those from one before to three after the ten highest peaks, without those of overlapping neighbours.
    One pass over the movie.
    """
    return _Transients.of(movie, A, C, OVERLAP, PEAKS, *BRIEF_PEAK, PEAK_RANGE).contrast(None)


class _Transients(NamedTuple):
    """Movie averaged over the frames in which each component is active, on its footprint."""

    active: NDArray[np.bool_]
    """(K, T) the frames."""
    footprints: sparse.csc_matrix
    """(d, K) > 0, pixels in the order of a frame."""
    means: NDArray[np.float64]
    """(nnz,) mean over those frames of each pixel of each footprint; 0 for a component without frames."""
    always: NDArray[np.float64]
    """(nnz,) mean over all frames."""
    rows: NDArray[np.int64]
    """(nnz,) the pixels in Fortran order."""

    @classmethod
    def of(
        cls,
        movie: PixelMovie,
        A: Any,
        C: NDArray[np.floating],
        overlap: float,
        peaks: int,
        before: int,
        after: int,
        height: float,
    ) -> _Transients:
        """One pass over the movie; arguments as for `classify_components_ep`."""
        K, footprints = len(C), movie.in_frame_order(_positive(A))
        active = np.array([_near_peaks(c, peaks, before, after, height) for c in C], dtype=bool)
        active = _undisturbed(active.reshape(K, movie.T), footprints, overlap)
        pixels, place = np.unique(footprints.indices.astype(np.int64), return_inverse=True)
        component = np.repeat(np.arange(K), np.diff(footprints.indptr))
        sums, _ = movie.sample(
            np.vstack([active, np.ones((1, movie.T))]),
            np.concatenate([pixels[place], pixels]),
            np.concatenate([component, np.full(len(pixels), K)]),
        )
        frames = np.maximum(active.sum(axis=1), 1)[component]
        means, always = sums[: len(component)] / frames, sums[len(component) :] / movie.T
        return cls(active, footprints, means, always[place], movie.fortran_rows(pixels[place]))

    def correlation(self) -> NDArray[np.float64]:
        """Pearson's r of every footprint with the mean movie, (K,)."""
        return self._of_each(lambda at: _pearson(self.means[at], self.footprints.data[at]))

    def contrast(self, sn: NDArray[np.floating] | None) -> NDArray[np.float64]:
        """The same with what transients add to the mean image, corrected for noise, (K,).

        The rest of a cell's light and its surroundings are in the mean over all frames, and say nothing of whether the
        footprint is that of the transients. Noise of known variance in an image lowers r by the square root of the
        share of the variance that is not noise (Spearman 1904, Am. J. Psychol. 15:72).
        """
        length = self.active.shape[1]
        frames = np.maximum(self.active.sum(axis=1), 1)
        component = np.repeat(np.arange(len(frames)), np.diff(self.footprints.indptr))
        noise = np.zeros(len(component)) if sn is None else np.asarray(sn, np.float64).ravel()[self.rows] ** 2
        noise *= (1 / frames - 1 / length)[component]
        added = self.means - self.always

        def corrected(at: slice) -> float:
            spread = added[at].var()
            light = max(spread - noise[at].mean(), LEAST_RELIABILITY * spread)
            scale = np.sqrt(spread / light) if light > 0 else 1.0
            return float(np.clip(_pearson(added[at], self.footprints.data[at]) * scale, -1, 1))

        return self._of_each(corrected)

    def _of_each(self, measure: Callable[[slice], float]) -> NDArray[np.float64]:
        """`measure` of the entries of each component that has pixels and frames enough; 0 for others."""
        indptr, out = self.footprints.indptr, np.zeros(len(self.active))
        for k in np.flatnonzero((np.diff(indptr) >= LEAST_PIXELS) & self.active.any(axis=1)):
            out[k] = measure(slice(indptr[k], indptr[k + 1]))
        return out


def _positive(A: Any) -> sparse.csc_matrix:
    A = sparse.csc_matrix(A)
    A = sparse.csc_matrix(A.multiply(A > 0))
    A.eliminate_zeros()
    return A


def _near_peaks(
    trace: NDArray[np.floating], count: int, before: int, after: int, height: float
) -> NDArray[np.bool_]:
    """Mask of the frames around the highest local maxima of a trace."""
    near = np.zeros(len(trace), bool)
    if not np.isfinite(trace).all():
        return near
    low, high = trace.min(), trace.max()
    peaks, _ = signal.find_peaks(trace, height=low + height * (high - low))
    for peak in peaks[np.argsort(-trace[peaks], kind="stable")[:count]]:
        near[max(peak + before, 0) : max(peak + after, 0)] = True
    return near


def _undisturbed(
    active: NDArray[np.bool_], footprints: sparse.csc_matrix, overlap: float
) -> NDArray[np.bool_]:
    """Frames of each component without those of its neighbours; all of them where nothing would be left."""
    norms = np.sqrt(np.asarray(footprints.power(2).sum(axis=0), np.float64)).ravel()
    unit = footprints @ sparse.diags(1 / np.where(norms > 0, norms, 1))
    cosines = sparse.csr_matrix(unit.T @ unit)
    cosines.setdiag(0)
    alone = active.copy()
    for k in range(len(active)):
        near = slice(cosines.indptr[k], cosines.indptr[k + 1])
        neighbours = cosines.indices[near][cosines.data[near] > overlap]
        alone[k] &= ~active[neighbours].any(axis=0)
    lost = np.flatnonzero(active.any(axis=1) & ~alone.any(axis=1))
    if len(lost):
        log.warning(
            "components %s are never active without a neighbour: their spatial correlation includes neighbours",
            lost.tolist(),
        )
    alone[lost] = active[lost]
    return alone


def _pearson(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Correlation of two vectors; 0 if one is constant, NaN if one holds NaN."""
    x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm != 0 else 0.0


def eccentricity(A: Any, dims: tuple[int, ...]) -> NDArray[np.float64]:
    """Ratio of the long to the short axis of each footprint, (K,) float64, two-dimensional images only.

    The axes are the square roots of the eigenvalues of the covariance of pixel positions, weighted by intensity.
    Infinite for a line, NaN for an empty footprint.
    """
    if len(dims) != 2:
        raise ParameterError(
            f"eccentricity (use_ecc) is defined for two image axes; this image has {len(dims)}"
        )
    A = sparse.csc_matrix(A, dtype=np.float64)
    columns, rows = np.divmod(np.arange(A.shape[0]), dims[0])
    moments = np.stack([np.ones_like(rows), rows, columns, rows**2, rows * columns, columns**2])
    mass, r, c, rr, rc, cc = np.asarray((A.T @ moments.T.astype(np.float64)).T)
    with np.errstate(invalid="ignore", divide="ignore"):
        r, c = r / mass, c / mass
        srr, src, scc = rr / mass - r * r, rc / mass - r * c, cc / mass - c * c
        centre, spread = (srr + scc) / 2, np.hypot((srr - scc) / 2, src)
        return np.sqrt((centre + spread) / np.maximum(centre - spread, 0))
