"""From a movie to cells in one call: registration, extraction, quality, figures, report."""

from gpucalcium.pipeline.activity import Activity, read_activity
from gpucalcium.pipeline.extraction import run
from gpucalcium.pipeline.planes import Plane, open_planes
from gpucalcium.pipeline.recording import run_recording
from gpucalcium.pipeline.register import register_recording
from gpucalcium.pipeline.results import Registration, Results
from gpucalcium.pipeline.settings import RunSettings

__all__ = [
    "Activity",
    "Plane",
    "Registration",
    "Results",
    "RunSettings",
    "open_planes",
    "read_activity",
    "register_recording",
    "run",
    "run_recording",
]
