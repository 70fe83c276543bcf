"""What a scene is made of: where cells are, how they look, when they fire, how the tissue moves and glows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse, special

from gpucalcium.errors import ParameterError
from gpucalcium.simulate.scene import Float

EDGE_PX = 1.0  # width of a soma's rim as the microscope blurs it
FOOTPRINT_FLOOR = 0.005  # a footprint ends where it falls below this fraction of its peak
BURST_INTERVAL_S = 0.02  # mean interval between the spikes of one burst
DARTS = 2000  # attempts to place one more cell before the field counts as full


def ar_coefficients(
    frame_rate: float, decay_s: float, rise_s: float | None = None
) -> tuple[NDArray[np.float64], float]:
    """Autoregressive coefficients g of calcium sampled at `frame_rate`, and the peak of its response.

    ``c[t] = g[0] c[t-1] (+ g[1] c[t-2]) + s[t]``; the characteristic roots are ``exp(-1 / (rate tau))``.
    """
    if decay_s <= 0 or (rise_s is not None and not 0 < rise_s < decay_s):
        raise ParameterError(f"decay_s={decay_s}, rise_s={rise_s}: need 0 < rise_s < decay_s")
    decay = np.exp(-1 / (frame_rate * decay_s))
    if rise_s is None:
        return np.array([decay]), 1.0
    rise = np.exp(-1 / (frame_rate * rise_s))
    steps = np.arange(1, 2 + int(5 * decay_s * frame_rate))
    response = (decay**steps - rise**steps) / (decay - rise)
    return np.array([decay + rise, -decay * rise]), float(response.max())


def spread(n: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) positive factors of median 1; `sigma` is the s.d. of their logarithm."""
    return np.exp(sigma * rng.standard_normal(n))


def smooth_noise(n: int, T: int, width: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, T) Gaussian processes of zero mean and unit variance with a Gaussian kernel of `width` frames."""
    pad = int(np.ceil(4 * width))
    x = ndimage.gaussian_filter1d(rng.standard_normal((n, T + 2 * pad)), width, axis=1)[:, pad : pad + T]
    x -= x.mean(axis=1, keepdims=True)
    deviation = x.std(axis=1, keepdims=True)
    return np.divide(x, deviation, out=np.zeros_like(x), where=deviation > 0)


def motion(T: int, largest: float, width: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, 2) displacement of zero mean whose largest value on each axis is `largest`."""
    if largest < 0 or width < 0:
        raise ParameterError(f"motion={largest}: the largest displacement must be >= 0")
    path = smooth_noise(2, T, max(width, 0.1), rng)
    peak = np.abs(path).max(axis=1, keepdims=True)
    return (np.divide(path, peak, out=np.zeros_like(path), where=peak > 0) * largest).T


def place(
    K: int, shape: tuple[int, int], margin: int, reach: int, distance: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(n, 2) centres on the canvas: K in the field first, then the margin at the same density."""
    size = np.array(shape, float) + 2 * margin
    border = reach if margin == 0 else 0
    low, high = np.full(2, margin + border, float), size - 1 - margin - border
    around = round(K * (np.prod(size - 2 * reach) / np.prod(high - low + 1) - 1)) if margin else 0
    centers = np.empty((K + max(around, 0), 2))
    for n in range(len(centers)):
        for _ in range(DARTS):
            dart = rng.uniform(low, high) if n < K else rng.uniform(reach, size - 1 - reach)
            free = n < K or not np.all((dart >= low) & (dart <= high))
            if free and (n == 0 or ((centers[:n] - dart) ** 2).sum(axis=1).min() >= distance**2):
                centers[n] = dart
                break
        else:
            if n < K:
                raise ParameterError(
                    f"K={K} cells at least {distance:.1f} px apart do not fit {shape[0]}x{shape[1]} px: "
                    "ask for fewer cells, a smaller min_distance or a larger field"
                )
            return centers[:n]
    return centers


def soma(
    center: NDArray[np.float64], shape: tuple[int, int], radius: float, donut: bool, rng: np.random.Generator
) -> sparse.csc_matrix:
    """(pixels, 1) float32 footprint of peak 1: a lobed outline, blurred rim, and a dark nucleus if `donut`."""
    reach = 1.5 * radius + 1
    low = np.maximum(np.floor(center - reach), 0).astype(int)
    high = np.minimum(np.ceil(center + reach) + 1, shape).astype(int)
    rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
    dy, dx = rows - center[0], columns - center[1]
    distance, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    order = np.arange(2, 5)
    lobes = rng.normal(0, 0.16 / order**1.5, 3)
    phase = rng.uniform(0, 2 * np.pi, 3)
    outline = 1 + (lobes * np.cos(order * angle[..., None] + phase)).sum(axis=-1)
    outline = np.clip(radius * outline, 0.6 * radius, 1.35 * radius)
    image = 0.5 * special.erfc((distance - outline) / (np.sqrt(2) * EDGE_PX))
    nucleus = 0.5 * special.erfc((distance - 0.55 * outline) / (np.sqrt(2) * EDGE_PX))
    image *= 1 - (rng.uniform(0.5, 0.8) if donut else 0.0) * nucleus
    image /= image.max()
    keep = image > FOOTPRINT_FLOOR
    pixels = rows[keep] + shape[0] * columns[keep]
    column = (image[keep].astype(np.float32), (pixels, np.zeros_like(pixels)))
    return sparse.csc_matrix(column, shape=(shape[0] * shape[1], 1))


def spikes(
    K: int, T: int, frame_rate: float, rate_hz: float, burst: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """(K, T) spike counts: Poisson events, each followed by a geometric number of further spikes."""
    rates = rate_hz * spread(K, 0.35, rng)
    counts = rng.poisson(rates[:, None] / frame_rate, (K, T)).astype(np.int16)
    cells, frames = np.nonzero(counts)
    more = rng.geometric(1 - burst, len(cells)) - 1
    delay_s = rng.exponential(BURST_INTERVAL_S, (len(cells), int(more.max(initial=0)))).cumsum(axis=1)
    event, nth = np.nonzero(np.arange(delay_s.shape[1]) < more[:, None])
    late = frames[event] + np.rint(delay_s[event, nth] * frame_rate).astype(int)
    inside = late < T
    np.add.at(counts, (cells[event][inside], late[inside]), 1)
    return counts


def neuropil(
    T: int, shape: tuple[int, int], level: float, drift: float, frame_rate: float, rng: np.random.Generator
) -> tuple[Float, Float]:
    """Two smooth images, periodic on the canvas, (pixels, 2), and their slow time courses (2, T)."""
    widths = (max(shape) / 6, max(shape) / 10)
    images = [ndimage.gaussian_filter(rng.standard_normal(shape), w, mode="wrap") for w in widths]
    scaled = [(i - i.min()) / max(np.ptp(i), np.finfo(float).tiny) for i in images]
    b = np.stack([0.6 + 0.8 * scaled[0], scaled[1]])
    slow = smooth_noise(2, T, min(3 * frame_rate, T / 6), rng)
    share = np.array([0.8, 0.4]) * level  # the two images have means of about 1 and 1/2
    f = share[:, None] * np.maximum(1 + np.array([[1.0], [3.0]]) * drift * slow, 0.05)
    return b.transpose(0, 2, 1).reshape(2, -1).T.astype(np.float32), f.astype(np.float32)
