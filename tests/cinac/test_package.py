"""The package: what importing it brings, and what is said where an extra is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gpucalcium import cinac
from gpucalcium.cinac import rois
from gpucalcium.cinac._optional import optional
from gpucalcium.errors import MissingExtraError

HEAVY = ("torch", "shapely", "PIL", "roifile", "pynwb", "matplotlib", "cupy")


def imported(code):
    code += f"\nimport json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def test_importing_is_light():
    assert imported("import gpucalcium.cinac") == []
    names = "CinacRecording, CinacDataMovie, CinacFileReader, load_data_for_prediction, compute_stats_over_gt"
    assert imported(f"from gpucalcium.cinac import {names}, fusion_cell_type_predictions") == []


@pytest.mark.parametrize("name", cinac.__all__)
def test_every_public_name_loads(name):
    assert getattr(cinac, name).__doc__


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("shapely", lambda: rois.from_contours([[[1, 2, 3], [1, 1, 2]]])),
        ("shapely", lambda: rois.from_pixel_masks([[(1, 1)]])),
        ("roifile", lambda: rois.from_fiji(__file__)),
        ("yaml", lambda: cinac.read_cell_type_categories_yaml_file(__file__)),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}: pip install 'gpucalcium\[cinac\]'"):
        use()


def test_other_extras_are_named():
    with pytest.raises(
        MissingExtraError, match=r"reading stars needs nowhere_at_all: pip install 'gpucalcium\[nwb\]'"
    ):
        optional("nowhere_at_all.deep", "reading stars", "nwb")
