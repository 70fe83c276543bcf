"""How well a movie is registered: agreement of frames with a template, sharpness of the mean, motion that is left."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucalcium import backend
from gpucalcium._progress import stage
from gpucalcium.backend import Array, FrameSource
from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.images import local_correlations
from gpucalcium.images.time_axis import open_with_time
from gpucalcium.movies import resizing
from gpucalcium.movies.chain import Selection
from gpucalcium.movies.files import written_whole
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.registration.binned import bin_median
from gpucalcium.registration.high_pass import HighPassed
from gpucalcium.registration.optical_flow import FlowParams, flow_norm, optical_flow
from gpucalcium.registration.template import average

GAUSSIAN_WINDOW = 256
"""The one of `flags` that means something without an initial flow: the window is a Gaussian."""
WIDE_COPIES = 6  # float64 copies of a frame that its correlation needs


class MotionMetrics(NamedTuple):
    """What `compute_metrics_motion_correction` found, in the documented order."""

    template: NDArray[np.float32]
    """(d1, d2) what frames were compared with."""
    correlations: NDArray[np.float64]
    """(T,) Pearson's r of each frame with the template."""
    flows: NDArray[np.float32]
    """(n, d1, d2, 2) displacement (columns, rows) from the template to each time bin, pixels."""
    norms: NDArray[np.float64]
    """(n,) Frobenius norm of each flow."""
    smoothness: float
    """Crispness of the mean image."""


def compute_metrics_motion_correction(
    fname: MovieLike,
    final_size_x: int,
    final_size_y: int,
    swap_dim: bool = False,
    pyr_scale: float = 0.5,
    levels: int = 3,
    winsize: int = 100,
    iterations: int = 15,
    poly_n: int = 5,
    poly_sigma: float = 1.2 / 5,
    flags: int = 0,
    resize_fact_flow: float = 0.2,
    template: NDArray | None = None,
    gSig_filt: Sequence[int] | int | None = None,
    *,
    var_name_hdf5: str = "mov",
    output: str | os.PathLike[str] | None = None,
) -> MotionMetrics:
    """Judge a registered movie by its central part, which no border has reached.

    Parameters
    ----------
    fname : movie, (T, d1, d2), as `open_movie` takes it
        Read in four passes, in chunks.
    final_size_x, final_size_y : int
        Rows and columns of the central part, pixels.
    swap_dim : bool
        Time is the last axis of an array; for files it means nothing.
    pyr_scale, levels, winsize, iterations, poly_n, poly_sigma
        Of the flow, see `FlowParams`.
    flags : {0, 256}
        256: the flow's window is a Gaussian.
    resize_fact_flow : float
        Frames of the movie that flows are found for, per frame: means over 5 frames by default. At most 1.
    template : (d1, d2) or (final_size_x, final_size_y) array, optional
        Default: `bin_median`.
    gSig_filt : int or two, optional
        One-photon movies: judge high-pass filtered frames, see `high_pass_filter_space`.
    var_name_hdf5 : str
        Data set of an HDF5 file.
    output : path, optional
        Where to write the result, ``<stem>_metrics.npz`` beside the movie by default. Of an array nothing is written
        unless this is given.

    Returns
    -------
    MotionMetrics
        ``template, correlations, flows, norms, smoothness``. Where a file was written, `flows` is a map of it: it may
        be larger than memory. The file holds these, and ``img_corr`` and ``smoothness_corr``, the correlation image
        and its crispness.

    Raises
    ------
    MovieValueError
        "Movie contains NaN": there are some in the central part. Take a smaller part, or register with
        ``border_nan='copy'``.
    NotSupportedError
        Volumes.
    ParameterError, ArrayShapeError
        A part larger than the frame; unknown flags; a template of another shape.

    References
    ----------
    Pnevmatikakis & Giovannucci (2017), J. Neurosci. Methods 291:83, section 2.4 (crispness, correlations, flow).
    """
    if flags not in (0, GAUSSIAN_WINDOW):
        raise ParameterError(f"flags={flags}: 0, or {GAUSSIAN_WINDOW} for a Gaussian window")
    if not 0 < resize_fact_flow <= 1:
        raise ParameterError(f"resize_fact_flow={resize_fact_flow}: flows per frame, above 0 and at most 1")
    params = FlowParams(
        pyr_scale=pyr_scale,
        levels=levels,
        winsize=winsize,
        iterations=iterations,
        poly_n=poly_n,
        poly_sigma=poly_sigma,
        gaussian=flags == GAUSSIAN_WINDOW,
    )
    whole = (
        open_movie(fname, var_name_hdf5=var_name_hdf5) if _is_path(fname) else open_with_time(fname, swap_dim)
    )
    part = _centre(whole.shape, final_size_x, final_size_y)
    source: FrameSource = whole if gSig_filt is None else HighPassed(whole, gSig_filt)
    source = Selection(source, (slice(None), *part))
    mean = mean_image(source)
    if np.isnan(mean).any():
        raise MovieValueError(
            "Movie contains NaN in its central part: make final_size_x and final_size_y smaller, or register with "
            "border_nan='copy'"
        )
    image = bin_median(source) if template is None else _checked_template(template, whole.shape[1:], part)
    image = backend.to_numpy(image)
    correlation_image = backend.to_numpy(local_correlations(source, swap_dim=False))
    found: dict[str, Any] = {
        "template": image,
        "correlations": frame_correlations(source, image),
        "smoothness": crispness(mean),
        "img_corr": correlation_image,
        "smoothness_corr": crispness(correlation_image),
    }
    bins = max(1, int(len(source) * resize_fact_flow))
    flows, norms = _kept(
        _output(fname, output), _flows(source, image, bins, params), bins, source.shape[1:], found
    )
    return MotionMetrics(image, found["correlations"], flows, norms, found["smoothness"])


def crispness(image: NDArray) -> float:
    """Frobenius norm of the gradient: how sharp an image is. Pixels beside a NaN do not count."""
    slopes = np.gradient(np.asarray(image, np.float64), axis=[a for a, n in enumerate(image.shape) if n > 1])
    return float(
        np.sqrt(sum(np.nansum(s**2) for s in (slopes if isinstance(slopes, tuple | list) else [slopes])))
    )


def mean_image(source: FrameSource) -> NDArray[np.float32]:
    """Mean frame of a movie; NaN where a pixel is not finite in some frame."""
    image, counts = mean_and_counts(source)
    image[counts < len(source)] = np.nan
    return image


def mean_and_counts(source: FrameSource) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Mean of the values of each pixel that are finite (NaN if none are), and how many these are; one pass."""
    sums, counts = backend.zeros(source.shape[1:], "float64"), backend.zeros(source.shape[1:], "int32")
    for chunk in backend.stream(source, working=4 * sums.size):
        backend.wing(chunk).registration.add_frames(chunk, sums, counts)
    return average(sums, counts), backend.to_numpy(counts)


def frame_correlations(source: FrameSource, template: NDArray) -> NDArray[np.float64]:
    """Pearson's r of every frame with an image, over the pixels that are finite in both.

    Parameters
    ----------
    source : FrameSource
        (T, d1, d2[, d3]). Read once, in chunks.
    template : (d1, d2[, d3]) array

    Returns
    -------
    r : (T,) float64
        0 where a frame, or what it shares with the template, is constant.

    Raises
    ------
    ArrayShapeError
        Template and frames of different shapes.
    """
    if template.shape != source.shape[1:]:
        raise ArrayShapeError(
            f"template has shape {template.shape}, the movie's frames {source.shape[1:]}: they must agree"
        )
    found = []
    pixels = template.size
    for chunk in backend.stream(source, working=8 * WIDE_COPIES * pixels):
        block = max(1, backend.wing(chunk).registration.BLOCK_BYTES // (8 * WIDE_COPIES * pixels))
        parts = [_correlations(chunk[at : at + block], template) for at in range(0, len(chunk), block)]
        found += [backend.to_numpy(part) for part in parts]
    return np.concatenate(found)


def _correlations(frames: Array, template: NDArray) -> Array:
    """In float64, levels near the template's mean taken off first."""
    xp = backend.arrays.xp(frames)
    good = np.isfinite(template)
    level = float(template[good].mean(dtype=np.float64)) if good.any() else 0.0
    image = xp.asarray(np.where(good, template - level, 0.0).astype(np.float64).ravel())
    values = frames.reshape(len(frames), -1).astype(np.float64) - level
    mask = xp.isfinite(values) & xp.asarray(good.ravel())
    values = xp.where(mask, values, 0.0)
    count = xp.maximum(mask.sum(axis=1), 1)
    seen = xp.where(mask, image, 0.0)
    sums, theirs = (
        values.sum(axis=1),
        seen.sum(axis=1),
    )  # along rows: no product of matrices, whose order may vary
    power = (values * values).sum(axis=1) - sums**2 / count
    their_power = (seen * seen).sum(axis=1) - theirs**2 / count
    scale = power * their_power
    # a constant that is subtracted leaves rounding errors of this size
    lit = scale > 1e-24 * (power + sums**2 / count + 1e-300) * (their_power + theirs**2 / count + 1e-300)
    return xp.where(
        lit, ((values * seen).sum(axis=1) - sums * theirs / count) / xp.sqrt(xp.where(lit, scale, 1.0)), 0.0
    )


def _centre(shape: tuple[int, ...], rows: int, columns: int) -> tuple[slice, slice]:
    if len(shape) != 3:
        raise NotSupportedError(
            f"metrics are found for movies of images (T, d1, d2), not {shape}: optical flow is that of images. "
            "check_registration judges volumes"
        )
    starts = []
    for name, size, n in (("final_size_x", rows, shape[1]), ("final_size_y", columns, shape[2])):
        if not 1 <= size <= n:
            raise ParameterError(f"{name}={size}: between 1 and {n}, what the frame {shape[1:]} has")
        starts.append((n - size) // 2)
    return slice(starts[0], starts[0] + rows), slice(starts[1], starts[1] + columns)


def _checked_template(
    template: NDArray, dims: tuple[int, ...], part: tuple[slice, slice]
) -> NDArray[np.float32]:
    image = np.asarray(backend.to_numpy(template), np.float32)
    cut = tuple(s.stop - s.start for s in part)
    if image.shape not in (dims, cut):
        raise ArrayShapeError(
            f"template has shape {image.shape}; the frames {dims}, and their central part {cut}"
        )
    image = image if image.shape == cut else image[part]
    if not np.isfinite(image).all():
        raise MovieValueError("the template holds NaN in its central part: make final_size_x and _y smaller")
    return image


def _flows(
    source: FrameSource, template: NDArray[np.float32], bins: int, params: FlowParams
) -> Iterator[NDArray[np.float32]]:
    """Flow from the template to each time bin."""
    with stage("optical flow", bins, "bins") as bar:
        for image in _time_bins(source, bins):
            onto = backend.arrays.xp(image).asarray(template)
            yield backend.to_numpy(optical_flow(onto, image, params))
            bar.update(1)


def _time_bins(source: FrameSource, bins: int) -> Iterator[Array]:
    """The movie resized in time to `bins` frames: means over what each covers, first and last frames in part.

    Summed frame by frame, so that chunks change nothing.
    """
    shares = resizing.weights(len(source), bins, resizing.AREA)
    done, number, total = 0, 0, None
    for chunk in backend.stream(source, working=16 * int(np.prod(source.shape[1:]))):
        while number < bins:
            first, last = shares.indptr[number : number + 2]
            for t, weight in zip(shares.indices[first:last], shares.data[first:last], strict=True):
                if done <= t < done + len(chunk):
                    part = chunk[t - done] * np.float64(weight)
                    total = part if total is None else total + part
            if shares.indices[last - 1] >= done + len(chunk):
                break
            yield total
            total, number = None, number + 1
        done += len(chunk)


def _is_path(movie: Any) -> bool:
    return isinstance(movie, str | os.PathLike)


def _output(fname: Any, output: str | os.PathLike[str] | None) -> Path | None:
    if output is not None:
        return Path(output)
    return Path(fname).with_name(f"{Path(fname).stem}_metrics.npz") if _is_path(fname) else None


def _kept(
    path: Path | None,
    flows: Iterator[NDArray[np.float32]],
    bins: int,
    dims: tuple[int, ...],
    found: dict[str, Any],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Flows as they come, into memory or first of all into the file, where they are mapped; and their norms.

    The file is an archive of NumPy's, not compressed; what else was found follows.
    """
    shape, norms = (bins, *dims, 2), np.empty(bins)
    if path is None:
        held = np.empty(shape, np.float32)
        for number, flow in enumerate(flows):
            held[number], norms[number] = flow, flow_norm(flow)
        return held, norms
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        with archive.open("flows.npy", "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            offset = file.tell()
            for number, flow in enumerate(flows):
                member.write(np.ascontiguousarray(flow, "<f4").data)
                norms[number] = flow_norm(flow)
        for name, values in (found | {"norms": norms}).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
    return np.memmap(path, "<f4", "r", offset, shape), norms
