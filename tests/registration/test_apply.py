"""Displacing frames: against rolls, the definition of a shift, and reference outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, map_coordinates

from gpucalcium import backend
from gpucalcium.registration.apply import displace, displace_field, fourier_shift, shift_tiles
from gpucalcium.registration.field import Tiling, along_axes, bases
from gpucalcium.registration.patches import PatchGrid

OPENCV_STEP = 32  # OpenCV's warps round sample coordinates to 1/32 pixel; ours do not
BORDERS = {"True": "nan", "False": "reflect", "min": "min", "copy": "copy"}


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 8, 9), (2, 7, 7), (2, 6, 5, 4), (1, 1, 8)])
def test_whole_pixel_fourier_shift_is_a_roll(wing, shape):
    frames = noise(shape)
    shifts = np.random.default_rng(1).integers(-3, 4, (shape[0], len(shape) - 1)).astype(np.float32)
    moved = backend.to_numpy(fourier_shift(wing.put(frames), wing.put(shifts)))
    expected = [np.roll(f, s.astype(int), range(f.ndim)) for f, s in zip(frames, shifts, strict=True)]
    assert_allclose(moved, expected, rtol=1e-5)


def test_nyquist_frequency_is_scaled_by_the_cosine(wing):
    frames = np.tile([1.0, -1.0], 4)[None, None].astype(np.float32)  # cos(pi c): nothing but Nyquist
    moved = fourier_shift(wing.put(frames), wing.put(np.array([(0, 0.25)], np.float32)))
    assert_allclose(backend.to_numpy(moved), frames * np.cos(np.pi * 0.25), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_fourier_shifts_add_up(a, b):
    frames = noise((1, 9, 7))  # odd sides: no Nyquist frequency, so shifts form a group
    one = fourier_shift(frames, np.array([(a + b, 0)], np.float32))
    two = fourier_shift(fourier_shift(frames, np.array([(a, 0)], np.float32)), np.array([(b, 0)], np.float32))
    assert_allclose(one, two, atol=2e-3)


def test_fourier_shift_fills_missing_pixels_with_the_mean(wing):
    frames = noise((2, 6, 5))
    frames[0, 1, 1] = np.nan
    frames[1] = np.nan
    moved = backend.to_numpy(fourier_shift(wing.put(frames), wing.put(np.zeros((2, 2), np.float32))))
    assert moved[0, 1, 1] == pytest.approx(np.nanmean(frames[0]), rel=1e-5)
    assert_array_equal(moved[1], 0)


@pytest.mark.parametrize("border", ["nan", "min", "copy", "reflect"])
def test_fourier_path_has_the_borders_of_the_bicubic_one(wing, border):
    frames = noise((3, 12, 11))
    shifts = np.array([(1.3, -2.6), (0, 0), (-3, 0.4)], np.float32)
    moved = [
        backend.to_numpy(
            displace(wing.put(frames), wing.put(shifts), border=border, fourier=fourier, offset=20.0)
        )
        for fourier in (False, True)
    ]
    assert_array_equal(np.isnan(moved[0]), np.isnan(moved[1]))
    assert_allclose(moved[1][1], moved[0][1], atol=1e-3)  # not moved


def test_volumes_are_shifted_by_fourier_transform(wing):
    frames = noise((2, 6, 5, 4)).astype(np.uint16)
    shifts = np.array([(1, 0, -1), (0, 2, 0)], np.float32)
    moved = displace(wing.put(frames), wing.put(shifts), border="reflect", offset=1.0)
    expected = [np.roll(f, s.astype(int), range(3)) for f, s in zip(frames, shifts, strict=True)]
    assert_allclose(backend.to_numpy(moved), np.array(expected) - 1.0, rtol=1e-4)


@pytest.mark.parametrize("border_nan", BORDERS)
def test_bicubic_reproduces_the_reference(reference, border_nan):
    frame = reference.inputs("motion")[0]["Y"][:1]
    shift = np.round(np.array([(1.3, -2.6)]) * OPENCV_STEP) / OPENCV_STEP
    moved = displace(frame, shift.astype(np.float32), border=BORDERS[border_nan])[0]
    expected = reference.load("motion")[f"apply_shift_iteration_{border_nan}"]
    assert_allclose(moved, expected, atol=5e-5)  # float32 of values near 50


def test_fourier_shift_is_near_the_reference(reference):
    frame = reference.inputs("motion")[0]["Y"][:1]
    moved = displace(frame, np.array([(1.3, -2.6)], np.float32), border="nan", fourier=True)[0]
    expected = reference.load("motion")["apply_shifts_dft_True"]
    assert_array_equal(np.isnan(moved), np.isnan(expected))
    assert_allclose(moved, expected, atol=0.1)  # the reference also turns a global phase, of about zero


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """An image without detail finer than some pixels, near 100."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return (100 + 30 * image / np.abs(image).max()).astype(np.float32)


def gentle(grid: PatchGrid, size: float, own: float, n: int = 2, seed: int = 1) -> np.ndarray:
    """A displacement common to all patches, and up to `own` of theirs, pixels."""
    rng = np.random.default_rng(seed)
    ndim = len(grid.shape)
    common = rng.uniform(-size, size, (n, *(1,) * ndim, ndim))
    return (common + rng.uniform(-own, own, (n, *grid.counts, ndim))).astype(np.float32)


def at_pixels(field: np.ndarray, grid: PatchGrid, interpolate: bool) -> np.ndarray:
    """The displacement of every pixel, (n, *shape, ndim)."""
    return along_axes(field, [basis.matrix() for basis in bases(grid.shape, grid.centres, interpolate)])


@pytest.mark.parametrize("interpolate", [False, True])
@pytest.mark.parametrize(("shape", "side"), [((60, 53), 12), ((30, 26, 21), 7)])
def test_warp_is_near_that_of_splines(wing, shape, side, interpolate):
    grid = PatchGrid.make(shape, (side,) * len(shape), (4,) * len(shape))
    frames = np.stack([smooth(shape, 3), smooth(shape, 4)])
    field = gentle(grid, 3.0, 0.3)
    moved = displace_field(wing.put(frames), wing.put(field), grid, border="reflect", interpolate=interpolate)
    positions = np.indices(shape) - np.moveaxis(at_pixels(field, grid, interpolate), -1, 1)
    expected = [
        map_coordinates(f, p, order=3, mode="reflect") for f, p in zip(frames, positions, strict=True)
    ]
    assert_allclose(
        backend.to_numpy(moved), expected, atol=0.6
    )  # a hundredth of the range: two kinds of cubic


@pytest.mark.parametrize("border", ["nan", "min", "reflect"])
def test_equal_patches_move_as_the_frame(wing, border):
    frames = noise((3, 31, 40))
    grid = PatchGrid.make((31, 40), (9, 9), (3, 3))
    shifts = np.float32([(1.25, -3.5), (0, 0), (-2, 5)])
    field = np.broadcast_to(shifts[:, None, None], (3, *grid.counts, 2))
    for interpolate in (False, True):
        moved = displace_field(
            wing.put(frames), wing.put(field.copy()), grid, border=border, interpolate=interpolate, offset=7.0
        )
        rigid = backend.to_numpy(displace(wing.put(frames), wing.put(shifts), border=border, offset=7.0))
        low, high = (getattr(frames, name)(axis=(1, 2), keepdims=True) - 7 for name in ("min", "max"))
        assert_allclose(np.clip(backend.to_numpy(moved), low, high), rigid, atol=1e-4)  # that one is clipped


@pytest.mark.parametrize("fourier", [False, True])
@pytest.mark.parametrize("shape", [(40, 33), (9, 60), (20, 16, 8)])
def test_whole_pixel_field_is_a_roll(wing, shape, fourier):
    ndim = len(shape)
    grid = PatchGrid.make(shape, (8,) * ndim, (4,) * ndim)
    frames, shift = noise((1, *shape)), (3, -2, 1)[:ndim]
    field = np.broadcast_to(np.float32(shift), (1, *grid.counts, ndim)).copy()
    moved = displace_field(
        wing.put(frames), wing.put(field), grid, fourier=fourier, strides=(8,) * ndim, overlaps=(4,) * ndim
    )
    moved, expected = backend.to_numpy(moved)[0], np.roll(frames[0], shift, range(ndim))
    inside = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, shape, strict=True))
    assert_allclose(moved[inside], expected[inside], rtol=1e-5)
    assert np.isnan(moved).sum() == moved.size - moved[inside].size


@pytest.mark.parametrize(
    ("shape", "strides", "overlaps"),
    [
        ((64, 60), (16, 16), (8, 8)),
        ((64, 60), (16, 16), (0, 0)),
        ((20, 90), (24, 24), (16, 16)),
        ((24, 30, 12), (8,) * 3, (4,) * 3),
    ],
)
@pytest.mark.parametrize("interpolate", [False, True])
def test_tiles_move_as_pixels_do(wing, shape, strides, overlaps, interpolate):
    """Smooth fields of smooth frames: both ways agree, also without overlaps and in one row of patches."""
    grid = PatchGrid.make(shape, strides, overlaps)
    frames, field = np.stack([smooth(shape, 5), smooth(shape, 6)]), gentle(grid, 2.0, 0.1)
    ways = [
        backend.to_numpy(
            displace_field(wing.put(frames), wing.put(field), grid, interpolate=interpolate, **how)
        )
        for how in ({}, {"fourier": True, "strides": strides, "overlaps": overlaps})
    ]
    both = np.isfinite(ways[0]) & np.isfinite(ways[1])
    assert both.mean() > 0.6
    tiling = Tiling.make(shape, tuple(round(s / 4) for s in strides), overlaps)
    tiles, pixels = tiling.spread(field, grid, interpolate), at_pixels(field, grid, interpolate)
    bound = 0.6  # of a range of 60: two kinds of interpolation
    for axis in range(len(shape)):
        apart = max(
            np.abs(
                pixels[(slice(None), *at, axis)]
                - tiles[(slice(None), *index, axis)].reshape(-1, *(1,) * len(shape))
            ).max()
            for index, at in zip(tiling.grid.indices, tiling.grid.slices, strict=True)
        )
        bound += apart * np.abs(np.gradient(frames, axis=axis + 1)).max()
    assert apart < 0.3
    assert np.abs(ways[0] - ways[1])[both].max() < bound


def test_sheared_tiles_are_not_blended(wing):
    grid = PatchGrid.make((48, 48), (24, 24), (8, 8))
    frames, field = noise((2, 48, 48)), np.zeros((2, *grid.counts, 2), np.float32)
    field[1, 1:] = 12
    moved = displace_field(
        wing.put(frames),
        wing.put(field),
        grid,
        border="reflect",
        fourier=True,
        strides=(24, 24),
        overlaps=(8, 8),
        upsample=1,
    )
    moved = backend.to_numpy(moved)
    assert_allclose(moved[0], frames[0], rtol=1e-5)
    below = np.roll(frames[1], (12, 12), (0, 1))[
        20:, 16:
    ]  # the second row of patches begins at 16, half an overlap in
    assert_allclose(moved[1, :20], frames[1, :20], rtol=1e-5)
    assert_allclose(moved[1, 20:, 16:], below, rtol=1e-5)


def test_tiles_fill_missing_pixels_and_mark_a_field_without_number(wing):
    grid = PatchGrid.make((24, 24), (12, 12), (4, 4))
    frames, field = noise((2, 24, 24)), np.zeros((2, *grid.counts, 2), np.float32)
    frames[0, 5, 5] = np.nan
    field[1] = np.nan
    moved = backend.to_numpy(displace_field(wing.put(frames), wing.put(field), grid, fourier=True))
    assert np.isfinite(moved[0]).all()
    assert np.isnan(moved[1]).all()


@pytest.mark.parametrize("fourier", [False, True])
def test_frames_do_not_depend_on_those_beside_them(wing, fourier):
    grid = PatchGrid.make((30, 28), (10, 10), (5, 5))
    frames, field = noise((5, 30, 28)), gentle(grid, 4.0, 0.4, n=5)
    frames = frames.transpose(0, 2, 1).copy().transpose(0, 2, 1)  # and not on their order in memory
    together = displace_field(wing.put(frames), wing.put(field), grid, border="copy", fourier=fourier)
    for t in (0, 3):
        alone = displace_field(
            wing.put(frames[t : t + 1]), wing.put(field[t : t + 1]), grid, border="copy", fourier=fourier
        )
        assert_array_equal(backend.to_numpy(alone)[0], backend.to_numpy(together)[t])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_constant_frames_stay_constant(seed, fourier, interpolate):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 40, rng.integers(2, 4)))
    ndim = len(shape)
    strides, overlaps = rng.integers(1, 15, ndim), rng.integers(0, 9, ndim)
    grid = PatchGrid.make(shape, tuple(strides), tuple(overlaps))
    field = rng.uniform(-6, 6, (1, *grid.counts, ndim)).astype(np.float32)
    border = ("nan", "min", "copy", "reflect")[seed % 4]
    how = {"strides": tuple(strides), "overlaps": tuple(overlaps)} if fourier else {}
    frames = np.full((1, *shape), 37, np.uint16)
    moved = displace_field(
        frames, field, grid, border=border, fourier=fourier, interpolate=interpolate, **how
    )
    kept = np.isfinite(moved)
    assert_allclose(moved[kept], 37, rtol=1e-5)
    assert kept.all() or border == "nan"


def rounded_remap(frame: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Bicubic samples at ``pixel + shift``, positions rounded to 1/32 pixel, the edge repeated; float64."""
    positions = np.rint((np.indices(frame.shape) + shifts) * OPENCV_STEP) / OPENCV_STEP
    reach = int(np.abs(shifts).max()) + 4
    padded = np.pad(frame.astype(np.float64), reach, mode="edge")
    cell = np.floor(positions).astype(int)
    a, out = -0.75, np.zeros(frame.shape)
    weights = []
    for x in positions - cell:
        distance = np.abs(np.stack([x + 1, x, 1 - x, 2 - x]))
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
        weights.append(np.where(distance <= 1, near, far))
    for i in range(4):
        for j in range(4):
            taps = padded[cell[0] + i - 1 + reach, cell[1] + j - 1 + reach]
            out += weights[0][i] * weights[1][j] * taps
    return out


@pytest.mark.parametrize("case", ["opencv", "opencv_interp", "opencv_filt", "opencv_nodev"])
def test_warp_of_stored_shifts_reproduces_the_reference(reference, case):
    """With coordinates rounded as there; and ours differ from these by no more than the rounding allows."""
    frame = reference.inputs("motion")[1]["Y"][3]
    stored = reference.load("motion")
    interpolate = "interp" in case
    grid = PatchGrid.make((96, 88), (16, 16) if interpolate else (24, 24), (16, 16))
    field = stored[f"tile_and_correct_{case}_shifts"].reshape(1, *grid.counts, 2).astype(np.float32)
    displacement = np.moveaxis(at_pixels(field, grid, interpolate)[0], -1, 0)
    rounded = rounded_remap(frame, -displacement)
    expected = stored[f"tile_and_correct_{case}_img"]
    off = np.abs(rounded - expected)
    assert np.mean(off < 1e-3) > 0.99  # a position midway between two steps may round either way
    moved = displace_field(frame[None], field, grid, border="copy", interpolate=interpolate)[0]
    assert np.abs(moved - rounded).max() < 1.0
    assert np.abs(moved - expected).mean() < 0.12  # 1/64 pixel at the gradients of a noisy frame


@pytest.mark.parametrize("frame", [0, 50])
def test_tiles_of_stored_shifts_are_near_the_reference(reference, frame):
    """Side by side (frame 0) and blended (50). The reference's tiles wrap around and end without a halo, and it copies
    their borders: the noise differs near Nyquist's frequency, what cells show does not."""
    stored = reference.load("motion")
    movie = reference.inputs("motion")[1]["Y"]
    tiling = Tiling.make((96, 88), (6, 6), (16, 16))
    field = stored["MC_pw_fft_xy_shifts"][:, frame].T.reshape(1, *tiling.grid.counts, 2).copy()
    moved = shift_tiles(movie[frame : frame + 1], field, tiling, border="copy")[0]
    expected = stored["MC_pw_fft_frames"][[0, 50, 99].index(frame)] + movie.min()
    inside = (slice(6, -6),) * 2
    assert np.corrcoef(moved[inside].ravel(), expected[inside].ravel())[0, 1] > 0.998
    difference = gaussian_filter(moved, 1)[inside] - gaussian_filter(expected, 1)[inside]
    assert np.sqrt(np.mean(difference**2)) < 0.02 * expected.std()


def test_volume_of_stored_shifts_is_near_the_reference(reference):
    """That interpolates by cubic splines; ours are cubic convolutions."""
    volume, stored = reference.inputs("motion")[2]["Y"][2], reference.load("motion")
    grid = PatchGrid.make(volume.shape, (16, 16, 6), (8, 8, 2))
    field = stored["tile_and_correct_3d_pw_shifts"].reshape(1, *grid.counts, 3).astype(np.float32)
    moved, expected = (
        displace_field(volume[None], field, grid, border="copy")[0],
        stored["tile_and_correct_3d_pw_img"],
    )
    assert np.corrcoef(moved.ravel(), expected.ravel())[0, 1] > 0.998
    assert np.abs(moved - expected).mean() < 0.05 * expected.std()
