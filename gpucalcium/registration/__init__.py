"""Motion correction: the shift of every frame against a template, and frames moved back by it."""

from gpucalcium.registration.binned import bin_median, bin_median_3d
from gpucalcium.registration.check import (
    MovieState,
    RegistrationCheck,
    check_motion_correction,
    check_registration,
)
from gpucalcium.registration.high_pass import HighPassed, high_pass_filter_space
from gpucalcium.registration.iteration import (
    OnlineResult,
    apply_shift_iteration,
    motion_correct_iteration,
    motion_correct_iteration_fast,
    motion_correct_online,
)
from gpucalcium.registration.metrics import (
    MotionMetrics,
    compute_metrics_motion_correction,
    crispness,
    frame_correlations,
)
from gpucalcium.registration.motion_correct import MotionCorrect
from gpucalcium.registration.one_photon import motion_correct_oneP_nonrigid, motion_correct_oneP_rigid
from gpucalcium.registration.optical_flow import FlowParams, optical_flow
from gpucalcium.registration.patch_helpers import (
    apply_pw_shifts_remap_2d,
    apply_pw_shifts_remap_3d,
    apply_shifts_dft,
    get_patch_centers,
    get_patch_edges,
    interpolate_shifts,
    sliding_window,
    sliding_window_3d,
)
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseParams, PiecewiseResult, register_piecewise
from gpucalcium.registration.registered import RegisteredMovie
from gpucalcium.registration.residual import ResidualMotion, residual_motion
from gpucalcium.registration.rigid import RigidParams, RigidResult, register_rigid
from gpucalcium.registration.sweep import FrameQuality
from gpucalcium.registration.tile import tile_and_correct, tile_and_correct_3d
from gpucalcium.registration.translation import register_translation, register_translation_3d

__all__ = [
    "FlowParams",
    "FrameQuality",
    "HighPassed",
    "MotionCorrect",
    "MotionMetrics",
    "MovieState",
    "OnlineResult",
    "PatchGrid",
    "PiecewiseParams",
    "PiecewiseResult",
    "RegisteredMovie",
    "RegistrationCheck",
    "ResidualMotion",
    "RigidParams",
    "RigidResult",
    "apply_pw_shifts_remap_2d",
    "apply_pw_shifts_remap_3d",
    "apply_shift_iteration",
    "apply_shifts_dft",
    "bin_median",
    "bin_median_3d",
    "check_motion_correction",
    "check_registration",
    "compute_metrics_motion_correction",
    "crispness",
    "frame_correlations",
    "get_patch_centers",
    "get_patch_edges",
    "high_pass_filter_space",
    "interpolate_shifts",
    "motion_correct_iteration",
    "motion_correct_iteration_fast",
    "motion_correct_oneP_nonrigid",
    "motion_correct_oneP_rigid",
    "motion_correct_online",
    "optical_flow",
    "register_piecewise",
    "register_rigid",
    "register_translation",
    "register_translation_3d",
    "residual_motion",
    "sliding_window",
    "sliding_window_3d",
    "tile_and_correct",
    "tile_and_correct_3d",
]
