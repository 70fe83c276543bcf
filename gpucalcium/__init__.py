"""gpucalcium: calcium and voltage imaging on the GPU, from a movie to cells, traces and spikes.

Names are loaded when they are first used: importing the package imports neither CuPy, PyTorch nor
Matplotlib. What there is stands in ``__init__.pyi``.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
__version__ = "0.1.0"
