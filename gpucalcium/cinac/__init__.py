"""Activity and types of cells from patches of the movie around them, by neural networks.

Names are loaded when they are first used: importing this package imports neither PyTorch nor Shapely. What there is
stands in ``__init__.pyi``.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
