"""Noise levels, decay constants and spikes of fluorescence traces."""

from gpucalcium.deconvolution.foopsi import constrained_foopsi
from gpucalcium.deconvolution.noise import GetSn, axcov, get_noise_fft, get_noise_welch, movie_noise
from gpucalcium.deconvolution.oasis import constrained_oasisAR1, oasisAR1
from gpucalcium.deconvolution.oasis_ar2 import constrained_oasisAR2
from gpucalcium.deconvolution.optimality import KktResidual, kkt_residual
from gpucalcium.deconvolution.spikes import SpikeInference, SpikeSettings, infer_spikes
from gpucalcium.deconvolution.streaming import OASIS
from gpucalcium.deconvolution.time_constants import estimate_parameters, estimate_time_constant

__all__ = [
    "GetSn",
    "KktResidual",
    "OASIS",
    "SpikeInference",
    "SpikeSettings",
    "axcov",
    "constrained_foopsi",
    "constrained_oasisAR1",
    "constrained_oasisAR2",
    "estimate_parameters",
    "estimate_time_constant",
    "get_noise_fft",
    "get_noise_welch",
    "infer_spikes",
    "kkt_residual",
    "movie_noise",
    "oasisAR1",
]
