"""Registration of a moving two-photon scene: rigid, rigid with a high-pass, patch by patch, and written to disk.

The bound is reading the movie once in its own dtype per pass, beside writing float32 where frames are displaced. The
last test prints what the kernels of a GPU move and compute per frame, and what the bounds of a card make of that.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from benchmarks import registration_counts as counts
from benchmarks.harness import Peer, timed
from gpucalcium import backend
from gpucalcium.movies import open_movie
from gpucalcium.registration import MotionCorrect, RigidParams, register_rigid
from gpucalcium.registration.apply import displace_field
from gpucalcium.registration.patch_matching import PatchMatcher
from gpucalcium.registration.patch_template import first_patch_matcher
from gpucalcium.registration.patches import PatchGrid
from gpucalcium.registration.piecewise import PiecewiseParams, register_piecewise
from gpucalcium.registration.template import first_matcher, sample_of

FRAMES, FIELD = 1000, (256, 256)
BOUND = (10, 10)  # pixels
MARGIN = 6
RIGID = RigidParams(max_shifts=BOUND)
PIECEWISE = PiecewiseParams(rigid=RIGID, strides=(48, 48), overlaps=(24, 24))
ON_RECORD = {"rigid": 428, "high-pass": 233, "piecewise": 111}  # CaImAn 1.12.1, 1000x256x256, two cores
SUITE2P_ON_RECORD = {"rigid": 545, "piecewise": 159}  # suite2p 1.1.0, the same movie


def scene(frames: int, field: tuple[int, int]) -> np.ndarray:
    """Spots that move by up to five pixels, in photon noise."""
    rng = np.random.default_rng(0)
    canvas = tuple(n + 2 * MARGIN for n in field)
    spots = gaussian_filter((rng.uniform(size=canvas) > 0.997).astype(float), 3)
    image = 30 + 40 * spots / spots.max()
    movie = np.empty((frames, *field), np.float32)
    for frame, (row, column) in zip(movie, rng.integers(-5, 6, (frames, 2)), strict=True):
        still = image[MARGIN - row : MARGIN - row + field[0], MARGIN - column : MARGIN - column + field[1]]
        frame[...] = rng.poisson(still)
    return movie


@pytest.fixture(scope="module", params=["float32", "int16"])
def movie(request):
    return scene(FRAMES, FIELD).astype(request.param)


def _peers(what, movie, folder):
    """Peers that are installed are timed, of the others the figure on record is shown."""
    name = str(folder / "movie.tif")
    if importlib.util.find_spec("caiman"):
        tifffile.imwrite(name, movie)
    options = {"max_shifts": BOUND}
    if what == "high-pass":
        options["gSig_filt"] = (3, 3)
    if what == "piecewise":
        options |= {"pw_rigid": True, "strides": (48, 48), "overlaps": (24, 24)}
    peers = [
        Peer(
            "CaImAn",
            "caiman.motion_correction",
            lambda module: module.MotionCorrect(name, **options).motion_correct(save_movie=False),
            on_record=ON_RECORD[what],
        )
    ]
    if what in SUITE2P_ON_RECORD:
        peers += [
            Peer(
                "suite2p",
                "suite2p.registration.register",
                lambda module: _suite2p(module, movie, nonrigid=what == "piecewise"),
                on_record=SUITE2P_ON_RECORD[what],
            ),
            Peer(
                "jnormcorre", "jnormcorre.motion_correction", lambda module: _jnormcorre(module, movie, what)
            ),
        ]
    return peers


def _suite2p(module, movie, *, nonrigid):
    settings = importlib.import_module("suite2p").default_settings()["registration"] | {"nonrigid": nonrigid}
    cpu = importlib.import_module("torch").device("cpu")
    return module.registration_wrapper(movie.astype(np.int16).copy(), settings=settings, device=cpu)


def _jnormcorre(module, movie, what):
    corrector = module.MotionCorrect(
        movie, max_shifts=BOUND, pw_rigid=what == "piecewise", strides=(48, 48), overlaps=(24, 24)
    )
    return corrector.motion_correct(save_movie=False)


@pytest.mark.benchmark(group="register_rigid 1000x256x256")
@pytest.mark.parametrize("what", ["rigid", "high-pass"])
def test_register_rigid(benchmark, wing, movie, tmp_path, what):
    frames = wing.put(movie)
    params = RIGID if what == "rigid" else RigidParams(max_shifts=BOUND, gSig_filt=(3, 3))
    found = timed(
        benchmark,
        wing,
        lambda: register_rigid(open_movie(frames), params),
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
        peers=_peers(what, movie, tmp_path),
    )
    assert not found.quality.clamped.any()


@pytest.mark.benchmark(group="register_piecewise 48/24 1000x256x256")
def test_register_piecewise(benchmark, wing, movie, tmp_path):
    frames = wing.put(movie)
    timed(
        benchmark,
        wing,
        lambda: register_piecewise(open_movie(frames), PIECEWISE),
        bytes_moved=movie.nbytes + 4 * movie.size,
        frames=FRAMES,
        peers=_peers("piecewise", movie, tmp_path),
    )


@pytest.mark.benchmark(group="MotionCorrect, movie saved, 1000x256x256")
@pytest.mark.parametrize("what", ["rigid", "piecewise"])
def test_motion_correct_and_save(benchmark, wing, movie, tmp_path, monkeypatch, what):
    monkeypatch.setenv("GPUCALCIUM_TEMP", str(tmp_path))
    frames = wing.put(movie)
    options = {"pw_rigid": True, "strides": (48, 48), "overlaps": (24, 24)} if what == "piecewise" else {}

    def correct():
        mc = MotionCorrect(frames, max_shifts=BOUND, **options).motion_correct(save_movie=True)
        (tmp_path / mc.mmap_file[0]).unlink()

    timed(benchmark, wing, correct, bytes_moved=movie.nbytes + 8 * movie.size, frames=FRAMES)


@pytest.mark.benchmark(group="locate 1000x256x256")
def test_locate(benchmark, wing, movie):
    frames = wing.put(movie)
    matcher, _ = first_matcher(sample_of(open_movie(frames)), BOUND)
    timed(benchmark, wing, matcher.locate, frames, bytes_moved=movie.nbytes, frames=FRAMES)


@pytest.mark.benchmark(group="locate patches 48/24 1000x256x256")
def test_locate_patches(benchmark, wing, movie):
    frames = wing.put(movie)
    matcher = _patch_matcher(frames, PIECEWISE)
    timed(benchmark, wing, matcher.locate, frames, bytes_moved=movie.nbytes, frames=FRAMES)


def _patch_matcher(frames: backend.Array, params: PiecewiseParams) -> PatchMatcher:
    sample = sample_of(open_movie(frames))
    grid = PatchGrid.make(frames.shape[1:], params.strides, params.overlaps)
    rigid, noise = first_matcher(sample, params.rigid.max_shifts)
    return first_patch_matcher(sample, rigid, noise, grid, params.deviation(), keep=False)


@pytest.mark.benchmark(group="warp 1000x256x256")
@pytest.mark.parametrize("what", ["rigid", "field"])
def test_warp(benchmark, wing, movie, what):
    frames = wing.put(movie)
    grid = PatchGrid.make(FIELD, PIECEWISE.strides, PIECEWISE.overlaps)
    rng = np.random.default_rng(1)
    shifts = wing.put(rng.uniform(-5, 5, (FRAMES, 2)).astype(np.float32))
    field = wing.put(rng.uniform(-5, 5, (FRAMES, *grid.counts, 2)).astype(np.float32))
    warp = {
        "rigid": lambda: backend.wing(frames).registration.warp(frames, shifts, 0.0, "nan"),
        "field": lambda: displace_field(frames, field, grid),
    }
    timed(benchmark, wing, warp[what], bytes_moved=movie.nbytes + 4 * movie.size, frames=FRAMES)


def test_what_a_gpu_would_do(capsys):
    """Counted, not timed: 512 x 512 int16, default patches, kernels as they come out for such a scene."""
    frames = scene(20, (512, 512)).astype(np.int16)
    with backend.use("cpu"):
        params = PiecewiseParams(rigid=RigidParams(max_shifts=(6, 6)))
        found = _patch_matcher(frames, params)
    frame, pixel = frames.shape[1:], frames.itemsize
    whole = counts.rigid(frame, pixel, found.rigid.kernel.shape, (7, 7))
    moved = counts.moved(frame, pixel)
    local = counts.patches(frame, pixel, found.grid.width, found.kernels.shape, (4, 4))
    with capsys.disabled():
        print()
        for title, steps in (("rigid", [*whole, *moved]), ("piecewise 96/32", [*whole, *local, *moved])):
            print(*counts.table(f"{title}, 512x512 int16", steps, counts.H200, pixel * 512 * 512), sep="\n")
