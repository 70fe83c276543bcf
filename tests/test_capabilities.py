"""The capability table, cell by cell: what it promises works on that wing, what it denies raises."""

from importlib import import_module

import numpy as np
import pytest
from scipy.sparse import csc_matrix

import gpucalcium
from gpucalcium import backend
from gpucalcium.backend.capabilities import CAPABILITIES
from gpucalcium.cnmf._movie import images_movie
from gpucalcium.errors import NotSupportedError

T = 60
DIMS = {"planes": (16, 14), "volumes": (12, 10, 6)}
MOVIES = [name for name, can in CAPABILITIES.items() if can.movie]
TRACES = [name for name, can in CAPABILITIES.items() if not can.movie]


def scene(dims):
    """Two blinking Gaussian cells on a constant background: movie, footprints (F order), traces."""
    rng = np.random.default_rng(3)
    grid = np.meshgrid(*map(np.arange, dims), indexing="ij")
    at = (0.3, 0.7)
    cells = [np.exp(-sum((x - a * n) ** 2 for x, n in zip(grid, dims, strict=True)) / 8) for a in at]
    C = np.stack([np.convolve(rng.random(T) < 0.1, 0.8 ** np.arange(20))[:T] for _ in at])
    clean = 10 + np.tensordot(20 * C.T, np.stack(cells), 1)
    movie = (clean + rng.normal(0, 0.5, clean.shape)).astype("float32")
    A = np.stack([(cell * (cell > 0.1)).ravel(order="F") for cell in cells], axis=1)
    return movie, csc_matrix(A, dtype="float32"), C.astype("float32")


class Watched:
    """A source that is not in memory, and remembers the most frames it was asked for at once."""

    def __init__(self, movie):
        self._movie, self.shape, self.dtype, self.most = movie, movie.shape, movie.dtype, 0

    def __len__(self):
        return len(self._movie)

    def read(self, frames, out=None):
        part = np.ascontiguousarray(self._movie[frames])
        self.most = max(self.most, len(part))
        if out is None:
            return part
        out[...] = part
        return out


def register(name, movie):
    from gpucalcium.registration import (
        MotionCorrect,
        PiecewiseParams,
        RigidParams,
        register_piecewise,
        register_rigid,
    )

    axes = len(movie.shape) - 1
    if name == "registration.register_rigid":
        params = RigidParams(max_shifts=(2,) * axes, splits_rig=2)
        return register_rigid(gpucalcium.open_movie(movie), params).shifts
    if name == "registration.register_piecewise":
        rigid = RigidParams(max_shifts=(2,) * axes, splits_rig=2)
        patches = PiecewiseParams(rigid=rigid, strides=(6,) * axes, overlaps=(3,) * axes, splits_els=2)
        return register_piecewise(gpucalcium.open_movie(movie), patches).field
    corrector = MotionCorrect(movie, max_shifts=(2,) * axes, splits_rig=2, is3D=axes == 3)
    return np.array(corrector.motion_correct().shifts_rig)


def extract(name, movie, dims):
    _, A, C = scene(dims)
    b, f = np.ones((A.shape[0], 1), "float32"), np.full((1, T), 10, "float32")
    function = getattr(import_module(f"gpucalcium.{name.rpartition('.')[0]}"), name.rpartition(".")[2])
    sn = np.full(A.shape[0], 0.5, "float32")
    window = {"medw": (3,) * len(dims), "se": np.ones((3,) * len(dims)), "ss": np.ones((3,) * len(dims))}
    match name:
        case "cnmf.initialization.initialize_components":
            time_last = backend.array_module(movie).moveaxis(movie, 0, -1)
            return function(time_last, K=2, gSig=[2] * len(dims), nb=1)[0]
        case "cnmf.initialization.sparseNMF" | "cnmf.initialization.graphNMF":
            options = {"alpha": 0.1} if name.endswith("sparseNMF") else {}
            return function(backend.array_module(movie).moveaxis(movie, 0, -1), 2, **options)[:2]
        case "cnmf.initialization.greedyROI_corr":
            time_last = backend.array_module(movie).moveaxis(movie, 0, -1)
            found = function(
                time_last, time_last, gSiz=7, gSig=2, min_corr=0.5, min_pnr=5, nb=0, ring_size_factor=1
            )
            return found[0], found[5][-1]
        case "cnmf.ring.compute_W":
            movie = images_movie(gpucalcium.open_movie(movie), hold=False)
            W, b0 = function(movie, A, C, dims, 4)
            return W.toarray(), b0
        case "cnmf.spatial.update_spatial_components":
            return function(
                images_movie(gpucalcium.open_movie(movie)),
                C=C,
                f=f,
                A_in=A,
                sn=sn,
                dims=dims,
                b_in=b,
                **window,
            )[0]
        case "cnmf.temporal.update_temporal_components":
            Y = images_movie(gpucalcium.open_movie(movie))
            return function(Y, A, b, C, f, p=1, fudge_factor=0.98, method_deconvolution="oasis")[0]
        case "cnmf.quality.evaluate":
            quality = gpucalcium.CNMFParams().get_group("quality") | {"use_cnn": False}
            return function(movie, A, C, 0 * C, dims, 30.0, 0.4, quality).snr
        case "cnmf.cnmf.CNMF":
            params = gpucalcium.CNMFParams(
                k=2, gSig=[2] * len(dims), gnb=1, p=1, ssub=1, tsub=1, only_init_patch=False
            )
            return function(1, params=params).fit(movie).estimates.C
        case "cnmf.patches.fit":
            params = gpucalcium.CNMFParams(
                k=1, gSig=[1] * len(dims), gnb=1, p=1, rf=4, stride=2, p_ssub=1, p_tsub=1
            )
            found = gpucalcium.CNMF(1, params=params)
            function(found, movie, ())
            return found.estimates.C


def displace(name, frames):
    """Frames in memory, or one of them, by patches."""
    from gpucalcium.registration.apply import displace_field
    from gpucalcium.registration.patches import PatchGrid
    from gpucalcium.registration.tile import tile_and_correct

    axes = frames.ndim - 1
    if name == "registration.tile.tile_and_correct":
        template = backend.to_numpy(frames).mean(0)
        return tile_and_correct(
            frames[3], template, (4,) * axes, (2,) * axes, (2,) * axes, border_nan=False
        ).image
    grid = PatchGrid.make(frames.shape[1:], (4,) * axes, (2,) * axes)
    field = backend.array_module(frames).ones((len(frames), *grid.counts, axes), "float32")
    return displace_field(frames, field, grid, border="copy")


def judge(name, movie):
    """Functions that look at movies of any length, registered or not."""
    room, _, function = name.rpartition(".")
    call = getattr(import_module(f"gpucalcium.{room}"), function)
    match function:
        case "check_registration":
            found = call(movie, movie, np.zeros((len(movie), len(movie.shape) - 1)), components=2)
            return found.after.correlations, found.before.mean, found.after.residual.field
        case "high_pass_filter_space":
            return call(movie, 2)
        case "motion_correct_online":
            return call(movie, 0, 2, 2, init_frames_template=10)
        case "compute_metrics_motion_correction":
            return call(movie, 10, 9, winsize=5, iterations=2)
        case "residual_motion":
            found = call(movie, components=3)
            return found.scores, found.field
    return call(movie)


def predict(movie):
    """A small network on the cell of the scene, of which nothing but the movie is used."""
    from gpucalcium.cinac import CinacDataMovie, CinacRecording
    from gpucalcium.cinac.prediction import predict_activity
    from tests.cinac.models import Halved

    recording = CinacRecording("scene")
    recording.set_movie(CinacDataMovie(movie))
    recording.set_rois_2d_array([np.array([(3, 6, 5), (3, 4, 7)])], from_matlab=False)
    return predict_activity(recording, [0], Halved())


def call_method(name, movie):
    """A method of `movie`, which is an array in memory or a map of a file."""
    frames = movie if isinstance(movie, np.memmap) else backend.to_numpy(movie)
    options = {
        "computeDFF": {"secsWindow": 0.5},
        "removeBL": {"windowSize": 13},
        "extract_traces_from_masks": {"masks": np.ones((2, *frames.shape[1:]))},
        "IPCA_denoise": {"components": 2, "batch": 50},
        "partition_FOV_KMeans": {"n_clusters": 2},
        "online_NMF": {"n_components": 2, "method": "nmf", "iterations": 2},
        "NonnegativeMatrixFactorization": {"n_components": 2, "tol": 0.1},
    }.get(name, {})
    return getattr(gpucalcium.movie(frames, fr=20), name)(**options)


def run(name, movie, dims):
    room, _, function = name.rpartition(".")
    if room == "movies.movie":
        return call_method(function, movie)
    if room == "registration":
        return register(name, movie)
    if room in ("registration.apply", "registration.tile"):
        return displace(name, movie)
    if room.startswith("registration."):
        return judge(name, movie)
    if room == "cinac.prediction":
        return predict(movie)
    if room.startswith("cnmf"):
        return extract(name, movie, dims)
    time_first = ("mean_image", "correlation_image_ecobost")
    options = {"swap_dim": False} if room == "images" and function not in time_first else {}
    if function == "correlation_pnr":
        options["gSig"] = 2
    return getattr(import_module(f"gpucalcium.{room}"), function)(movie, **options)


def is_finite(result):
    for part in result if isinstance(result, tuple) else (result,):
        dense = part.toarray() if hasattr(part, "toarray") else backend.to_numpy(part)
        assert dense.size
        assert np.isfinite(dense).all()


@pytest.mark.parametrize("kind", DIMS)
@pytest.mark.parametrize("name", MOVIES)
def test_works_or_refuses_as_the_table_says(wing, name, kind):
    dims = DIMS[kind]
    movie = wing.put(scene(dims)[0])
    if CAPABILITIES[name].on(wing.device) and getattr(CAPABILITIES[name], kind):
        is_finite(run(name, movie, dims))
    else:
        with pytest.raises(NotSupportedError):
            run(name, movie, dims)


STREAMING = [name for name in MOVIES if CAPABILITIES[name].streaming]
METHODS = "movies.movie."  # of arrays: tests/movies/test_method_memory.py holds what they take


@pytest.mark.parametrize("name", [name for name in STREAMING if not name.startswith(METHODS)])
def test_streaming_operation_never_asks_for_the_whole_movie(wing, name):
    dims = DIMS["planes"]
    watched = Watched(scene(dims)[0])
    with backend.limit(chunk_frames=7):
        is_finite(run(name, watched, dims))
    assert 0 < watched.most <= 7 + 1


@pytest.mark.parametrize("name", TRACES)
def test_works_on_traces(wing, name):
    _, A, C = scene(DIMS["planes"])
    noisy = C + np.random.default_rng(0).normal(0, 0.1, C.shape).astype("float32")
    b, f = np.ones((A.shape[0], 1), "float32"), np.full((1, T), 10, "float32")
    match name:
        case "deconvolution.get_noise_fft":
            is_finite(gpucalcium.deconvolution.get_noise_fft(wing.put(noisy))[0])
        case "deconvolution.constrained_foopsi":
            is_finite(gpucalcium.constrained_foopsi(wing.put(noisy), p=1)[0])
        case "deconvolution.constrained_oasisAR1":
            is_finite(gpucalcium.deconvolution.constrained_oasisAR1(wing.put(noisy), 0.9, 0.3)[0])
        case "deconvolution.constrained_oasisAR2":
            is_finite(gpucalcium.deconvolution.constrained_oasisAR2(wing.put(noisy), (1.5, -0.53), 0.3)[0])
        case "deconvolution.kkt_residual":
            is_finite(
                gpucalcium.deconvolution.kkt_residual(wing.put(noisy), wing.put(0 * noisy), 0, 0.9, 0)[0]
            )
        case "deconvolution.infer_spikes":
            is_finite(gpucalcium.infer_spikes(wing.put(noisy), 20.0).rate)
        case "cnmf.dff.detrend_df_f":
            is_finite(gpucalcium.detrend_df_f(A, b, C, f, frames_window=20))
        case "cnmf.merging.merge_components":
            from gpucalcium.cnmf.merging import merge_components

            twice = csc_matrix(A[:, [0, 0, 1]])
            result = merge_components(
                None, twice, b, noisy[[0, 0, 1]], 0 * C[[0, 0, 1]], f, C[[0, 0, 1]], None, {"p": 0}, {}
            )
            assert result[0].shape[1] == 2
