"""Chunks of frames: from a source to the active device, and on to a sink, with reading, copying,
computing and writing at the same time and never more in memory than the budget allows.

On the CPU two threads read ahead of the consumer, into buffers that are used again; frames that are in
memory already are handed over without a copy. On a GPU the threads fill pinned buffers, a stream of its own
uploads them, and the consumer's kernels wait on the device, not here.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpucalcium.backend import device as _device
from gpucalcium.backend.arrays import Array, empty, is_cupy, put
from gpucalcium.errors import ArrayTypeError, MemoryBudgetError, ParameterError

LADDER = tuple(
    2**k for k in range(13)
)  # 1 ... 4096 frames: FFT plans are made for few lengths and used again
READERS = 2  # threads: one decodes or copies while the other waits for the disk
AHEAD = 2  # chunks read before they are asked for
BUFFERS = AHEAD + 1  # chunks in memory at once: those ahead, and the one the consumer holds
LARGEST_CHUNK = {"cpu": 64 << 20, "cuda": 256 << 20}  # bytes; beyond, a chunk only costs memory and latency


class FrameSource(Protocol):
    """Something that frames can be read from, by several threads at once.

    ``read(frames, out)`` gives the frames of a slice with positive step as a C-contiguous array of `dtype`;
    into `out` if that is given. Three attributes may be there besides: `array`, the whole movie where it lies in
    memory already (NumPy or CuPy); `name`, what error messages call the movie; and `keeps`, bytes of the host's memory
    that the source takes for itself while it is streamed.

    A movie that is made from another, frame by frame, has three more: `made_from`, that other source; `make(chunk,
    frames)`, which makes the frames of a range from a chunk of it, on the device where the chunk is; and `working`,
    the bytes for each frame that this takes. Such a movie is streamed without a way back to the host.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int: ...

    def read(self, frames: slice, out: np.ndarray | None = None) -> np.ndarray: ...


def stream(
    source: FrameSource, *, overlap: int = 0, frames: slice = slice(None), working: int = 0
) -> Iterator[Array]:
    """Frames of `source` in chunks on the active device, in order.

    Parameters
    ----------
    source : FrameSource
        What ``open_movie`` returns. Frames in CuPy arrays stay on their GPU whatever device is active.
    overlap : int
        Frames that each chunk after the first repeats from the end of the one before.
    frames : slice
        Which frames; the step must be positive.
    working : int
        Bytes for each frame that the consumer needs on the device beside the chunk itself.

    Yields
    ------
    chunk : (n, d1, d2[, d3]), dtype of the source, C order
        All have the same length but the last. Not to be written to: it may be the caller's own array.

    Raises
    ------
    MemoryBudgetError
        Not even one frame (beside the overlap) fits the budget.
    """
    wanted = _selected(source, frames)
    if overlap < 0 or working < 0:
        raise ParameterError(f"overlap={overlap}, working={working}: neither can be negative")
    if hasattr(source, "made_from"):
        return _made(source, wanted, overlap, working)
    place = _device.active().kind
    held: Array = getattr(source, "array", None)
    if is_cupy(held) or (held is not None and place == "cpu"):
        copies = 0 if held.flags.c_contiguous else 2  # the consumer's, and the next
        length = _chunk_length(source, "cuda" if is_cupy(held) else "cpu", copies, overlap, working)
        return (put(held[piece]) for piece in _pieces(wanted, length, overlap))
    length = _chunk_length(source, place, BUFFERS, overlap, working)
    pieces = _pieces(wanted, length, overlap)
    return (_uploaded if place == "cuda" else _read_ahead)(source, pieces, min(length, len(wanted)))


def pipe(
    source: FrameSource,
    step: Callable[[Array], Array | tuple[Array, ...]],
    sink: Callable[..., object],
    *,
    frames: slice = slice(None),
    working: int = 0,
) -> None:
    """Send every frame through `step` on the active device and the results, in order, into `sink`.

    Parameters
    ----------
    source, frames, working
        As in `stream`; `working` includes what `step` returns, of which two chunks exist at once.
    step : callable
        Takes a chunk, returns an array or a tuple of arrays; called in this thread.
    sink : callable
        ``sink(start, *arrays)`` with the movie's index of the chunk's first frame and NumPy arrays, which are
        its own only during the call; called in one writer thread, in order of the frames.

    Raises
    ------
    Exception
        What the source, `step` or `sink` raised; the threads have stopped by then.
    """
    wanted = _selected(source, frames)
    done = 0
    download: Any = None
    write: Future[None] | None = None
    chunks = stream(source, frames=frames, working=2 * working)
    with closing(chunks), ThreadPoolExecutor(1, thread_name_prefix="gpucalcium-write") as writer:  # type: ignore[type-var]
        for chunk in chunks:
            results = step(chunk)
            results = results if isinstance(results, tuple) else (results,)
            if any(map(is_cupy, results)):
                download = download or _transfer().Download()
                host = download.start(results)
            else:
                host = partial(tuple, results)
            if write is not None:
                write.result()  # raises what the sink raised
            write = writer.submit(_write, sink, wanted[done], host)
            done += len(chunk)
            del chunk, results, host  # else they would be held while the next chunk is read
        if write is not None:
            write.result()


def retry_halved(step: Callable[[Array], Any], frames: Array) -> list[Any]:
    """``[step(frames)]``, or where memory runs out the results of its halves, quarters ..., in order.

    Parameters
    ----------
    step : callable
        Works on a chunk of any length; must allocate before it changes anything, as it may be called again.
    frames : (n, ...) array

    Raises
    ------
    MemoryBudgetError
        One frame alone is too much; the message has what was needed, what is free, and the setting.
    """
    try:
        return [step(frames)]
    except MemoryBudgetError:
        raise
    except Exception as err:
        if not _out_of_memory(err, frames):
            raise
        if len(frames) == 1:
            raise MemoryBudgetError(
                f"one frame of shape {frames.shape[1:]} does not fit: {err}; {_free_text(frames)}. Give more with "
                "GPUCALCIUM_MEMORY or backend.limit(memory=...), crop the field of view, or use device='cpu'"
            ) from err
    if is_cupy(frames):
        _transfer().free()  # only now: the exception no longer holds what the failed step had allocated
    middle = len(frames) // 2
    return retry_halved(step, frames[:middle]) + retry_halved(step, frames[middle:])


def hold(source: FrameSource, dtype: DTypeLike | None = None) -> Array:
    """The whole movie in one array on the active device.

    Parameters
    ----------
    source : FrameSource
    dtype : dtype, optional
        What to convert to on the device; default: the source's own.

    Returns
    -------
    movie : (T, d1, d2[, d3]), C order
        The caller's own array where that is possible: not to be written to.

    Raises
    ------
    MemoryBudgetError
        The movie is larger than the budget.
    """
    wanted = np.dtype(dtype or source.dtype)
    held: Array = getattr(source, "array", None)
    if held is not None:
        return put(held).astype(wanted, copy=False)
    reading = BUFFERS * math.prod(source.shape[1:]) * source.dtype.itemsize
    need, allowed = math.prod(source.shape) * wanted.itemsize + reading, _device.budget()
    if need > allowed:
        raise MemoryBudgetError(
            f"{_name(source)} takes {size_text(need)} as {wanted}, the budget is {size_text(allowed)}: give more with "
            "GPUCALCIUM_MEMORY or backend.limit(memory=...), or use a function that works in chunks"
        )
    movie, at = empty(source.shape, wanted), 0
    with _device.limit(memory=allowed - need + reading):  # what the movie leaves for its chunks
        for chunk in stream(source):
            movie[at : at + len(chunk)] = chunk
            at += len(chunk)
    return movie


# ---------------------------------------------------------------------------- how long, and which frames


def _made(source: Any, wanted: range, overlap: int, working: int) -> Iterator[Array]:
    """Frames that are made from those of another movie, on the device once they are there."""
    done, frames = 0, slice(wanted.start, wanted.stop, wanted.step)
    for chunk in stream(source.made_from, overlap=overlap, frames=frames, working=working + source.working):
        yield source.make(chunk, wanted[done : done + len(chunk)])
        done += len(chunk) - overlap


def _selected(source: FrameSource, frames: slice) -> range:
    if not hasattr(source, "read"):
        raise ArrayTypeError(
            f"{type(source).__name__} is not a source of frames: pass it to movies.open_movie first"
        )
    wanted = range(len(source))[frames]
    if wanted.step < 0:
        raise ParameterError(f"frames={frames}: frames are read forwards, so the step must be positive")
    return wanted


def _chunk_length(source: FrameSource, place: str, buffers: int, overlap: int, working: int) -> int:
    """Frames in a full chunk: as `limit` says, else the longest of the ladder that the budget allows."""
    if fixed := _device.chunk_frames():
        return fixed + overlap
    frame = math.prod(source.shape[1:]) * source.dtype.itemsize
    each = buffers * frame + working
    allowed, kept = _device.budget(), getattr(source, "keeps", 0)
    if place == "cuda" and buffers:  # the ring of pinned buffers lies in the host's memory
        allowed = min(allowed, _device.budget(_device.cpu()) - kept)
    elif place == "cpu":
        allowed -= kept
    if each * (1 + overlap) > allowed:
        raise MemoryBudgetError(
            f"{1 + overlap} frame(s) of {_name(source)}, {source.shape[1:]} {source.dtype}, need "
            f"{size_text(each * (1 + overlap))} here; the budget is {size_text(allowed)}. Give more with "
            "GPUCALCIUM_MEMORY or backend.limit(memory=...), or crop the field of view"
        )
    most = min(allowed // max(1, each) - overlap, LARGEST_CHUNK[place] // max(1, frame))
    return overlap + max(n for n in LADDER if n <= max(1, most))


def _pieces(wanted: range, length: int, overlap: int) -> Iterator[slice]:
    for start in range(0, max(1, len(wanted) - overlap), length - overlap):
        part = wanted[start : start + length]
        if len(part):
            yield slice(part.start, part.stop, part.step)


def _frames_in(piece: slice) -> int:
    return len(range(piece.start, piece.stop, piece.step))


# ---------------------------------------------------------------------------- on the CPU


class _Buffers:
    """Host memory for chunks; a buffer is used again once no chunk, nor any view of one, is alive."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._all = [self._new()]
        self._unused = self._references(0)

    def _new(self) -> NDArray:
        return np.empty(self._shape, self._dtype)

    def _references(self, index: int) -> int:
        return sys.getrefcount(self._all[index])  # every view of a NumPy array holds the array itself

    def take(self, n: int) -> NDArray:
        """Memory for `n` frames."""
        for index in range(len(self._all)):
            if self._references(index) == self._unused:
                return self._all[index][:n]
        if len(self._all) == BUFFERS:  # the consumer keeps its chunks: they are its own now
            self._all.pop(0)
        self._all.append(self._new())
        return self._all[-1][:n]


def _read(source: FrameSource, piece: slice, out: NDArray) -> NDArray:
    try:
        return source.read(piece, out)
    except Exception as err:
        err.add_note(f"while reading frames {piece.start} to {piece.stop - 1} of {_name(source)}")
        raise


def _read_ahead(source: FrameSource, pieces: Iterator[slice], length: int) -> Iterator[NDArray]:
    buffers = _Buffers((length, *source.shape[1:]), source.dtype)
    pending: deque[Future[NDArray]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="gpucalcium-read") as readers:
        try:
            while True:
                while len(pending) < AHEAD and (piece := next(pieces, None)) is not None:
                    pending.append(readers.submit(_read, source, piece, buffers.take(_frames_in(piece))))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# ---------------------------------------------------------------------------- on the GPU


def _transfer() -> Any:
    return importlib.import_module("gpucalcium.backend.cuda._transfer")  # imports CuPy


def _uploaded(source: FrameSource, pieces: Iterator[slice], length: int) -> Iterator[Array]:
    upload = _transfer().Upload((length, *source.shape[1:]), source.dtype, BUFFERS, _device.active().index)
    reads: deque[Future[NDArray]] = deque()
    sent: deque[tuple[Array, Any]] = deque()
    turns, sends = count(), count()

    def read(piece: slice, turn: int) -> NDArray:
        return _read(source, piece, upload.buffer(turn)[: _frames_in(piece)])

    with ThreadPoolExecutor(READERS, thread_name_prefix="gpucalcium-read") as readers:
        try:
            while True:
                while len(reads) < AHEAD and (piece := next(pieces, None)) is not None:
                    reads.append(readers.submit(read, piece, next(turns)))
                if reads:
                    sent.append(upload.send(reads.popleft().result(), next(sends)))
                if not sent:
                    return
                if len(sent) > 1 or not reads:  # the next chunk is on its way: this one can be worked on
                    yield upload.receive(*sent.popleft())
        finally:
            for future in reads:
                future.cancel()
            upload.finish()


def _write(sink: Callable[..., object], start: int, host: Callable[[], tuple[NDArray, ...]]) -> None:
    try:
        sink(start, *host())
    except Exception as err:
        err.add_note(f"while writing the results that start with frame {start}")
        raise


# ---------------------------------------------------------------------------- out of memory, and words


def _out_of_memory(err: Exception, frames: Array) -> bool:
    return _transfer().is_out_of_memory(err) if is_cupy(frames) else isinstance(err, MemoryError)


def _free_text(frames: Array) -> str:
    return (
        _transfer().free_text() + "; " if is_cupy(frames) else ""
    ) + f"the budget is {size_text(_device.budget())}"


def size_text(amount: int) -> str:
    """A number of bytes for people: '1.5 GiB'."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount} bytes"


def _name(source: FrameSource) -> str:
    return getattr(source, "name", type(source).__name__)
