"""Methods of `movie` that take it apart: PCA, ICA, NMF, parts of the field of view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpucalcium.errors import ArrayShapeError, MovieValueError, NotSupportedError, ParameterError
from gpucalcium.movies import decomposition
from gpucalcium.movies.resizing import AREA, NEAREST, resize, resized_length
from gpucalcium.movies.timeseries import timeseries

MAX_CLUSTERS = 256  # labels are uint8
_AT_ONCE = 256  # frames whose correlations are summed at a time


class Decomposing(timeseries):
    """What `movie` inherits from this file."""

    def IPCA(
        self, components: int = 50, batch: int = 1000
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Principal components, pixels as samples and frames as features.

        Beside its results it holds `batch` pixels at all times, and a T x T matrix for movies of up to 4096 frames
        (longer ones: six passes on a random subspace).

        Parameters
        ----------
        components : int
            At most the number of frames and of pixels.
        batch : int
            Pixels that are read at a time: memory, not the result, depends on it.

        Returns
        -------
        eigenseries : (T, K) float64
            Orthonormal time courses, by falling variance.
        eigenframes : (P, K) float64
            The projected pixels times `eigenseries`; pixels in C order.
        projected : (P, T) float32
            The movie rebuilt from its mean and K components.

        Raises
        ------
        MovieValueError
            NaN or infinite values.
        """
        frames, series, mean = self._principal(components, batch, "components")
        weights = decomposition.scores(frames, series, mean, batch)
        rebuilt = decomposition.projected(frames, series, mean, batch)
        return series, weights + mean @ series, rebuilt.T

    def IPCA_denoise(self, components: int = 50, batch: int = 1000) -> Self:
        """The movie rebuilt from its `components` largest principal components, see `IPCA`; float32."""
        frames, series, mean = self._principal(components, batch, "components")
        rebuilt: Self = self._wrap(decomposition.projected(frames, series, mean, batch).reshape(self.shape))
        return rebuilt

    def IPCA_stICA(
        self,
        componentsPCA: int = 50,
        componentsICA: int = 40,
        batch: int = 1000,
        mu: float = 1,
        ICAfun: str = "logcosh",
        *,
        max_iter: int = 1000,
        tol: float = 1e-4,
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """Spatio-temporal independent components (PCA, then FastICA).

        Parameters
        ----------
        componentsPCA, componentsICA : int
            Principal components, and independent ones out of them.
        batch : int
            Pixels that are read at a time.
        mu : float
            Weight of space against time, 0 to 1.
        ICAfun : {'logcosh', 'exp', 'cube'}
        max_iter, tol, seed
            Of FastICA.

        Returns
        -------
        images : (componentsICA, d1, d2[, d3]) float64
        """
        if not 0 <= mu <= 1:
            raise ParameterError(f"mu={mu}: the weight of space against time lies between 0 and 1")
        if not 1 <= componentsICA <= componentsPCA:
            raise ParameterError(
                f"componentsICA={componentsICA}: must be 1 or more, and not more than componentsPCA={componentsPCA}"
            )
        frames, series, mean = self._principal(componentsPCA, batch, "componentsPCA")
        sources = decomposition.spatio_temporal(
            decomposition.scores(frames, series, mean, batch),
            series,
            mu,
            componentsICA,
            fun=ICAfun,
            max_iter=max_iter,
            tol=tol,
            seed=seed,
        )
        return sources.reshape(-1, *self.shape[1:])

    def IPCA_io(
        self,
        n_components: int = 50,
        fun: str = "logcosh",
        max_iter: int = 1000,
        tol: float = 1e-4,
        *,
        seed: int = 0,
    ) -> NDArray[np.float64]:
        """Spatial independent components: SVD of the movie, whitened, then FastICA.

        Parameters
        ----------
        n_components : int
        fun : {'logcosh', 'exp', 'cube'}
        max_iter, tol, seed
            Of FastICA.

        Returns
        -------
        images : (n_components, d1, d2[, d3]) float64
            Each with a standard deviation of one over the pixels.
        """
        frames, series, mean = self._principal(n_components, 1000, "n_components")
        weights = decomposition.scores(frames, series, mean, 1000)
        size = np.sqrt((weights**2).mean(axis=0))
        if not (size > 1e-7 * size.max(initial=0)).all():
            raise MovieValueError(
                f"the movie has fewer than n_components={n_components} components that vary: ask for fewer"
            )
        sources = decomposition.independent(weights / size, None, fun, max_iter, tol, seed)
        return sources.T.reshape(-1, *self.shape[1:])

    def NonnegativeMatrixFactorization(
        self,
        n_components: int = 30,
        init: str = "nndsvd",
        beta: float = 1,
        tol: float = 5e-7,
        sparseness: str | None = "components",
        *,
        max_iter: int = 200,
        seed: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Images and time courses, none negative, whose product is near the movie without its first percentile.

        Holds the movie twice as float32, as every step needs all of it; `online_NMF` does not.

        Parameters
        ----------
        n_components : int
        init : {'nndsvd', 'nndsvda', 'nndsvdar', 'random'}
            How the search starts.
        tol, max_iter, seed
            When the search ends; of random starts.
        beta, sparseness
            Of a method that is not offered: other values than the defaults raise.

        Returns
        -------
        space : (K, d1, d2[, d3]) float32
        time : (T, K) float32

        Raises
        ------
        MovieValueError
            "All values must be positive".
        MemoryBudgetError
            The movie does not fit.
        """
        if beta != 1 or sparseness not in ("components", None):
            raise ParameterError(
                "beta and sparseness are not supported: the factorisation has no penalty. Use online_NMF with "
                "method='nnsc' for sparse time courses"
            )
        self._check_count(n_components, "n_components")
        time, space = decomposition.nonnegative(self._positive(), n_components, init, tol, max_iter, seed)
        return space.reshape(-1, *self.shape[1:]), time

    def online_NMF(
        self,
        n_components: int = 30,
        method: str = "nnsc",
        lambda1: float = 100,
        iterations: int = -5,
        model: NDArray | None = None,
        *,
        seed: int = 0,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Non-negative factors learnt from batches of frames; what is held are a batch, the images and as much again.

        Parameters
        ----------
        n_components : int
        method : {'nnsc', 'nmf'}
            With an L1 penalty on the time courses, or without.
        lambda1 : float
            Weight of that penalty against half the squared error ('nnsc'), in the movie's units.
        iterations : int
            Batches to learn from; negative: passes over the movie.
        model : (n_components, d1, d2[, d3]) array, optional
            Images to start from, e.g. those of an earlier call.
        seed : int
            Of the order of batches.

        Returns
        -------
        time : (T, n_components) float32
        space : (n_components, d1, d2[, d3]) float32
        """
        if method not in ("nnsc", "nmf"):
            raise ParameterError(f"Method unknown: {method!r}; expected 'nnsc' or 'nmf'")
        if iterations == 0:
            raise ParameterError("iterations=0: give a number of batches, or minus a number of passes")
        if lambda1 < 0:
            raise ParameterError(f"lambda1={lambda1}: a penalty is not negative")
        if model is not None and np.shape(model) != (n_components, *self.shape[1:]):
            raise ArrayShapeError(
                f"model has shape {np.shape(model)}; {n_components} images of {self.shape[1:]} are needed"
            )
        self._check_count(n_components, "n_components")
        time, space = decomposition.online_nonnegative(
            self._positive(),
            n_components,
            penalty=lambda1 if method == "nnsc" else None,
            steps=iterations if iterations > 0 else None,
            epochs=max(1, -iterations),
            start=None if model is None else np.asarray(model).reshape(n_components, -1),
            seed=seed,
        )
        return time, space.reshape(-1, *self.shape[1:])

    def partition_FOV_KMeans(
        self,
        tradeoff_weight: float = 0.5,
        fx: float = 0.25,
        fy: float = 0.25,
        n_clusters: int = 4,
        max_iter: int = 500,
        *,
        seed: int = 0,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
        """Parts of the field of view whose pixels are correlated and near each other; one pass over the movie.

        Parameters
        ----------
        tradeoff_weight : float
            Weight of correlations against distances, 0 to 1.
        fx, fy : float
            Factors by which rows and columns shrink first.
        n_clusters, max_iter, seed : int
            Of k-means; at most 256 clusters.

        Returns
        -------
        labels : (d1, d2) uint8
        correlations, distances : (p, p) float64
            Between the pixels of the smaller frames (C order); distances as a share of the largest.
        """
        if self.ndim != 3:
            raise NotSupportedError(
                f"partition_FOV_KMeans of {self.shape}: not supported because the parts are of one plane; take planes, "
                "movie[..., k]"
            )
        if not 0 <= tradeoff_weight <= 1:
            raise ParameterError(f"tradeoff_weight={tradeoff_weight}: lies between 0 and 1")
        rows, columns = resized_length(self.shape[1], fx), resized_length(self.shape[2], fy)
        if not 1 <= n_clusters <= min(MAX_CLUSTERS, rows * columns):
            raise ParameterError(
                f"n_clusters={n_clusters}: from 1 to {min(MAX_CLUSTERS, rows * columns)}, the number of pixels after "
                "shrinking"
            )
        labels, correlations, distances = decomposition.partition(
            _shrunk(np.asarray(self), rows, columns),
            (rows, columns),
            tradeoff_weight,
            n_clusters,
            max_iter,
            seed,
        )
        enlarged = resize(resize(labels, 0, self.shape[1], NEAREST), 1, self.shape[2], NEAREST)
        return enlarged.astype(np.uint8), correlations, distances

    def _principal(self, count: int, batch: int, name: str) -> tuple[decomposition.Matrix, NDArray, NDArray]:
        if batch < 1:
            raise ParameterError(f"batch={batch}: at least one pixel is read at a time")
        self._check_count(count, name)
        frames = decomposition.Matrix(np.asarray(self))
        return frames, *decomposition.principal_components(frames, count, batch)

    def _check_count(self, count: int, name: str) -> None:
        most = min(len(self), int(np.prod(self.shape[1:])))
        if not 1 <= count <= most:
            raise ParameterError(f"{name}={count}: a movie of shape {self.shape} has 1 to {most} components")

    def _positive(self) -> decomposition.Matrix:
        frames = decomposition.Matrix(np.asarray(self))
        lowest: Any = np.min([piece.min() for piece in frames.in_pieces()])  # NaN if one is
        if not lowest >= 0:
            raise MovieValueError(
                f"All values must be positive; the smallest is {lowest}. Subtract the minimum first"
            )
        return frames


def _shrunk(movie: NDArray, rows: int, columns: int) -> Iterator[NDArray[np.float32]]:
    """Frames of another size, (n, rows * columns) each time, enough of them for a product of matrices."""
    for at in range(0, len(movie), _AT_ONCE):
        chunk = movie[at : at + _AT_ONCE]
        yield resize(resize(chunk, 1, rows, AREA), 2, columns, AREA).reshape(len(chunk), -1)
