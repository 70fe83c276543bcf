"""Activity and types of cells from a recording and a network: many cells in one pass over the movie."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.cutouts import Cutouts, cutouts
from gpucalcium.cinac.engine import FLIPS, Group, Pass, in_halves
from gpucalcium.cinac.merge import merge_windows
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.cinac.resume import Checkpoint, fingerprint
from gpucalcium.cinac.sizes import Sizes
from gpucalcium.cinac.windows import most_active, warn_if_short, window_starts
from gpucalcium.errors import ArrayShapeError, MovieShapeError, ParameterError

ACTIVE_FROM = 0.5

log = logging.getLogger(__name__)


def predict_activity(
    recording: CinacRecording,
    cells: ArrayLike,
    model: Any,
    *,
    n_frames: int | None = None,
    overlap: float = 0.5,
    augment: bool = False,
    buffer: float | None = None,
    unfinished: Path | None = None,
    model_name: str = "",
) -> NDArray[np.float32]:
    """Probability that cells are active, in every frame.

    Every cell and frame is encoded once; windows overlap, and the largest of what they say of a frame counts.

    Parameters
    ----------
    recording : CinacRecording
    cells : (N,) int
    model : Network
        As `nets.load_network` gives, or anything with `window_len`, `patch_size`, `inputs`, `n_classes` and
        ``predict({input: (n, L, P, P, 1)})``.
    n_frames : int, optional
        Frames from the start of the movie; default: all.
    overlap : float
        Share of a window that the next one repeats, 0 <= overlap < 1.
    augment : bool
        Predict the mirrored images as well: along rows, along columns, along both. Four times the work.
    buffer : float, optional
        Pixels that cells are grown by; default: as the network was trained.
    unfinished : path, optional
        File for what is done so far, about once a minute and at the end; a run that was stopped goes on from there.
        Removing it is the caller's.
    model_name : str
        Tells networks apart in that file.

    Returns
    -------
    (N, n_frames, K) float32
        Batches and the order of windows do not change it beyond the rounding of float32.

    Raises
    ------
    ParameterError
        No such cell, more frames than there are, a network of another kind or with other inputs.
    ArrayShapeError
        The network gives something else than activity.

    Warns
    -----
    UserWarning
        The movie is shorter than a window: zeros, the mean, are put behind it.
    """
    wanted, frames = _checked(recording, cells, model, n_frames, "activity")
    starts = window_starts(frames, model.window_len, overlap)
    warn_if_short(recording.identifier, frames, model.window_len)
    shape = (len(wanted), frames, int(model.n_classes))
    if len(wanted) == 0:
        return np.zeros(shape, np.float32)
    buffer = _buffer(buffer, model)
    cut = _cut(recording, wanted, model, "activity", buffer)
    halves = in_halves(model)
    sizes = _sizes(halves, cut, starts)
    flips = tuple(FLIPS) if augment else ("",)
    passes = list(itertools.product(range(0, len(wanted), sizes.cells), flips))
    groups = [Group(starts[i : i + sizes.windows]) for i in range(0, len(starts), sizes.windows)]
    what = (wanted, frames, starts, flips, buffer, sizes.cells, sizes.windows, _mask_mode(model), model_name)
    name = fingerprint(recording, *what) if unfinished else ""
    with Checkpoint(unfinished, name, shape) as checkpoint:
        for index in range(checkpoint.run, len(passes)):
            first, flip = passes[index]
            rows = np.arange(first, min(first + sizes.cells, len(wanted)))
            some = Cutouts(cut.corners[rows], cut.masks[rows])
            todo = groups[checkpoint.group :]

            def sink(chosen: NDArray, at: NDArray, found: NDArray, first: int = first) -> None:
                merge_windows(checkpoint.merged, first + chosen, at, _per_frame(found, model))

            Pass(recording.movie, frames, halves, some, flip, sizes).run(todo, sink, checkpoint.group_is_done)
            checkpoint.run_is_done()
        return checkpoint.merged


def activity_of(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, T) of what `predict_activity` gives, (N, T, K).

    Of one class its probability; of several 1 where the first is the largest (of two: and no less than one half).
    """
    if found.shape[2] == 1:
        return found[..., 0]
    active = found.argmax(axis=2) == 0
    if found.shape[2] == 2:
        active &= found[..., 0] >= ACTIVE_FROM
    return active.astype(np.float32)


def predict_cell_types(
    recording: CinacRecording,
    cells: ArrayLike,
    model: Any,
    *,
    n_frames: int | None = None,
    n_segments: int = 2,
    overlap: float = 0.0,
    all_pixels: bool = True,
    augment: bool = False,
    buffer: float | None = None,
) -> list[NDArray[np.float32]]:
    """Probability of each type, for the windows in which cells are most active.

    Parameters
    ----------
    recording, cells, model, n_frames, overlap, augment, buffer
        As in `predict_activity`.
    n_segments : int
        Windows of each cell; fewer where the movie has fewer.
    all_pixels : bool
        Offer the whole square as second input.

    Returns
    -------
    list of (S, K) float32
        For each cell its windows, the most active first, each followed by its mirrored images if `augment`.
    """
    wanted, frames = _checked(recording, cells, model, n_frames, "cell_type")
    candidates = window_starts(frames, model.window_len, overlap)
    warn_if_short(recording.identifier, frames, model.window_len)
    if len(wanted) == 0:
        return []
    cut = _cut(recording, wanted, model, "cell_type", _buffer(buffer, model), all_pixels)
    traces = np.atleast_2d(recording.get_smooth_traces(normalized=True))
    chosen = [most_active(traces[cell, :frames], candidates, model.window_len, n_segments) for cell in wanted]
    halves = in_halves(model)
    sizes = _sizes(halves, cut, candidates[:1])
    flips = tuple(FLIPS) if augment else ("",)
    found = [np.empty((len(starts), len(flips), int(model.n_classes)), np.float32) for starts in chosen]
    for start in np.unique(np.concatenate(chosen)):
        with_it = np.array([i for i, starts in enumerate(chosen) if start in starts])
        for rows in np.array_split(with_it, -(-len(with_it) // sizes.cells)):
            some = Cutouts(cut.corners[rows], cut.masks[rows])
            for f, flip in enumerate(flips):

                def sink(
                    at: NDArray, starts: NDArray, types: NDArray, f: int = f, rows: NDArray = rows
                ) -> None:
                    for row, start, values in zip(rows[at], starts, _per_window(types, model), strict=True):
                        found[row][chosen[row] == start, f] = values

                run = Pass(recording.movie, frames, halves, some, flip, sizes)
                run.run([Group(np.array([start]))], sink, lambda _: None)
    return [values.reshape(-1, values.shape[-1]) for values in found]


def predict_transient_from_model(
    cinac_recording: CinacRecording,
    cell: int,
    model: Any,
    n_frames: int,
    overlap_value: float = 0.8,
    pixels_around: int = 0,
    use_data_augmentation: bool = False,
    buffer: float | None = None,
    time_verbose: bool = True,
) -> NDArray[np.float32]:
    """Probability that a cell is active, in every frame; for many cells `predict_activity` is faster.

    Parameters
    ----------
    cinac_recording : CinacRecording
    cell : int
    model : Network
        As in `predict_activity`.
    n_frames : int
        Of the movie.
    overlap_value : float
        Share of a window that the next one repeats.
    pixels_around : int
        Has never had an effect; other values than 0 are logged.
    use_data_augmentation : bool
        Predict mirrored images as well.
    buffer : float, optional
        Pixels that the cell is grown by; default: as the network was trained.
    time_verbose : bool
        Log how long it took.

    Returns
    -------
    (n_frames, K) float32
    """
    _say_no_effect(pixels_around)
    began = time.perf_counter()
    found = predict_activity(
        cinac_recording,
        [cell],
        model,
        n_frames=n_frames,
        overlap=overlap_value,
        augment=use_data_augmentation,
        buffer=buffer,
    )[0]
    if time_verbose:
        log.info("cell %d: activity predicted in %.2f s", cell, time.perf_counter() - began)
    return found


def predict_cell_type_from_model(
    cinac_recording: CinacRecording,
    cell: int,
    model: Any,
    n_frames: int,
    n_segments_to_use_for_prediction: int = 2,
    overlap_value: float = 0,
    pixels_around: int = 0,
    all_pixels: bool = False,
    use_data_augmentation: bool = False,
    buffer: float | None = None,
    verbose: int = 0,
) -> NDArray[np.float32]:
    """Probability of each type of a cell, in the windows in which it is most active.

    Parameters
    ----------
    cinac_recording, cell, model, n_frames, pixels_around, use_data_augmentation, buffer
        As in `predict_transient_from_model`.
    n_segments_to_use_for_prediction : int
        Windows, at most.
    overlap_value : float
        Share of a window that the next candidate repeats.
    all_pixels : bool
        Offer the whole square as second input.
    verbose : int
        Above 0: log what was predicted.

    Returns
    -------
    (segments, K) float32
        Four times as many segments with `use_data_augmentation`.
    """
    _say_no_effect(pixels_around)
    (found,) = predict_cell_types(
        cinac_recording,
        [cell],
        model,
        n_frames=n_frames,
        n_segments=n_segments_to_use_for_prediction,
        overlap=overlap_value,
        all_pixels=all_pixels,
        augment=use_data_augmentation,
        buffer=buffer,
    )
    if verbose > 0:
        log.info("cell %d: %s", cell, np.array_str(found, precision=3))
    return found


# ---------------------------------------------------------------------------- checks and small steps


def _checked(
    recording: CinacRecording, cells: ArrayLike, model: Any, n_frames: int | None, kind: str
) -> tuple[NDArray[np.int64], int]:
    """Cells and number of frames, if they are there and the network is of that kind."""
    there, wanted = recording.get_n_cells(), np.asarray(cells)
    if wanted.size == 0:
        wanted = np.empty(0, np.int64)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise ParameterError(f"cells are whole numbers, in one row; given: {cells!r:.60}")
    wrong = wanted[(wanted < 0) | (wanted >= there)]
    if len(wrong):
        raise ParameterError(f"cell {wrong[0]}: {recording.identifier!r} has {there} cells, counted from 0")
    in_movie = recording.get_n_frames()
    frames = in_movie if n_frames is None else int(n_frames)
    if not 1 <= frames <= in_movie:
        raise MovieShapeError(
            f"n_frames={n_frames}: the movie of {recording.identifier!r} has {in_movie} frames"
        )
    if (said := getattr(model, "kind", kind)) != kind:
        raise ParameterError(f"the model is one of kind {said!r}; here {kind!r} is to be predicted")
    return wanted.astype(np.int64), frames


def _cut(
    recording: CinacRecording,
    wanted: NDArray[np.int64],
    model: Any,
    kind: str,
    buffer: float | None,
    all_pixels: bool = True,
) -> Cutouts:
    return cutouts(
        recording.cells,
        wanted,
        recording.movie.get_dimensions(),
        int(model.patch_size),
        tuple(model.inputs),
        kind=kind,
        mask_mode=_mask_mode(model),
        buffer=buffer,
        all_pixels=all_pixels,
    )


def _mask_mode(model: Any) -> str:
    return getattr(model, "mask_mode", "legacy")


def _buffer(asked: float | None, model: Any) -> float | None:
    return getattr(model, "buffer", None) if asked is None else asked


def _sizes(halves: Any, cut: Cutouts, starts: NDArray[np.int64]) -> Sizes:
    torch = optional("torch", "prediction", "nets")
    blank = torch.zeros((1, halves.patch_size, halves.patch_size), device=halves.device)
    with torch.inference_mode():
        feature = halves.encode(blank, 0)
    step = int(np.diff(starts).max(initial=1))
    width = feature.shape[1] * feature.element_size()
    return Sizes.make(halves, len(cut.corners), len(starts), step, width, cut.masks.shape[1])


def _per_frame(found: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
    """(B, L, K) of what a network of activity gives."""
    shape = (len(found), int(model.window_len), int(model.n_classes))
    return _shaped(found, shape, "activity")


def _per_window(found: NDArray[np.float32], model: Any) -> NDArray[np.float32]:
    """(B, K) of what a network of cell types gives."""
    return _shaped(found, (len(found), int(model.n_classes)), "cell types")


def _shaped(found: NDArray[np.float32], shape: Sequence[int], what: str) -> NDArray[np.float32]:
    if found.size != np.prod(shape):
        raise ArrayShapeError(
            f"the model gives {found.shape} for {len(found)} windows; {what} would be {tuple(shape)}: is it a network "
            "of another kind?"
        )
    return found.reshape(shape)


def _say_no_effect(pixels_around: int) -> None:
    if pixels_around:
        log.warning("pixels_around=%s has no effect: `buffer` is what cells are grown by", pixels_around)
