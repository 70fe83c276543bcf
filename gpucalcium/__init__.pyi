from . import backend as backend
from . import errors as errors

__version__: str
