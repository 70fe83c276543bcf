"""One frame registered patch by patch: against the truth, stored results, and the same frame moved by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import shift

from gpucalcium import backend
from gpucalcium.errors import ArrayShapeError, MovieShapeError, MovieValueError, ParameterError
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.tile import tile_and_correct, tile_and_correct_3d
from tests.registration.scenes import moving_cells

BASE = {"strides": (24, 24), "overlaps": (16, 16), "max_shifts": (8, 8), "max_deviation_rigid": 3}
CASES = {
    "opencv": {"shifts_opencv": True},
    "fft": {"shifts_opencv": False},
    "opencv_interp": {"shifts_opencv": True, "shifts_interpolate": True, "strides": (16, 16)},
    "fft_interp": {"shifts_opencv": False, "shifts_interpolate": True, "strides": (16, 16)},
    "opencv_filt": {"shifts_opencv": True, "gSig_filt": (3, 3)},
    "opencv_nodev": {"shifts_opencv": True, "max_deviation_rigid": None},
}


@pytest.fixture(scope="module")
def nonrigid(reference):
    """Frame 3 of the stored non-rigid movie, its template, and what was stored of its registration."""
    movie, stored = reference.inputs("motion")[1], reference.load("motion")
    displacement = movie["shifts"][3][:, None, None] + np.tensordot(movie["coef"][3], movie["modes"], 1)
    return movie["Y"][3], stored["nonrigid_bin_median"], -displacement, stored


def error(shifts: np.ndarray, starts: list[tuple[int, ...]], side: int, truth: np.ndarray) -> float:
    """RMS at the middles of the patches, but for what the template's own place adds to all of them."""
    at = np.array(starts) + (side - 1) // 2
    off = shifts - truth[:, at[:, 0], at[:, 1]].T
    return float(np.sqrt(((off - off.mean(0)) ** 2).mean()))


@pytest.mark.parametrize("case", CASES)
def test_nearer_to_the_truth_than_the_reference(wing, nonrigid, case):
    frame, template, truth, stored = nonrigid
    options = BASE | CASES[case]
    found = tile_and_correct(wing.put(frame), wing.put(template), **options, border_nan="copy")
    side = (options["strides"][0] // (1 if "opencv" in case else 4)) + 16
    expected = stored[f"tile_and_correct_{case}_shifts"]
    assert found.shifts.shape == expected.shape
    tiles = PatchGrid.make((96, 88), (side - 16,) * 2, (16, 16))
    assert found.starts == [tuple(corner) for corner in tiles.corners.tolist()]
    assert found.grid == tiles.indices
    ours, theirs = (error(s, found.starts, side, truth) for s in (found.shifts, expected))
    assert ours < 0.4  # pixels, one dim frame; stored: 0.41 to 0.68
    assert ours < 0.75 * theirs
    image = backend.to_numpy(found.image)
    inside = (slice(8, -8),) * 2
    like = [
        np.corrcoef(x[inside].ravel(), template[inside].ravel())[0, 1]
        for x in (image, stored[f"tile_and_correct_{case}_img"])
    ]
    assert like[0] > like[1]


@pytest.mark.parametrize("shifts_opencv", [True, False])
def test_frames_that_move_as_a_whole(wing, nonrigid, shifts_opencv):
    frame, template, _, stored = nonrigid
    options = BASE | {"max_deviation_rigid": 0, "shifts_opencv": shifts_opencv}
    found = tile_and_correct(wing.put(frame), wing.put(template), **options)
    case = "rigid_opencv" if shifts_opencv else "rigid_fft"
    assert_allclose(
        found.shifts, stored[f"tile_and_correct_{case}_shifts"], atol=0.25
    )  # ours is the nearer one
    assert (found.starts, found.grid) == ([(0, 0)], [(0, 0)])
    expected = np.isnan(stored[f"tile_and_correct_{case}_img"])
    assert_array_equal(np.isnan(backend.to_numpy(found.image)), expected)


VOLUMES = {"strides": (16, 16, 6), "overlaps": (8, 8, 2), "max_shifts": (4, 4, 2), "shifts_opencv": True}


def test_volumes_as_a_whole(wing, reference):
    """The template is the median of few, dim frames: their noise in it must not pull them to where they were."""
    movie, template = reference.inputs("motion")[2], reference.load("motion")["bin_median_3d"]
    frames = range(0, 30, 5)
    found = [
        tile_and_correct_3d(
            wing.put(movie["Y"][t]), wing.put(template), **VOLUMES, max_deviation_rigid=0
        ).shifts
        for t in frames
    ]
    off = np.array(found) + movie["shifts"][frames]
    assert (np.sqrt(((off - off.mean(0)) ** 2).mean(0)) < (0.2, 0.25, 0.1)).all()  # all 30: 0.14, 0.20, 0.04


@pytest.mark.parametrize("case", ["rigid", "pw"])
def test_volumes(wing, reference, case):
    volume, stored = reference.inputs("motion")[2]["Y"][2], reference.load("motion")
    template = stored["bin_median_3d"]
    options = VOLUMES | {"max_deviation_rigid": 0 if case == "rigid" else 2, "border_nan": "copy"}
    found = tile_and_correct_3d(wing.put(volume), wing.put(template), **options)
    assert found.shifts.shape == stored[f"tile_and_correct_3d_{case}_shifts"].shape
    if case == "pw":  # the recording moves as a whole
        assert np.abs(found.shifts - found.shifts.mean(axis=0)).max() < 0.35
    moved, theirs = backend.to_numpy(found.image), stored[f"tile_and_correct_3d_{case}_img"]
    like = [np.corrcoef(x.ravel(), template.ravel())[0, 1] for x in (moved, theirs)]
    assert like[0] >= like[1]


@pytest.mark.parametrize("shifts_opencv", [True, False])
def test_nan_border_of_a_volume_is_a_border(wing, reference, shifts_opencv):
    volume, template = reference.inputs("motion")[2]["Y"][2], reference.load("motion")["bin_median_3d"]
    found = tile_and_correct_3d(
        wing.put(volume), wing.put(template), (16, 16, 6), (8, 8, 2), (4, 4, 2), shifts_opencv=shifts_opencv
    )
    lost = np.isnan(backend.to_numpy(found.image))
    assert 0 < lost.mean() < 0.25
    assert not lost[2:-2, 2:-2, 1:-1].any()


@pytest.mark.parametrize("shifts_opencv", [True, False])
@pytest.mark.parametrize(
    ("shape", "strides", "overlaps"),
    [
        ((64, 60), (24, 24), (0, 0)),
        ((30, 90), (40, 24), (8, 8)),
        ((64, 60), (100, 100), (50, 50)),
        ((37, 41), (16, 16), (7, 5)),
    ],
)
def test_any_layout_of_patches(wing, shape, strides, overlaps, shifts_opencv):
    """No overlaps, one row of patches, one patch larger than the frame, uneven sides."""
    scene = moving_cells(T=20, shape=shape, largest=3.0, noise=1.0)
    still = [shift(frame, s, mode="nearest") for frame, s in zip(scene.movie, scene.shifts, strict=True)]
    for t in (0, 7):
        found = tile_and_correct(
            wing.put(scene.movie[t]),
            wing.put(np.mean(still, axis=0)),
            strides,
            overlaps,
            (5, 5),
            shifts_opencv=shifts_opencv,
            border_nan=False,
        )
        assert np.isfinite(backend.to_numpy(found.image)).all()
        assert_allclose(np.median(found.shifts, axis=0), scene.shifts[t], atol=0.3)
        assert len(found.shifts) == len(found.starts) == len(found.grid)


def pair():
    scene = moving_cells(T=6, shape=(48, 44), largest=3.0, noise=1.0)
    still = [shift(frame, s, mode="nearest") for frame, s in zip(scene.movie, scene.shifts, strict=True)]
    return scene.movie[2], np.mean(still, axis=0).astype(np.float32)


SMALL = {"strides": (12, 12), "overlaps": (8, 8), "max_shifts": (5, 5)}
CHANGES = {
    "strides": (16, 16),
    "overlaps": (4, 4),
    "max_shifts": (1, 1),
    "newoverlaps": (4, 4),
    "newstrides": (6, 6),
    "upsample_factor_grid": 2,
    "max_deviation_rigid": 0.1,
    "shifts_opencv": True,
    "border_nan": "copy",
    "shifts_interpolate": True,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_changes_the_result(name):
    frame, template = pair()
    before = tile_and_correct(frame, template, **SMALL)
    after = tile_and_correct(frame, template, **(SMALL | {name: CHANGES[name]}))
    assert not np.array_equal(before.image, after.image, equal_nan=True)


def test_filter_changes_the_result_and_wants_interpolation():
    frame, template = pair()
    plain, filtered = (
        tile_and_correct(frame, template, **SMALL, shifts_opencv=True, gSig_filt=g) for g in (None, (2, 2))
    )
    assert not np.array_equal(plain.shifts, filtered.shifts)
    with pytest.raises(ParameterError, match="use shifts_opencv=True"):
        tile_and_correct(frame, template, **SMALL, gSig_filt=(2, 2))


def test_brightness_and_resolution_do_not_change_the_result():
    """As their documentation says: matching takes no notice of the mean, and finds shifts on a continuous scale."""
    frame, template = pair()
    before = tile_and_correct(frame, template, **SMALL)
    after = tile_and_correct(frame, template, **SMALL, add_to_movie=300.0, upsample_factor_fft=50)
    assert_array_equal(before.image, after.image)
    brighter = tile_and_correct(frame + 300, template + 300, **SMALL)
    assert_allclose(brighter.shifts, before.shifts, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64"])
def test_every_dtype_gives_the_same_shifts(dtype):
    frame, template = pair()
    whole = np.rint(frame)
    expected = tile_and_correct(whole, template, **SMALL).shifts
    assert_allclose(tile_and_correct(whole.astype(dtype), template, **SMALL).shifts, expected, atol=1e-4)


@pytest.mark.parametrize("shifts_opencv", [True, False])
def test_frames_without_signal_stay_where_they_are(shifts_opencv):
    _, template = pair()
    for frame in (np.full_like(template, 7), np.full_like(template, np.nan)):
        found = tile_and_correct(frame, template, **SMALL, shifts_opencv=shifts_opencv)
        assert_array_equal(found.shifts, 0)
    hurt = template.copy()
    hurt[10, 12] = np.nan
    found = tile_and_correct(hurt, template, **SMALL, shifts_opencv=shifts_opencv)
    assert_allclose(found.shifts, 0, atol=0.05)


def test_bad_input_is_named():
    frame, template = pair()
    with pytest.raises(ArrayShapeError, match=r"template has shape \(48, 40\), img \(48, 44\)"):
        tile_and_correct(frame, template[:, :40], **SMALL)
    with pytest.raises(MovieShapeError, match="img has shape"):
        tile_and_correct(frame[0], template[0], **SMALL)
    with pytest.raises(MovieShapeError, match="takes a volume"):
        tile_and_correct_3d(frame, template, **SMALL)
    with pytest.raises(ParameterError, match="border_nan='keep'"):
        tile_and_correct(frame, template, **SMALL, border_nan="keep")
    with pytest.raises(ParameterError, match="upsample_factor_fft=0"):
        tile_and_correct(frame, template, **SMALL, upsample_factor_fft=0)
    with pytest.raises(ParameterError, match="less than half"):
        tile_and_correct(frame, template, (12, 12), (8, 8), (24, 5))
    with pytest.raises(ParameterError, match="give one width per axis"):
        tile_and_correct(frame, template, **SMALL, shifts_opencv=True, gSig_filt=(2, 2, 2))
    with pytest.raises(MovieValueError, match="finite number"):
        tile_and_correct(frame, np.full_like(template, np.nan), **SMALL)
