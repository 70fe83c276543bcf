"""Every documented parameter of `MotionCorrect` changes what comes out, or raises."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpucalcium import backend
from gpucalcium.errors import GpuUnavailable, MovieShapeError, UnknownParameterError
from gpucalcium.registration import MotionCorrect
from tests.registration.scenes import moving_cells

SCENE = moving_cells(T=24, shape=(48, 44), largest=3.0)
RIGID = {"max_shifts": (5, 5), "splits_rig": 6}
PIECEWISE = {**RIGID, "pw_rigid": True, "strides": (16, 16), "overlaps": (12, 12), "splits_els": 6}
FOURIER = {**PIECEWISE, "shifts_opencv": False}

CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "min_mov": (RIGID, 5.0),
    "max_shifts": (RIGID, (1, 1)),
    "niter_rig": (RIGID, 2),
    "splits_rig": (RIGID, 3),
    "num_splits_to_process_rig": (RIGID, 2),
    "strides": (PIECEWISE, (20, 20)),
    "overlaps": (PIECEWISE, (4, 4)),
    "splits_els": (PIECEWISE, 3),
    "num_splits_to_process_els": (PIECEWISE, 2),
    "upsample_factor_grid": (FOURIER, 2),
    "max_deviation_rigid": (PIECEWISE, 0),
    "shifts_opencv": (RIGID, False),
    "nonneg_movie": (RIGID, False),
    "gSig_filt": (RIGID, (2, 2)),
    "border_nan": (RIGID, "copy"),
    "pw_rigid": (PIECEWISE, False),
    "num_frames_split": ({**RIGID, "splits_rig": None}, 10),
    "indices": (RIGID, (slice(4, None), slice(None))),
    "shifts_interpolate": (PIECEWISE, True),
    "save_format": (RIGID, "hdf5"),
    "save_dtype": ({**RIGID, "save_format": "tiff"}, "uint16"),
    "resume": (RIGID, True),
    "seed": ({**RIGID, "num_splits_to_process_rig": 1}, 5),
}
"""A parameter; what is set besides; its other value. The rest has tests of its own below."""


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path / "temp"))


def outcome(fname: Any = SCENE.movie, **parameters: Any) -> list[bytes]:
    """All that a user sees of a run, but for names given at random."""
    mc = MotionCorrect(fname, **parameters).motion_correct(save_movie=True)
    (name,) = map(Path, mc.mmap_file)
    results = [mc.shifts_rig, mc.x_shifts_els, mc.y_shifts_els, mc.total_template_rig, mc.total_template_els]
    results += [mc.templates_rig, mc.templates_els, mc.border_to_0]
    seen = [b"" if r is None else np.ascontiguousarray(r).tobytes() for r in results]
    lasting = name.name if parameters.get("resume") else name.suffix
    return [*seen, name.read_bytes(), lasting.encode()]


@pytest.mark.parametrize("name", CHANGES)
def test_parameter_changes_the_result(name):
    besides, value = CHANGES[name]
    assert outcome(**besides) != outcome(**{**besides, name: value})


def test_none_is_left_out():
    documented = set(inspect.signature(MotionCorrect).parameters)
    assert documented - set(CHANGES) == {"fname", "dview", "use_cuda", "is3D", "var_name_hdf5"}


def test_fname():
    assert outcome(**RIGID) != outcome(SCENE.movie[:20], **RIGID)


def test_dview_is_taken_and_changes_nothing():
    assert outcome(**RIGID) == outcome(dview=object(), **RIGID)


def test_use_cuda_demands_the_gpu(monkeypatch):
    chosen = []
    use = backend.use
    monkeypatch.setattr(backend, "use", lambda device: chosen.append(device) or use(device))
    try:
        outcome(SCENE.movie[:4], use_cuda=True, **RIGID)
    except GpuUnavailable as err:
        assert "device='cuda'" in str(err)
    assert chosen[0] == "cuda"


def test_is3D():
    with pytest.raises(MovieShapeError, match="set is3D=False"):
        outcome(is3D=True, **RIGID)
    with pytest.raises(MovieShapeError, match="set is3D=True"):
        outcome(np.stack([SCENE.movie] * 3, -1), **RIGID)


def test_var_name_hdf5(tmp_path):
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["mov"], file["other"] = SCENE.movie[:12], SCENE.movie[12:]
    name = str(tmp_path / "two.h5")
    assert outcome(name, **RIGID) != outcome(name, var_name_hdf5="other", **RIGID)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("max_shift", "'max_shifts'"), ("gsig_filt", "'gSig_filt'"), ("zzz", "there are fname")],
)
def test_a_misspelt_parameter_is_named_with_the_nearest(name, hint):
    with pytest.raises(UnknownParameterError, match=f"MotionCorrect has no parameter {name!r}.*{hint}"):
        MotionCorrect(SCENE.movie, **{name: 3})


def test_the_signature_shows_the_parameters():
    assert list(inspect.signature(MotionCorrect).parameters)[:3] == ["fname", "min_mov", "dview"]
