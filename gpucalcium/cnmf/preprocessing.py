"""What happens to a movie before cells are sought: missing values, saturated pixels, noise level."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.deconvolution import axcov, get_noise_fft
from gpucalcium.errors import ArrayShapeError, ParameterError

log = logging.getLogger(__name__)

WHOLE = (int, np.integer)
REAL = (*WHOLE, float, np.floating)


def interpolate_missing_data(Y: Array) -> tuple[Array, list[tuple[int, NDArray[np.int64]]]]:
    """Fill NaNs, pixel by pixel, linearly in time; the ends are held, a pixel of NaNs only becomes 0.

    Parameters
    ----------
    Y : (d, T) or (..., T)
        Movie with time last.

    Returns
    -------
    Y : same shape
        A filled copy, of the kind of array that was given; `Y` itself if nothing is missing.
    coordinates : list of (pixel, frames)
        What was filled; the pixel counts in Fortran order.
    """
    host = backend.to_numpy(Y)
    if host.dtype.kind != "f" or not np.isnan(host).any():
        return Y, []
    T = host.shape[-1]
    rows = host.reshape(-1, T, order="F").copy()
    filled = []
    for pixel in np.flatnonzero(np.isnan(rows).any(1)):
        missing = np.isnan(rows[pixel])
        known = np.flatnonzero(~missing)
        gaps = np.flatnonzero(missing)
        rows[pixel, gaps] = np.interp(gaps, known, rows[pixel, known]) if len(known) else 0
        filled.append((int(pixel), gaps))
    return backend.like(Y, rows.reshape(host.shape, order="F")), filled


def find_unsaturated_pixels(
    Y: Array,
    saturationValue: float | None = None,
    saturationThreshold: float = 0.9,
    saturationTime: float = 0.005,
) -> NDArray[np.int64]:
    """Pixels (Fortran order) that are hardly ever near the largest value the camera can give.

    Parameters
    ----------
    Y : (..., T)
        Movie with time last.
    saturationValue : float, optional
        Default: the next 2^n - 1 that holds the movie's maximum.
    saturationThreshold : float
        Fraction of that value from which a sample counts as saturated.
    saturationTime : float
        A pixel with a larger fraction of saturated samples is left out.

    Raises
    ------
    ParameterError
        A value that is no number, or a `saturationValue` that is not above 0.
    """
    host = backend.to_numpy(Y)
    if not all(isinstance(x, REAL) and x == x for x in (saturationThreshold, saturationTime)):
        raise ParameterError(
            f"saturationThreshold={saturationThreshold!r}, saturationTime={saturationTime!r}: expected two fractions"
        )
    if saturationValue is None:
        largest = float(np.nanmax(host, initial=1.0))
        saturationValue = float(2 ** np.ceil(np.log2(largest)) - 1)
    elif not (isinstance(saturationValue, REAL) and saturationValue > 0):
        raise ParameterError(f"saturationValue={saturationValue!r}: expected the largest value of the camera")
    saturated = (saturationThreshold * saturationValue <= host).mean(-1)
    return np.flatnonzero(saturated.ravel(order="F") <= saturationTime)


def preprocess_data(
    Y: Array,
    sn: Array | None = None,
    dview: object = None,
    n_pixels_per_process: int | None = 100,
    noise_range: Any = (0.25, 0.5),
    noise_method: str = "logmexp",
    compute_g: bool = False,
    p: int = 2,
    lags: int = 5,
    include_noise: bool = False,
    pixels: NDArray | None = None,
    max_num_samples_fft: int = 3000,
    check_nan: bool = True,
) -> tuple[Array, Array, NDArray[np.float64] | None, None]:
    """Fill missing values, and estimate the noise level of each pixel and, if asked, the time constants.

    Parameters
    ----------
    Y : (d, T) or (T,), any real dtype
        Movie, or one pixel of it.
    sn : (d,), optional
        Noise levels that are known already.
    noise_range, noise_method, max_num_samples_fft
        See `get_noise_fft`.
    compute_g : bool
        Whether to fit one AR model of order `p` to all `pixels` (their numbers; default: all).
    lags, include_noise : int, bool
        Lags beyond `p` that the fit uses; whether those that noise reaches are among them.
    check_nan : bool
        Whether to look for missing values (NaN) and fill them, with a warning in the log. Else a pixel with one has no
        noise level (NaN), and `compute_g` needs `pixels` without any.
    dview, n_pixels_per_process
        Accepted for old scripts and not used: chunks follow the memory budget.

    Returns
    -------
    Y : (d, T)
        Filled; the array that was given if nothing is missing.
    sn : (d,) float64
        Of the kind of array that `Y` is; what was given, if it was.
    g : (p,) float64 or None
    psx : None

    Raises
    ------
    ParameterError, ArrayShapeError
        `sn` of another size, or negative; see also `get_noise_fft` and `pooled_time_constants`.
    """
    Y = Y if hasattr(Y, "shape") else np.asarray(Y)
    if check_nan:
        Y, filled = interpolate_missing_data(Y)
        if filled:
            log.warning("missing values of %d pixels were filled by interpolation in time", len(filled))
    if sn is not None:
        _check_levels(sn, math.prod(Y.shape[:-1]))
    else:
        sn, _ = get_noise_fft(
            Y, noise_range=noise_range, noise_method=noise_method, max_num_samples_fft=max_num_samples_fft
        )
    g = pooled_time_constants(Y, backend.to_numpy(sn), p, lags, include_noise, pixels) if compute_g else None
    return Y, sn, g, None


def _check_levels(sn: Array, pixels: int) -> None:
    levels = np.asarray(backend.to_numpy(sn), np.float64)
    if levels.size not in (1, pixels):
        raise ArrayShapeError(f"sn has {levels.size} values for {pixels} pixels: give one, or one a pixel")
    if (levels < 0).any():
        raise ParameterError(f"sn={levels.min():.4g}: a standard deviation is 0 or more")


def pooled_time_constants(
    Y: Array,
    sn: NDArray,
    p: int,
    lags: int = 5,
    include_noise: bool = False,
    pixels: NDArray | None = None,
) -> NDArray[np.float64]:
    """One AR(p) model for all pixels: least squares on their autocovariances.

    xi_j = sum_i g_i xi_{j-i}. With noise the variance xi_0 is corrected by sn^2 and j runs over 1 .. lags + p;
    without, only lags that the noise does not reach are used, j > p.

    Raises
    ------
    ArrayShapeError
        Fewer than ``lags + p + 1`` frames, or an order below 1 or no whole number.
    ParameterError
        Missing values in the pixels (named), no pixels, or one that there is not.
    """
    shape, whole = tuple(Y.shape), isinstance(p, WHOLE) and isinstance(lags, WHOLE)
    if len(shape) not in (1, 2) or not whole or p < 1 or lags < 1 or shape[-1] <= lags + p:
        raise ArrayShapeError(
            f"Y has shape {shape}, p={p}, lags={lags}: give (d, T) with T > lags + p, and whole p and lags of 1 or more"
        )
    rows = Y.reshape(-1, shape[-1]) if len(shape) == 1 else Y
    chosen = np.arange(len(rows)) if pixels is None else np.asarray(pixels).reshape(-1)
    if chosen.dtype == bool:
        chosen = np.flatnonzero(chosen)
    if not len(chosen) or chosen.min() < -len(rows) or chosen.max() >= len(rows):
        raise ParameterError(
            f"pixels={pixels}: one model is fitted to one or more of {len(rows)} pixels, by their numbers or a mask"
        )
    reach = lags + p
    block = max(1, int(backend.budget() // (4 * 8 * shape[-1])))  # rows as float64, and their products
    xi = np.concatenate(
        [np.empty((0, reach + 1))]
        + [
            backend.to_numpy(axcov(rows[chosen[at : at + block]], reach))[:, reach:]
            for at in range(0, len(chosen), block)
        ]
    )
    if not np.isfinite(xi).all():
        bad = chosen[np.flatnonzero(~np.isfinite(xi).all(axis=1))]
        raise ParameterError(f"pixels {bad[:8]}: missing values; fill them first, or choose other pixels")
    if include_noise:
        xi[:, 0] -= np.broadcast_to(sn, (len(rows),))[chosen] ** 2
    lagged = range(1 if include_noise else p + 1, reach + 1)
    design = np.stack([[xi[:, abs(j - i)] for i in range(1, p + 1)] for j in lagged], 0)
    target = np.stack([xi[:, j] for j in lagged], 0)
    X = design.transpose(2, 0, 1).reshape(-1, p)
    return np.linalg.lstsq(X, target.T.ravel(), rcond=None)[0]
