"""From a movie to cells in one call: registration, extraction, quality, figures, report."""

from gpucalcium.pipeline.extraction import run
from gpucalcium.pipeline.planes import Plane, open_planes
from gpucalcium.pipeline.recording import run_recording
from gpucalcium.pipeline.register import register_recording
from gpucalcium.pipeline.results import Registration, Results
from gpucalcium.pipeline.settings import RunSettings

__all__ = [
    "Plane",
    "Registration",
    "Results",
    "RunSettings",
    "open_planes",
    "register_recording",
    "run",
    "run_recording",
]
