"""The operations of rigid registration, both wings side by side and against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from gpucalcium import backend
from gpucalcium.backend import fourier
from tests.wings import wings_present

SHAPES = [(37, 29), (32, 40), (11, 13, 5)]
DTYPES = ["uint8", "int16", "uint16", "float32", "float64", "int32"]


def texture(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A smooth periodic image of unit variance."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5, mode="wrap")
    return ((image - image.mean()) / image.std()).astype(np.float32)


def moved(image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Copies of an image whose content lies `shifts` further on, circularly, by the shift theorem."""
    axes = [scipy.fft.fftfreq(n) for n in image.shape[:-1]] + [scipy.fft.rfftfreq(image.shape[-1])]
    k = np.meshgrid(*axes, indexing="ij")
    spectrum = scipy.fft.rfftn(image.astype(np.float64))
    return np.stack(
        [
            scipy.fft.irfftn(
                spectrum * np.exp(-2j * np.pi * sum(a * b for a, b in zip(k, s, strict=True))), s=image.shape
            )
            for s in shifts
        ]
    )


def plain_kernel(image: np.ndarray, band: tuple[int, ...]) -> np.ndarray:
    """Kernel of unweighted correlation with an image, at the frequencies of a band, without Nyquist."""
    spectrum = scipy.fft.rfftn(image.astype(np.float64)).conj() / image.size
    spectrum[..., 1 : (image.shape[-1] + 1) // 2] *= 2
    for axis, n in enumerate(image.shape):
        if n % 2 == 0:
            spectrum[(slice(None),) * axis + (n // 2,)] = 0
    last = image.ndim - 1
    rows = [
        fourier.frequencies(n, b, last=a == last) % n
        for a, (n, b) in enumerate(zip(image.shape, band, strict=True))
    ]
    return np.ascontiguousarray(spectrum[np.ix_(*rows)]).astype(np.complex64)


def full_band(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // 2 + 1)


def bicubic_by_definition(frame: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """The formula of the cubic kernel (a = -0.75), pixel by pixel, reflecting (cba|abc|cba)."""

    def weight(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    padded = np.pad(frame.astype(np.float64), 20, mode="symmetric")
    matrices = []
    for n, s in zip(frame.shape, shift, strict=True):
        at = np.arange(n)[:, None] - s + 20
        matrices.append([[weight(x) for x in row] for row in at - np.arange(n + 40)[None]])
    rows, columns = map(np.array, matrices)
    return np.clip(rows @ padded @ columns.T, frame.min(), frame.max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("narrow", [False, True])
def test_locate_finds_imposed_shifts(wing, shape, narrow):
    image = texture(shape)
    band = full_band(shape)
    if narrow:
        band = (*(2 * (n // 4) + 1 for n in shape[:-1]), shape[-1] // 4 + 1)
    bound = tuple(min(4, (n - 1) // 2) for n in shape)
    imposed = np.random.default_rng(2).uniform(-1, 1, (9, len(shape))) * (np.array(bound) - 0.5)
    frames = moved(image, imposed).astype(np.float32)
    shifts, peaks, missing = backend.wing(wing.put(frames)).registration.locate(
        wing.put(frames), wing.put(image), 0.0, wing.put(plain_kernel(image, band)), bound
    )
    assert_allclose(
        backend.to_numpy(shifts), imposed, atol=2e-5
    )  # exact up to float32: the image is periodic
    assert (backend.to_numpy(peaks) > 0).all()
    assert not backend.to_numpy(missing).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_locate_reads_every_dtype(wing, dtype):
    image = texture((31, 33))
    frames = (moved(image, [(1.3, -2.1), (0.0, 0.5)]) * 30 + 120).astype(dtype)
    shifts, _, _ = backend.wing(wing.put(frames)).registration.locate(
        wing.put(frames),
        wing.put(image),
        120.0,
        wing.put(plain_kernel(image, full_band(image.shape))),
        (4, 4),
    )
    assert_allclose(
        backend.to_numpy(shifts), [(1.3, -2.1), (0.0, 0.5)], atol=0.02
    )  # rounding to whole counts


def test_locate_takes_missing_pixels_from_the_fill(wing):
    image = texture((30, 31))
    frames = np.stack([image, image, image]).astype(np.float32) + 7
    frames[1, 3:5, 4:9], frames[2, 0, 0] = np.nan, np.inf
    shifts, peaks, missing = backend.wing(wing.put(frames)).registration.locate(
        wing.put(frames), wing.put(image), 7.0, wing.put(plain_kernel(image, full_band(image.shape))), (3, 3)
    )
    assert_array_equal(backend.to_numpy(missing), [0, 10, 1])
    assert_allclose(backend.to_numpy(shifts), 0, atol=1e-5)
    assert_allclose(backend.to_numpy(peaks), (image.astype(float) ** 2).sum(), rtol=1e-4)


def test_twins_locate_alike():
    image = texture((41, 36))
    rng = np.random.default_rng(5)
    frames = (moved(image, rng.uniform(-4, 4, (12, 2))) + rng.normal(0, 1, (12, 41, 36))).astype(np.float32)
    found = []
    for wing in wings_present():
        with wing.chosen():
            found.append(
                [
                    backend.to_numpy(x)
                    for x in backend.wing(wing.put(frames)).registration.locate(
                        wing.put(frames),
                        wing.put(image),
                        0.0,
                        wing.put(plain_kernel(image, (21, 12))),
                        (5, 5),
                    )
                ]
            )
    for other in found[1:]:
        assert_allclose(other[0], found[0][0], atol=1e-3)
        assert_allclose(other[1], found[0][1], rtol=1e-4)
        assert_array_equal(other[2], found[0][2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 17, 33), (2, 8, 64), (1, 1, 5), (1, 5, 1)])
def test_warp_is_the_bicubic_of_its_definition(wing, dtype, shape):
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 200, shape).astype(dtype)
    shifts = rng.uniform(-3, 3, (shape[0], 2)).astype(np.float32)
    out = backend.wing(wing.put(frames)).registration.warp(
        wing.put(frames), wing.put(shifts), 10.0, "reflect"
    )
    expected = [bicubic_by_definition(f, s) - 10 for f, s in zip(frames, shifts, strict=True)]
    assert_allclose(backend.to_numpy(out), expected, atol=2e-4)  # float32 of values up to 200


@pytest.mark.parametrize("border", fourier.BORDERS)
def test_borders(wing, border):
    rng = np.random.default_rng(4)
    frames = rng.normal(size=(5, 12, 10)).astype(np.float32)
    shifts = np.array([(1.2, -2.0), (0, 0), (-0.1, 0.1), (3, 3), (-4.5, 0)], np.float32)
    out = backend.to_numpy(
        backend.wing(wing.put(frames)).registration.warp(wing.put(frames), wing.put(shifts), 0.5, border)
    )
    plain = backend.to_numpy(
        backend.wing(wing.put(frames)).registration.warp(wing.put(frames), wing.put(shifts), 0.5, "reflect")
    )
    for t, (s0, s1) in enumerate(shifts):
        top, bottom = int(np.ceil(max(0, s0))), 12 - int(np.ceil(max(0, -s0)))
        left, right = int(np.ceil(max(0, s1))), 10 - int(np.ceil(max(0, -s1)))
        inside = np.s_[top:bottom, left:right]
        assert_array_equal(out[t][inside], plain[t][inside])
        outside = np.ones((12, 10), bool)
        outside[inside] = False
        if border == "nan":
            assert np.isnan(out[t][outside]).all()
        elif border == "min":
            assert (out[t][outside] == frames[t].min() - np.float32(0.5)).all()
        elif border == "copy":
            edges = ((top, 12 - bottom), (left, 10 - right))
            assert_array_equal(out[t], np.pad(plain[t][inside], edges, mode="edge"))


@pytest.mark.parametrize("shape", [(4, 9, 7), (3, 6, 5, 4)])
@pytest.mark.parametrize("border", ["nan", "min", "copy", "reflect"])
def test_mark_border_overwrites_what_came_from_outside(wing, shape, border):
    frames = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    shifts = np.random.default_rng(7).uniform(-2, 2, (shape[0], len(shape) - 1)).astype(np.float32)
    marked = wing.put(frames.copy())
    backend.wing(marked).registration.mark_border(marked, wing.put(shifts), border)
    expected = frames.copy()
    for t, shift in enumerate(shifts):
        ends = [(int(np.ceil(max(0, s))), int(np.ceil(max(0, -s)))) for s in shift]
        inside = tuple(slice(a, n - b) for (a, b), n in zip(ends, shape[1:], strict=True))
        if border == "copy":
            expected[t] = np.pad(frames[t][inside], ends, mode="edge")
        elif border != "reflect":
            kept = frames[t][inside].copy()
            expected[t] = np.nan if border == "nan" else frames[t].min()
            expected[t][inside] = kept
    assert_array_equal(backend.to_numpy(marked), expected)


def test_whole_pixel_shift_keeps_nan_where_it_was(wing):
    frames = np.ones((1, 8, 9), np.float32)
    frames[0, 4, 4] = np.nan
    shifts = np.array([(2, -1)], np.float32)
    out = backend.to_numpy(
        backend.wing(wing.put(frames)).registration.warp(wing.put(frames), wing.put(shifts), 0.0, "reflect")
    )
    assert np.argwhere(np.isnan(out[0])).tolist() == [[6, 3]]


def test_twins_warp_alike():
    rng = np.random.default_rng(8)
    frames = rng.integers(0, 4000, (6, 35, 31)).astype(np.uint16)
    shifts = rng.uniform(-5, 5, (6, 2)).astype(np.float32)
    results = []
    for wing in wings_present():
        with wing.chosen():
            results.append(
                backend.to_numpy(
                    backend.wing(wing.put(frames)).registration.warp(
                        wing.put(frames), wing.put(shifts), 3.0, "nan"
                    )
                )
            )
    for other in results[1:]:
        assert_allclose(other, results[0], atol=4000 * 1e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_frames(wing, dtype):
    frames = np.random.default_rng(9).integers(0, 250, (13, 7, 5)).astype(dtype)
    if frames.dtype.kind == "f":
        frames[2, 1, 1], frames[5, 0, 0] = np.nan, np.inf
    good = np.isfinite(frames)
    mean = np.full((7, 5), 11.5, np.float32)
    sums, squares, counts = (wing.put(np.zeros((7, 5), d)) for d in (np.float64, np.float64, np.int32))
    operations = backend.wing(wing.put(frames)).registration
    for part in (frames[:4], frames[4:5], frames[5:]):
        operations.add_frames(wing.put(part), sums, counts)
        operations.add_squares(wing.put(part), wing.put(mean), squares)
    values = np.where(good, frames, 0).astype(np.float64)
    assert_array_equal(backend.to_numpy(counts), good.sum(0))
    assert_array_equal(backend.to_numpy(sums), values.sum(0))  # whole numbers: exact in any order
    assert_allclose(backend.to_numpy(squares), (np.where(good, values - 11.5, 0) ** 2).sum(0), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_power_is_the_sum_of_squared_spectra(wing, shape):
    frames = np.random.default_rng(10).normal(5, 1, (4, *shape)).astype(np.float32)
    window = np.random.default_rng(11).uniform(0, 1, shape).astype(np.float32)
    total = backend.wing(wing.put(frames)).registration.power(
        wing.put(frames), wing.put(np.zeros(shape, np.float32)), 5.0, wing.put(window)
    )
    spectra = np.fft.rfftn((frames - 5.0) * window, axes=range(1, len(shape) + 1))
    assert_allclose(backend.to_numpy(total), (np.abs(spectra) ** 2).sum(0), rtol=1e-4, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), st.integers(0, 100))
def test_warp_stays_within_the_range_of_the_frame(shift, seed):
    frame = np.random.default_rng(seed).normal(size=(1, 9, 11)).astype(np.float32)
    out = backend.wing(frame).registration.warp(frame, np.array([shift], np.float32), 0.0, "reflect")
    assert frame.min() <= out.min() and out.max() <= frame.max()


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_frequencies_are_the_lowest(n, kept):
    assert_array_equal(fourier.frequencies(n, kept, last=True), np.arange(kept))
    expected = np.sort(np.rint(np.fft.fftfreq(n) * n))
    found = np.sort(fourier.frequencies(n, kept, last=False))
    assert_array_equal(found, expected[np.abs(expected) <= kept // 2])
