"""Small recordings, and predictions the long way: one cell and one window at a time."""

from __future__ import annotations

import numpy as np

from gpucalcium.cinac.cutouts import cutouts
from gpucalcium.cinac.movies import CinacDataMovie
from gpucalcium.cinac.recording import CinacRecording
from gpucalcium.cinac.windows import window_starts

MIRRORS = (lambda x: x, lambda x: x[..., ::-1], lambda x: x[..., ::-1, :], lambda x: x[..., ::-1, ::-1])


def circle(x, y, radius, points=14):
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])


def recording(n_frames=37, dims=(30, 26), n_cells=5, *, seed=0, movie=None, name="one", normalized=False):
    """Cells at random, the first two of which overlap, in a movie of noise."""
    rng = np.random.default_rng(seed)
    movie = rng.normal(300, 40, (n_frames, *dims)).astype(np.int16) if movie is None else movie
    places = rng.uniform((2, 2), (dims[1] - 3, dims[0] - 3), (n_cells, 2))
    if n_cells > 1:
        places[1] = places[0] + (1.5, 1.0)
    made = CinacRecording(name)
    made.set_movie(CinacDataMovie(movie, already_normalized=normalized))
    made.set_rois_2d_array([circle(x, y, rng.uniform(1, 3)) for x, y in places], from_matlab=False)
    return made


def windows_of(rec, cell, model, start, *, n_frames=None, kind="activity", buffer=None, mirror=MIRRORS[0]):
    """{input: (1, L, P, P, 1)} of one cell and one window, cut from the normalised movie."""
    side, n_frames = model.patch_size, n_frames or rec.get_n_frames()
    movie = rec.movie.get_full_movie(normalized=True)[start : min(start + model.window_len, n_frames)]
    height, width = movie.shape[1:]
    padded = np.zeros((model.window_len, height + 2 * side, width + 2 * side), np.float32)
    padded[: len(movie), side : side + height, side : side + width] = movie
    cut = cutouts(
        rec.cells, np.array([cell]), (height, width), side, model.inputs,
        kind=kind, mask_mode=getattr(model, "mask_mode", "legacy"), buffer=buffer,
    )  # fmt: skip
    y, x = cut.corners[0] + side
    crop = padded[:, y : y + side, x : x + side]
    return {
        name: np.ascontiguousarray(mirror(crop * mask))[None, ..., None]
        for name, mask in zip(model.inputs, cut.masks[0], strict=True)
    }


def predicted_by_loop(rec, cells, model, overlap, *, n_frames=None, mirrors=MIRRORS[:1], buffer=None):
    """(N, T, K) the maximum over windows, one network call for each."""
    n_frames = n_frames or rec.get_n_frames()
    out = np.zeros((len(cells), n_frames, model.n_classes), np.float32)
    for row, cell in enumerate(cells):
        for start in window_starts(n_frames, model.window_len, overlap):
            for mirror in mirrors:
                windows = windows_of(rec, cell, model, start, n_frames=n_frames, buffer=buffer, mirror=mirror)
                found = np.asarray(model.predict(windows)).reshape(model.window_len, -1)
                for i, values in enumerate(found[: n_frames - start]):
                    out[row, start + i] = np.maximum(out[row, start + i], values)
    return out
