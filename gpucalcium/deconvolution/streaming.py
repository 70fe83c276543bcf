"""Spikes of one trace whose samples come one at a time.

The pools of `oasis` need no sample twice: a new one is a pool of its own that merges with those before it
(Friedrich, Zhou & Paninski 2017, PLoS Comput. Biol. 13:e1005423, algorithms 2 and 3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium.deconvolution._signals import number, whole
from gpucalcium.deconvolution.oasis import tame_decay
from gpucalcium.deconvolution.oasis_ar2 import slower_root, tame_coefficients
from gpucalcium.errors import ParameterError


class Pool(NamedTuple):
    """Calcium without a spike after the first of `length` samples from `start`."""

    start: int
    length: int
    own: float
    """sum_j h_j z_j of its samples z, h the response to a spike; sum_j d^j z_j where `first`"""
    lagged: float
    """sum_j h_{j-1} z_j"""
    first: bool
    """Whether all calcium in it is left from before: it decays by the slower root d alone."""
    value: float = 0.0
    """Calcium of the first sample, before it is cut off."""
    last: float = 0.0
    """Calcium of its last sample."""
    following: float = 0.0
    """Calcium that the model expects after its last sample."""


class _Response:
    """What is known of a spike's response h_j = g h_{j-1} + g2 h_{j-2}, to as many samples as were needed so far."""

    def __init__(self, g: float, g2: float) -> None:
        self.g, self.g2 = g, g2
        self.d = float(slower_root(np.array([[g, g2]]))[0])
        self.h = [1.0]
        self.squares, self.products = [1.0], [0.0]  # sums of h_j^2 and of h_j h_{j-1} up to j
        self.decay, self.decay_squares = [1.0], [1.0]  # d^j, and the sum of its squares up to j

    def reach(self, n: int) -> None:
        """Know the first n samples."""
        for j in range(len(self.h), n):
            self.h.append(self.g * self.h[-1] + (self.g2 * self.h[-2] if j > 1 else 0.0))
            self.squares.append(self.squares[-1] + self.h[j] ** 2)
            self.products.append(self.products[-1] + self.h[j] * self.h[j - 1])
            self.decay.append(self.decay[-1] * self.d)
            self.decay_squares.append(self.decay_squares[-1] + self.decay[j] ** 2)

    def at(self, j: int) -> float:
        return self.h[j] if j >= 0 else 0.0

    def joined(self, left: Pool, right: Pool) -> Pool:
        """Two neighbours as one pool, not fitted yet: h_{l+j} = h_l h_j + g2 h_{l-1} h_{j-1}."""
        n = left.length
        self.reach(n + right.length + 1)
        if (
            left.first
        ):  # `right` holds h: d^j h_0 + ..., so its moment of d^j is h's less the faster root's part
            own = left.own + self.decay[n] * (right.own - (self.g - self.d) * right.lagged)
        else:
            own = left.own + self.at(n) * right.own + self.g2 * self.at(n - 1) * right.lagged
        lagged = left.lagged + self.at(n - 1) * right.own + self.g2 * self.at(n - 2) * right.lagged
        return Pool(left.start, n + right.length, own, lagged, left.first)

    def fitted(self, pool: Pool, before: float) -> Pool:
        """The pool with its best calcium, `before` being that of the sample before it."""
        n = pool.length
        self.reach(n + 1)
        if pool.first:
            value = pool.own / self.decay_squares[n - 1]
            kept = max(value, 0.0)
            return pool._replace(value=value, last=kept * self.decay[n - 1], following=kept * self.decay[n])
        value = (pool.own - self.g2 * before * self.products[n - 1]) / self.squares[n - 1]
        last = self.at(n - 1) * value + self.g2 * self.at(n - 2) * before
        following = self.at(n) * value + self.g2 * self.at(n - 1) * before
        return pool._replace(value=value, last=last if n > 1 else value, following=following)


class OASIS:
    """Calcium and spikes of a trace as it comes in.

    A sample costs O(1) on average. With two coefficients the pools are fitted one after the other, each for the
    calcium that the one before left: greedy, unlike `constrained_oasisAR2`, which fits all jointly.

    Parameters
    ----------
    g : float
        Decay per sample, in [0, 0.999]; with `g2`, the first of two AR coefficients.
    lam : float
        Penalty on spikes: lowers every sample by ``lam * (1 - g - g2)``.
    s_min : float
        Smallest spike.
    b : float
        Baseline.
    num_empty_samples : int
        Samples of zero calcium that came before the first one.
    g2 : float
        Second AR coefficient; 0 for calcium that rises at once. The roots of x^2 - g x - g2 have to be real and in
        [0, 0.999]; others are clipped with a warning.
    """

    def __init__(
        self,
        g: float,
        lam: float = 0,
        s_min: float = 0,
        b: float = 0,
        num_empty_samples: int = 0,
        g2: float = 0,
    ) -> None:
        g, lam, s_min, b, g2 = (
            number(x, name) for x, name in ((g, "g"), (lam, "lam"), (s_min, "s_min"), (b, "b"), (g2, "g2"))
        )
        num_empty_samples = whole(num_empty_samples, "num_empty_samples", 0)
        if s_min < 0:
            raise ParameterError(f"s_min={s_min}: a smallest spike is 0 or more")
        if g2 == 0:
            self.g, self.g2 = float(tame_decay(np.array([g], float), given=True)[0]), 0.0
        else:
            self.g, self.g2 = map(float, tame_coefficients(np.array([[g, g2]], float), given=True)[0])
        self.lam, self.s_min, self.b = lam, s_min, b
        self._response = _Response(self.g, self.g2)
        self._length = num_empty_samples
        self._pools = [Pool(0, num_empty_samples, 0.0, 0.0, True)] if num_empty_samples else []

    def __len__(self) -> int:
        return self._length

    def fit_next(self, y: float) -> None:
        """Take the next sample."""
        kept, pool = self._merged(y)
        del self._pools[kept:]
        self._pools.append(pool)
        self._length += 1

    def fit_next_tmp(self, y: float, num: int) -> NDArray[np.float64]:
        """Calcium of the last `num` samples if `y` were the next one; nothing changes."""
        kept, pool = self._merged(y)
        return _last(self._calcium([*self._pools[:kept], pool], self._length + 1), num)

    def get_c(self, num: int | None = None) -> NDArray[np.float64]:
        """Calcium, of all samples or of the last `num` (of all, if there are fewer)."""
        c = self._calcium(self._pools, self._length)
        return _last(c, num)

    def get_s(self, num: int | None = None) -> NDArray[np.float64]:
        """Spikes, of all samples or of the last `num` (of all, if there are fewer); 0 at the first."""
        c = self._calcium(self._pools, self._length)
        s = np.zeros_like(c)
        for pool in self._pools[1:]:
            t = pool.start
            s[t] = max(c[t] - self.g * c[t - 1] - (self.g2 * c[t - 2] if t > 1 else 0.0), 0.0)
        return _last(s, num)

    def get_num_pools(self) -> int:
        """Number of pools, one more than there are spikes."""
        return len(self._pools)

    def get_v_of_pool(self, index: int) -> float:
        """Start value of a pool before it is cut off at 0 or `s_min`."""
        return self._pools[index].value

    def get_w_of_pool(self, index: int) -> float:
        """Weight of a pool: the sum of squares of its decay; with `g2`, the value at its end."""
        pool = self._pools[index]
        return self._response.squares[pool.length - 1] if self.g2 == 0 else pool.last

    def get_t_of_pool(self, index: int) -> int:
        """First sample of a pool."""
        return self._pools[index].start

    def get_l_of_pool(self, index: int) -> int:
        """Number of samples of a pool."""
        return self._pools[index].length

    def _merged(self, y: float) -> tuple[int, Pool]:
        """How many pools stay as they are when `y` comes, and the last one then."""
        kept = len(self._pools)
        z = number(y, "y") - self.b - self.lam * (1 - self.g - self.g2)
        pool = Pool(self._length, 1, z, 0.0, first=kept == 0)
        while True:
            left = self._pools[kept - 1] if kept else None
            pool = self._response.fitted(pool, left.last if left else 0.0)
            if left is None or left.following + self.s_min <= pool.value:
                return kept, pool
            pool = self._response.joined(left, pool)
            kept -= 1

    def _calcium(self, pools: list[Pool], length: int) -> NDArray[np.float64]:
        c = np.zeros(length)
        for i, pool in enumerate(pools):
            t, end = pool.start, pool.start + pool.length
            if pool.first:
                c[t:end] = max(pool.value, 0.0) * np.array(self._response.decay[: pool.length])
            elif pool.value >= (self.s_min if i else 0.0):
                h = np.array(self._response.h[: pool.length])
                c[t:end] = max(pool.value, 0.0) * h
                if t > 0 and self.g2 != 0:
                    c[t + 1 : end] += self.g2 * c[t - 1] * h[:-1]
        return c


def _last(x: NDArray[np.float64], num: int | None) -> NDArray[np.float64]:
    """The last `num` samples, or all."""
    return x if num is None else x[max(len(x) - whole(num, "num", 0), 0) :]
