"""Components as independent images in the space of a movie's principal components."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from gpucalcium import backend
from gpucalcium.backend import Array
from gpucalcium.cnmf.hals import hals_traces
from gpucalcium.cnmf.initialization.greedy import Found
from gpucalcium.cnmf.initialization.nmf import SEED, sketch
from gpucalcium.cnmf.initialization.smoothing import Smoothing, checked_rank, found, prepared
from gpucalcium.movies.decomposition import independent

OVERSAMPLING = 10
POWER_ITERATIONS = 4
ICA_TOLERANCE = 1e-4
LEAST_VARIANCE = 1e-6  # of a principal component, relative to the first: below is rounding
MASK_SIGMAS = 4.0  # how far a pixel stands out of an independent image to be part of a component
MAD_TO_SIGMA = 1.4826  # 1 / Phi^-1(3/4), normal noise
TRACE_SWEEPS = 20
TRACE_TOLERANCE = 1e-3


def find_independent(frames: Array, nr: int, smoothing: Smoothing, max_iter: int) -> Found:
    """Components of frames (T, d1, d2[, d3]): masks of independent images, with traces by least squares.

    Parameters
    ----------
    frames : (T, d1, d2[, d3]) float32 on the device
    nr : int
        Principal components, and independent ones, at most.
    smoothing : Smoothing
    max_iter : int
        Iterations of FastICA at most.

    Notes
    -----
    An independent image is turned so that it is skewed upwards; a pixel belongs to it where it exceeds the median
    by four robust standard deviations. Cells that are always active together, or that the first `nr` principal
    components do not show, cannot be told apart.

    References
    ----------
    Mukamel, Nimmerjahn & Schnitzer (2009), Neuron 63:747, with spatial independence only; Hyvärinen (1999), IEEE
    Trans. Neural Netw. 10:626.
    """
    dims = frames.shape[1:]
    K = checked_rank(nr, max_iter, dims)
    movie = prepared(frames, smoothing)
    masks = _masks(_independent_images(_principal_images(movie.values, K), max_iter))
    weights = backend.put(masks.astype(np.float32))
    seen = backend.to_numpy(backend.arrays.xp(weights).matmul(weights, movie.values)).astype(np.float64)
    gram = masks @ masks.T
    begin = np.maximum(seen / np.maximum(np.diag(gram), np.finfo(float).tiny)[:, None], 0)
    traces, _ = hals_traces(seen, csr_matrix(gram), begin, sweeps=TRACE_SWEEPS, tol=TRACE_TOLERANCE)
    return found(movie, dims, masks, traces)


def _principal_images(X: Array, K: int) -> NDArray[np.float64]:
    """At most K principal images, (d, n), orthonormal, of (d, T) pixels without their means over time."""
    Q, B = sketch(X - X.mean(axis=1, keepdims=True), K + OVERSAMPLING, POWER_ITERATIONS)
    U, s, _ = np.linalg.svd(B, full_matrices=False)
    return Q @ U[:, :K][:, s[:K] > LEAST_VARIANCE * s.max(initial=0)]


def _independent_images(images: NDArray[np.float64], max_iter: int) -> NDArray[np.float64]:
    """(d, n) independent mixtures of images (d, n)."""
    if images.shape[1] < 2:
        return images
    with warnings.catch_warnings():
        # noise has no independent directions to converge to, and there may be more components than cells
        warnings.filterwarnings("ignore", message="FastICA did not converge")
        return independent(images, images.shape[1], "logcosh", max_iter, ICA_TOLERANCE, SEED)


def _masks(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d): how far each image stands above its median where it stands out, else 0."""
    centred = (images - np.median(images, axis=0)).T
    centred *= np.where((centred**3).sum(1, keepdims=True) < 0, -1.0, 1.0)
    sigma = MAD_TO_SIGMA * np.median(np.abs(centred), axis=1, keepdims=True)
    return np.where(centred > MASK_SIGMAS * sigma, centred, 0.0)
