"""Spikes of one AR(1) trace whose samples come one at a time.

The pools of `oasis` need no sample twice: a new one is a pool of its own that merges with those before it
(Friedrich, Zhou & Paninski 2017, PLoS Comput. Biol. 13:e1005423, algorithm 2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium.deconvolution.oasis import tame_decay
from gpucalcium.errors import NotSupportedError, ParameterError


class Pool(NamedTuple):
    """Calcium a g^j over `length` samples from `start`, a = v / w."""

    v: float
    """sum_j g^j (y - b - lam (1 - g))"""
    w: float
    """sum_j g^{2 j}"""
    decayed: float
    """g^length"""
    start: int

    def then(self, other: Pool) -> Pool:
        """This pool and the next one as one."""
        decayed = self.decayed
        return Pool(
            self.v + decayed * other.v, self.w + decayed**2 * other.w, decayed * other.decayed, self.start
        )


class OASIS:
    """Calcium and spikes of a trace as it comes in.

    Parameters
    ----------
    g : float
        Decay per sample, in [0, 0.999].
    lam : float
        Penalty on spikes: lowers every sample by ``lam * (1 - g)``.
    s_min : float
        Smallest spike.
    b : float
        Baseline.
    num_empty_samples : int
        Samples of zero calcium that came before the first one.
    g2 : float
        Second AR coefficient; only 0 is supported, as pools of AR(2) calcium do not merge for good.
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
        if g2 != 0:
            raise NotSupportedError(f"g2={g2}: samples are taken one at a time for AR(1) only; use g2=0")
        if num_empty_samples < 0 or s_min < 0:
            raise ParameterError(
                f"num_empty_samples={num_empty_samples}, s_min={s_min}: neither can be negative"
            )
        self.g = float(tame_decay(np.array([g], float), given=True)[0])
        self.lam, self.s_min, self.b = float(lam), float(s_min), float(b)
        self._length = 0
        self._pools: list[Pool] = []
        if num_empty_samples:
            n, g = num_empty_samples, self.g
            self._pools.append(Pool(0.0, (1 - g ** (2 * n)) / (1 - g * g), g**n, 0))
            self._length = n

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
        return self._calcium([*self._pools[:kept], pool], self._length + 1)[-num:]

    def get_c(self, num: int | None = None) -> NDArray[np.float64]:
        """Calcium, of all samples or of the last `num`."""
        c = self._calcium(self._pools, self._length)
        return c if num is None else c[len(c) - num :]

    def get_s(self, num: int | None = None) -> NDArray[np.float64]:
        """Spikes, of all samples or of the last `num`; 0 at the first."""
        c = self._calcium(self._pools, self._length)
        s = np.zeros_like(c)
        for pool in self._pools[1:]:
            s[pool.start] = max(c[pool.start] - self.g * c[pool.start - 1], 0.0)
        return s if num is None else s[len(s) - num :]

    def get_num_pools(self) -> int:
        """Number of pools, one more than there are spikes."""
        return len(self._pools)

    def get_v_of_pool(self, index: int) -> float:
        """Start value of a pool before it is cut off at 0 or `s_min`."""
        return self._pools[index].v / self._pools[index].w

    def get_w_of_pool(self, index: int) -> float:
        """Sum of squares of the decay in a pool."""
        return self._pools[index].w

    def get_t_of_pool(self, index: int) -> int:
        """First sample of a pool."""
        return self._pools[index].start

    def get_l_of_pool(self, index: int) -> int:
        """Number of samples of a pool."""
        starts = [pool.start for pool in self._pools] + [self._length]
        index %= len(self._pools)
        return starts[index + 1] - starts[index]

    def _merged(self, y: float) -> tuple[int, Pool]:
        """How many pools stay as they are when `y` comes, and the last one then."""
        pool = Pool(float(y) - self.b - self.lam * (1 - self.g), 1.0, self.g, self._length)
        kept = len(self._pools)
        while kept > 0:
            left = self._pools[kept - 1]
            if left.v / left.w * left.decayed + self.s_min <= pool.v / pool.w:
                break
            pool = left.then(pool)
            kept -= 1
        return kept, pool

    def _calcium(self, pools: list[Pool], length: int) -> NDArray[np.float64]:
        c = np.zeros(length)
        starts = [pool.start for pool in pools] + [length]
        for i, pool in enumerate(pools):
            a = pool.v / pool.w
            if a >= (self.s_min if i else 0.0) and a > 0:
                c[starts[i] : starts[i + 1]] = a * self.g ** np.arange(starts[i + 1] - starts[i])
        return c
