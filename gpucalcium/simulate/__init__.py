"""Movies with known ground truth, rendered as a camera would have seen them.

Every generator returns a frozen `SimulatedMovie`. Its model is that of constrained matrix factorisation,

    expected frame t = displaced by motion[t] ( A C[:, t] + b f[:, t] )
    camera frame t   = gain * Poisson(expected / gain) + offset + Normal(0, read_noise),

rounded and clipped for integer cameras. Motion moves a canvas that is larger than the field of view, so what
enters at a border is tissue and not padding. The same seed and arguments give the same movie whatever the
number of threads.

References
----------
Pnevmatikakis et al. (2016), Neuron 89:285, eqs. 1-4 (the generative model); Vogelstein et al. (2010),
J. Neurophysiol. 104:3691 (autoregressive calcium).
"""

from gpucalcium.simulate.parts import ar_coefficients
from gpucalcium.simulate.population import two_photon
from gpucalcium.simulate.scene import CameraNoise, SimulatedMovie

__all__ = ["CameraNoise", "SimulatedMovie", "ar_coefficients", "two_photon"]
