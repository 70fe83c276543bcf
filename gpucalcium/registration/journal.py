"""A record of what a long run has found, so that a run that was killed goes on where it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from gpucalcium import __version__, backend
from gpucalcium.backend import FrameSource
from gpucalcium.errors import ArrayShapeError, OutputError, ParameterError

log = logging.getLogger(__name__)

SYNC_SECONDS = 15.0  # between two moments from which a run goes on even after the power failed
SAMPLED_FRAMES = 16  # that the fingerprint of a recording is made from
_MAGIC = b"gpucalcium journal 1\n"
_SIZES = struct.Struct("<IQ")  # bytes of the head (JSON) and of the body (arrays) of a record
_CHECK = struct.Struct("<I")  # CRC-32 of sizes, head and body


class Durable(Protocol):
    """What can say how much of it is on the disk: an `Output`."""

    resumed: bool

    def sync(self) -> int: ...


class Journal:
    """What was found for each frame, in order, appended to a file as it is found.

    Used in a ``with`` statement: the file is gone once the block ends, and stays after an error.

    What holds: a record that was appended is found again after the process was killed at any moment; one that was cut
    short is recognised by its checksum and left out, with all that follows. Records of another recording, other
    settings, another version of this library or another kind of device are never used: the journal begins anew. What
    does not hold: after a failure of the system or the power, records since the last checkpoint (every 15 s) may be
    missing, though never wrong. Bits are the same as of an undisturbed run as long as the same libraries compute on
    the same kind of processor.

    Parameters
    ----------
    path : Path
    fingerprint : str
        Of everything that the results depend on, see `fingerprint`.
    output : Output, optional
        Where registered frames go: `written` says how many of them are on the disk for certain.

    Raises
    ------
    OutputError
        The file cannot be written, or another process writes to it.
    """

    def __init__(self, path: Path, fingerprint: str, output: Durable | None = None) -> None:
        self.path, self.kept = path, dict[str, NDArray]()
        self.written = 0
        self._output, self._found = output, dict[str, list[dict[str, NDArray]]]()
        self._lock = Lock()  # records come from two threads
        self._file = _opened(path)
        end = self._read(fingerprint)
        self._file.seek(end)
        self._file.truncate()
        if not end:
            _write_all(self._file, _MAGIC)
            self._put({"run": fingerprint})
        if output is None or not output.resumed:
            self.written = 0
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="gpucalcium-sync")
        self._syncing: Future[None] | None = None
        self._synced_at = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._syncer.shutdown()
        self._file.close()
        if kind is None:
            self.path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ what is known

    def count(self, stage: str) -> int:
        """Frames that a stage of the work is done with, from the first on."""
        return sum(len(next(iter(part.values()))) for part in self._found.get(stage, ()))

    def found(self, stage: str) -> dict[str, NDArray]:
        """What was appended to a stage: arrays over its frames, from the first on; none before the first of them."""
        parts = self._found.get(stage)
        if not parts:
            return {}
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._found[stage] = [whole]
        return whole

    # ------------------------------------------------------------------ what becomes known

    def append(self, stage: str, **arrays: NDArray) -> None:
        """Record what was found for the next frames of a stage: arrays of one length, the same names each time."""
        lengths = {len(array) for array in arrays.values()}
        parts = self._found.setdefault(stage, [])
        if len(lengths) != 1 or (parts and parts[0].keys() != arrays.keys()):
            raise ArrayShapeError(
                f"stage {stage!r}: arrays {sorted(arrays)} of lengths {sorted(lengths)}; each is to have one entry for "
                "every frame, and each chunk the same arrays"
            )
        parts.append({name: np.array(array) for name, array in arrays.items()})
        self._put({"stage": stage}, arrays)
        self._checkpoint()

    def keep(self, name: str, array: NDArray) -> None:
        """Record an array that is known from now on (the template of a pass); a later one replaces it."""
        self.kept[name] = np.array(array)
        self._put({"keep": name}, {name: array})

    # ------------------------------------------------------------------ the file

    def _put(self, head: Mapping[str, Any], arrays: Mapping[str, NDArray] | None = None) -> None:
        given = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        about = [[name, array.dtype.str, list(array.shape)] for name, array in given.items()]
        text = json.dumps({**head, "arrays": about}).encode()
        body = b"".join(array.tobytes() for array in given.values())
        record = _SIZES.pack(len(text), len(body)) + text + body
        with self._lock:
            _write_all(self._file, record + _CHECK.pack(zlib.crc32(record)))

    def _read(self, fingerprint: str) -> int:
        """Take in what is there; returns the byte where the last good record ends, 0 if nothing is of use."""
        if self._file.read(len(_MAGIC)) != _MAGIC:
            return 0
        end = 0
        for head, arrays, place in _records(self._file):
            if not end and head.get("run") != fingerprint:
                log.warning("%s belongs to another run: starting from the first frame", self.path)
                return 0
            end = place
            if "stage" in head:
                self._found.setdefault(head["stage"], []).append(arrays)
            elif "keep" in head:
                self.kept |= arrays
            elif "written" in head:
                self.written = head["written"]
        return end

    def _checkpoint(self) -> None:
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._syncing.result()  # raises what went wrong there
        if time.monotonic() - self._synced_at >= SYNC_SECONDS:
            self._synced_at = time.monotonic()
            self._syncing = self._syncer.submit(self._sync)

    def _sync(self) -> None:
        """Wait for the disk, in a thread of its own, and say what is safe."""
        if self._output is not None:
            self.written = max(
                self.written, self._output.sync()
            )  # a run that goes on may not have come so far
            self._put({"written": self.written})
        os.fsync(self._file.fileno())


def fingerprint(source: FrameSource, *settings: object) -> str:
    """What identifies a piece of work: the recording, the settings, the version and the kind of device.

    Parameters
    ----------
    source : FrameSource
        By shape, dtype, 16 of its frames, and the size and time of its file where it lies in one.
    settings
        Whatever results depend on: frozen dataclasses, arrays, numbers, texts, None, and sequences of these.

    Returns
    -------
    digest : str

    Raises
    ------
    ParameterError
        A setting of another type.
    """
    digest = hashlib.sha256()
    for piece in _described(("version", __version__, backend.active().kind, settings)):
        digest.update(piece)
    for piece in _of_source(source):
        digest.update(piece)
    return digest.hexdigest()


def _of_source(source: FrameSource) -> Iterator[bytes]:
    yield from _described((tuple(source.shape), str(source.dtype)))
    for part in getattr(source, "parts", ()) or (source,):
        path = getattr(part, "path", None)
        if path is not None:
            about = Path(path).stat()
            yield from _described((about.st_size, about.st_mtime_ns))
    for frame in sorted({int(t) for t in np.linspace(0, len(source) - 1, SAMPLED_FRAMES)}):
        yield from _described(backend.to_numpy(source.read(slice(frame, frame + 1))))


def _described(value: Any) -> Iterator[bytes]:
    """Bytes that say what a value is; different for values that differ."""
    if isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__.encode()
        for field in dataclasses.fields(value):
            yield from _described((field.name, getattr(value, field.name)))
    elif isinstance(value, tuple | list):
        yield f"({len(value)}".encode()
        for item in value:
            yield from _described(item)
    elif value is None or isinstance(value, bool | int | float | str):
        yield f"{type(value).__name__} {value!r};".encode()
    else:
        raise ParameterError(f"a journal cannot compare settings of type {type(value).__name__}: {value!r}")


def _opened(path: Path) -> BinaryIO:
    """The file, which no other process writes to while it is open."""
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", 0)
    except OSError as err:
        raise OutputError(f"the journal {path} cannot be written: {err}; choose another folder") from err
    with contextlib.suppress(ImportError):  # other systems do without
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            file.close()
            raise OutputError(
                f"{path} is written to by another process, which does this very work: wait for it"
            ) from err
    return file


def _records(file: BinaryIO) -> Iterator[tuple[dict[str, Any], dict[str, NDArray], int]]:
    """Head, arrays and end of each record, up to the first that is not whole."""
    size, place = os.fstat(file.fileno()).st_size, file.tell()
    while place + _SIZES.size <= size:
        file.seek(place)
        sizes = file.read(_SIZES.size)
        head_bytes, body_bytes = _SIZES.unpack(sizes)
        end = place + _SIZES.size + head_bytes + body_bytes + _CHECK.size
        if end > size:
            return
        record = sizes + _read_all(file, head_bytes + body_bytes)
        if _CHECK.pack(zlib.crc32(record)) != file.read(_CHECK.size):
            return
        at = _SIZES.size + head_bytes
        head = json.loads(record[_SIZES.size : at])
        arrays = {}
        for name, dtype, shape in head["arrays"]:
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(record, dtype, count, at).reshape(shape).copy()
            at += arrays[name].nbytes
        yield head, arrays, end
        place = end


def _read_all(file: BinaryIO, size: int) -> bytes:
    parts = []
    while size and (part := file.read(size)):  # at most 2 GiB at a time on Linux
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
