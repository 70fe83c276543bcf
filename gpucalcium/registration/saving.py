"""Recordings registered one after the other, each into a file, and taken up again where a run was killed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ParameterError
from gpucalcium.movies.save_options import Recording
from gpucalcium.registration.journal import Journal, fingerprint
from gpucalcium.registration.output import DTYPES, FORMATS, Output, journal_path, open_output

log = logging.getLogger(__name__)

FILL = 0
"""What files of integers have in place of NaN."""


class Registered(Protocol):
    """What registration of a recording returns."""

    @property
    def template(self) -> NDArray[np.float32]: ...


Result = TypeVar("Result", bound=Registered)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What becomes of registered frames."""

    format: str = "mmap"
    """'mmap', 'hdf5', 'zarr' or 'tiff'."""
    dtype: str = "float32"
    """'float32', 'float16', 'int16' or 'uint16'; memory maps are float32. Integers are rounded and kept within their
    range, and NaN becomes 0."""
    resume: bool = False
    """Keep a journal, and go on where an attempt with the same recordings and settings ended."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ParameterError(
                f"save_format={self.format!r}: expected one of {', '.join(map(repr, FORMATS))}"
            )
        if self.dtype not in DTYPES:
            raise ParameterError(f"save_dtype={self.dtype!r}: expected one of {', '.join(map(repr, DTYPES))}")
        if self.format == "mmap" and self.dtype != "float32":
            raise ParameterError(
                f"save_dtype={self.dtype!r} with save_format='mmap': memory maps hold float32; use 'hdf5', 'zarr' or "
                "'tiff'"
            )

    @contextmanager
    def frames_of(self, source: FrameSource, base: str) -> Iterator[SavedFrames]:
        """The file for a registered recording, its name beginning with `base`; see `open_output`."""
        with open_output(
            base,
            source.shape,
            dtype=self.dtype,
            format=self.format,
            fill=FILL,
            about=Recording(**getattr(source, "about", {})),
            resume=self.resume,
        ) as output:
            frames = SavedFrames(output, self.dtype)
            yield frames
            frames.tell()


class SavedFrames:
    """Sink for registered frames that counts what integers cannot hold.

    Parameters
    ----------
    output : Output
    dtype : str
        Of the file.
    """

    def __init__(self, output: Output, dtype: str) -> None:
        self.output, self._dtype = output, np.dtype(dtype)
        self._beyond: Array = 0

    def __call__(self, start: int, frames: NDArray) -> None:
        """Write them; see `Output.sink`."""
        self.output.sink(start, frames)

    def prepare(self, frames: Array) -> Array:
        """Frames as the file has them, made where they are; see `Output.prepare`."""
        if self._dtype.kind in "iu":
            about = np.iinfo(self._dtype)
            self._beyond = self._beyond + ((frames < about.min) | (frames > about.max)).sum()
        return self.output.prepare(frames)

    def tell(self) -> None:
        """Log how many values were clipped, if any."""
        count = int(backend.to_numpy(self._beyond)) if self._dtype.kind in "iu" else 0
        if count:
            log.warning(
                "%s: %d values beyond the range of %s were set to its ends; save_dtype='float32' holds them",
                self.output.path.name,
                count,
                self._dtype,
            )


def in_sequence(
    register: Callable[..., Result],
    recordings: Sequence[tuple[str, FrameSource]],
    *,
    suffix: str,
    label: str,
    saving: Saving,
    save: bool,
    settings: object,
    template: NDArray | None,
    offset: float,
) -> tuple[list[Result], list[str | None]]:
    """Register recordings, each to the template that the one before left.

    Parameters
    ----------
    register : callable
        ``register(source, template=, sink=, offset=, journal=, label=)``
    recordings : sequence of (str, FrameSource)
        What a recording is called, and its frames.
    suffix : str
        What names of files have after that of the recording.
    label : str
        What is done, for progress bars.
    saving : Saving
    save : bool
        Whether registered frames are written.
    settings : object
        What results depend on besides, for journals: see `fingerprint`.
    template : array, optional
        For all recordings; it is never updated. Default: made from the first.
    offset : float
        Subtracted from registered frames.

    Returns
    -------
    results, names : list
        Of each recording: what `register` returned, and the file written or None.
    """
    results: list[Result] = []
    names: list[str | None] = []
    current = None if template is None else np.asarray(backend.to_numpy(template), np.float32)
    with ExitStack() as journals:  # until all is done, so that a later attempt finds them, and half a file
        for number, (stem, source) in enumerate(recordings, 1):
            place = f" ({number} of {len(recordings)})" if len(recordings) > 1 else ""
            with ExitStack() as own:
                stack = journals if saving.resume else own
                sink = stack.enter_context(saving.frames_of(source, f"{stem}{suffix}")) if save else None
                journal = None
                if saving.resume:
                    about = fingerprint(source, settings, current, offset, saving)
                    path = journal_path(f"{stem}{suffix}")
                    journal = journals.enter_context(
                        Journal(path, about, None if sink is None else sink.output)
                    )
                result = register(
                    source,
                    template=current,
                    sink=sink,
                    offset=offset,
                    journal=journal,
                    label=f"{stem}{place}: {label}",
                )
            results.append(result)
            names.append(None if sink is None else str(sink.output.path))
            current = result.template if template is None else current
    return results, names
