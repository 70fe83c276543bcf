"""Constrained deconvolution of any order as a convex programme, by the solvers of CVXPY (the extra `cvx`), on the CPU.

Pnevmatikakis et al. 2016, Neuron 89:285, eq. 6: min sum(G c) subject to G c >= 0, |y - b - c - c1 d^t| <= sn sqrt(T).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags_array

from gpucalcium.errors import MissingExtraError, ParameterError

log = logging.getLogger(__name__)

DEFAULT_SOLVERS = ("CLARABEL", "SCS")
INFEASIBLE_PENALTY = (
    1 / 500
)  # of the noise: what a unit of spikes costs where no calcium leaves as little as the noise


class ConvexFit(NamedTuple):
    """Deconvolution of one trace."""

    c: NDArray[np.float64]
    s: NDArray[np.float64]
    b: float
    c1: float
    lam: float
    """Price of the noise constraint: d(sum of spikes) / d(-sn sqrt(T)); the penalty where that was infeasible."""


def solve_convex(
    y: NDArray,
    g: NDArray[np.float64],
    sn: float,
    b: float | None,
    c1: float | None,
    *,
    b_nonneg: bool,
    solvers: Sequence[str] | None,
    verbose: bool,
) -> ConvexFit:
    """One trace (T,); `b` and `c1` are estimated if None.

    Raises
    ------
    MissingExtraError
        CVXPY is not installed.
    ParameterError
        None of `solvers` is installed, or none solved the programme.
    """
    cp = _cvxpy()
    T = len(y)
    y = np.asarray(y, np.float64)
    decay = max(np.roots(np.r_[1.0, -g]).real.max(initial=0.0), 0.0)
    orders = [-k for k in range(min(len(g) + 1, T))]
    weights = np.r_[1.0, -g][: len(orders)]
    G = diags_array([np.full(T + k, w) for k, w in zip(orders, weights, strict=True)], offsets=orders)
    c = cp.Variable(T)
    base = cp.Variable() if b is None else cp.Constant(b)
    start = cp.Variable() if c1 is None else cp.Constant(c1)
    spikes = G @ c
    residual = y - c - base - start * decay ** np.arange(T)
    bounds = [spikes >= 0]
    if b is None:
        bounds.append(base >= (0 if b_nonneg else y.min()))
    if c1 is None:
        bounds.append(start >= 0)
    total, left = cp.sum(spikes), cp.norm(residual, 2)
    noise = left <= sn * np.sqrt(T)
    if _solve(cp, cp.Problem(cp.Minimize(total), [*bounds, noise]), solvers, verbose):
        price = float(noise.dual_value)
    else:
        log.info("no calcium leaves as little as the noise; spikes are penalised instead")
        price = sn * INFEASIBLE_PENALTY
        if not _solve(cp, cp.Problem(cp.Minimize(left + price * total), bounds), solvers, verbose):
            raise ParameterError(
                f"none of the solvers {tuple(solvers or DEFAULT_SOLVERS)} solved a trace of {T} samples"
            )
    return ConvexFit(c.value, np.maximum(spikes.value, 0.0), float(base.value), float(start.value), price)


def _solve(cp: Any, problem: Any, solvers: Sequence[str] | None, verbose: bool) -> bool:
    """Whether one of the solvers that are installed, tried in order, finds the optimum."""
    wanted = [name.upper() for name in (DEFAULT_SOLVERS if solvers is None else solvers)]
    installed = cp.installed_solvers()
    if not set(wanted) & set(installed):
        raise ParameterError(f"solvers={wanted}: none is installed; CVXPY has {', '.join(installed)} here")
    for name in wanted:
        if name not in installed:
            continue
        try:
            problem.solve(solver=name, verbose=verbose)
        except cp.error.SolverError as error:
            log.info("%s failed: %s", name, error)
            continue
        if problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return True
        if problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            return False
    return False


def _cvxpy() -> Any:
    try:
        return importlib.import_module("cvxpy")
    except ImportError as error:
        raise MissingExtraError(
            "method_deconvolution='cvxpy' needs CVXPY: pip install 'gpucalcium[cvx]', or use 'oasis'"
        ) from error
