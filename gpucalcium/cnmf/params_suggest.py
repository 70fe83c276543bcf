"""Parameters proposed from what a movie shows, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpucalcium.cnmf.params_measure import DISC_TO_GSIG, LOCAL_PX, Measured
from gpucalcium.cnmf.snr import trace_snr

if TYPE_CHECKING:
    from gpucalcium.cnmf.params import CNMFParams

SHIFT_ROOM = 1.5  # times the largest displacement seen: the frames that were not looked at may lie farther
STILL_PX = 0.5  # frames nearer than this to the usual place need no margin
SPARE_CELLS = 1.2  # components are merged and rejected afterwards, but none is ever added
PATCH_CELLS = 8  # cell diameters along a patch: enough that its background has more pixels than its cells
WHOLE_FIELD_PATCHES = 3  # fields less than so many patches wide are fitted as one
RISE_SHARE = 5  # of the decay time is the rise of common indicators (Dana et al. 2019, Nat. Methods 16:649)
RISE_FRAMES = 2  # in fewer a rise is not told from a jump
FRAMES_A_DECAY = 4  # that down-sampling in time leaves of a transient
LEAST_ACROSS = 0.5  # planes; a cell in one plane only is not narrower than the plane
GSIG_KEPT = 2.0  # px, least gSig after down-sampling: a Gaussian of 2 px is sampled without loss
MOST_DOWN = 4  # times
ROLLING_DECAYS = 8  # decay times in the rolling mean, as 100 frames are at 30 Hz and 0.4 s
NOISE_TRACES, NOISE_FRAMES = 400, 2000  # of the noise that tells which SNR noise alone reaches
FALSE_ALARMS = 0.01  # of traces of pure noise are as strong
SNR_MARGIN = 2.0  # above that: what neighbours leave in a trace is less regular than noise
BACKGROUND_DEVIATIONS = 5.0  # robust s.d. above the median pixel: where one-photon seeds begin
MAD_TO_SIGMA = 1.4826  # 1 / Phi^-1(3/4), normal noise


class Proposal(NamedTuple):
    """One value and why."""

    group: str
    key: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Suggestion:
    """What `CNMFParams.suggest` proposes; printing it lists values and reasons."""

    params: CNMFParams
    """The parameters it was asked of, with the proposals."""
    proposals: tuple[Proposal, ...]
    """Each proposed value with its reason."""
    measured: Measured
    """What the movie shows."""

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """``{group: {key: value}}`` as `CNMFParams.change_params` takes it."""
        return grouped(self.proposals)

    @property
    def reasons(self) -> dict[str, str]:
        """Reasons by ``"group.key"``."""
        return {f"{p.group}.{p.key}": p.reason for p in self.proposals}

    def __str__(self) -> str:
        return "\n".join(f"{p.group}.{p.key} = {p.value!r}: {p.reason}" for p in self.proposals)


def grouped(proposals: tuple[Proposal, ...]) -> dict[str, dict[str, Any]]:
    """``{group: {key: value}}``."""
    changes: dict[str, dict[str, Any]] = {}
    for proposal in proposals:
        changes.setdefault(proposal.group, {})[proposal.key] = proposal.value
    return changes


def is_one_photon(groups: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the parameters are those of a one-photon movie."""
    return bool(groups["init"]["center_psf"]) or groups["init"]["method_init"].lower() == "corr_pnr"


def propose(measured: Measured, groups: Mapping[str, Mapping[str, Any]]) -> tuple[Proposal, ...]:
    """Values for a movie of which `measured` is known; rate, decay time and kind of microscope are in `groups`."""
    one_photon = is_one_photon(groups)
    found = [*_times(measured, groups["data"]["fr"], groups["data"]["decay_time"]), *_axes(measured, groups)]
    found += _motion(measured)
    if one_photon:
        found += _one_photon(measured)
    if measured.gSig is not None:
        found += _cells(measured, measured.gSig, one_photon)
    return tuple(
        {(p.group, p.key): p for p in found}.values()
    )  # what was measured takes the place of a start


def _times(measured: Measured, fr: float, decay_s: float) -> Iterator[Proposal]:
    decay = fr * decay_s
    rise = decay / RISE_SHARE
    p = 0 if decay < 1 else 1 if rise < RISE_FRAMES else 2
    why = (
        "a transient is over within a frame, so traces have no dynamics",
        f"transients decay over {decay:.1f} frames and rise over about {rise:.1f}, too few to follow: one exponential",
        f"transients rise over about {rise:.1f} frames, which a second exponential follows",
    )[p]
    yield Proposal("preprocess", "p", p, why)
    yield Proposal("temporal", "p", p, why)
    tsub = int(np.clip(decay / FRAMES_A_DECAY, 1, MOST_DOWN))
    yield Proposal("init", "tsub", tsub, f"leaves {decay / tsub:.1f} frames of a decay of {decay:.1f}")
    length = max(1, min(round(ROLLING_DECAYS * decay), measured.frames))
    yield Proposal(
        "init",
        "rolling_length",
        length,
        f"{length / fr:.1f} s, {ROLLING_DECAYS} decay times of {decay_s:g} s",
    )
    noise = noise_snr(min(measured.frames, NOISE_FRAMES), math.ceil(decay))
    least = round(SNR_MARGIN * noise, 2)
    reason = (
        f"{SNR_MARGIN:g} times the SNR of {noise:.2f} that {FALSE_ALARMS:.0%} of traces of pure noise reach in events "
        f"of {math.ceil(decay)} frames"
    )
    yield Proposal("quality", "min_SNR", least, reason)


@cache
def noise_snr(frames: int, window: int) -> float:
    """The SNR that one in a hundred traces of white noise reaches in events of `window` frames (fixed seed)."""
    noise = np.random.default_rng(0).standard_normal((NOISE_TRACES, frames))
    return float(np.quantile(trace_snr(noise, 1.0, window), 1 - FALSE_ALARMS))


def _axes(measured: Measured, groups: Mapping[str, Mapping[str, Any]]) -> Iterator[Proposal]:
    """Of a volume: what registration needs an entry of for every axis, at first as long as the others."""
    if len(measured.dims) == 3:
        yield Proposal("motion", "is3D", True, "the movie is a volume")
        for key in ("max_shifts", "strides", "overlaps"):
            values = tuple(groups["motion"][key])
            least = 1 if key == "strides" else 0
            across = max(least, min(values[0], (measured.dims[2] - 1) // 2))
            yield Proposal("motion", key, (*values[:2], across), "one entry for each axis, of few planes")


def _motion(measured: Measured) -> Iterator[Proposal]:
    if measured.shifts is None:
        return
    seen = " x ".join(f"{s:.1f}" for s in measured.shifts)
    largest = tuple(math.ceil(SHIFT_ROOM * s) + 1 for s in measured.shifts)
    allowed = tuple(min(m, (n - 1) // 2) for m, n in zip(largest, measured.dims, strict=True))
    yield Proposal(
        "motion",
        "max_shifts",
        allowed,
        f"frames lie up to {seen} px from their usual place, and room for more",
    )
    farthest = max(measured.shifts)
    border = math.ceil(farthest) if farthest > STILL_PX and len(measured.dims) == 2 else 0
    why = f"pixels that {seen} px of motion bring in at the border"
    yield Proposal("patch", "border_pix", border, why if len(measured.dims) == 2 else "it is for planes")
    if measured.local_shift is not None:
        bent = measured.local_shift > LOCAL_PX
        lie = f"parts of a frame lie up to {measured.local_shift:.2f} px from where it lies as a whole"
        tell = "" if bent else f", {LOCAL_PX:g} px of which may be noise: rigid registration will do"
        yield Proposal("motion", "pw_rigid", bent, lie + tell)


def _one_photon(measured: Measured) -> Iterator[Proposal]:
    for key, image, bounds in (
        ("min_corr", measured.correlation, (0.3, 0.85)),
        ("min_pnr", measured.peak_to_noise, (3.0, 20.0)),
    ):
        values = image[np.isfinite(image)]
        middle = float(np.median(values))
        sigma = MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
        value = round(float(np.clip(middle + BACKGROUND_DEVIATIONS * sigma, *bounds)), 2)
        reason = (
            f"{BACKGROUND_DEVIATIONS:g} s.d. above pixels of background, {middle:.2f} +- {sigma:.2f}, within "
            f"{bounds[0]:g} to {bounds[1]:g}"
        )
        yield Proposal("init", key, value, reason)


def _cells(measured: Measured, gSig: float, one_photon: bool) -> Iterator[Proposal]:
    volume = len(measured.dims) == 3
    across = [max(measured.gSig_across or 1.0, LEAST_ACROSS)] if volume else []
    sigmas = [round(sigma, 1) for sigma in (gSig, gSig, *across)]
    seen = f"cells are {2 * (measured.half_width or 0):.1f} px wide at half their height"
    deep = f", and {2 * measured.half_depth:.1f} planes deep" if measured.half_depth else ""
    yield Proposal("init", "gSig", sigmas, seen + deep)
    side = 2 * math.ceil(2 * gSig) + 1 if one_photon else 2 * round(measured.half_width or 0) + 1
    spread = "twice gSig to each side, where a Gaussian ends" if one_photon else "the width of a cell"
    box = (side, side, *(2 * round(sigma / DISC_TO_GSIG) + 1 for sigma in across))
    yield Proposal("init", "gSiz", box, spread)
    ssub = int(np.clip(min(sigmas) / GSIG_KEPT, 1, MOST_DOWN))
    yield Proposal("init", "ssub", ssub, f"leaves a gSig of {min(sigmas) / ssub:.1f} px")
    if one_photon:
        width = max(1, round(gSig))
        yield Proposal(
            "motion", "gSig_filt", (width, width), "frames are registered by structure as large as cells"
        )
    strides = tuple(min(96, n, max(4 * b, n // 5)) for n, b in zip(measured.dims, box, strict=True))
    yield Proposal(
        "motion", "strides", strides, "patches of several cells each, should registration be piecewise"
    )
    rf = PATCH_CELLS * side // 2
    wide = (
        min(measured.dims) >= WHOLE_FIELD_PATCHES * 2 * rf
    )  # a volume has too few planes to be cut across them
    yield from _patches(measured, rf, side) if wide and not one_photon else _whole_field(measured, one_photon)


def _patches(measured: Measured, rf: int, box: int) -> Iterator[Proposal]:
    share = (2 * rf) ** 2 / math.prod(measured.dims)
    K = max(2, math.ceil(SPARE_CELLS * measured.cells * share))
    yield Proposal("patch", "rf", rf, f"patches {PATCH_CELLS} cells wide")
    yield Proposal("patch", "stride", box, "overlap by one cell, so that each lies whole in some patch")
    yield Proposal(
        "init", "K", K, f"{SPARE_CELLS:g} times a patch's share of the {measured.cells} cells that stand out"
    )


def _whole_field(measured: Measured, one_photon: bool) -> Iterator[Proposal]:
    yield Proposal("patch", "rf", None, "one-photon: whole field" if one_photon else "the field is small")
    if not one_photon:  # there seeds end where min_corr and min_pnr say
        K = math.ceil(SPARE_CELLS * measured.cells)
        yield Proposal("init", "K", K, f"{SPARE_CELLS:g} times the {measured.cells} cells that stand out")
