"""The report of a registration: what moved, what became of it, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import gpucalcium
from gpucalcium import plotting
from gpucalcium.movies.files import written_whole
from gpucalcium.report.page import Page, Picture, render

if TYPE_CHECKING:
    from gpucalcium.registration.check import RegistrationCheck

LOW_PEAK = 0.5
"""Frames whose match is less than this part of the median match are listed."""
MOST_LISTED = 10  # frames in a note
MEANING = {
    "beyond the bound": "Frames that moved by more than they may; their shift is the largest allowed",
    "nothing found": "Frames that show nothing of the template; they stay where they are",
    "missing pixels": "Frames with pixels that are not finite; these were taken from the template",
    "poor match": f"Frames that match the template less than {LOW_PEAK:g} times as well as the median frame does",
}


def registration_pictures(
    check: RegistrationCheck,
    *,
    frame_rate: float,
    um_per_px: float | None = None,
    truth: NDArray | None = None,
) -> dict[str, Picture]:
    """File name -> figure with heading and caption.

    Parameters
    ----------
    check : RegistrationCheck
    frame_rate : float
        Hz.
    um_per_px : float, optional
        Size of a pixel, for scale bars in micrometres.
    truth : (T, ndim), optional
        Shifts of a simulation.
    """
    before, after = (_plane(state.mean) for state in (check.before, check.after))
    pictures = {
        "shifts": Picture(
            "Motion",
            "Displacement applied to each frame"
            + (", and its range over the patches (band)" if check.field is not None else "")
            + ("; marks below are frames that want a look." if flags(check) else "."),
            plotting.motion_figure(
                check.shifts, frame_rate=frame_rate, field=check.field, flags=flags(check), truth=truth
            ),
        ),
        "templates": Picture(
            "Mean image",
            "Mean of all frames in the same grey levels, and the part framed above. Crispness is the norm of the "
            "gradient: larger for a sharper image.",
            plotting.template_figure(
                before, after, crispness=(check.before.crispness, check.after.crispness), um_per_px=um_per_px
            ),
        ),
        "agreement": Picture(
            "Agreement",
            "Correlation of each frame with the mean of its movie, over pixels that no border reached. Activity lowers "
            "it, too.",
            plotting.agreement_figure(
                check.before.correlations, check.after.correlations, frame_rate=frame_rate
            ),
        ),
    }
    if check.field is not None and check.grid is not None and check.field.shape[-1] == 2:
        frame, apart = _most_bent(check, check.field)
        pictures["displacement"] = Picture(
            "Local motion",
            "What was applied to each patch beside the displacement of the whole, in the frame where that is most.",
            plotting.displacement_figure(
                after,
                apart,
                check.grid.centres,
                title=f"frame {frame + 1:,}, {frame / frame_rate:,.1f} s",
                um_per_px=um_per_px,
            ),
        )
    if check.after.residual is not None:
        pictures["residual"] = Picture(
            "Motion that is left",
            "The frames with the lowest and the highest score on each principal component of the movie, averaged and "
            "registered to each other. Components of activity give 0, those of motion what the movie moves along them.",
            plotting.residual_figure(check.after.residual, check.before.residual),
        )
        pictures["residual_ends"] = Picture(
            "The component that moves most",
            "After registration: green and magenta fringes on opposite sides of a structure are motion; cells that are "
            "all green or magenta are active.",
            plotting.component_ends_figure(check.after.residual),
        )
    return pictures


def flags(check: RegistrationCheck) -> Mapping[str, NDArray[np.bool_]]:
    """Name -> frames that want a look; only what there is."""
    quality = check.quality
    if quality is None:
        return {}
    found = {
        "beyond the bound": quality.clamped,
        "nothing found": quality.no_signal,
        "missing pixels": quality.missing > 0,
        "poor match": (quality.peak < LOW_PEAK * np.median(quality.peak)) & ~quality.no_signal,
    }
    return {name: marks for name, marks in found.items() if marks.any()}


def registration_page(
    check: RegistrationCheck,
    pictures: Mapping[str, Picture],
    *,
    name: str,
    frame_rate: float,
    details: Mapping[str, str] | None = None,
) -> Page:
    """The contents of a report on registration alone."""
    shape = " × ".join(map(str, check.after.mean.shape))
    return Page(
        title=Path(name).name,
        subtitle=f"Registration of {len(check.shifts):,} frames of {shape} px at {frame_rate:g} Hz",
        facts=check.facts(),
        details={"movie": name, **(details or {})},
        timings={},
        pictures=list(pictures.values()),
        cells=None,
        parameters={},
        notes=_notes(check),
        version=gpucalcium.__version__,
    )


def write_registration_report(
    check: RegistrationCheck,
    path: str | Path,
    *,
    name: str = "movie",
    frame_rate: float = 1.0,
    um_per_px: float | None = None,
    details: Mapping[str, str] | None = None,
) -> Path:
    """Write one HTML file that needs nothing else.

    Parameters
    ----------
    check : RegistrationCheck
        As `check_motion_correction` or `check_registration` gives it.
    path : path
        Of the file; whole or not there at all.
    name : str
        What the movie is called.
    frame_rate : float
        Hz.
    um_per_px : float, optional
        Size of a pixel in micrometres.
    details : mapping of str to str, optional
        More lines on the run.

    Returns
    -------
    Path

    Raises
    ------
    OutputError
        The folder is not there or cannot be written to.
    MissingExtraError
        Matplotlib is not installed.
    """
    pictures = registration_pictures(check, frame_rate=frame_rate, um_per_px=um_per_px)
    page = registration_page(check, pictures, name=name, frame_rate=frame_rate, details=details)
    path = Path(path)
    with written_whole(path) as temporary:
        temporary.write_text(render(page), encoding="utf-8")
    return path


def _notes(check: RegistrationCheck) -> list[str]:
    notes = []
    for what, marks in flags(check).items():
        listed = ", ".join(f"{t + 1:,}" for t in np.flatnonzero(marks)[:MOST_LISTED])
        rest = ", ..." if marks.sum() > MOST_LISTED else ""
        notes.append(f"{MEANING[what]}: {int(marks.sum()):,} (frames {listed}{rest}).")
    return notes


def _most_bent(check: RegistrationCheck, field: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]]:
    """The frame whose patches differ most from it as a whole, flagged ones left out, and by how much they do."""
    apart = field - check.shifts[:, None, None]
    bent = (apart.astype(np.float64) ** 2).sum(axis=-1).mean(axis=(1, 2))
    for marks in flags(check).values():
        bent = np.where(marks, -1, bent)
    frame = int(bent.argmax())
    return frame, apart[frame]


def _plane(image: NDArray) -> NDArray:
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]
