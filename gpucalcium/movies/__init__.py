"""Movies: from files and arrays to frames, and back."""

from gpucalcium.movies.sources import open_movie

__all__ = ["open_movie"]
