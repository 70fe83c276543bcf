"""The pass over a movie: each (cell, frame) is encoded once, windows are read from a ring of features.

Frames are streamed in the movie's own dtype to where work is done; one kernel cuts, normalises and masks the squares of
all cells; the network's encoder turns them into features, of which the last ones are kept in a ring on the network's
device; and whenever the last frame of some windows is in, these go through the rest of the network, all cells together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend, nets
from gpucalcium.backend import Array
from gpucalcium.cinac._optional import optional
from gpucalcium.cinac.cutouts import Cutouts, Views
from gpucalcium.cinac.movies import CinacMovie
from gpucalcium.cinac.sizes import Sizes

if TYPE_CHECKING:
    import torch

FLIPS: dict[str, tuple[int, ...]] = {"": (), "h": (2,), "v": (1,), "hv": (1, 2)}
"""Name -> axes of (n, P, P) along which squares are mirrored."""

log = logging.getLogger(__name__)


class Halves(Protocol):
    """A network in two halves: what depends on one frame, and the rest."""

    window_len: int
    patch_size: int
    device: torch.device
    encoders_tied: bool
    """Whether equal squares of different inputs have equal features."""

    def encode(self, frames: torch.Tensor, which_input: int) -> torch.Tensor: ...

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor: ...


class WholeWindows:
    """A model that only predicts whole windows, in the two halves that a pass works with: a square is its feature.

    Parameters
    ----------
    model : object
        Has `window_len`, `patch_size`, `inputs`, and ``predict({input: (n, L, P, P, 1)})`` on NumPy arrays.
    """

    encoders_tied = True

    def __init__(self, model: Any) -> None:
        self._model = model
        self.window_len, self.patch_size = int(model.window_len), int(model.patch_size)
        self.device = optional("torch", "prediction", "nets").device("cpu")

    def encode(self, frames: torch.Tensor, which_input: int) -> torch.Tensor:
        """(n, P, P) -> (n, P * P), the same values."""
        return frames.flatten(1)

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Windows of squares through ``predict``."""
        shape = (-1, self.window_len, self.patch_size, self.patch_size, 1)
        windows = {
            name: values.reshape(shape).numpy()
            for name, values in zip(self._model.inputs, features, strict=True)
        }
        return optional("torch", "prediction", "nets").from_numpy(np.asarray(self._model.predict(windows)))


def in_halves(model: Any) -> Halves:
    """The model itself if it encodes and decodes, else around it what does."""
    return model if hasattr(model, "encode") and hasattr(model, "decode") else WholeWindows(model)


@dataclass(frozen=True)
class Group:
    """Windows that are predicted together."""

    starts: NDArray[np.int64]

    def stop(self, window_len: int) -> int:
        """The frame behind the last window."""
        return int(self.starts[-1]) + window_len


Sink = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], object]


class Pass:
    """Windows of some cells, through a network.

    Parameters
    ----------
    movie : CinacMovie
    n_frames : int
        Of the movie; those behind it are zeros, the mean.
    model : Halves
    cut : Cutouts
        Squares of the N cells.
    flip : str
        One of `FLIPS`: how squares are mirrored.
    sizes : Sizes
        Sizes of batches and groups.
    """

    def __init__(
        self, movie: CinacMovie, n_frames: int, model: Halves, cut: Cutouts, flip: str, sizes: Sizes
    ) -> None:
        self._source, self._n_frames, self._model, self._sizes = movie.source, n_frames, model, sizes
        self._mean, self._std = movie.mean, movie.std or np.inf  # a constant movie is all zeros
        self._views = Views.of(cut, tied=model.encoders_tied)
        self._flip, self._torch = flip, optional("torch", "prediction", "nets")
        self._rings: list[torch.Tensor] = []
        self._placed: list[tuple[Array, Array]] = []
        self._squares, self._windows = Batches(sizes.encode_batch), Batches(sizes.decode_batch)

    def run(self, groups: Sequence[Group], sink: Sink, done: Callable[[int], object]) -> None:
        """Predict groups of windows, each starting no earlier than the one before.

        Parameters
        ----------
        groups : sequence of Group
        sink : callable
            ``sink(cells, starts, predictions)`` with positions among the N cells, first frames, and (B, ...) float32.
        done : callable
            ``done(i)`` when group i is with the sink.
        """
        if not groups:
            return
        length, at, g = self._model.window_len, int(groups[0].starts[0]), 0
        slots = max(group.stop(length) - int(group.starts[0]) for group in groups)
        with self._torch.inference_mode(), nets.cpu_threads(), backend.limit(self._sizes.stream_bytes):
            for chunk in self._frames(at, groups[-1].stop(length)):
                used = 0
                while used < len(chunk):
                    room = min(len(chunk) - used, groups[g].stop(length) - at, slots - at % slots)
                    n = min(room, self._sizes.frames)
                    self._encode(chunk[used : used + n], at % slots, slots)
                    at, used = at + n, used + n
                    if at == groups[g].stop(length):
                        self._decode(groups[g], slots, sink)
                        done(g)
                        g += 1
        self._rings.clear()

    def _frames(self, first: int, stop: int) -> Iterator[Array]:
        """Frames of the movie, and blank ones behind its end."""
        last = min(stop, self._n_frames)
        for chunk in backend.stream(self._source, frames=slice(first, last)):
            yield chunk
        if stop > last:
            blank = backend.like(chunk, np.full((1, *self._source.shape[1:]), np.nan, np.float32))
            for _ in range(last, stop):
                yield blank

    # ------------------------------------------------------------------ frames to features

    def _encode(self, frames: Array, slot: int, slots: int) -> None:
        """Features of frames, into slots `slot` and on of every ring."""
        side = self._model.patch_size
        for i, view in enumerate(self._views.sets):
            patches = self._patches(frames, i).reshape(-1, side, side)
            at = slot * len(view.masks)
            for features in self._squares.run(partial(self._model.encode, which_input=view.which), patches):
                ring = self._ring(i, slots, features)
                ring[at : at + len(features)] = features
                at += len(features)

    def _patches(self, frames: Array, i: int) -> torch.Tensor:
        """(n, V, P, P) float32 on the network's device."""
        if len(self._placed) <= i:
            view = self._views.sets[i]
            self._placed.append((backend.like(frames, view.corners), backend.like(frames, view.masks)))
        corners, masks = self._placed[i]
        found = backend.wing(frames).cutouts.gather_patches(frames, corners, masks, self._mean, self._std)
        device = self._model.device
        if backend.is_cupy(found) and device.type == "cuda":
            patches = self._torch.from_dlpack(found)
        else:
            patches = self._torch.from_numpy(backend.to_numpy(found)).to(device)
        return self._mirrored(patches.flatten(0, 1))

    def _mirrored(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, P, P) squares, mirrored; what of a small frame lies in the middle stays where it is."""
        side = self._model.patch_size
        for axis in FLIPS[self._flip]:
            length = self._source.shape[axis]
            uneven = length < side and (side - length) % 2
            patches = patches.flip(axis)
            patches = patches.roll(-1, axis) if uneven else patches
        return patches

    def _ring(self, i: int, slots: int, features: torch.Tensor) -> torch.Tensor:
        """(slots * V, D) the features of a set of views, made when the first of them are there."""
        if len(self._rings) <= i:
            size = slots * len(self._views.sets[i].masks), features.shape[1]
            self._rings.append(self._torch.empty(size, dtype=features.dtype, device=features.device))
        return self._rings[i]

    # ------------------------------------------------------------------ features to predictions

    def _decode(self, group: Group, slots: int, sink: Sink) -> None:
        cells = np.tile(np.arange(self._views.n_cells), len(group.starts))
        starts = np.repeat(group.starts, self._views.n_cells)
        items, first = self._torch.from_numpy(np.stack([cells, starts], axis=1)), 0
        for found in self._windows.run(lambda x: self._decoded(x, slots), items):
            part = slice(first, first + len(found))
            sink(cells[part], starts[part], found.float().cpu().numpy())
            first = part.stop

    def _decoded(self, items: torch.Tensor, slots: int) -> torch.Tensor:
        """Predictions of windows, each (cell, first frame)."""
        torch, device = self._torch, self._model.device
        frames = items[:, 1:] + torch.arange(self._model.window_len)
        inputs = []
        for i, rows in self._views.of_input:
            views = len(self._views.sets[i].masks)
            at = (frames % slots) * views + torch.from_numpy(rows)[items[:, :1]]
            ring = self._rings[i]
            inputs.append(ring.index_select(0, at.to(device).flatten()).view(*at.shape, ring.shape[1]))
        return self._model.decode(inputs)


class Batches:
    """Steps through many items in batches, which become smaller where memory runs out.

    Parameters
    ----------
    size : int
        Items of a batch, at first.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def run(
        self, step: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Results of `step` on successive batches of the items, in order."""
        first = 0
        while first < len(items):
            batch = items[first : first + self._size]
            first += len(batch)
            results = backend.retry_halved(lambda part: _naming_lack_of_memory(step, part), batch)
            if len(results) > 1:
                self._size = max(1, min(map(len, results)))
                log.info("memory ran out: batches of %d from now on", self._size)
            yield from results


def _naming_lack_of_memory(step: Callable[[torch.Tensor], torch.Tensor], part: torch.Tensor) -> torch.Tensor:
    """``step(part)``; where PyTorch's memory runs out, a MemoryError when that which it had taken is free again."""
    torch = optional("torch", "prediction", "nets")
    try:
        return step(part)
    except RuntimeError as err:
        on_gpu, text = isinstance(err, torch.cuda.OutOfMemoryError), str(err)
        if not (on_gpu or "can't allocate memory" in text):
            raise
    if on_gpu:  # here, as the handler holds what the step had allocated
        backend.free_memory()
        torch.cuda.empty_cache()
    raise MemoryError(text)
