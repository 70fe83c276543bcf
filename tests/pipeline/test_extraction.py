"""A small movie from frames to files."""

from __future__ import annotations

import html.parser
import re
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.cnmf.storage import load_CNMF
from gpucalcium.errors import MovieShapeError, MovieValueError, OutputError, ParameterError
from gpucalcium.pipeline import RunSettings, run, run_recording
from gpucalcium.pipeline.output import filling
from gpucalcium.pipeline.registration import largest_shifts
from gpucalcium.simulate import two_photon

FIGURES = (
    "field mean traces components shifts templates agreement residual residual_ends".split()
)  # of a run with rigid registration

ASKED = RunSettings(frame_rate=20.0, decay_s=0.6)
FILES = {"results.hdf5", "report.html", "figures"}


@pytest.fixture(scope="module")
def scene():
    return two_photon(500, (56, 60), 10, motion=3.0, seed=4)


@pytest.fixture(scope="module")
def done(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "out"
    with backend.use("cpu"):
        return run(scene.movie, folder, ASKED, truth=scene, name="small <movie> & more")


def test_cells_traces_and_motion_are_found(scene, done):
    assert done.match.f1 >= 0.9
    assert done.median_trace_correlation() >= 0.95
    error = done.registration.shifts - scene.shifts
    assert (error - error.mean(axis=0)).std() < 0.1
    assert (done.dims, done.frames, done.frame_rate) == ((56, 60), 500, 20.0)
    assert sorted([*done.accepted, *done.rejected]) == list(range(done.estimates.A.shape[1]))
    assert_array_equal(done.estimates.Cn, done.correlation_image)
    assert done.estimates.F_dff.shape == done.estimates.C.shape


def test_folder_holds_everything_and_nothing_else(done):
    assert {path.name for path in done.output.iterdir()} == FILES
    assert [path.name for path in done.output.parent.iterdir()] == ["out"]
    figures = {path.name for path in (done.output / "figures").iterdir()}
    assert figures == {f"{n}.{k}" for n in FIGURES for k in ("png", "pdf")}


def test_results_are_read_back(done):
    loaded = load_CNMF(done.output / "results.hdf5")
    assert (loaded.estimates.A != done.estimates.A).nnz == 0
    assert_array_equal(loaded.estimates.S, done.estimates.S)
    assert_array_equal(loaded.estimates.shifts, done.registration.shifts)
    assert_array_equal(loaded.estimates.idx_components, done.accepted)
    assert loaded.params == done.params


def test_report_needs_nothing_from_outside(done):
    text = (done.output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "http" not in re.sub(r"data:image/png;base64,\S+", "", text).replace("http-equiv", "")
    assert "small &lt;movie&gt; &amp; more" in text
    for value in done.facts().values():
        assert value in text
    assert text.count("<tr>") == 1 + done.estimates.A.shape[1]

    class Balanced(html.parser.HTMLParser):
        open_tags: list[str] = []  # noqa: RUF012

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "img", "input"}:
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    Balanced().feed(text)
    assert Balanced.open_tags == []


def test_stages_are_timed(done):
    assert list(done.seconds) == [
        "motion correction",
        "registration check",
        "correlation image",
        "extraction",
        "quality",
        "refit",
        "dF/F",
        "results",
        "figures",
        "report",
    ]


def test_without_registration_or_refit_or_output(scene):
    asked = RunSettings(
        frame_rate=20.0, motion_correct=False, refit=False, n_components=8, params={"init": {"nb": 1}}
    )
    results = run(scene.movie[:200], None, asked)
    assert results.registration is None
    assert results.output is None
    assert list(results.seconds) == ["correlation image", "extraction", "quality", "dF/F"]
    assert results.params.get("init", "K") == 8
    assert results.estimates.b.shape[1] == 1


@pytest.mark.parametrize("kind", ["in memory", "plain file", "compressed file"])
def test_movie_whose_registered_frames_are_too_large_for_memory(scene, done, kind, monkeypatch, tmp_path):
    monkeypatch.setattr("gpucalcium.pipeline.registration.HELD_SHARE", 1 << 40)
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    movie, names = scene.movie, []
    if kind == "plain file":
        movie = tmp_path / "movie.npy"
        np.save(movie, scene.movie)
    elif kind == "compressed file":
        movie = tmp_path / "movie.npz"
        np.savez_compressed(movie, mov=scene.movie)
        make = tempfile.TemporaryDirectory
        monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda **k: names.append(k) or make(**k))
    results = run(movie, None, ASKED)
    assert_array_equal(results.correlation_image, done.correlation_image)
    assert_allclose(results.estimates.C, done.estimates.C, atol=1e-3 * done.estimates.C.max())  # other chunks
    assert len(names) == (kind == "compressed file")  # only frames that are slow to read are written down
    assert list((tmp_path / "temp").iterdir()) == []


@pytest.mark.parametrize("held", [True, False])
def test_patch_by_patch(scene, held, monkeypatch):
    if not held:
        monkeypatch.setattr("gpucalcium.pipeline.registration.HELD_SHARE", 1 << 40)
    results = run(scene.movie, None, replace(ASKED, pw_rigid=True), truth=scene)
    assert results.match.f1 >= 0.9
    error = results.registration.shifts - scene.shifts
    assert (error - error.mean(axis=0)).std() < 0.1


def test_bars_do_not_change_results(scene, done, capsys):
    results = run(scene.movie, None, ASKED, progress=True)
    assert_allclose(results.estimates.C, done.estimates.C, atol=1e-3 * done.estimates.C.max())  # other chunks
    shown = capsys.readouterr().err
    assert re.search(r"extraction +100%", shown)


def test_movie_without_activity_gives_a_report_without_cells(tmp_path):
    noise = np.random.default_rng(0).poisson(30, (60, 24, 26)).astype(np.uint16)
    results = run(noise, tmp_path / "out", RunSettings(n_components=3))
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"<dd>{len(results.accepted)}</dd>" in text


def test_planes_go_into_folders_of_their_own(scene, tmp_path):
    planes = np.stack([scene.movie[:120], scene.movie[120:240]], axis=1)
    np.savez(tmp_path / "movie.npz", movie=planes)
    first, second = run_recording(tmp_path / "movie.npz", tmp_path / "out", ASKED)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plane_0", "plane_1", "report.html"}
    assert {path.name for path in second.output.iterdir()} == FILES
    assert (first.output, second.output) == (tmp_path / "out" / "plane_0", tmp_path / "out" / "plane_1")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'href="plane_1/report.html"' in text


@pytest.mark.parametrize(
    ("movie", "error", "message"),
    [
        (np.zeros((200, 20, 20), np.uint16), MovieValueError, "nothing is recorded"),
        (np.full((200, 20, 20), np.nan, np.float32), MovieValueError, "finite number"),
        (np.zeros((12, 20, 20), np.uint16), MovieShapeError, "12 frames; at least 30"),
        (np.zeros((200, 5, 20), np.uint16), MovieShapeError, "5x20 px"),
        (np.zeros((200, 2, 20, 20), np.uint16), MovieShapeError, "axes='TZYX'"),
        (np.zeros((0, 20, 20), np.uint16), MovieShapeError, "empty"),
    ],
)
def test_bad_movies_leave_nothing_behind(tmp_path, movie, error, message):
    with pytest.raises(error, match=message):
        run(movie, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_output_is_checked_before_the_work(scene, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        run(scene.movie, tmp_path / "file")
    with pytest.raises(OutputError, match="make it first"):
        run(scene.movie, tmp_path / "no" / "out")


def test_folder_keeps_what_is_not_ours_and_survives_failure(tmp_path):
    folder = tmp_path / "out"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "old.png").write_text("old")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RuntimeError), filling(folder) as temporary:
        (temporary / "report.html").write_text("half")
        raise RuntimeError
    assert {path.name for path in folder.iterdir()} == {"figures", "notes.txt"}
    with filling(folder) as temporary:
        (temporary / "figures").mkdir()
        (temporary / "report.html").write_text("new")
    assert (folder / "notes.txt").read_text() == "mine"
    assert list((folder / "figures").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("dims", "asked", "expected"),
    [((512, 512), None, (6, 6)), ((30, 40), None, (5, 6)), ((8, 9), None, (1, 1)), ((30, 40), 3, (3, 3))],
)
def test_motion_is_bounded_by_the_field(dims, asked, expected):
    assert largest_shifts(dims, asked) == expected


@pytest.mark.parametrize(
    "wrong", [{"frame_rate": 0}, {"cell_radius": -1}, {"n_components": 0}, {"max_shift": 0}, {"um_per_px": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ParameterError, match=f"{next(iter(wrong))}="):
        RunSettings(**wrong)


def test_every_wing_finds_the_same_cells(wing):
    scene = two_photon(120, (40, 44), 5, motion=2.0, seed=3)
    asked = RunSettings(frame_rate=20.0, n_components=6)
    results = run(scene.movie, None, asked)
    with backend.use("cpu"):
        expected = run(scene.movie, None, asked)
    assert_allclose(results.registration.shifts, expected.registration.shifts, atol=0.01)
    assert_allclose(results.correlation_image, expected.correlation_image, atol=1e-3)
    assert_array_equal(results.accepted, expected.accepted)
    assert_allclose(results.estimates.C, expected.estimates.C, atol=0.02 * expected.estimates.C.max())
