"""Every exception of gpucalcium, each also the built-in that a caller would catch."""

from __future__ import annotations


class GpuCalciumError(Exception):
    """Root of all errors that gpucalcium raises on purpose."""


class ParameterError(GpuCalciumError, ValueError):
    """A parameter has a value that cannot work."""


class UnknownParameterError(GpuCalciumError, KeyError):
    """A parameter, group or setting of that name does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class NotSupportedError(GpuCalciumError, NotImplementedError):
    """A documented option that this version does not carry out; the message says why."""


class ArrayTypeError(GpuCalciumError, TypeError):
    """An argument is of a type that no function here takes."""


class ArrayShapeError(GpuCalciumError, ValueError):
    """An array has the wrong shape for what is asked of it."""


class MovieShapeError(ArrayShapeError):
    """A movie has the wrong number of axes or too few frames."""


class MovieValueError(GpuCalciumError, ValueError):
    """A movie holds values nothing can be computed from (all NaN, infinite)."""


class MovieFileError(GpuCalciumError, ValueError):
    """A file exists but is truncated, corrupt or not what its name says."""


class UnknownFormatError(MovieFileError):
    """No reader or writer is known for this kind of file."""


class MovieNotFoundError(GpuCalciumError, FileNotFoundError):
    """The file, or the data set in it, does not exist."""


class DatasetNotFoundError(GpuCalciumError, KeyError):
    """An HDF5 file holds no data set of that name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class GpuUnavailable(GpuCalciumError, RuntimeError):
    """A GPU was asked for and cannot be used; the message names why and the mend."""


class KernelError(GpuCalciumError, RuntimeError):
    """A CUDA kernel cannot be found, compiled or launched as asked."""


class MemoryBudgetError(GpuCalciumError, MemoryError):
    """The smallest possible piece of work does not fit the memory budget."""


class MissingExtraError(GpuCalciumError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class ResultsFileError(GpuCalciumError, ValueError):
    """A file of results is truncated, corrupt or not written by a CNMF run."""


class MissingWeightsError(GpuCalciumError, FileNotFoundError):
    """A classifier is asked for and its weights are not there."""


class NetworkFileError(GpuCalciumError, ValueError):
    """A file of a network is corrupt, or describes layers or weights that cannot be made one."""


class OutputError(GpuCalciumError, OSError):
    """Results cannot be written where they are asked for."""
