"""What happens to a movie before cells are sought: missing values, saturated pixels, noise level."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.deconvolution import get_noise_fft

log = logging.getLogger(__name__)


def interpolate_missing_data(Y: NDArray) -> tuple[NDArray, list[tuple[int, NDArray[np.int64]]]]:
    """Fill NaNs, pixel by pixel, linearly in time; the ends are held, a pixel of NaNs only becomes 0.

    Parameters
    ----------
    Y : (d, T) or (..., T)
        Movie with time last.

    Returns
    -------
    Y : same shape
        A filled copy; `Y` itself if nothing is missing.
    coordinates : list of (pixel, frames)
        What was filled; the pixel counts in Fortran order.
    """
    Y = np.asarray(Y)
    if Y.dtype.kind != "f" or not np.isnan(Y).any():
        return Y, []
    T = Y.shape[-1]
    rows = Y.reshape(-1, T, order="F").copy()
    filled = []
    for pixel in np.flatnonzero(np.isnan(rows).any(1)):
        missing = np.isnan(rows[pixel])
        known = np.flatnonzero(~missing)
        gaps = np.flatnonzero(missing)
        rows[pixel, gaps] = np.interp(gaps, known, rows[pixel, known]) if len(known) else 0
        filled.append((int(pixel), gaps))
    return rows.reshape(Y.shape, order="F"), filled


def find_unsaturated_pixels(
    Y: NDArray,
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
    """
    Y = np.asarray(Y)
    if saturationValue is None:
        saturationValue = float(2 ** np.ceil(np.log2(max(float(np.nanmax(Y)), 1.0))) - 1)
    saturated = (saturationThreshold * saturationValue <= Y).mean(-1)
    return np.flatnonzero(saturated.ravel(order="F") <= saturationTime)


def preprocess_data(
    Y: NDArray,
    sn: NDArray | None = None,
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
) -> tuple[NDArray, NDArray, NDArray | None, None]:
    """Fill missing values, and estimate the noise level of each pixel and, if asked, the time constants.

    Parameters
    ----------
    Y : (d, T)
        Movie.
    sn : (d,), optional
        Noise levels that are known already.
    noise_range, noise_method, max_num_samples_fft
        See `get_noise_fft`.
    compute_g : bool
        Whether to fit one AR model of order `p` to all `pixels` (default: all).
    lags, include_noise : int, bool
        Lags beyond `p` that the fit uses; whether those that noise reaches are among them.
    check_nan : bool
        Whether to look for missing values.
    dview, n_pixels_per_process
        Accepted for old scripts and not used: chunks follow the memory budget.

    Returns
    -------
    Y : (d, T)
        Filled; the array that was given if nothing is missing.
    sn : (d,) float32
    g : (p,) float64 or None
    psx : None
    """
    if check_nan:
        Y, filled = interpolate_missing_data(Y)
        if filled:
            log.warning("missing values of %d pixels were filled by interpolation in time", len(filled))
    if sn is None:
        sn, _ = get_noise_fft(
            Y, noise_range=noise_range, noise_method=noise_method, max_num_samples_fft=max_num_samples_fft
        )
    g = pooled_time_constants(Y, np.asarray(sn), p, lags, include_noise, pixels) if compute_g else None
    return Y, sn, g, None


def pooled_time_constants(
    Y: NDArray,
    sn: NDArray,
    p: int,
    lags: int = 5,
    include_noise: bool = False,
    pixels: NDArray | None = None,
) -> NDArray[np.float64]:
    """One AR(p) model for all pixels: least squares on their autocovariances.

    xi_j = sum_i g_i xi_{j-i}. With noise the variance xi_0 is corrected by sn^2 and j runs over 1 .. lags + p;
    without, only lags that the noise does not reach are used, j > p.
    """
    rows = np.asarray(Y, np.float64) if pixels is None else np.asarray(Y, np.float64)[pixels]
    noise = np.broadcast_to(sn, (len(Y),)) if pixels is None else np.broadcast_to(sn, (len(Y),))[pixels]
    reach = lags + p
    centred = rows - rows.mean(1, keepdims=True)
    T = rows.shape[1]
    xi = np.stack([(centred[:, : T - j] * centred[:, j:]).sum(1) / T for j in range(reach + 1)], 1)
    if include_noise:
        xi[:, 0] -= noise**2
    lagged = range(1 if include_noise else p + 1, reach + 1)
    design = np.stack([[xi[:, abs(j - i)] for i in range(1, p + 1)] for j in lagged], 0)
    target = np.stack([xi[:, j] for j in lagged], 0)
    X = design.transpose(2, 0, 1).reshape(-1, p)
    return np.linalg.lstsq(X, target.T.ravel(), rcond=None)[0]
