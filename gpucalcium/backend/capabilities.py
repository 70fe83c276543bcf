"""What each public operation can do, in one table: tests run every cell of it, the documentation prints it.

An operation that cannot do something says so with `NotSupportedError`; the tests hold that, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Capability:
    """Where and on what an operation works."""

    cpu: bool = True
    cuda: bool = True
    planes: bool = True
    """Movies (T, d1, d2), or traces if `movie` is False."""
    volumes: bool = True
    """Movies (T, d1, d2, d3)."""
    streaming: bool = True
    """Reads the movie in chunks: memory does not grow with the number of frames."""
    movie: bool = True
    """False: works on traces or footprints, where volumes and streaming mean nothing."""

    def on(self, device: str) -> bool:
        """Whether it works on 'cpu' or 'cuda'."""
        return self.cuda if device == "cuda" else self.cpu


CAPABILITIES: dict[str, Capability] = {
    "images.local_correlations": Capability(),
    "images.local_correlations_fft": Capability(),
    "images.local_correlations_movie": Capability(),
    "images.local_correlations_movie_offline": Capability(),
    "images.local_correlations_multicolor": Capability(),
    "images.correlation_image_ecobost": Capability(),
    "images.max_correlation_image": Capability(),
    "images.mean_image": Capability(),
    "images.correlation_pnr": Capability(),
    "movies.movie.bin_median": Capability(),
    "movies.movie.calc_min": Capability(),
    "movies.movie.computeDFF": Capability(),
    "movies.movie.removeBL": Capability(),
    "movies.movie.debleach": Capability(),
    "movies.movie.gaussian_blur_2D": Capability(),
    "movies.movie.median_blur_2D": Capability(),
    "movies.movie.bilateral_blur_2D": Capability(),
    "movies.movie.extract_traces_from_masks": Capability(),
    "movies.movie.IPCA_denoise": Capability(),
    "movies.movie.partition_FOV_KMeans": Capability(volumes=False),
    "movies.movie.online_NMF": Capability(),
    "movies.movie.NonnegativeMatrixFactorization": Capability(streaming=False),
    "registration.register_rigid": Capability(),
    "registration.register_piecewise": Capability(),
    "registration.MotionCorrect": Capability(),
    "registration.apply.displace_field": Capability(streaming=False),
    "registration.tile.tile_and_correct": Capability(streaming=False),
    "registration.binned.bin_median": Capability(),
    "registration.check.check_registration": Capability(),
    "registration.high_pass.high_pass_filter_space": Capability(streaming=False),
    "registration.iteration.motion_correct_online": Capability(volumes=False),
    "registration.metrics.compute_metrics_motion_correction": Capability(volumes=False),
    "registration.residual.residual_motion": Capability(),
    "deconvolution.movie_noise": Capability(),
    "deconvolution.get_noise_fft": Capability(movie=False),
    "deconvolution.constrained_foopsi": Capability(movie=False),
    "deconvolution.constrained_oasisAR1": Capability(movie=False),
    "deconvolution.constrained_oasisAR2": Capability(movie=False),
    "deconvolution.kkt_residual": Capability(movie=False),
    "deconvolution.infer_spikes": Capability(movie=False),
    "cnmf.dff.detrend_df_f": Capability(movie=False),
    "cnmf.initialization.initialize_components": Capability(streaming=False),
    "cnmf.initialization.sparseNMF": Capability(streaming=False),
    "cnmf.initialization.graphNMF": Capability(streaming=False),
    "cnmf.initialization.greedyROI_corr": Capability(volumes=False, streaming=False),
    "cnmf.ring.compute_W": Capability(volumes=False),
    "cnmf.spatial.update_spatial_components": Capability(),
    "cnmf.temporal.update_temporal_components": Capability(),
    "cnmf.merging.merge_components": Capability(movie=False),
    "cnmf.cnmf.CNMF": Capability(streaming=False),
    "cnmf.patches.fit": Capability(),
    "cnmf.quality.evaluate": Capability(),
    "cinac.moments.movie_moments": Capability(),
    "cinac.prediction.predict_activity": Capability(volumes=False),
}
