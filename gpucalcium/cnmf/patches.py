"""CNMF by patches: overlapping parts of the field of view one by one or side by side, then put together."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.cnmf import _fit, patch_assembly
from gpucalcium.cnmf._movie import Cropped, Filled, PixelMovie, images_movie
from gpucalcium.cnmf.dispatch import mapper
from gpucalcium.cnmf.estimates import Estimates
from gpucalcium.cnmf.footprints import centers_of_mass
from gpucalcium.cnmf.initialization.greedy import per_axis
from gpucalcium.cnmf.initialization.refine import LEAST_SKEWNESS, skewness
from gpucalcium.cnmf.patch_assembly import PatchResult
from gpucalcium.cnmf.patch_grid import (
    Window,
    groups_within,
    inside_border,
    patch_windows,
    pixels_of,
    read_window,
    read_windows,
    reads_windows,
    shape_of,
    window_bytes,
    within,
)
from gpucalcium.cnmf.quality import evaluate
from gpucalcium.cnmf.ring_fit import factorise_ring, fit_ring, has_ring, refined_beside_ring
from gpucalcium.errors import MemoryBudgetError, NotSupportedError, ParameterError
from gpucalcium.movies import open_movie

if TYPE_CHECKING:
    from gpucalcium.cnmf.cnmf import CNMF
    from gpucalcium.cnmf.params import CNMFParams

LEAST_CHANGE = (
    0.1  # sum of the changes from frame to frame, in units of the movie, of a patch that is looked at
)
FRAMES_LOOKED_AT = 64  # at a time
SEARCHED_COPIES = 6  # of the small movie, float32, that a search has in memory
TRACE_COPIES = 12  # float64, of the traces of the whole field, that their update has in memory
ROOM_A_CELL_HAS = 2.0  # boxes of gSiz: the share of a patch that a cell has where K is None

log = logging.getLogger(__name__)


def fit(cnmf: CNMF, images: Any, indices: Sequence[slice]) -> None:
    """`CNMF.fit` with `patch.rf` set."""
    path = images if isinstance(images, (str, os.PathLike)) else None
    _check(cnmf, path)
    source = open_movie(images)
    dims = source.shape[1:]
    window = (*indices, *[slice(None)] * (len(dims) - len(indices)))
    if len(window) == len(dims):
        window = inside_border(dims, window, cnmf.params.get("patch", "border_pix"))
    _fit.fit(cnmf, source, window, lambda work, part: _run(work, part, path))


def _check(cnmf: CNMF, path: Any) -> None:
    """Refuse, before any work, what patches do not carry out."""
    params = cnmf.params
    if params.get("patch", "nb_patch") < 0:
        raise NotSupportedError(
            "nb_patch=-1 keeps whole movies as the background of patches: use nb_patch >= 0"
        )
    if params.get("patch", "border_pix") and has_ring(cnmf):
        raise NotSupportedError(
            "border_pix: the weights of a ring model have no place for pixels that are left out; crop the movie first"
        )
    if cnmf.estimates.A is not None and cnmf.dims is None:  # given, not found by an earlier fit
        raise NotSupportedError(
            "rf is set and there are components to start from, which is done on the whole field of view: use rf=None, "
            "or refit"
        )
    if cnmf.dview is not None:
        mapper(cnmf.dview)
        if not params.get("patch", "in_memory") and path is None:
            raise NotSupportedError(
                "in_memory=False reads a patch anew for each step, and behind dview there is only what is sent there: "
                "give the path of a file, or use in_memory=True or dview=None"
            )


class _Job(NamedTuple):
    """A patch, wherever it is worked on."""

    cnmf: CNMF
    movie: Any
    """The patch's frames, or the movie (array, source, path) of which `window` is the patch."""
    window: Window | None


def _run(cnmf: CNMF, part: FrameSource, path: Any) -> None:
    """Find components in the patches of a movie, put them together, and give them traces of the whole field."""
    group = cnmf.params.get_group("patch")
    dims = tuple(part.shape[1:])
    shifts, cnmf.estimates = cnmf.estimates.shifts, Estimates(dims=dims)
    cnmf.estimates.shifts = shifts
    windows = patch_windows(dims, group["rf"], group["stride"])
    blanks = [_blank(cnmf, dims, window) for window in windows]
    source, held = _near(part)
    left = max(backend.budget() - held, 1)
    with _pinned(source), backend.limit(memory=left), backend.one_blas_thread():
        with stage("CNMF patches", len(windows), "patches") as bar:
            if cnmf.dview is not None:
                results = _elsewhere(cnmf.dview, source, path, part, blanks, windows, bar.update)
            else:
                results = _here(source, blanks, windows, group["in_memory"], bar.update)
        pixels = [pixels_of(dims, window) for window in windows]
        means = _tell(results, windows, pixels, dims)
        _assemble(cnmf, results, windows, pixels, dims)
        movie = images_movie(source if means is None else Filled(source, means), hold=False)
        rows = cnmf.estimates.A.shape[1] + len(cnmf.estimates.f)
        with backend.limit(memory=max(left - TRACE_COPIES * 8 * rows * movie.T, left // 4)):
            _refine(cnmf, movie)
        _merge_again(cnmf)


def _refine(cnmf: CNMF, movie: PixelMovie) -> None:
    """Background and traces of the whole field; footprints as well in one-photon movies, where those of patches were
    found beside other backgrounds."""
    p, estimates = cnmf.params.get("preprocess", "p"), cnmf.estimates
    of_patches = estimates.b, estimates.f
    if refined_beside_ring(cnmf) and estimates.A.shape[1]:
        fit_ring(cnmf, movie)
    if estimates.A.shape[1] + len(estimates.f):
        _fit.update_temporal(cnmf, movie, p)
    ring = estimates.W is not None
    if ring:
        _keep_rising(estimates)
    if estimates.A.shape[1] and (ring or (cnmf.params.get("init", "center_psf") and len(estimates.f))):
        once = copy.copy(cnmf)
        once.params = copy.deepcopy(cnmf.params)
        once.params.set("spatial", {"se": np.ones((1,) * len(movie.dims))})  # no closing of holes
        _fit.update_spatial(once, movie)
        _fit.update_temporal(once, movie, p)
    if ring:
        estimates.b, estimates.f = of_patches
        if cnmf.params.get("patch", "low_rank_background") and cnmf.params.get("init", "nb"):
            factorise_ring(cnmf, movie)


def _keep_rising(estimates: Estimates) -> None:
    """Only components whose traces beside the others and the background of the whole field are skewed upwards.

    What is left of a cell that the edge of a patch cut off, beside the whole one, goes both ways.
    """
    rising = skewness(np.asarray(estimates.C) + np.asarray(estimates.YrA)) > LEAST_SKEWNESS
    if not rising.all():
        log.info("%d components of patches do not stand out of the whole field", np.sum(~rising))
        estimates.center = None  # of all that were found
        estimates.select_components(np.flatnonzero(rising), save_discarded_components=False)


def _merge_again(cnmf: CNMF) -> None:
    """Merge what the traces of the whole field, which are cleaner than those of patches, say is one cell."""
    merging, before = cnmf.params.get_group("merging"), -1
    while merging["do_merge"] and before != (before := cnmf.estimates.A.shape[1]):
        _fit.merge(cnmf, before, True, merging["max_merge_area"])


def _near(part: FrameSource) -> tuple[FrameSource, int]:
    """`part`, on the active device if it takes no more than half of the budget, and the bytes taken there."""
    size = math.prod(part.shape) * part.dtype.itemsize
    if 2 * size > backend.budget():
        return part, 0
    before = getattr(part, "array", None)
    try:
        held = backend.hold(part)
    except MemoryBudgetError:
        return part, 0
    return open_movie(held), 0 if held is before else size


def _pinned(source: FrameSource) -> Any:
    """The device that holds the movie, or the active one, as the one for all threads until the end."""
    held: Array = getattr(source, "array", None)
    place = backend.active()
    if backend.is_cupy(held):
        return backend.use(f"cuda:{held.device.id}")
    return backend.use(f"cuda:{place.index}") if place.kind == "cuda" else nullcontext()


# ---------------------------------------------------------------------------- parameters of a patch


def _blank(cnmf: CNMF, dims: tuple[int, ...], window: Window) -> CNMF:
    """An object like `cnmf` with nothing found and the parameters for one patch."""
    blank = copy.copy(cnmf)
    blank.params, blank.estimates, blank.dview = copy.deepcopy(cnmf.params), Estimates(), None
    patch, shape = cnmf.params.get_group("patch"), shape_of(window)
    init: dict[str, Any] = {
        "nb": patch["nb_patch"],
        "candidates": 1.0,
        "ssub": patch["p_ssub"],
        "tsub": patch["p_tsub"],
    }
    init.update(_cells(cnmf.params, shape, window))
    changes = {
        "init": init,
        "patch": {"rf": None, "stride": None, "n_processes": 1},
        "preprocess": {"p": patch["p_patch"], "sn": _noise(cnmf.params, dims, window)},
        "temporal": {"p": patch["p_patch"]},
    }
    blank.params.change_params(changes)
    return blank


def _cells(params: CNMFParams, shape: tuple[int, ...], window: Window) -> dict[str, Any]:
    """How many cells are sought in a patch, and where if that is given."""
    init = params.get_group("init")
    seeds = init["seed_method"]
    if not isinstance(seeds, str):
        first = [part.start for part in window]
        at = np.asarray(seeds).reshape(-1, len(shape)) - first
        at = at[((at >= 0) & (at < shape)).all(1)]
        return {"seed_method": at, "K": len(at)}
    if (
        init["K"] is not None or init["method_init"].lower() == "corr_pnr"
    ):  # which stops where no seed is left
        return {}
    box = per_axis(init["gSiz"], len(shape), "gSiz")
    return {"K": max(1, round(math.prod(shape) / (ROOM_A_CELL_HAS * math.prod(box))))}


def _noise(params: CNMFParams, dims: tuple[int, ...], window: Window) -> NDArray | None:
    sn = params.get("preprocess", "sn")
    if sn is None:
        return None
    values = np.asarray(sn).ravel(order="F")
    if len(values) != math.prod(dims):
        raise ParameterError(f"preprocess.sn has {len(values)} values, the field of view {dims}")
    return values[pixels_of(dims, window)]


# ---------------------------------------------------------------------------- work on patches


def run_patch(job: _Job) -> PatchResult:
    """Components and background of one patch; any process may do it."""
    if job.window is None:
        movie = PixelMovie(source := open_movie(job.movie), tuple(source.shape[1:]))
    else:
        source = open_movie(job.movie)
        if not job.cnmf.params.get("patch", "in_memory"):
            part: FrameSource = Cropped(source, job.window)
        elif reads_windows(source):
            part = open_movie(read_window(source, job.window))
        else:
            part = open_movie(read_windows(source, [job.window])[0])
        movie = PixelMovie(part, shape_of(job.window))
    return _found_in(job.cnmf, movie)


def _found_in(cnmf: CNMF, movie: PixelMovie) -> PatchResult:
    means, changes = _look(movie.source)
    where = None if means is None else means.ravel(order="F")
    if not changes:
        return PatchResult.nothing(movie.d, movie.T, where, "it does not change")
    _fit.all_steps(cnmf, movie, lambda: None)
    estimates = cnmf.estimates
    A, C, YrA = csc_matrix(estimates.A), np.asarray(estimates.C), np.asarray(estimates.YrA)
    if cnmf.params.get("patch", "remove_very_bad_comps") and A.shape[1]:
        quality, data = cnmf.params.get_group("quality"), cnmf.params.get_group("data")
        judged = evaluate(
            movie.source, A, C, YrA, movie.dims, data["fr"], data["decay_time"], {**quality, "use_cnn": False},
            estimates.sn,
        )  # fmt: skip
        r = judged.r if judged.contrast is None else np.fmax(judged.r, judged.contrast)
        kept = np.flatnonzero((judged.snr > quality["SNR_lowest"]) & (r > quality["rval_lowest"]))
        A, C, YrA = A[:, kept], C[kept], YrA[kept]
    return PatchResult(A, C, YrA, csc_matrix(estimates.b), np.asarray(estimates.f), estimates.sn, where, "")


def _look(source: FrameSource) -> tuple[NDArray[np.float64] | None, bool]:
    """Mean image without missing values (0 where there is none), None if none is missing; whether anything changes."""
    total, count, change, before = 0.0, 0.0, 0.0, None
    floats = source.dtype.kind == "f"
    for chunk in backend.stream(source, working=32 * math.prod(source.shape[1:])):
        xp = backend.arrays.xp(chunk)
        for start in range(0, len(chunk), FRAMES_LOOKED_AT):
            frames = chunk[start : start + FRAMES_LOOKED_AT].astype("float64")
            known = xp.isfinite(frames)
            frames = xp.where(known, frames, 0.0)
            total, count = total + frames.sum(0), count + known.sum(0)
            if change <= LEAST_CHANGE:
                change += _change(xp, frames, known, before)
                before = frames[-1], known[-1]
        if not floats and change > LEAST_CHANGE:
            return None, True
    counts = backend.to_numpy(count)
    missing = counts < len(source)
    means = np.divide(backend.to_numpy(total), counts, out=np.zeros(counts.shape), where=counts > 0)
    return means if missing.any() else None, change > LEAST_CHANGE


def _change(xp: Any, frames: Array, known: Array, before: Any) -> float:
    """Sum of |change| between neighbouring frames that are both known."""
    within = abs(frames[1:] - frames[:-1]) * (known[1:] & known[:-1])
    across = 0.0 if before is None else float((abs(frames[0] - before[0]) * (known[0] & before[1])).sum())
    return float(within.sum()) + across


def _here(
    source: FrameSource,
    blanks: Sequence[CNMF],
    windows: Sequence[Window],
    in_memory: bool,
    done: Callable[[], object],
) -> list[PatchResult]:
    """Patches in this process, side by side as far as memory allows."""

    def work(job: _Job) -> PatchResult:
        result = run_patch(job)
        done()
        return result

    if not in_memory:
        return [work(_Job(b, Cropped(source, w), None)) for b, w in zip(blanks, windows, strict=True)]
    held = max(window_bytes(source, window) for window in windows)
    need, budget = _need(source, blanks[0], windows), backend.budget()
    if need > budget:
        raise MemoryBudgetError(
            f"work on a patch of {shape_of(windows[0])} takes {need / 2**20:.0f} MiB, the budget is "
            f"{budget / 2**20:.0f} MiB: use a smaller rf, larger p_ssub and p_tsub, or in_memory=False, or give more "
            "with GPUCALCIUM_MEMORY or backend.limit(memory=...)"
        )
    count = backend.lane_count(need)
    results: list[PatchResult] = []
    for jobs, taken in _batches(source, blanks, windows, budget // 2):
        with backend.limit(memory=max((budget - taken) // count - held, 1)):
            results += backend.side_by_side(work, jobs, count)
    return results


def _need(source: FrameSource, blank: CNMF, windows: Sequence[Window]) -> int:
    """Bytes that the work on the largest patch takes: its frames, as read and converted, and copies made smaller."""
    pixels = max(math.prod(shape_of(window)) for window in windows)
    init = blank.params.get_group("init")
    smaller = int(init["tsub"] * init["ssub"] ** (len(source.shape) - 1))
    return len(source) * pixels * (2 * source.dtype.itemsize + 4 + SEARCHED_COPIES * 4 // smaller)


def _batches(
    source: FrameSource, blanks: Sequence[CNMF], windows: Sequence[Window], room: int
) -> Iterator[tuple[list[_Job], int]]:
    """Jobs, and the bytes they hold: all at once if each can read its own pixels, else as many as one pass can fill."""
    if reads_windows(source):
        yield [_Job(b, source, w) for b, w in zip(blanks, windows, strict=True)], 0
        return
    for group in groups_within(source, windows, room):
        chosen = [windows[i] for i in group]
        taken = sum(window_bytes(source, window) for window in chosen)
        with backend.limit(memory=max(backend.budget() - taken, 1)):
            frames = read_windows(source, chosen)
        yield [_Job(blanks[i], x, None) for i, x in zip(group, frames, strict=True)], taken


def _elsewhere(
    dview: Any,
    source: FrameSource,
    path: Any,
    part: FrameSource,
    blanks: Sequence[CNMF],
    windows: Sequence[Window],
    done: Callable[[int], object],
) -> list[PatchResult]:
    """Patches in the processes behind `dview`: they read the file themselves, or are sent their pixels."""
    run = mapper(dview)
    if path is not None:
        if isinstance(part, Cropped):
            windows = [within(part.whole.shape[1:], part.window, window) for window in windows]
        results = run(run_patch, [_Job(b, os.fspath(path), w) for b, w in zip(blanks, windows, strict=True)])
        done(len(windows))
        return results
    results = []
    for group in groups_within(source, windows, backend.budget() // 2):
        if reads_windows(source):
            frames = [read_window(source, windows[i]) for i in group]
        else:
            frames = read_windows(source, [windows[i] for i in group])
        jobs = [_Job(blanks[i], backend.to_numpy(x), None) for i, x in zip(group, frames, strict=True)]
        results += run(run_patch, jobs)
        done(len(group))
    return results


# ---------------------------------------------------------------------------- together


def _tell(
    results: Sequence[PatchResult],
    windows: Sequence[Window],
    pixels: Sequence[NDArray[np.int64]],
    dims: tuple[int, ...],
) -> NDArray[np.float64] | None:
    """Say which patches gave nothing, and why; returns the mean image if values are missing anywhere."""
    means = np.zeros(math.prod(dims))
    for result, window, rows in zip(results, windows, pixels, strict=True):
        place = ", ".join(f"{part.start}:{part.stop}" for part in window)
        if result.why or not result.A.shape[1]:
            log.info("no components in patch [%s]: %s", place, result.why or "none was found")
        if result.means is not None:
            means[rows] = result.means
    if all(result.why for result in results):
        log.warning("no components: no patch of the movie changes in time")
    if all(result.means is None for result in results):
        return None
    return means.reshape(dims, order="F")


def _assemble(
    cnmf: CNMF,
    results: Sequence[PatchResult],
    windows: Sequence[Window],
    pixels: Sequence[NDArray[np.int64]],
    dims: tuple[int, ...],
) -> None:
    params, d = cnmf.params, math.prod(dims)
    covers = csr_matrix((d, len(results)), dtype=bool)
    looked_at = [rows if not r.why else rows[:0] for r, rows in zip(results, pixels, strict=True)]
    columns = np.repeat(np.arange(len(results)), [len(rows) for rows in looked_at])
    covers = csr_matrix(
        (np.ones(len(columns), bool), (np.concatenate(looked_at), columns)), shape=covers.shape
    )
    found = patch_assembly.components(results, pixels, d)
    centres = np.array([[(part.start + part.stop - 1) / 2 for part in window] for window in windows])
    if params.get("patch", "del_duplicates"):
        found = patch_assembly.nearest_only(found, centres, dims)
    if params.get("merging", "do_merge"):
        group = params.get_group("merging")
        temporal = params.get_group("temporal")
        found = patch_assembly.merge_across(
            found, covers, group["merge_thr"], group["max_merge_area"], dict(temporal)
        )
        found = patch_assembly.without_cut_off(found, centres, dims)
    low_rank, nb = params.get("patch", "low_rank_background"), params.get("init", "nb")
    b, f = patch_assembly.background(results, pixels, covers, low_rank, nb)
    sn = np.zeros(d, np.float32)
    for result, rows in zip(results, pixels, strict=True):
        if not result.why:
            sn[rows] = result.sn
    vars(cnmf.estimates).update(
        A=found.A, C=found.C, YrA=found.YrA, R=found.YrA, b=b, f=f, sn=sn, dims=dims,
        center=centers_of_mass(found.A, dims), nr=found.A.shape[1],
    )  # fmt: skip
