"""What the single steps of `CNMF` demand of the movie and of what was found before, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpucalcium.cnmf._movie import Footprints, PixelMovie
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF
    from gpucalcium.cnmf.estimates import Estimates


class KnownMovie(PixelMovie):
    """A movie without missing values, or an error as soon as a sum over its pixels or frames shows one."""

    def project(self, A: Footprints) -> NDArray[np.float64]:
        """See `PixelMovie.project`."""
        return _finite(super().project(A))

    def sample(self, *args: Any, **kwargs: Any) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """See `PixelMovie.sample`."""
        sums, squares = super().sample(*args, **kwargs)
        return _finite(sums), squares


def _finite(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(sums).all():
        raise MovieValueError(
            "the movie has missing (NaN) or infinite values in pixels that are needed: give this step what preprocess "
            "returned, in which they are filled"
        )
    return sums


def checked_movie(estimates: Estimates, movie: PixelMovie) -> PixelMovie:
    """`movie`, which the components of `estimates` have the pixels and frames of.

    Raises
    ------
    ArrayShapeError
        They are those of another movie.
    """
    needs_components(estimates)
    found = int(estimates.A.shape[0]), int(np.shape(estimates.C)[1])
    if found != (movie.d, movie.T):
        raise ArrayShapeError(
            f"the components have {found[0]} pixels and {found[1]} frames, but the movie has {movie.d} and {movie.T}: "
            "give the movie that they were found in"
        )
    return KnownMovie(movie.source, movie.dims)


def needs_components(estimates: Estimates, residuals: bool = False) -> None:
    """Raise a ParameterError if there are none, or if `residuals` are asked for and there are none."""
    if estimates.A is None or estimates.C is None:
        raise ParameterError("there are no components yet: call initialize or fit first")
    if residuals and estimates.YrA is None:
        raise ParameterError("the residual traces are not known: call compute_residuals first")


def numbers_below(count: int, numbers: Any, what: str) -> NDArray[np.int64]:
    """Whole numbers from -count to count - 1, or a mask of `count`, as numbers from 0.

    Raises
    ------
    ParameterError
        Anything else; `what` names them.
    """
    found = np.atleast_1d(np.asarray(numbers))
    if found.dtype == bool and found.shape == (count,):
        return np.flatnonzero(found)
    whole = found.dtype.kind in "iu" or not found.size
    if not whole or found.ndim != 1 or (found < -count).any() or (found >= count).any():
        raise ParameterError(f"{what}={numbers!r}: expected whole numbers from 0 to {count - 1}")
    return found.astype(np.int64) % max(count, 1)


def components_to_start_from(A: Any, C: Any, b: Any, f: Any) -> None:
    """Refuse parts of a start that say nothing without the others."""
    if A is None and any(x is not None for x in (C, b, f)):
        raise ParameterError("Cin, b_in and f_in belong to footprints: give Ain as well")
    if (b is None) != (f is None):
        raise ParameterError(
            "b_in and f_in are images and time courses of one background: give both, or neither"
        )


@contextmanager
def undone_if_it_fails(cnmf: CNMF, group: str, changes: dict[str, Any]) -> Iterator[None]:
    """A step with changed parameters; parameters and estimates are what they were if it fails."""
    before = {name: group.snapshot() for name, group in cnmf.params.groups.items()}
    estimates = dict(vars(cnmf.estimates))
    try:
        if changes:
            cnmf.params.change_params({group: changes})
        yield
    except BaseException:
        for name, values in before.items():
            cnmf.params.groups[name].restore(values)
        vars(cnmf.estimates).clear()
        vars(cnmf.estimates).update(estimates)
        raise


def in_order(count: int, groups: Sequence[Any] | None, use_groups: bool, order: Any) -> NDArray[np.int64]:
    """Components in the order in which HALS updates them.

    Raises
    ------
    ParameterError
        `use_groups` without groups, or a component that there is not.
    """
    if use_groups and groups is None:
        raise ParameterError("use_groups=True without groups: give those of update_order")
    if use_groups:
        rows = [np.atleast_1d(np.asarray(group, np.int64)) for group in groups or ()]
        return numbers_below(count, np.concatenate([np.empty(0, np.int64), *rows]), "groups")
    return np.arange(count) if order is None else numbers_below(count, order, "order")
