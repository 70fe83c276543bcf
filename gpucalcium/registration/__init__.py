"""Motion correction: the shift of every frame against a template, and frames moved back by it."""

from gpucalcium.registration.motion_correct import MotionCorrect
from gpucalcium.registration.registered import RegisteredMovie
from gpucalcium.registration.rigid import RigidParams, RigidResult, register_rigid

__all__ = ["MotionCorrect", "RegisteredMovie", "RigidParams", "RigidResult", "register_rigid"]
