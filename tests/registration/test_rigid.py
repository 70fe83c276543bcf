"""Rigid registration: accuracy against the truth, edges, streaming, and errors by their text."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, shift

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, MovieValueError, ParameterError
from gpucalcium.movies import open_movie
from gpucalcium.movies.source import Source
from gpucalcium.registration import RigidParams, register_rigid
from gpucalcium.registration.rigid import median_of
from tests.registration.scenes import error, moving_cells, slope
from tests.wings import wings_present

SCENE = moving_cells()


def shifts_of(movie, **params):
    return register_rigid(open_movie(movie), RigidParams(max_shifts=(6, 6), **params)).shifts


# ---------------------------------------------------------------------------- accuracy


def test_finds_the_motion(wing):
    found = register_rigid(open_movie(wing.put(SCENE.movie)), RigidParams(max_shifts=(6, 6)))
    assert error(found.shifts, SCENE.shifts) < 0.06
    assert_allclose(slope(found.shifts, SCENE.shifts), 1, atol=0.02)
    assert found.shifts.dtype == np.float32
    assert not found.quality.clamped.any()
    assert not found.quality.no_signal.any()
    assert_allclose(np.median(found.quality.peak), 1, atol=0.1)


def test_registered_frames_stay_on_the_device(wing):
    movie = SCENE.movie[:40]
    out, sent = backend.empty(movie.shape, "float32"), np.empty(movie.shape, "float32")

    def sink(start, frames):
        sent[start : start + len(frames)] = frames

    with backend.limit(chunk_frames=9):
        register_rigid(open_movie(movie), RigidParams(max_shifts=(6, 6)), out=out, sink=sink)
    assert backend.is_cupy(out) == (wing.name != "cpu")
    assert_array_equal(backend.to_numpy(out), sent)
    with pytest.raises(ArrayShapeError, match=r"out is .* float64; the registered movie is \(40, "):
        register_rigid(open_movie(movie), RigidParams(max_shifts=(6, 6)), out=np.empty(movie.shape))


def test_twins_agree():
    found = []
    for wing in wings_present():
        with wing.chosen():
            found.append(
                register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6), splits_rig=4))
            )
    for other in found[1:]:
        assert_allclose(other.shifts, found[0].shifts, atol=1e-3)
        assert_allclose(other.template, found[0].template, rtol=1e-4, equal_nan=True)
        assert_allclose(other.quality.peak, found[0].quality.peak, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scene", [{}, {"baseline": 60.0, "resting": 0.4}], ids=["bright", "dim"])
def test_benchmark_scenes_within_six_hundredths_of_a_pixel(reference, scene):
    made = reference.simulate.moving_two_photon(T=300, shape=(256, 256), K=200, seed=6, **scene)
    found = register_rigid(open_movie(made["Y"]), RigidParams(max_shifts=(10, 10)))
    assert error(found.shifts, -made["shifts"]) < 0.06
    assert_allclose(slope(found.shifts, -made["shifts"]), 1, atol=0.01)


@pytest.mark.parametrize("seed", [1, 2])
def test_small_frames_within_a_tenth_of_a_pixel(reference, seed):
    made = reference.simulate.moving_two_photon(T=100, shape=(64, 60), K=12, max_shift=4.0, seed=seed)
    found = register_rigid(open_movie(made["Y"]), RigidParams(max_shifts=(4, 4))).shifts
    assert error(found, -made["shifts"]) <= 0.1


def test_volumes(reference):
    made = reference.inputs("motion")[2]
    params = RigidParams(max_shifts=(4, 4, 2), splits_rig=3, fourier=True)
    found = register_rigid(open_movie(made["Y"]), params).shifts
    theirs = reference.load("motion")["MC_3d_pw0_shifts"]
    for axis in range(3):
        ours = error(found[:, [axis]], -made["shifts"][:, [axis]])
        assert ours < 0.1
        assert ours < error(theirs[:, [axis]], -made["shifts"][:, [axis]])


@pytest.mark.parametrize("shape", [(31, 37), (64, 31), (40, 97)])
def test_odd_prime_and_oblong_frames(shape):
    scene = moving_cells(T=40, shape=shape, largest=2.0, seed=3)
    assert error(shifts_of(scene.movie), scene.shifts) < 0.1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float64", ">u2", "float32"])
def test_dtype_does_not_matter(dtype):
    counts = np.rint(SCENE.movie).clip(0, 255)
    assert_allclose(shifts_of(counts.astype(dtype)), shifts_of(counts.astype("float32")), atol=1e-3)


def test_offset_and_gain_do_not_matter():
    plain = shifts_of(SCENE.movie)
    assert_allclose(shifts_of(SCENE.movie + 1000), plain, atol=5e-3)
    assert_allclose(shifts_of(SCENE.movie * 7), plain, atol=1e-3)


def test_fortran_order_and_negative_strides():
    plain = shifts_of(SCENE.movie)
    assert_allclose(shifts_of(np.asfortranarray(SCENE.movie)), plain, atol=1e-6)
    turned = shifts_of(SCENE.movie[:, ::-1])
    assert_allclose(turned * (-1, 1), plain, atol=0.02)


# ---------------------------------------------------------------------------- templates and passes


def test_templates_of_splits_and_their_median():
    found = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6), splits_rig=7))
    assert len(found.split_templates) == 7
    assert found.template.shape == SCENE.movie.shape[1:]
    inside = np.s_[6:-6, 6:-6]
    median = np.median(np.stack(found.split_templates), 0)
    assert_allclose(found.template[inside], median[inside], rtol=1e-6)
    blurred = np.linalg.norm(np.gradient(SCENE.movie.mean(0)[inside]))
    assert np.linalg.norm(np.gradient(found.template[inside])) > 1.2 * blurred


@pytest.mark.parametrize(
    ("params", "frames", "count"),
    [
        ({"splits_rig": 14}, 60, 14),
        ({"splits_rig": 14}, 5, 5),
        ({"splits_rig": None, "num_frames_split": 20}, 60, 3),
        ({"splits_rig": None, "num_frames_split": 3}, 60, 6),  # never shorter than ten frames
        ({"splits_rig": None}, 30, 1),
    ],
)
def test_number_of_splits(params, frames, count):
    ranges = RigidParams(**params).splits(frames)
    assert len(ranges) == count
    assert [t for r in ranges for t in r] == list(range(frames))


def test_given_template_is_what_shifts_refer_to():
    first = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6)))
    template = np.roll(first.template, 2, 0)
    found = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(8, 8)), template=template)
    assert_array_equal(found.used_template, template)
    assert_allclose(np.median(found.shifts[:, 0] - first.shifts[:, 0]), 2, atol=0.1)


def test_more_passes_and_random_splits():
    movie = open_movie(SCENE.movie)
    one = register_rigid(movie, RigidParams(max_shifts=(6, 6)))
    three = register_rigid(movie, RigidParams(max_shifts=(6, 6), niter_rig=3))
    assert not np.array_equal(one.used_template, three.used_template)
    assert error(three.shifts, SCENE.shifts) < 0.08
    none = register_rigid(movie, RigidParams(max_shifts=(6, 6), niter_rig=0))
    assert_array_equal(none.template, none.used_template)
    some = RigidParams(max_shifts=(6, 6), niter_rig=2, splits_rig=6, num_splits_to_process_rig=2, seed=1)
    first, second = (register_rigid(movie, some) for _ in range(2))
    assert len(first.split_templates) == 2
    assert_array_equal(first.shifts, second.shifts)  # seeded
    assert len(first.shifts) == len(SCENE.movie)
    assert error(first.shifts, SCENE.shifts) < 0.1


# ---------------------------------------------------------------------------- edges


@pytest.mark.parametrize("T", [1, 2, 15])
def test_short_movies(wing, T):
    found = register_rigid(open_movie(wing.put(SCENE.movie[:T])), RigidParams(max_shifts=(6, 6)))
    assert found.shifts.shape == (T, 2)
    assert np.isfinite(found.shifts).all()
    if T == 1:
        assert_allclose(found.shifts, 0, atol=1e-3)
    if T == 15:
        assert error(found.shifts, SCENE.shifts[:T]) < 0.15


def test_constant_movie_does_not_move():
    found = register_rigid(open_movie(np.full((4, 20, 21), 7.0)), RigidParams())
    assert_array_equal(found.shifts, 0)
    assert found.quality.no_signal.all()
    assert_array_equal(found.template, 7.0)


def test_missing_frames_and_pixels(wing):
    movie = SCENE.movie.copy()
    movie[7] = np.nan
    movie[:, 30, 30] = np.nan
    movie[9, 5:9, 40:50] = np.inf
    movie[11] = 3.0
    found = register_rigid(open_movie(wing.put(movie)), RigidParams(max_shifts=(6, 6)))
    good = np.delete(np.arange(len(movie)), [7, 11])
    assert error(found.shifts[good], SCENE.shifts[good]) < 0.08
    assert_array_equal(found.shifts[[7, 11]], 0)
    assert_array_equal(np.flatnonzero(found.quality.no_signal), [7, 11])
    assert found.quality.missing[7] == movie[0].size
    assert found.quality.missing[9] == 41
    assert np.isfinite(found.template).all()


def test_motion_beyond_the_bound_is_clamped_and_flagged():
    movie = np.roll(SCENE.movie[:1], 0, 0).repeat(12, 0)
    movie[4] = np.roll(movie[4], 5, 0)
    found = register_rigid(open_movie(movie), RigidParams(max_shifts=(4, 4)))
    assert (np.abs(found.shifts) <= 4).all()
    assert found.quality.clamped[4]
    assert found.shifts[4, 0] == -4


@pytest.mark.parametrize("bound", [(0, 6), (6, 0), (0, 0)])
def test_bound_of_zero_holds_an_axis(bound):
    found = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=bound)).shifts
    for axis, most in enumerate(bound):
        assert found[:, axis].any() == bool(most)


def test_axis_of_one_pixel_never_moves():
    line = moving_cells(T=20, shape=(9, 80), seed=5).movie[:, 4:5]
    assert not shifts_of(line)[:, 0].any()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunk_size_changes_nothing(chunk):
    whole = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6)))
    with backend.limit(chunk_frames=chunk):
        part = register_rigid(open_movie(SCENE.movie), RigidParams(max_shifts=(6, 6)))
    assert_array_equal(part.shifts, whole.shifts)
    assert_array_equal(part.template, whole.template)


class Endless(Source):
    """Frames made when they are read, so that only the library's own memory counts."""

    def __init__(self, T: int) -> None:
        super().__init__((T, 64, 60), np.float32, "endless")

    def _fill(self, wanted, out):
        for into, t in zip(out, wanted, strict=True):
            into[...] = SCENE.movie[t % len(SCENE.movie)]


def test_memory_does_not_grow_with_the_movie():
    peaks = []
    for T in (400, 4000):
        with backend.limit(memory="24MiB"):
            tracemalloc.start()
            register_rigid(Endless(T), RigidParams(max_shifts=(6, 6)))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + (2 << 20)  # the shifts and flags themselves are 0.1 MB
    assert peaks[1] < 32 << 20


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"max_shifts": (6,)}, "one bound per axis"),
        ({"max_shifts": (32, 6)}, "less than half of the frame"),
        ({"max_shifts": (-1, 6)}, "0 or more"),
        ({"niter_rig": -1}, "niter_rig=-1"),
        ({"splits_rig": 0}, "splits_rig=0"),
        ({"gSig_filt": (3,)}, "one width per axis"),
        ({"gSig_filt": (3, 0)}, "greater than 0"),
        ({"gSig_filt": (3, 3), "fourier": True}, "shifts_opencv=True"),
    ],
)
def test_settings_that_cannot_work(params, text):
    with pytest.raises(ParameterError, match=text):
        register_rigid(open_movie(SCENE.movie[:3]), RigidParams(**params))


def test_template_of_another_shape():
    with pytest.raises(ArrayShapeError, match=r"template has shape \(9, 9\), the movie's frames \(64, 60\)"):
        register_rigid(open_movie(SCENE.movie[:3]), RigidParams(), template=np.zeros((9, 9)))


def test_template_without_a_number():
    with pytest.raises(MovieValueError, match="template holds no finite number"):
        register_rigid(open_movie(SCENE.movie[:3]), RigidParams(), template=np.full((64, 60), np.nan))


def test_movie_without_a_number():
    with pytest.raises(MovieValueError, match="no pixel of the movie"):
        register_rigid(open_movie(np.full((3, 20, 20), np.nan)), RigidParams())


def test_median_over_splits_takes_those_that_show_a_pixel():
    rng = np.random.default_rng(3)
    means = rng.normal(size=(5, 7, 6)).astype(np.float32)
    means[rng.random(means.shape) < 0.4] = np.nan
    means[:, 2, 3] = np.nan
    before = np.full((7, 6), 9, np.float32)
    expected = np.nanmedian(np.where(np.isnan(means).all(axis=0), before, means), axis=0)
    result = median_of(list(means), before)
    assert result.dtype == np.float32
    assert_array_equal(result, expected)


def test_a_template_of_few_frames_has_no_edge_at_the_border(wing):
    """A volume of twelve planes of which frames lack one at either end: what follows is found as well as it was."""
    off = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scene = gaussian_filter(rng.random((30, 28, 10)), (2, 2, 1)) * 3000
        shifts = rng.uniform(-1, 1, (16, 3)) * (2, 2, 1)
        movie = np.stack([shift(scene, s, mode="nearest") for s in shifts])
        movie += rng.normal(0, 20, movie.shape)
        params = RigidParams(max_shifts=(4, 4, 2))
        first = register_rigid(open_movie(wing.put(movie[:8].astype(np.float32))), params)
        others = open_movie(wing.put(movie[8:].astype(np.float32)))
        then = register_rigid(others, params, template=first.template)
        error = then.shifts + shifts[8:]
        off.append(error - error.mean(axis=0))
        assert not then.quality.clamped.any()
    assert (np.sqrt(np.square(off).mean(axis=(0, 1))) < (0.06, 0.06, 0.15)).all()
