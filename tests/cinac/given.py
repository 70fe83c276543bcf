"""Movies, cells and segments that several tests are given."""

from __future__ import annotations

import numpy as np

from gpucalcium.cinac import CinacDataMovie, CinacFileWriter, CinacRecording

SQUARE = np.array([[2, 6, 6, 2], [3, 3, 8, 8]])
CONTOURS = [[[2, 6, 6, 2], [3, 3, 8, 8]], [[12], [4]], [[8, 11, 11], [8, 8, 11]]]
SEGMENT = (3, 200, 209)
rng = np.random.default_rng(5)


def noisy(shape=(37, 13, 17), dtype="float32"):
    """Noise around 1000, or around 100 where the dtype goes no further."""
    level, spread = (100, 20) if dtype == "uint8" else (1000, 40)
    return np.random.default_rng(0).normal(level, spread, shape).astype(dtype)


def disc(x, y, radius, n=24):
    """The contour of a disc."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.array([x + radius * np.cos(angle), y + radius * np.sin(angle)])


def recording(movie=None, contours=CONTOURS):
    """A noisy movie with three cells, a square, a pixel and a triangle."""
    made = CinacRecording("one")
    made.set_movie(CinacDataMovie(noisy() if movie is None else movie))
    made.set_rois_2d_array(contours, from_matlab=False)
    return made


def blinking(n_frames=60, transients=((12, 9.0), (47, 5.0))):
    """Two cells, the first of which has transients at these frames, of these sizes."""
    movie = np.random.default_rng(2).normal(0, 0.01, (n_frames, 12, 14)) + 10
    for at, size in transients:
        movie[at : at + 6, 2:7, 3:8] += size * np.exp(-np.arange(len(movie[at : at + 6])) / 2)[:, None, None]
    made = CinacRecording("r")
    made.set_movie(CinacDataMovie(movie))
    made.set_rois_2d_array([[[3, 7, 7, 3], [2, 2, 6, 6]], [[10, 11, 11], [9, 9, 10]]], from_matlab=False)
    return made


def segment_parts(n=10, side=9, **others):
    """What a segment of a .cinac file holds."""
    return {
        "raster_dur": np.arange(n) % 3 == 0,
        "ci_movie": rng.normal(size=(n, side, side)).astype("f4"),
        "cells_contour": [[[2, 6, 6, 2], [3, 3, 7, 7]], [[5.4, 8.6], [6, 6]], [[1], [1]]],
        "invalid_cells": [False, True, False],
        "smooth_traces": rng.normal(size=n),
        "raw_traces": rng.normal(size=n),
    } | others


def write_cinac(path, segments=((SEGMENT, {}),), **full):
    """A .cinac file; what was written of each segment."""
    with CinacFileWriter(path) as writer:
        if full:
            writer.create_full_data_group(**full)
        kept = {}
        for segment, others in segments:
            kept[segment] = segment_parts(segment[2] - segment[1] + 1, **others)
            writer.add_segment_group(segment, **kept[segment])
    return kept
