"""Update of the traces and of the background time courses, the footprints being given."""

from __future__ import annotations

import inspect
import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix, diags, hstack

from gpucalcium import backend
from gpucalcium.cnmf._movie import PixelMovie, pixel_movie
from gpucalcium.cnmf.update_order import update_order
from gpucalcium.deconvolution import constrained_foopsi
from gpucalcium.errors import ArrayShapeError, ParameterError

log = logging.getLogger(__name__)

EPSILON = 2.0**-23  # keeps an empty footprint from dividing by zero
CONVERGED = 1e-3  # relative change of the traces in one sweep
FOOPSI_OPTIONS = frozenset(inspect.signature(constrained_foopsi).parameters) - {
    "fluor",
    "bl",
    "c1",
    "g",
    "sn",
    "ignored",
}


class Deconvolved(NamedTuple):
    """Traces and what `constrained_foopsi` found for each, one row or entry per component."""

    C: NDArray[np.float32]
    """(K, T), baseline and initial decay included."""
    S: NDArray[np.float32]
    bl: NDArray[np.float64]
    c1: NDArray[np.float64]
    sn: NDArray[np.float64]
    g: NDArray[np.float64]
    """(K, p)."""
    lam: NDArray[np.float64]

    @classmethod
    def none_yet(cls, K: int, T: int, p: int) -> Deconvolved:
        """Room for K components."""
        C, S = np.zeros((K, T), np.float32), np.zeros((K, T), np.float32)
        return cls(C, S, np.zeros(K), np.zeros(K), np.zeros(K), np.zeros((K, p)), np.full(K, np.nan))

    def write(self, rows: NDArray[np.int64], part: Deconvolved) -> None:
        """Put `part` in the place of some rows."""
        for field in self._fields:
            getattr(self, field)[rows] = getattr(part, field)

    def at(self, index: Any) -> Deconvolved:
        """Some of the components."""
        return Deconvolved(*(field[index] for field in self))


def deconvolve_traces(traces: NDArray, p: int, sn: NDArray | None = None, **options: Any) -> Deconvolved:
    """`constrained_foopsi` of (K, T) traces in one batch; the rows of C are whole: c + bl + c1 gamma^t.

    `options` are those of `constrained_foopsi`; others are left out, so that a whole parameter group fits.
    A trace that is not finite becomes NaN and spreads to no other.
    """
    K, T = traces.shape
    if not isinstance(p, (int, np.integer)) or p < 0:
        raise ParameterError(f"p={p!r}: expected the order of the calcium model, 0, 1 or 2")
    if sn is not None and np.size(sn) != K:
        raise ArrayShapeError(f"sn has {np.size(sn)} values for {K} traces: give one a trace")
    out = Deconvolved.none_yet(K, T, p)
    finite = np.flatnonzero(np.isfinite(traces).all(1))
    out.C[:], out.S[:] = np.nan, np.nan
    if not len(finite):
        return out
    options = {name: value for name, value in options.items() if name in FOOPSI_OPTIONS}
    options["p"] = p
    given = backend.put(np.ascontiguousarray(traces[finite], np.float32))
    c, bl, c1, g, sn_found, sp, lam = constrained_foopsi(
        given, sn=None if sn is None else backend.put(np.asarray(sn, np.float64)[finite]), **options
    )
    c, bl, c1, g, sn_found, sp = (backend.to_numpy(x) for x in (c, bl, c1, g, sn_found, sp))
    g = np.asarray(g, np.float64).reshape(len(finite), -1)[:, :p]
    bl, c1 = (np.asarray(x, np.float64).reshape(len(finite)) for x in (bl, c1))
    decay = largest_root(g)[:, None] ** np.arange(T)
    whole = np.asarray(c, np.float64) + bl[:, None] + c1[:, None] * decay
    lam = np.full(len(finite), np.nan) if lam is None else backend.to_numpy(lam)
    part = Deconvolved(whole.astype(np.float32), sp, bl, c1, sn_found, g, lam)
    out.write(finite, part)
    return out


def largest_root(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest real root of z^p - sum_i g_i z^(p-i), row by row; 0 for p = 0."""
    if g.shape[1] == 0:
        return np.zeros(len(g))
    return np.array([np.roots(np.r_[1.0, -row]).real.max() for row in g]) if len(g) else np.zeros(0)


def update_temporal_components(
    Y: Any,
    A: Any,
    b: Any,
    Cin: NDArray | None,
    fin: NDArray | None,
    bl: NDArray | None = None,
    c1: NDArray | None = None,
    g: NDArray | None = None,
    sn: NDArray | None = None,
    nb: int = 1,
    ITER: int = 2,
    block_size_temp: int = 5000,
    num_blocks_per_run_temp: int = 20,
    debug: bool = False,
    dview: object = None,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Sweep over the components: what a footprint sees beside all others, deconvolved, is its new trace.

    Parameters
    ----------
    Y : (d, T)
        Movie, pixels in Fortran order; read once, in chunks.
    A : (d, K)
        Footprints.
    b : (d, nb)
        Background images.
    Cin, fin : (K, T), (nb, T), optional
        Traces and background time courses to start from; default: zeros.
    bl, c1, g, sn : arrays, optional
        Accepted, and estimated anew in every sweep.
    nb : int
        Number of backgrounds; the columns of `b` hold where the two differ.
    ITER : int
        Sweeps at most; fewer if the traces change by less than 0.1 %.
    block_size_temp, num_blocks_per_run_temp, debug, dview
        Accepted for old scripts and not used: components without overlap are done in one batch.
    **kwargs
        Options of `constrained_foopsi`; `p`, the order of the AR model, is needed.

    Returns
    -------
    C : (K', T) float32, A : (d, K') CSC, b : (d, nb'), f : (nb', T) float32, S : (K', T) float32,
    bl, c1 : (K',), sn : (K',), g : (K', p), YrA : (K', T) float32, lam : (K',)
        Components and backgrounds whose trace is all zero are gone. `f` may be negative.

    Raises
    ------
    ParameterError
        `p` is missing.
    ArrayShapeError
        An argument whose shape does not go with the others, named.

    References
    ----------
    Pnevmatikakis et al. (2016), Neuron 89:285, "Updating the temporal components".
    """
    movie = pixel_movie(Y)
    p = kwargs.get("p")
    if p is None:
        raise ParameterError("p is missing: give the order of the autoregressive model, 0, 1 or 2")
    A, b = csc_matrix(A), _columns(b, movie.d)
    both = _joined(A, b)
    K, nb = A.shape[1], b.shape[1]
    Cf = np.vstack([_rows(Cin, K, movie.T, "Cin"), _rows(fin, nb, movie.T, "fin")])
    state = _Sweep(both, movie, Cf, K)
    for sweep in range(max(int(ITER), 1)):
        before = state.Cf[:K].copy()
        kept = state.copy()
        state.update(kwargs)
        if not np.isfinite(state.Cf).any(1).all() or not np.isfinite(state.Cf[K:]).all():
            log.warning("sweep %d gave values that are not finite; those of the sweep before are kept", sweep)
            state = kept
            break
        change = np.linalg.norm(np.nan_to_num(state.Cf[:K] - before))
        if change <= CONVERGED * np.linalg.norm(np.nan_to_num(state.Cf[:K])):
            break
    return state.finished(A, b, p)


def _columns(b: Any, d: int) -> Any:
    if b is None:
        return csc_matrix((d, 0), dtype=np.float32)
    if getattr(b, "ndim", 2) == 1:
        return np.asarray(b).reshape(-1, 1)
    return b


def _joined(A: csc_matrix, b: Any) -> csc_matrix:
    if A.shape[0] != b.shape[0]:
        raise ArrayShapeError(f"b has {b.shape[0]} pixels, but A has {A.shape[0]}")
    return csc_matrix(hstack([A, csc_matrix(b)]), dtype=np.float32)


def _rows(given: NDArray | None, n: int, T: int, name: str) -> NDArray[np.float64]:
    if given is None:
        return np.zeros((n, T))
    rows = np.array(given, np.float64, ndmin=2)
    if rows.shape != (n, T):
        raise ArrayShapeError(f"{name} has shape {rows.shape}, expected {(n, T)}")
    return rows


def residual_traces(movie: PixelMovie, both: csc_matrix, Cf: NDArray) -> NDArray[np.float64]:
    """What each column of `both` = [A b] sees of the movie that the model [A b][C; f] leaves, (K + nb, T).

    (A'Y - A'A C) over |a|^2, row by row; one pass over the movie.
    """
    gram = csr_matrix(both.T @ both, dtype=np.float64)
    norms = gram.diagonal() + EPSILON
    return (movie.project(both) - gram @ Cf) / norms[:, None]


class _Sweep:
    """Traces of components and backgrounds, and their residual traces, kept consistent with each other."""

    def __init__(self, both: csc_matrix, movie: PixelMovie, Cf: NDArray[np.float64], K: int) -> None:
        if both.shape[0] != movie.d:
            raise ArrayShapeError(f"A has {both.shape[0]} pixels, but the movie has {movie.d}")
        gram = csr_matrix(both.T @ both, dtype=np.float64)
        self._coupling = csc_matrix(diags(1 / (gram.diagonal() + EPSILON)) @ gram)
        self._groups = [np.array(group) for group in update_order(both[:, :K])[0]]
        self._K = K
        self.Cf = Cf
        self.YrA = residual_traces(movie, both, Cf)
        self.found: Deconvolved | None = None

    def copy(self) -> _Sweep:
        """The same state, to go back to."""
        other = object.__new__(_Sweep)
        other.__dict__.update(self.__dict__)
        other.Cf, other.YrA = self.Cf.copy(), self.YrA.copy()
        other.found = None if self.found is None else self.found.at(slice(None))
        return other

    def update(self, options: dict[str, Any]) -> None:
        """One sweep: group after group of components, then the backgrounds one by one."""
        K, T = self._K, self.Cf.shape[1]
        found = Deconvolved.none_yet(K, T, options["p"])
        for group in self._groups:
            part = deconvolve_traces(self.YrA[group] + self.Cf[group], **options)
            found.write(group, part)
            self._replace(group, part.C)
        for row in range(K, len(self.Cf)):
            self._replace(np.array([row]), self.YrA[[row]] + self.Cf[[row]])
        self.found = found

    def _replace(self, rows: NDArray[np.int64], traces: NDArray) -> None:
        change = np.nan_to_num(traces - self.Cf[rows])  # a NaN trace must not spread to its neighbours
        self.YrA -= self._coupling[:, rows] @ change
        self.Cf[rows] = traces

    def finished(self, A: csc_matrix, b: Any, p: int) -> tuple[Any, ...]:
        """The eleven results, without rows that are all zero."""
        K = self._K
        found = self.found or Deconvolved.none_yet(K, self.Cf.shape[1], p)
        alive: NDArray[np.bool_] = np.any(np.nan_to_num(self.Cf), axis=1)
        cells, rest = alive[:K], alive[K:]
        found = found.at(cells)
        f = self.Cf[K:][rest].astype(np.float32)
        YrA = self.YrA[:K][cells].astype(np.float32)
        C = self.Cf[:K][cells].astype(np.float32)
        return (
            C, A[:, cells], b[:, rest], f, found.S, found.bl, found.c1, found.sn, found.g, YrA, found.lam
        )  # fmt: skip


def make_G_matrix(T: int, g: NDArray) -> csc_matrix:
    """Banded (T, T) matrix G of an AR model: G c = s for a trace c without noise."""
    g = np.atleast_1d(np.asarray(g, np.float64))
    return csc_matrix(diags([1.0, *-g], [-i for i in range(len(g) + 1)], shape=(T, T)))
