"""From what was found in patches to components and background of the whole field of view."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, diags, hstack

from gpucalcium import backend
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.background import background_nmf
from gpucalcium.cnmf.merging import groups_to_merge, merge_groups
from gpucalcium.cnmf.selection import column_norms, scale_columns, scale_rows

CUT_OFF_COSINE, CUT_OFF_CORRELATION = 0.3, 0.25
"""Of footprints and traces, above which a component is a part, cut off by its patch's edge, of one seen whole."""
BACKGROUND_ROUNDS = 100
BACKGROUND_TOLERANCE = 1e-6  # relative change of the time courses in one round

log = logging.getLogger(__name__)


class PatchResult(NamedTuple):
    """What was found in a patch; its pixels in Fortran order. Without components and background if `why` is given."""

    A: csc_matrix
    C: NDArray[np.float32]
    YrA: NDArray[np.float32]
    b: Any
    f: NDArray[np.float32]
    sn: NDArray[np.float32]
    means: NDArray[np.float64] | None
    """Mean over time of the pixels, 0 where there is none; None if no value is missing."""
    why: str
    """Why nothing was sought here; empty if something was."""

    @classmethod
    def nothing(cls, pixels: int, frames: int, means: NDArray[np.float64] | None, why: str) -> PatchResult:
        """The result of a patch in which nothing is sought."""
        none, traces = csc_matrix((pixels, 0), dtype=np.float32), np.zeros((0, frames), np.float32)
        return cls(none, traces, traces, none, traces, np.zeros(pixels, np.float32), means, why)


class Found(NamedTuple):
    """Components of several patches on the whole field, and which patches each is from."""

    A: csc_matrix
    C: NDArray[np.float32]
    YrA: NDArray[np.float32]
    patches: NDArray[np.bool_]
    """(K, patches)."""

    def at(self, chosen: NDArray) -> Found:
        """Some of the components."""
        return Found(self.A[:, chosen], self.C[chosen], self.YrA[chosen], self.patches[chosen])


def components(results: Sequence[PatchResult], pixels: Sequence[NDArray[np.int64]], d: int) -> Found:
    """All components that have a pixel and a trace, patch after patch."""
    A = csc_matrix(hstack([spread(r.A, rows, d) for r, rows in zip(results, pixels, strict=True)]))
    C, YrA = np.concatenate([r.C for r in results]), np.concatenate([r.YrA for r in results])
    origin = np.repeat(np.arange(len(results)), [r.A.shape[1] for r in results])
    found = Found(A, C, YrA, origin[:, None] == np.arange(len(results)))
    sums = np.asarray(A.sum(0)).ravel()
    return found.at(np.flatnonzero((sums > 0) & np.isfinite(sums) & np.isfinite(C).all(1) & C.any(1)))


def spread(part: Any, rows: NDArray[np.int64], d: int) -> csc_matrix:
    """A matrix of the pixels `rows` as one of all `d` pixels."""
    part = csc_matrix(part)
    whole = csc_matrix((part.data, rows[part.indices], part.indptr), shape=(d, part.shape[1]))
    whole.eliminate_zeros()
    whole.sort_indices()
    return whole


def nearest_only(found: Found, centres: NDArray[np.float64], dims: tuple[int, ...]) -> Found:
    """Components that lie nearest to the centre of their own patch; of patches as near, the first has it."""
    own = np.argmax(found.patches, 1)
    return found.at(np.flatnonzero(np.argmin(_distances(found.A, centres, dims), 1) == own))


def without_cut_off(found: Found, centres: NDArray[np.float64], dims: tuple[int, ...]) -> Found:
    """Components without those that are seen better in another patch.

    A cell at the edge of a patch is seen in part, beside the light of what lies outside, so that its trace may differ
    too much for merging from that of the whole cell in the next patch. It goes if it lies nearer to the centre of a
    patch that has a component there with some of its shape and activity.
    """
    distance = _distances(found.A, centres, dims)
    nearest = np.where(found.patches, distance, np.inf).min(1)
    unit = scale_columns(found.A.astype(np.float64), 1 / column_norms(found.A))
    overlap = coo_matrix(unit.T @ unit)
    pairs = (overlap.row != overlap.col) & (overlap.data > CUT_OFF_COSINE)
    traces = found.C - found.C.mean(1, keepdims=True, dtype=np.float64)
    traces /= np.maximum(np.linalg.norm(traces, axis=1, keepdims=True), np.finfo(float).tiny)
    kept = np.ones(len(nearest), bool)
    for part, whole in zip(overlap.row[pairs], overlap.col[pairs], strict=True):
        elsewhere = not (found.patches[part] & found.patches[whole]).any()
        nearer = distance[part][found.patches[whole]].min() < nearest[part]
        if elsewhere and nearer and traces[part] @ traces[whole] > CUT_OFF_CORRELATION:
            kept[part] = False
    return found.at(np.flatnonzero(kept))


def _distances(A: csc_matrix, centres: NDArray[np.float64], dims: tuple[int, ...]) -> NDArray[np.float64]:
    """Square of the distance of each component to each centre, (K, centres)."""
    at = centers_of_mass(A, dims)
    distance: NDArray[np.float64] = ((at[:, None] - centres[None]) ** 2).sum(-1)
    return distance


def merge_across(
    found: Found, covers: csr_matrix, thr: float, max_merge_area: float | None, temporal: dict[str, Any]
) -> Found:
    """Merge overlapping components with correlated traces until none are left.

    A cell of several patches was found in each of them. In the sum that a group is replaced by, a pixel counts once,
    not once for every patch of the group that it is in.

    Parameters
    ----------
    covers : (d, patches) bool
        Which pixels a patch has.
    """
    while groups := groups_to_merge(found.A, found.C, thr, max_merge_area):
        parts = [_counted_once(found.A[:, group], found.patches[group], covers) for group in groups]
        A = _with_columns(found.A, groups, parts)
        merged = merge_groups(A, found.C, found.YrA, None, groups, {**temporal, "p": 0})
        alone = np.setdiff1d(np.arange(len(found.C)), np.concatenate(groups))
        new = np.array([found.patches[group].any(0) for group in groups])[~merged[9]]
        found = Found(merged[0], merged[1], merged[10], np.concatenate([found.patches[alone], new]))
    return found


def _counted_once(A: csc_matrix, patches: NDArray[np.bool_], covers: csr_matrix) -> csc_matrix:
    """Members of a group, each pixel divided by how often it was looked at: by how many different sets of patches."""
    rows, place = np.unique(A.indices, return_inverse=True)
    near, times = covers[rows], np.zeros(len(rows))
    for those in np.unique(patches, axis=0):
        times += np.asarray(near[:, np.flatnonzero(those)].sum(1)).ravel() > 0
    return csc_matrix((A.data / np.maximum(times, 1)[place], A.indices, A.indptr), shape=A.shape)


def _with_columns(A: csc_matrix, groups: list[NDArray[np.int64]], parts: list[csc_matrix]) -> csc_matrix:
    """`A` with other columns in place of those of the groups."""
    others = np.setdiff1d(np.arange(A.shape[1]), np.concatenate(groups))
    order = np.argsort(np.concatenate([others, *groups]), kind="stable")
    return csc_matrix(hstack([A[:, others], *parts]))[:, order]


# ---------------------------------------------------------------------------- background


def background(
    results: Sequence[PatchResult],
    pixels: Sequence[NDArray[np.int64]],
    covers: csr_matrix,
    low_rank: bool | None,
    nb: int,
) -> tuple[Any, NDArray[np.float32]]:
    """Background images (d, n) and time courses (n, T) of the whole field.

    Parameters
    ----------
    covers : (d, patches) bool
    low_rank : bool or None
        True: the non-negative images and the time courses of rank `nb` that fit the patches' backgrounds best. None:
        those of the patches, averaged where they overlap. False: those of the patches, of which every pixel has but
        that of the first patch that it is in. The images are sparse in the last two cases.
    """
    d = covers.shape[0]
    images = csc_matrix(hstack([spread(r.b, rows, d) for r, rows in zip(results, pixels, strict=True)]))
    f = np.concatenate([r.f for r in results]).astype(np.float64)
    norms = column_norms(images)
    images, f = csc_matrix(scale_columns(images.astype(np.float64), 1 / norms)), scale_rows(f, norms)
    if low_rank is False:
        first = np.asarray(covers.argmax(1)).ravel()
        origin = np.repeat(np.arange(len(results)), [r.b.shape[1] for r in results])
        columns = np.repeat(np.arange(images.shape[1]), np.diff(images.indptr))
        images.data[first[images.indices] != origin[columns]] = 0
        images.eliminate_zeros()
    else:
        images = csc_matrix(diags(1 / np.maximum(np.asarray(covers.sum(1)).ravel(), 1)) @ images)
    if not low_rank or not len(f):
        return images.astype(np.float32), f.astype(np.float32)
    return _of_low_rank(images, f, nb)


def _of_low_rank(
    images: csc_matrix, courses: NDArray[np.float64], nb: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """b >= 0 and f that fit the movie ``images courses`` best, of rank `nb`, by alternating least squares."""
    start = np.maximum(courses[np.isfinite(courses).all(1)], 0).astype(np.float32)
    f = background_nmf(backend.put(start), min(nb, len(start)))[1].astype(np.float64)
    b = np.zeros((images.shape[0], len(f)))
    for _ in range(BACKGROUND_ROUNDS):
        before = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), np.finfo(float).tiny)
        b = np.maximum(images @ np.linalg.lstsq(before @ before.T, before @ courses.T, rcond=None)[0].T, 0)
        f = np.linalg.lstsq(b.T @ b, (images.T @ b).T @ courses, rcond=None)[0]
        after = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), np.finfo(float).tiny)
        if np.linalg.norm(after - before) <= BACKGROUND_TOLERANCE * np.sqrt(len(f)):
            break
    return b.astype(np.float32), f.astype(np.float32)
