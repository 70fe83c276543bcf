"""The report of a registration, by its text and what it holds."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from gpucalcium.errors import OutputError
from gpucalcium.registration import MotionCorrect
from gpucalcium.registration.check import check_motion_correction, check_registration
from gpucalcium.report import registration_pictures, write_registration_report
from gpucalcium.report.registration import flags
from tests.registration.scenes import moving_cells


@pytest.fixture(autouse=True)
def _coarse_figures(monkeypatch):
    monkeypatch.setattr("gpucalcium.plotting.style.DOTS_PER_INCH", 40)
    monkeypatch.setattr("gpucalcium.report.page.SCREEN_DOTS_PER_INCH", 40)


@pytest.fixture(scope="module")
def check():
    movie = moving_cells(T=40, largest=3.0).movie
    movie[4] = 50
    movie[5, :3] = np.nan
    mc = MotionCorrect(movie, max_shifts=(6, 6), pw_rigid=True, strides=(24, 24), overlaps=(12, 12))
    return check_motion_correction(mc.motion_correct(), components=3)


def test_page_holds_every_figure_and_note(check, tmp_path):
    path = write_registration_report(check, tmp_path / "report.html", name="<movie>.tif", frame_rate=20)
    text = path.read_text()
    assert text.count("data:image/png;base64,") == 6
    assert "<movie>" not in text
    assert re.search(r"nothing of the template; they stay where they are: 1 \(frames 5\)", text)
    assert re.search(r"not finite; these were taken from the template: 1 \(frames 6\)", text)
    assert "No component was found" not in text
    assert "<h2>Time</h2>" not in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_only_what_there_is_is_shown(check):
    assert set(flags(check)) == {"nothing found", "missing pixels"}
    assert flags(dataclasses.replace(check, quality=None)) == {}
    names = ["shifts", "templates", "agreement", "displacement", "residual", "residual_ends"]
    assert list(registration_pictures(check, frame_rate=20)) == names
    rigid = dataclasses.replace(
        check, field=None, grid=None, after=dataclasses.replace(check.after, residual=None)
    )
    assert list(registration_pictures(rigid, frame_rate=20)) == names[:3]


def test_frame_of_the_field_is_not_a_flagged_one(check):
    bent = check.field.copy()
    bent[4, 0] += 9
    bent[11, 0, 0] += 5
    pictures = registration_pictures(dataclasses.replace(check, field=bent), frame_rate=20)
    assert pictures["displacement"].figure.axes[0].get_title(loc="left") == "frame 12, 0.6 s"


def test_volumes(tmp_path):
    movie = np.repeat(moving_cells(T=12, shape=(30, 28)).movie[..., None], 4, axis=3)
    check = check_registration(movie, movie, np.zeros((12, 3)), components=2)
    text = write_registration_report(check, tmp_path / "report.html").read_text()
    assert "30 × 28 × 4 px" in text


def test_folder_must_be_there(check, tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        write_registration_report(check, tmp_path / "no" / "report.html")
