"""Dense optical flow between two images by polynomial expansion (Farnebäck 2003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.errors import ArrayShapeError, ParameterError
from gpucalcium.movies import resizing

SMOOTHING = 0.8  # pixels, at every level
SMALLEST_LEVEL = 32  # pixels a side: a pyramid goes no further
NO_TEXTURE = (
    1e-9  # of the image's mean squared curvature: a neighbourhood with less says nothing of its displacement
)
SIGMA_OF_WINDOW = 0.15  # of its length, if the window is a Gaussian


@dataclass(frozen=True, kw_only=True)
class FlowParams:
    """How `optical_flow` compares two images."""

    pyr_scale: float = 0.5
    """Size of each level of the pyramid against the one below; between 0 and 1."""
    levels: int = 3
    """Levels, the full image included; those with a side below 32 pixels are left out."""
    winsize: int = 15
    """Side of the neighbourhood within which the displacement counts as constant, pixels."""
    iterations: int = 3
    """Per level."""
    poly_n: int = 5
    """Side of the neighbourhood that a polynomial is fitted to, pixels; odd, 3 or more."""
    poly_sigma: float = 1.1
    """Standard deviation of its Gaussian weights, pixels."""
    gaussian: bool = False
    """Weigh the window by a Gaussian instead of equally."""

    def __post_init__(self) -> None:
        if not 0 < self.pyr_scale < 1:
            raise ParameterError(f"pyr_scale={self.pyr_scale}: between 0 and 1, 0.5 halves each level")
        for name in ("levels", "winsize", "iterations"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)}: must be 1 or more")
        if self.poly_n < 3 or self.poly_n % 2 == 0 or not self.poly_sigma > 0:
            raise ParameterError(
                f"poly_n={self.poly_n}, poly_sigma={self.poly_sigma}: an odd side of 3 or more, and a positive width"
            )


def optical_flow(first: Array, second: Array, params: FlowParams | None = None) -> Array:
    """Displacement of every pixel, such that ``second[r + dy, c + dx] = first[r, c]``.

    Each neighbourhood is written as ``x' A x + b' x + c``; a displacement d of the same neighbourhood leaves A and
    makes ``b2 = b1 - 2 A d``. Solved by least squares over a window, with the present estimate put in, from the
    coarsest level of a pyramid to the full image.

    Parameters
    ----------
    first, second : (d1, d2) array, real, finite
        On one device.
    params : FlowParams, optional

    Returns
    -------
    flow : (d1, d2, 2) float32
        dx (columns) and dy (rows), pixels; 0 where there is no texture. On the device of the images.

    Raises
    ------
    ArrayShapeError
        Not two images of one shape.

    References
    ----------
    Farnebäck (2003), SCIA, LNCS 2749:363, eqs. 5, 8 to 10, 12 to 15.
    """
    params = params or FlowParams()
    if first.shape != second.shape or first.ndim != 2:
        raise ArrayShapeError(
            f"images of shapes {first.shape} and {second.shape}: flow goes between two images (d1, d2) of one shape"
        )
    xp = backend.arrays.xp(first)
    images = xp.stack([first.astype(np.float64), second.astype(np.float64)])
    flow = xp.zeros((2, 1, 1), np.float64)
    for shape in _pyramid(first.shape, params):
        before, after = (_expand(image, params) for image in _resized(images, shape))
        flow = _grown(flow, shape)
        for _ in range(params.iterations):
            flow = _update(before, after, flow, params)
    return xp.ascontiguousarray(xp.moveaxis(flow[::-1], 0, -1).astype(np.float32))


class _Expansion(NamedTuple):
    """Coefficients of ``x' A x + b' x + c`` around every pixel."""

    b: Array
    """(2, d1, d2) along rows and columns."""
    a: Array
    """(3, d1, d2): A[0, 0], A[1, 1], A[0, 1]."""


def _pyramid(shape: tuple[int, ...], params: FlowParams) -> list[tuple[int, ...]]:
    """Sizes of the levels, the coarsest first."""
    sizes = [tuple(max(1, round(n * params.pyr_scale**k)) for n in shape) for k in range(params.levels)]
    return [size for k, size in enumerate(sizes) if k == 0 or min(size) >= SMALLEST_LEVEL][::-1]


def _resized(images: Array, shape: tuple[int, ...]) -> Array:
    """(n, *shape), smoothed first: nothing aliases, and derivatives are not those of the noise of single pixels."""
    sigma = [max(SMOOTHING, (n / new - 1) / 2) for n, new in zip(images.shape[1:], shape, strict=True)]
    smooth = backend.arrays.ndimage(images).gaussian_filter(images, (0, *sigma), mode="nearest")
    return smooth if images.shape[1:] == shape else _interpolated(smooth, shape)


def _interpolated(images: Array, shape: tuple[int, ...]) -> Array:
    xp = backend.arrays.xp(images)
    rows, columns = (
        xp.asarray(resizing.weights(n, new, resizing.LINEAR).toarray().astype(np.float64))
        for n, new in zip(images.shape[1:], shape, strict=True)
    )
    return rows @ images @ columns.T


def _grown(flow: Array, shape: tuple[int, ...]) -> Array:
    """The flow of a coarser level in pixels of a finer one."""
    factors = [new / n for n, new in zip(flow.shape[1:], shape, strict=True)]
    xp = backend.arrays.xp(flow)
    return _interpolated(flow, shape) * xp.asarray(np.array(factors)[:, None, None])


def _expand(image: Array, params: FlowParams) -> _Expansion:
    """Weighted least squares by separable moments: eq. 5 with Gaussian applicability, all pixels certain."""
    ndimage, xp = backend.arrays.ndimage(image), backend.arrays.xp(image)
    x = np.arange(params.poly_n) - params.poly_n // 2
    weight = np.exp(-0.5 * (x / params.poly_sigma) ** 2)
    weight /= weight.sum()
    powers = [weight, weight * x, weight * x**2]
    along = [ndimage.correlate1d(image, xp.asarray(k), axis=0, mode="nearest") for k in powers]
    moment = {
        (i, j): ndimage.correlate1d(along[i], xp.asarray(powers[j]), axis=1, mode="nearest")
        for i, j in ((0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (0, 2))
    }
    m2, m4 = float(powers[2].sum()), float((weight * x**4).sum())
    # the even moments 1, r^2, c^2 are not orthogonal to each other; the odd ones are to all
    even = np.linalg.inv(np.array([[1, m2, m2], [m2, m4, m2**2], [m2, m2**2, m4]]))
    squares = [
        sum(float(w) * moment[k] for w, k in zip(row, ((0, 0), (2, 0), (0, 2)), strict=True))
        for row in even[1:]
    ]
    b = xp.stack([moment[1, 0] / m2, moment[0, 1] / m2])
    return _Expansion(b, xp.stack([*squares, moment[1, 1] / (2 * m2**2)]))


def _update(before: _Expansion, after: _Expansion, flow: Array, params: FlowParams) -> Array:
    """A better flow from the present one: eqs. 12 to 15."""
    xp = backend.arrays.xp(flow)
    there, inside = _sampled(xp.concatenate([after.b, after.a]), flow)
    rr, cc, rc = (before.a + there[2:]) / 2
    change = (before.b - there[:2]) / 2
    dr = change[0] + rr * flow[0] + rc * flow[1]
    dc = change[1] + rc * flow[0] + cc * flow[1]
    products = xp.stack(
        [rr * rr + rc * rc, rc * (rr + cc), rc * rc + cc * cc, rr * dr + rc * dc, rc * dr + cc * dc]
    )
    g11, g12, g22, h1, h2 = _averaged(products * inside, params)
    floor = NO_TEXTURE * (g11.mean() + g22.mean())
    determinant = g11 * g22 - g12 * g12
    solvable = determinant > floor * (g11 + g22)
    divisor = xp.where(solvable, determinant, 1.0)
    solved = xp.stack([g22 * h1 - g12 * h2, g11 * h2 - g12 * h1]) / divisor
    return xp.where(solvable, solved, flow)


def _averaged(values: Array, params: FlowParams) -> Array:
    ndimage = backend.arrays.ndimage(values)
    if params.gaussian:
        sigma = SIGMA_OF_WINDOW * params.winsize
        return ndimage.gaussian_filter(values, (0, sigma, sigma), mode="nearest")
    return ndimage.uniform_filter(values, (1, params.winsize, params.winsize), mode="nearest")


def _sampled(values: Array, flow: Array) -> tuple[Array, Array]:
    """Values (k, d1, d2) at the displaced pixels, linear in between; and which of these lie inside the image."""
    xp = backend.arrays.xp(values)
    rows, columns = values.shape[1:]
    r = xp.arange(rows)[:, None] + flow[0]
    c = xp.arange(columns)[None] + flow[1]
    inside = (r >= 0) & (r <= rows - 1) & (c >= 0) & (c <= columns - 1)
    r, c = xp.clip(r, 0, rows - 1), xp.clip(c, 0, columns - 1)
    top, left = r.astype(np.int64), c.astype(np.int64)
    bottom, right = xp.minimum(top + 1, rows - 1), xp.minimum(left + 1, columns - 1)
    down, across = r - top, c - left
    flat = values.reshape(len(values), -1)
    upper = (
        xp.take(flat, top * columns + left, axis=1) * (1 - across)
        + xp.take(flat, top * columns + right, axis=1) * across
    )
    lower = (
        xp.take(flat, bottom * columns + left, axis=1) * (1 - across)
        + xp.take(flat, bottom * columns + right, axis=1) * across
    )
    return upper * (1 - down) + lower * down, inside


def flow_norm(flow: NDArray[np.float32]) -> float:
    """Frobenius norm of a flow (d1, d2, 2), pixels."""
    return float(np.sqrt((flow.astype(np.float64) ** 2).sum()))
