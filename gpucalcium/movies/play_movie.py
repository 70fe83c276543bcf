"""`play_movie`: show what lies in files or arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpucalcium import backend as devices
from gpucalcium.errors import ParameterError
from gpucalcium.movies.load import load
from gpucalcium.movies.movie import movie as Movie
from gpucalcium.movies.sources import MovieLike


def play_movie(
    movie: MovieLike | Sequence[str | os.PathLike[str]],
    gain: float = 1,
    fr: float | None = None,
    magnification: float = 1,
    offset: float = 0,
    interpolation: int = 1,
    backend: str = "opencv",
    do_loop: bool = False,
    bord_px: int | None = None,
    q_max: float = 99.75,
    q_min: float = 1,
    plot_text: bool = False,
    save_movie: bool = False,
    opencv_codec: str = "H264",
    movie_name: str | os.PathLike[str] = "movie.avi",
    var_name_hdf5: str = "mov",
    subindices: Any = slice(None),
    tsub: int = 1,
) -> Any:
    """Show a movie, see `movie.play`.

    Parameters
    ----------
    movie : array, path or list of paths
    gain, fr, magnification, offset, interpolation, backend, do_loop, bord_px, q_max, q_min, plot_text, save_movie, \
opencv_codec, movie_name
        As in `movie.play`.
    var_name_hdf5 : str
        Data set in HDF5 files.
    subindices : int, slice, list or tuple of them
        Which frames (or part of them) to show, as in `load`.
    tsub : int
        Show the means of so many frames; they are shown as fast as they were recorded.

    Returns
    -------
    shown : NotebookPlayer, matplotlib.animation.Animation or None
        As from `movie.play`.
    """
    if tsub < 1:
        raise ParameterError(f"tsub={tsub}: frames averaged, 1 or more")
    is_file = isinstance(movie, str | os.PathLike | list | tuple)
    if is_file:
        whole = isinstance(subindices, slice) and subindices == slice(None)
        frames: Any = load(movie, subindices=None if whole else subindices, var_name_hdf5=var_name_hdf5)
    else:
        part = slice(subindices, subindices + 1) if isinstance(subindices, int) else subindices
        array = movie if isinstance(movie, np.ndarray) else devices.to_numpy(movie)
        frames = Movie(array)[part]
    shown = frames[None] if frames.ndim == 2 else frames
    if tsub > 1:
        shown = shown.resize(fz=1 / tsub)
    return shown.play(
        gain=gain,
        fr=fr,
        magnification=magnification,
        offset=offset,
        interpolation=interpolation,
        backend=backend,
        do_loop=do_loop,
        bord_px=bord_px,
        q_max=q_max,
        q_min=q_min,
        plot_text=plot_text,
        save_movie=save_movie,
        opencv_codec=opencv_codec,
        movie_name=movie_name,
    )
