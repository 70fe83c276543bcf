"""Movies: from files and arrays to frames, and back."""

from gpucalcium.movies.convert import convert
from gpucalcium.movies.damage import damaged_frames
from gpucalcium.movies.load import get_file_size, load, load_iter, load_movie_chain
from gpucalcium.movies.memmap_files import load_memmap, save_memmap, save_memmap_each, save_memmap_join
from gpucalcium.movies.movie import movie
from gpucalcium.movies.play_movie import play_movie
from gpucalcium.movies.sources import MovieLike, open_movie
from gpucalcium.movies.timeseries import concatenate, timeseries

__all__ = [
    "MovieLike",
    "concatenate",
    "convert",
    "damaged_frames",
    "get_file_size",
    "load",
    "load_iter",
    "load_memmap",
    "load_movie_chain",
    "movie",
    "open_movie",
    "play_movie",
    "save_memmap",
    "save_memmap_each",
    "save_memmap_join",
    "timeseries",
]
