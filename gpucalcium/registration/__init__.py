"""Motion correction: the shift of every frame against a template, and frames moved back by it."""

from gpucalcium.registration.motion_correct import MotionCorrect
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseParams, PiecewiseResult, register_piecewise
from gpucalcium.registration.registered import RegisteredMovie
from gpucalcium.registration.rigid import RigidParams, RigidResult, register_rigid

__all__ = [
    "MotionCorrect",
    "PatchGrid",
    "PiecewiseParams",
    "PiecewiseResult",
    "RegisteredMovie",
    "RigidParams",
    "RigidResult",
    "register_piecewise",
    "register_rigid",
]
