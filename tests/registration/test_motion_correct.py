"""`MotionCorrect`: every documented parameter, results, files, and the reference's own outputs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from gpucalcium import backend
from gpucalcium.errors import (
    ArrayShapeError,
    MovieShapeError,
    MovieValueError,
    ParameterError,
)
from gpucalcium.movies import open_movie
from gpucalcium.movies.source import Source
from gpucalcium.registration import MotionCorrect
from tests.registration.scenes import error, moving_cells

SCENE = moving_cells(T=50)
SOME = SCENE.movie[:12]  # where the emulated wing runs, and accuracy is not the point


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path / "temp"))


def corrected(fname=SCENE.movie, save_movie=False, template=None, **parameters):
    return MotionCorrect(fname, **parameters).motion_correct(template=template, save_movie=save_movie)


def saved(mc: MotionCorrect) -> np.ndarray:
    (name,) = mc.mmap_file
    return open_movie(name).read(slice(None))


# ---------------------------------------------------------------------------- results


def test_results_are_as_documented(wing):
    mc = MotionCorrect(wing.put(SCENE.movie), splits_rig=5)
    assert mc.motion_correct() is mc
    assert len(mc.shifts_rig) == len(SCENE.movie)
    assert all(isinstance(s, tuple) and len(s) == 2 and isinstance(s[0], float) for s in mc.shifts_rig)
    assert error(mc.shifts_rig, SCENE.shifts) < 0.06
    assert len(mc.templates_rig) == 5
    assert mc.total_template_rig.shape == SCENE.movie.shape[1:]
    assert mc.border_to_0 == np.ceil(np.abs(mc.shifts_rig).max())
    assert mc.fname_tot_rig == mc.mmap_file == [None]
    assert mc.min_mov == SCENE.movie.min()
    assert mc.frame_quality.peak.shape == (len(SCENE.movie),)


def test_saved_movie_is_the_registered_one(wing):
    mc = corrected(wing.put(SOME), save_movie=True)
    lazy = mc.registered_movie().read(slice(None))
    assert_allclose(saved(mc), lazy - mc.min_mov, atol=1e-3)
    assert "_rig__d1_64_d2_60_d3_1_order_F_frames_12.mmap" in mc.mmap_file[0]


def test_files_are_named_after_the_movie_and_told_apart(tmp_path):
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        names.append(str(tmp_path / folder / "film.tif"))
        tifffile.imwrite(names[-1], SCENE.movie)
    mc = corrected(names, save_movie=True)
    found = [Path(name).name for name in mc.mmap_file]
    assert found[0] == "film_rig__d1_64_d2_60_d3_1_order_F_frames_50.mmap"
    assert found[1] == "film-1_rig__d1_64_d2_60_d3_1_order_F_frames_50.mmap"
    assert {Path(name).parent for name in mc.mmap_file} == {tmp_path / "temp"}
    assert len(mc.shifts_rig) == 100
    assert len(mc.templates_rig) == 28


def test_recordings_follow_on_from_each_other():
    halves = [SCENE.movie[:25], SCENE.movie[25:]]
    mc = corrected(halves)
    assert (
        error(mc.shifts_rig, SCENE.shifts) < 0.1
    )  # one constant for both: the second uses the first's template


def test_tuple_of_files_is_one_recording(tmp_path):
    names = tuple(str(tmp_path / f"frame{t}.tif") for t in range(6))
    for name, frame in zip(names, SCENE.movie, strict=False):
        tifffile.imwrite(name, frame[None])
    mc = corrected(names, save_movie=True)
    assert_allclose(mc.shifts_rig, corrected(SCENE.movie[:6]).shifts_rig)
    assert Path(mc.mmap_file[0]).name.startswith("frame0_rig_")


class Failing(Source):
    """Can be read once, for the sample, and then only in part."""

    def __init__(self) -> None:
        super().__init__(SCENE.movie.shape, np.float32, "failing")
        self._seen = 0

    def _fill(self, wanted, out):
        if wanted[-1] == len(self) - 1:
            self._seen += 1
            if self._seen > 1:
                raise OSError("the disk went away")
        out[...] = SCENE.movie[wanted.start : wanted.stop : wanted.step]


def test_nothing_half_written_stays_behind(tmp_path):
    with backend.limit(chunk_frames=8), pytest.raises(OSError, match="went away"):
        MotionCorrect(Failing(), min_mov=0).motion_correct(save_movie=True)
    assert not list((tmp_path / "temp").glob("*"))


# ---------------------------------------------------------------------------- parameters


def test_max_shifts():
    mc = corrected(max_shifts=(2, 2))
    assert np.abs(mc.shifts_rig).max() <= 2
    assert mc.frame_quality.clamped.any()
    assert_allclose(corrected(max_shifts=5).shifts_rig, corrected(max_shifts=(5, 5)).shifts_rig)


@pytest.mark.parametrize(
    "parameters",
    [
        {"niter_rig": 3},
        {"splits_rig": 3},
        {"splits_rig": None, "num_frames_split": 25},
        {"gSig_filt": (3, 3)},
        {"gSig_filt": 2},
        {"indices": (slice(4, None), slice(None, -7))},
        {"num_splits_to_process_rig": 2},
    ],
)
def test_parameter_changes_the_template(parameters):
    plain, other = corrected().total_template_rig, corrected(**parameters).total_template_rig
    assert plain.shape != other.shape or np.abs(plain - other).max() > 1e-3


@pytest.mark.parametrize("parameters", [{"gSig_filt": (3, 3)}, {"shifts_opencv": False}, {"niter_rig": 2}])
def test_shifts_stay_right(parameters):
    assert error(corrected(**parameters).shifts_rig, SCENE.shifts) < 0.1


def test_border_nan():
    movies = {
        value: saved(corrected(save_movie=True, border_nan=value)) for value in (True, "min", "copy", False)
    }
    assert np.isnan(movies[True]).any()
    assert not any(np.isnan(movies[value]).any() for value in ("min", "copy", False))
    outside = np.isnan(movies[True])
    for value in ("min", "copy", False):
        assert_array_equal(movies[value][~outside], movies[True][~outside])
    assert len({movies[value][outside].tobytes() for value in ("min", "copy", False)}) == 3
    with pytest.raises(ParameterError, match="border_nan='median'"):
        corrected(border_nan="median")


def test_what_is_subtracted_from_the_saved_movie():
    kept = saved(corrected(save_movie=True, nonneg_movie=False, border_nan="copy"))
    for parameters, offset in (({}, SCENE.movie.min()), ({"min_mov": 5.0}, 5.0)):
        less = saved(corrected(save_movie=True, border_nan="copy", **parameters))
        assert_allclose(less, kept - offset, atol=1e-4)
    filtered = corrected(save_movie=True, gSig_filt=(3, 3), border_nan="copy")
    assert filtered.min_mov < 0  # of the filtered frames, which have mean zero
    assert saved(filtered).mean() == pytest.approx(SCENE.movie.mean(), rel=0.05)


def test_template_and_dview_are_taken():
    first = corrected()
    mc = corrected(template=first.total_template_rig, dview=object())
    assert error(mc.shifts_rig, SCENE.shifts) < 0.06


def test_fourier_shifts_differ_from_bicubic_ones_only_a_little():
    bicubic, fourier = (saved(corrected(save_movie=True, shifts_opencv=v)) for v in (True, False))
    assert_array_equal(np.isnan(bicubic), np.isnan(fourier))
    difference = (bicubic - fourier)[np.isfinite(bicubic)]
    assert 0 < difference.std() < 2.0  # the noise, which cubic interpolation smooths


def test_hdf5_data_set(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["mov"], file["other"] = SCENE.movie[:20], SCENE.movie[20:]
    mc = corrected(str(tmp_path / "two.h5"), var_name_hdf5="other")
    assert len(mc.shifts_rig) == 30


def test_volumes_need_no_more_settings(wing):
    volume = np.stack([np.roll(SOME, k, 2)[:8, :24, :20] for k in range(5)], axis=-1)
    mc = MotionCorrect(wing.put(volume), is3D=True).motion_correct()  # max_shifts and indices for two axes
    assert len(mc.shifts_rig[0]) == 3
    assert np.abs(np.array(mc.shifts_rig)[:, 2]).max() <= 2
    mc = MotionCorrect(volume, is3D=True, indices=(slice(2, 20), slice(None), slice(0, 4))).motion_correct()
    assert mc.total_template_rig.shape == (18, 20, 4)


def test_volumes_in_one_photon_mode():
    volume = np.stack([SOME[:, :24, :20]] * 5, axis=-1)
    mc = corrected(volume, is3D=True, gSig_filt=2, save_movie=True, border_nan="copy")
    assert saved(mc).mean() == pytest.approx(volume.mean(), rel=0.05)


@pytest.mark.parametrize("T", [1, 2, 15])
@pytest.mark.parametrize("niter_rig", [0, 1, 2])
def test_short_movies_and_few_passes(T, niter_rig):
    mc = corrected(SCENE.movie[:T], save_movie=True, border_nan="copy", niter_rig=niter_rig)
    assert np.isfinite(mc.shifts_rig).all()
    assert len(mc.templates_rig) == (min(14, T) if niter_rig else 1)
    assert saved(mc).shape == (T, *SCENE.movie.shape[1:])


def test_a_still_movie_loses_no_line():
    mc = corrected(np.repeat(SCENE.movie[:1], 30, axis=0))
    assert mc.border_to_0 == 0
    assert_array_equal(mc.shifts_rig, 0)
    assert np.isfinite(mc.registered_movie().read(slice(None))).all()


def test_motion_correct_rigid_needs_no_min_mov():
    mc = MotionCorrect(SOME, pw_rigid=True).motion_correct_rigid(save_movie=True)
    assert mc.min_mov == SOME.min()
    assert np.nanmin(saved(mc)) >= 0


def test_a_bound_of_zero_holds_an_axis():
    shifts = np.array(corrected(SOME, max_shifts=(0, 5)).shifts_rig)
    assert not shifts[:, 0].any()
    assert shifts[:, 1].any()


def test_recordings_of_different_sizes():
    with pytest.raises(MovieShapeError, match="FOVs with different sizes"):
        corrected([SOME, SOME[:, :20]])
    corrected([SOME, SOME[:, :40]], indices=(slice(0, 40), slice(None)))


def test_bars_say_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPUCALCIUM_PROGRESS", "on")
    names = [str(tmp_path / f"{name}.tif") for name in ("red", "green")]
    for name in names:
        tifffile.imwrite(name, SOME)
    corrected(names, niter_rig=2)
    shown = capsys.readouterr().err
    for text in (
        "red (1 of 2): rigid registration, template 1 of 2",
        "red (1 of 2): rigid registration: 100%",
        "green (2 of 2): rigid registration: 100%",
    ):
        assert text in shown


def test_use_cuda_asks_for_the_gpu(on_gpu):
    with backend.use("cpu"):
        mc = corrected(SCENE.movie[:8], use_cuda=True)
        assert backend.active().kind == "cpu"
    assert_allclose(mc.shifts_rig, corrected(SCENE.movie[:8]).shifts_rig, atol=1e-3)


def test_frames_on_the_gpu_stay_there(on_gpu):
    movie = on_gpu.put(SCENE.movie[:8])
    with backend.use("cpu"):
        mc = corrected(movie, save_movie=True)
    assert_allclose(mc.shifts_rig, corrected(SCENE.movie[:8]).shifts_rig, atol=1e-3)
    assert saved(mc).shape == movie.shape


def test_frames_without_signal_are_told(caplog):
    movie = SCENE.movie.copy()
    movie[3] = 0
    with caplog.at_level(logging.WARNING, logger="gpucalcium"):
        corrected(movie)
    assert "1 of 50 frames show nothing of the template" in caplog.text


@pytest.mark.parametrize(
    ("movie", "parameters", "kind", "text"),
    [
        (np.zeros((5, 9)), {}, MovieShapeError, "2 axes"),
        (np.zeros((5, 9, 9, 9)), {}, MovieShapeError, "is3D=True"),
        (SCENE.movie, {"is3D": True}, MovieShapeError, "is3D=False"),
        (np.full((4, 20, 20), np.nan), {}, MovieValueError, "finite number"),
        (SCENE.movie, {"max_shifts": (40, 40)}, ParameterError, "less than half"),
        (SCENE.movie, {"gSig_filt": (3, 3), "shifts_opencv": False}, ParameterError, "shifts_opencv=True"),
        (SCENE.movie, {"splits_rig": 2.5}, ParameterError, "splits_rig=2.5: a whole number"),
        (SCENE.movie, {"niter_rig": 0.5}, ParameterError, "whole number of passes"),
        (SCENE.movie, {"min_mov": np.nan}, ParameterError, "min_mov=nan: a finite number"),
    ],
)
def test_errors_at_the_edge(movie, parameters, kind, text):
    with pytest.raises(kind, match=text):
        corrected(movie, **parameters)


def test_no_recording_at_all():
    with pytest.raises(ParameterError, match="at least one recording"):
        MotionCorrect([])


# ---------------------------------------------------------------------------- another recording


@pytest.mark.parametrize("order", ["F", "C"])
def test_apply_shifts_movie_to_another_channel(order):
    mc = corrected(border_nan="copy")
    other = (SCENE.movie * 2 - 100).astype(np.float32)
    plain = mc.apply_shifts_movie(other, remove_min=False)
    assert plain.shape == SCENE.movie.shape
    assert_allclose(plain, mc.registered_movie().read(slice(None)) * 2 - 100, atol=1e-3)
    above = mc.apply_shifts_movie(other)
    assert above.min() == pytest.approx(0, abs=1e-4)
    assert_allclose(above, plain - plain.min(), atol=1e-4)
    name = mc.apply_shifts_movie(other, save_memmap=True, order=order, save_base_name="second")
    assert Path(name).name == f"second_d1_64_d2_60_d3_1_order_{order}_frames_50.mmap"
    assert_array_equal(open_movie(name).read(slice(None)), above)


def test_apply_shifts_movie_refuses(tmp_path):
    with pytest.raises(ParameterError, match="call motion_correct"):
        MotionCorrect(SCENE.movie).apply_shifts_movie(SCENE.movie)
    mc = corrected()
    with pytest.raises(ArrayShapeError, match="7 frames"):
        mc.apply_shifts_movie(SCENE.movie[:7])
    with pytest.raises(ParameterError, match="no piecewise shifts"):
        mc.apply_shifts_movie(SCENE.movie, rigid_shifts=False)


def test_registered_movie_streams_in_any_chunks(wing):
    mc = corrected(wing.put(SOME))
    lazy = mc.registered_movie()
    whole = lazy.read(slice(None))
    with backend.limit(chunk_frames=5):
        chunks = [backend.to_numpy(chunk) for chunk in backend.stream(lazy)]
    assert_array_equal(np.concatenate(chunks), whole)
    assert_array_equal(lazy.read(slice(1, 11, 3)), whole[1:11:3])


# ---------------------------------------------------------------------------- the reference's own outputs

REFERENCE_CASES = {
    "opencv": {},
    "fft": {"shifts_opencv": False},
    "niter3": {"niter_rig": 3},
    "filt": {"gSig_filt": (3, 3)},
    "keepneg": {"nonneg_movie": False},
    "nan": {"border_nan": True},
}


@pytest.mark.parametrize("case", REFERENCE_CASES)
def test_against_the_reference(reference, case):
    """Nearer to the true motion than the reference; the saved movie as theirs as far as the shifts agree.

    The reference correlates without weights: on these 64 x 60 frames it is 0.25 to 0.30 px off, towards zero.
    """
    scene, stored = reference.inputs("motion")[0], reference.load("motion")
    mc = corrected(scene["Y"], save_movie=True, max_shifts=(8, 8), splits_rig=5, **REFERENCE_CASES[case])
    theirs, truth = stored[f"MC_rigid_{case}_shifts"], -scene["shifts"]
    assert error(mc.shifts_rig, truth) < 0.11
    assert error(mc.shifts_rig, truth) < 0.5 * error(theirs, truth)

    def distances(shifts):
        difference = shifts - truth
        return np.abs(difference - difference.mean(0)).max(1)

    assert (distances(np.array(mc.shifts_rig)) <= distances(theirs) + 0.1).mean() >= 0.95
    minimum, border = stored[f"MC_rigid_{case}_min_mov_border"]
    assert mc.min_mov == pytest.approx(minimum, rel=1e-5)
    assert abs(mc.border_to_0 - border) <= 1
    mean = np.nanmean(saved(mc), axis=0)
    inside = np.s_[6:-6, 6:-6]
    assert mean[inside].mean() == pytest.approx(np.nanmean(stored[f"MC_rigid_{case}_mean"][inside]), rel=0.01)
    template = stored[f"MC_rigid_{case}_template"]
    assert np.corrcoef(mc.total_template_rig[inside].ravel(), template[inside].ravel())[0, 1] > 0.95
